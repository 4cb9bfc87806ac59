package plan

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// want is one desired key while it is decided about.
type want struct {
	c     *Change
	d     Desired
	obs   Observed
	entry Entry // that of the key, or of the key it takes the locator over from
	owned bool  // there is an entry
}

// desired decides about a key that is desired; nil means that there is nothing to say.
func (b *builder) desired(k Key, d Desired) (*Change, error) {
	w := &want{d: d, obs: b.in.Observed(k)}
	w.c = &Change{
		Key: k, Action: None, Cause: Intended, Desired: d.Object,
		Wave: d.Wave, DependsOn: sortedKeys(d.DependsOn), Origin: d.Object.Origin(),
	}
	if w.obs.Presence == Present {
		w.c.Live, w.c.Version, w.c.Unfinished = w.obs.Object, w.obs.Version, w.obs.Unfinished
	}
	if b.forbidden(w) {
		w.c.Entry = b.entryFor(w)
		return w.c, nil
	}
	if w.c.Applied = d.Digests; w.c.Applied == nil {
		w.c.Applied = Digests(d.Object, b.opts.Digest)
	}
	if w.obs.Presence == Absent {
		return b.missing(w), nil
	}
	if !w.owned {
		return b.stranger(w), nil
	}
	if w.entry.Unconfirmed() {
		return b.firstWrite(w), nil
	}
	return b.owned(w)
}

// forbidden blocks what must not be decided at all: keys of others, locators
// that are not free, and what was not seen. It also finds the entry.
func (b *builder) forbidden(w *want) bool {
	k := w.c.Key
	var holder *Key
	w.entry, w.owned = b.in.Inventory(k)
	if !w.owned && w.d.Locator != "" {
		if old, ok := b.in.ByLocator(k.Target, w.d.Locator); ok && old != k {
			w.entry, w.owned = b.in.Inventory(old)
			holder = &old
		}
	}
	if owner := b.opts.Foreign[k]; owner != "" {
		return w.block("owned by application %q; remove it there, or here", owner)
	}
	if rivals := b.rivals(k, w.d.Locator); len(rivals) > 0 {
		return w.block("locator %s is also that of %s; remove one of them", w.d.Locator, b.named(rivals[0]))
	}
	if owner := b.foreign(w.entry); w.owned && owner != "" {
		return w.block("owned by application %q; remove it there, or here", owner)
	}
	if holder != nil {
		if _, still := b.in.Desired(*holder); still {
			return w.block("locator %s still belongs to %s; give the new place of that one a new name", w.d.Locator, b.named(*holder))
		}
		w.c.TransferFrom = holder
	}
	// A name that is wanted at another address is two objects, which the caller gives
	// two keys: under one, the old one would be lost.
	if w.owned && w.entry.Locator != "" && w.d.Locator != "" && w.entry.Locator != w.d.Locator {
		return w.block("on record at %s and desired at %s under one name; give the new one another metadata.name, or, if its target was changed, put that back", w.entry.Locator, w.d.Locator)
	}
	if reason, is := unknown(w.obs); is {
		return w.block("%s", reason)
	}
	if owner := b.strange(w.obs, w.entry); w.obs.Presence == Present && owner != "" {
		return w.block("carries the mark of application %q; remove it there, or here", owner)
	}
	return false
}

func (w *want) block(format string, args ...any) bool {
	w.c.Blocked = fmt.Sprintf(format, args...)
	return true
}

// named returns a key with the place where it is written, if it is desired.
func (b *builder) named(k Key) string {
	if d, ok := b.in.Desired(k); ok && d.Object != nil && d.Object.Origin().Path != "" {
		return fmt.Sprintf("%s (%s)", k, d.Object.Origin())
	}
	return k.String()
}

// missing decides about an object that is not there.
func (b *builder) missing(w *want) *Change {
	cause := Intended
	// After a delete of our own, absence is no drift.
	if w.owned && w.entry.State != EntryDeleting && len(w.entry.Applied) > 0 && maps.Equal(w.entry.Applied, w.c.Applied) {
		cause = Drift
	}
	if cause == Drift {
		switch b.mode(w.c.Key, "") {
		case DriftReport:
			w.c.Reported = []FieldChange{{Path: "", Op: FieldAdd, Cause: Drift}}
			w.c.Cause = Drift
			return b.recorded(w)
		case DriftIgnore:
			return b.recorded(w)
		}
	}
	for _, f := range manifest.Fields(w.d.Object.Content()) {
		if !identity(f.Path) {
			w.c.Fields = append(w.c.Fields, FieldChange{Path: f.Path, Op: FieldAdd, After: f.Value, Cause: cause})
		}
	}
	w.c.Action, w.c.Cause = Create, cause
	if w.entry.State == EntryDeleting { // what was applied is gone by our own hand
		w.entry.Applied = nil
	}
	return b.pending(w, w.entry.Applied)
}

// stranger decides about an object that is there and that nobody owns. One that
// carries our own mark was ours before the record was lost: it is taken back in
// every mode, and what it holds is kept first.
func (b *builder) stranger(w *want) *Change {
	ours := b.opts.Application != "" && w.obs.Owner == b.opts.Application
	if !ours {
		w.entry.Adopted = true
	}
	w.c.Fields = b.compare(w.d.Object, w.obs.Object, nil, w.c.Applied)
	at := w.d.Locator
	if at == "" {
		at = w.c.Key.String()
	}
	if len(w.c.Fields) == 0 {
		w.c.Action = Adopt
		if b.opts.Adopt == AdoptNever && !ours {
			w.block("%s is already there and adopt is never; set `adopt: identical`, or remove it", at)
		}
		return b.pending(w, nil)
	}
	w.c.Action, w.c.Adopting = Update, true
	if !ours && (b.opts.Adopt != AdoptAlways || w.obs.Instead != "") {
		if w.obs.Instead != "" {
			w.block("%s is already there and is %s, not a %s; remove it by hand, or declare this object elsewhere", at, w.obs.Instead, w.c.Key.ID.Kind)
			return b.pending(w, nil)
		}
		w.block("%s is already there with other content; set `adopt: always` to take it over (what is there is kept), or remove it", at)
	}
	return b.pending(w, nil)
}

