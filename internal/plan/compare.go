package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// identity reports fields that name an object rather than describe it. They are
// never compared: a live object may answer in another version of its kind.
func identity(p manifest.Pointer) bool {
	switch p {
	case "/apiVersion", "/kind", "/metadata/name", "/metadata/namespace":
		return true
	}
	return false
}

// Fields returns what to ask a target for (appliers.Query.Fields) about a key:
// the union of what is desired, what was last applied and what a write in
// flight sets, sorted. Either argument may be nil. For a key that takes over the
// locator of another one, the entry is that of the other.
func Fields(d *Desired, e *Entry) []manifest.Pointer {
	set := map[manifest.Pointer]bool{}
	if d != nil && d.Object != nil {
		for _, f := range manifest.Fields(d.Object.Content()) {
			if !identity(f.Path) {
				set[f.Path] = true
			}
		}
	}
	if e != nil {
		for p := range e.Applied {
			set[p] = true
		}
		for p := range e.Writing {
			set[p] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// Digests returns what is on record once an object was written as it is
// (Change.Applied): the digest of each field but those of its identity.
func Digests(o *manifest.Object, digest func(any) manifest.Digest) Applied {
	fields := manifest.Fields(o.Content())
	a := make(Applied, len(fields))
	for _, f := range fields {
		if !identity(f.Path) {
			a[f.Path] = digest(f.Value)
		}
	}
	return a
}

// compare returns the differences between desired and live, sorted by path. was
// is what was last applied and want what is to be, as digests.
func (b *builder) compare(desired, live *manifest.Object, was, want Applied) []FieldChange {
	var out []FieldChange
	for _, f := range manifest.Fields(desired.Content()) {
		if identity(f.Path) {
			continue
		}
		lv, there := manifest.Lookup(live.Content(), f.Path)
		if there && manifest.Equal(f.Value, lv) {
			continue
		}
		var now manifest.Digest
		if there {
			if now = b.opts.Digest(lv); now == want[f.Path] {
				continue
			}
		}
		c := FieldChange{Path: f.Path, Op: FieldAdd, After: f.Value, Cause: cause(was, f.Path, want[f.Path], now)}
		if there {
			c.Op, c.Before = FieldReplace, maskLike(f.Value, lv)
		}
		out = append(out, c)
	}
	out = append(out, b.removals(desired, live, was, want)...)
	slices.SortFunc(out, func(x, y FieldChange) int { return strings.Compare(string(x.Path), string(y.Path)) })
	return out
}

func cause(was Applied, p manifest.Pointer, want, now manifest.Digest) Cause {
	last, known := was[p]
	switch {
	case !known || now == last:
		return Intended
	case want == last:
		return Drift
	default:
		return Both
	}
}

// removals are the fields that were applied, are no longer desired and are still there.
func (b *builder) removals(desired, live *manifest.Object, was, want Applied) []FieldChange {
	var out []FieldChange
	for p, last := range was {
		if _, still := want[p]; still || identity(p) || replaced(want, p) {
			continue
		}
		if _, parent := manifest.Lookup(desired.Content(), p); parent {
			continue // it became a mapping whose own fields are desired
		}
		lv, there := manifest.Lookup(live.Content(), p)
		if !there {
			continue
		}
		c := FieldChange{Path: p, Op: FieldRemove, Before: lv, Cause: Intended}
		if b.opts.Digest(lv) != last {
			c.Cause = Both
		}
		out = append(out, c)
	}
	return out
}

// replaced reports whether a field above p is desired as a whole, so that
// writing it takes p along.
func replaced(want Applied, p manifest.Pointer) bool {
	for i := strings.LastIndexByte(string(p), '/'); i > 0; i = strings.LastIndexByte(string(p[:i]), '/') {
		if _, ok := want[p[:i]]; ok {
			return true
		}
	}
	return false
}

// settle returns what is known to be applied once a write in flight is looked
// at: fields that are as that write sets them were written by it.
func (b *builder) settle(e Entry, live *manifest.Object) Applied {
	if e.State != EntryPending || e.Applied == nil || e.Writing == nil || live == nil {
		return e.Applied
	}
	a := maps.Clone(e.Applied)
	for p, d := range e.Writing {
		if v, there := manifest.Lookup(live.Content(), p); there && b.opts.Digest(v) == d {
			a[p] = d
		}
	}
	for p := range e.Applied {
		_, still := e.Writing[p]
		if _, there := manifest.Lookup(live.Content(), p); !still && !there {
			delete(a, p)
		}
	}
	return a
}

// stillShown keeps of a record of another kind what the live object shows under the
// new one. The rest cannot have drifted: to the new kind it was never applied.
func stillShown(was Applied, live *manifest.Object) Applied {
	a := Applied{}
	for p, d := range was {
		if _, there := manifest.Lookup(live.Content(), p); there {
			a[p] = d
		}
	}
	return a
}

// evidence says how much of a live object is as a first write in flight sets it.
type evidence uint8

const (
	evidenceNone  evidence = iota // nothing comparable was seen
	evidenceOther                 // fields are there, and none is as we write it
	evidenceSome                  // some are: half a write, or a resemblance
	evidenceAll                   // all are
)

func (b *builder) evidence(e Entry, live *manifest.Object) evidence {
	same, seen := 0, 0
	for p, d := range e.Writing {
		if v, there := manifest.Lookup(live.Content(), p); there {
			seen++
			if b.opts.Digest(v) == d {
				same++
			}
		}
	}
	switch {
	case seen == 0:
		return evidenceNone
	case same == len(e.Writing):
		return evidenceAll
	case same > 0:
		return evidenceSome
	default:
		return evidenceOther
	}
}

// mode returns what to do about drift of a field; path "" is the whole object.
func (b *builder) mode(k Key, p manifest.Pointer) DriftMode {
	mode := DriftHeal
	for _, r := range b.opts.Drift {
		if (r.GroupKind == nil || *r.GroupKind == k.ID.GroupKind()) && r.Path.Covers(p) {
			mode = r.Mode
		}
	}
	if mode != DriftIgnore && b.opts.Contended[FieldRef{Key: k, Path: p}] {
		mode = DriftReport
	}
	return mode
}

// split sorts differences into those to write, those only to report, and those
// to leave on the target (the reported and the ignored ones). Only what drifted
// by itself can be left: a field that Git changes as well is written.
func (b *builder) split(k Key, all []FieldChange) (write, report, leave []FieldChange) {
	for _, f := range all {
		mode := DriftHeal
		if f.Cause == Drift {
			mode = b.mode(k, f.Path)
		}
		if mode == DriftReport {
			report = append(report, f)
		}
		if mode == DriftReport || mode == DriftIgnore {
			leave = append(leave, f)
		} else {
			write = append(write, f)
		}
	}
	return write, report, leave
}

// leaving returns desired with some fields at their live values.
func leaving(desired, live *manifest.Object, fields []FieldChange) (*manifest.Object, error) {
	if len(fields) == 0 {
		return desired, nil
	}
	content := desired.Content()
	for _, f := range fields {
		if v, there := manifest.Lookup(live.Content(), f.Path); there {
			content = manifest.With(content, f.Path, v)
			continue
		}
		content = withoutEmpty(content, f.Path)
	}
	// New normalises in place, and With shares what it did not have to copy.
	return manifest.New(manifest.Clone(content).(map[string]any), desired.Origin())
}

// withoutEmpty removes p and the mappings that this leaves empty, but no
// top-level one: an empty mapping would be a field of its own.
func withoutEmpty(content map[string]any, p manifest.Pointer) map[string]any {
	content = manifest.Without(content, p)
	for i := strings.LastIndexByte(string(p), '/'); i > 0; i = strings.LastIndexByte(string(p[:i]), '/') {
		m, _ := manifest.Lookup(content, p[:i])
		if parent, ok := m.(map[string]any); !ok || len(parent) > 0 || strings.LastIndexByte(string(p[:i]), '/') == 0 {
			break
		}
		content = manifest.Without(content, p[:i])
	}
	return content
}

// maskLike returns live, or a secret in its place when desired holds one: a
// target that answers in plain text must not give away what is about to be masked.
func maskLike(desired, live any) any {
	if sensitive(desired) && !sensitive(live) {
		return manifest.Sensitive{}
	}
	return live
}

func sensitive(v any) bool {
	switch v := v.(type) {
	case manifest.Sensitive:
		return true
	case []any:
		return slices.ContainsFunc(v, sensitive)
	case map[string]any:
		for _, e := range v {
			if sensitive(e) {
				return true
			}
		}
	}
	return false
}

// causeOf joins the causes of fields.
func causeOf(fields []FieldChange) Cause {
	c := Cause("")
	for _, f := range fields {
		switch {
		case c == "":
			c = f.Cause
		case c != f.Cause:
			return Both
		}
	}
	if c == "" {
		return Intended
	}
	return c
}
