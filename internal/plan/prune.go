package plan

import "fmt"

// undesired decides about a key that is not desired; nil means that there is
// nothing to say. Without an entry there never is: what we did not record as
// ours is not touched.
func (b *builder) undesired(k Key) *Change {
	e, owned := b.in.Inventory(k)
	if !owned || b.foreign(e) != "" {
		return nil
	}
	c := &Change{
		Key: k, Action: Forget, Cause: Intended, Entry: e,
		Wave: e.Wave, DependsOn: sortedKeys(e.DependsOn), Origin: e.Origin,
	}
	obs := b.in.Observed(k)
	if obs.Presence == Present {
		c.Live, c.Version, c.Unfinished = obs.Object, obs.Version, obs.Unfinished
	}
	if next := b.rivals(k, e.Locator); len(next) > 0 {
		b.successors[k] = next[0]
		return c
	}
	if e.State == EntryOrphaned {
		if obs.Presence == Absent {
			return c
		}
		return nil
	}
	if reason, held := b.opts.Handover[k]; held {
		c.Action, c.Blocked = Delete, reason
		return c
	}
	if reason, is := unknown(obs); is {
		c.Action, c.Blocked = None, reason
		return c
	}
	if obs.Presence == Absent {
		return c
	}
	return b.prune(c, obs)
}

// prune decides about an object that is there, recorded and no longer desired.
func (b *builder) prune(c *Change, obs Observed) *Change {
	first := c.Entry.Unconfirmed()
	if owner := b.strange(obs, c.Entry); owner != "" {
		if first { // we never got to write it
			return c
		}
		c.Action, c.Blocked = Delete, fmt.Sprintf("carries the mark of application %q; delete it there, or by hand", owner)
		return c
	}
	marked := b.opts.Application != "" && obs.Owner == b.opts.Application
	seen := evidenceAll
	if first && !marked {
		seen = b.evidence(c.Entry, obs.Object)
	}
	if seen == evidenceOther { // nothing of it is ours
		return c
	}
	c.Action = Delete
	c.Entry.State, c.Entry.Epoch = EntryDeleting, b.opts.Epoch
	if first {
		c.Entry.Applied = c.Entry.Writing
	}
	c.Entry.Writing = nil
	switch {
	case seen != evidenceAll:
		c.Blocked = "the first write was never confirmed and what is there may be a stranger's; delete it by hand, or declare it again"
	case !b.opts.Prune:
		c.Blocked = "prune is off; set `prune: true`, or delete it by hand"
	}
	return c
}

// settleSuccessors leaves the record of a key whose locator passes to another
// key to that one: it goes in the commit that carries TransferFrom and in no
// other, so that the object is on record at every moment, whatever becomes of
// the write. Until the other key can be written, the old one is listed as blocked.
func (b *builder) settleSuccessors() {
	for old, next := range b.successors {
		c := b.changes[next]
		switch {
		case c == nil: // the other key has a record of its own
		case c.Blocked != "":
			b.changes[old].Blocked = fmt.Sprintf("handed over to %s once that can be written", next)
		case c.TransferFrom != nil && *c.TransferFrom == old:
			delete(b.changes, old)
		}
	}
}