// firstWrite decides about an object whose first write was begun and never
// confirmed. What is there is ours if it carries our mark or is wholly as that
// write sets it. It is treated as a stranger's if nothing of it is. Between the
// two it may be half of a write: it is completed, and what is there is kept
// first, so that nothing is lost if it was a stranger's after all.
func (b *builder) firstWrite(w *want) *Change {
	fields := b.compare(w.d.Object, w.obs.Object, nil, w.c.Applied)
	if len(fields) == 0 {
		if w.c.Unfinished != "" { // all of it is there, and something has still to follow
			w.c.Action = Update
			return b.pending(w, w.c.Applied)
		}
		if w.entry.Adopted { // the target may not have marked it yet
			w.c.Action = Adopt
			return b.pending(w, nil)
		}
		return b.recorded(w)
	}
	marked := b.opts.Application != "" && w.obs.Owner == b.opts.Application
	seen := b.evidence(w.entry, w.obs.Object)
	if !marked && seen != evidenceAll {
		if w.entry.Adopted || seen == evidenceOther {
			return b.stranger(w)
		}
		w.c.Adopting = true
	}
	var was Applied
	if seen == evidenceAll { // the write did succeed, and stays on record as this one begins
		was = w.entry.Writing
	}
	w.c.Action, w.c.Fields = Update, fields
	return b.pending(w, was)
}

// owned decides about an object that is there and was written before.
func (b *builder) owned(w *want) (*Change, error) {
	was := b.settle(w.entry, w.obs.Object)
	if w.c.TransferFrom != nil && w.obs.Instead != "" {
		was = stillShown(was, w.obs.Object)
	}
	all := b.compare(w.d.Object, w.obs.Object, was, w.c.Applied)
	var leave []FieldChange
	w.c.Fields, w.c.Reported, leave = b.split(w.c.Key, all)
	var err error
	if w.c.Desired, err = leaving(w.d.Object, w.obs.Object, leave); err != nil {
		return nil, err
	}
	if len(w.c.Fields) > 0 || w.c.Unfinished != "" {
		w.c.Action, w.c.Cause = Update, causeOf(w.c.Fields)
		if w.c.Unfinished != "" && w.c.Cause == Drift {
			w.c.Cause = Both
		}
		return b.pending(w, was), nil
	}
	if len(w.c.Reported) > 0 {
		w.c.Cause = Drift
	}
	if b.opts.Application != "" && w.obs.Owner != "" && w.obs.Owner != b.opts.Application {
		w.c.Action = Adopt // handed over: what is missing is our mark
		return b.pending(w, was), nil
	}
	return b.recorded(w), nil
}

// entryFor returns the record of a desired key as it is to be.
func (b *builder) entryFor(w *want) Entry {
	e, d := w.entry, w.d
	e.HandOver(b.opts.Application)
	e.Key, e.Epoch = w.c.Key, b.opts.Epoch
	e.Locator, e.Wave, e.DependsOn = d.Locator, d.Wave, w.c.DependsOn
	e.Origin, e.APIVersion = d.Object.Origin(), d.Object.APIVersion()
	return e
}

// removes says what a change takes along. One that is blocked by itself says
// nothing: what would go is only known once it may be made.
func (w *want) removes() []string {
	r := w.obs.Removes
	shown := func(f FieldChange) bool { return r.Field.Covers(f.Path) }
	if w.c.Action != Update || w.c.Blocked != "" || !slices.ContainsFunc(w.c.Fields, shown) {
		return nil
	}
	return r.Addresses
}

// pending finishes a change that writes: its record goes before it.
func (b *builder) pending(w *want, was Applied) *Change {
	w.c.Removes = w.removes()
	w.c.Entry = b.entryFor(w)
	w.c.Entry.State, w.c.Entry.Applied, w.c.Entry.Writing = EntryPending, was, w.c.Applied
	return w.c
}

// recorded finishes a change that writes nothing: it is left out when there is
// nothing to record or report either. Where an object is written is no reason to
// record, nor is the epoch: both change with commits and leaders that do not
// concern the object.
func (b *builder) recorded(w *want) *Change {
	e := b.entryFor(w)
	e.State, e.Applied, e.Writing, e.Token = EntryOwned, w.c.Applied, nil, ""
	if w.obs.Presence == Present {
		e.MovedFrom = "" // no mark, or ours already
	}
	old := w.entry
	w.c.Entry = e
	w.c.Record = old.MovedFrom != e.MovedFrom || old.State != e.State || old.Key != e.Key || old.Owner != e.Owner || old.Locator != e.Locator ||
		old.APIVersion != e.APIVersion || old.Wave != e.Wave || !slices.Equal(sortedKeys(old.DependsOn), e.DependsOn) ||
		!maps.Equal(old.Applied, e.Applied)
	if !w.c.Record && len(w.c.Reported) == 0 {
		return nil
	}
	return w.c
}

// sortedKeys returns a sorted copy without repetitions; nil for none.
func sortedKeys(keys []Key) []Key {
	if len(keys) == 0 {
		return nil
	}
	keys = slices.Clone(keys)
	slices.SortFunc(keys, Key.Compare)
	return slices.Compact(keys)
}
