package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Build compares what is desired, applied and observed for the keys of a scope
// and returns what to do about them. The scope may hold keys in any order and
// more than once; Build adds the keys that share a locator with one of them.
// The caller adds the dependents of what is not finished: a key outside the
// scope counts as converged.
//
// The plan for a key is the same whatever else is in the scope, apart from keys
// that are blocked: they block their dependents only when both are in it, and
// writes that come after deletes (Change.AfterDeletes) only when these are. The
// cost follows the scope and what it depends on, not the size of the
// application.
//
// Build fails, and returns no plan, on a dependency cycle, on a dependency that
// is not desired, and on one in a later wave.
func Build(in Input, scope []Key, opts Options) (*Plan, error) {
	b := &builder{in: in, opts: opts, changes: map[Key]*Change{}, successors: map[Key]Key{}}
	keys, err := b.scope(scope)
	if err != nil {
		return nil, err
	}
	b.writes = newGraph(b.desiredNode, true)
	b.deletes = newGraph(b.ownedNode, false)
	for _, k := range keys {
		if err := b.decide(k); err != nil {
			return nil, err
		}
	}
	b.blockDependents()
	b.settleSuccessors()
	b.blockDependencies()
	return b.plan(), nil
}

type builder struct {
	in   Input
	opts Options
	// changes are the decisions so far; keys without anything to say are not in it.
	changes map[Key]*Change
	// successors maps keys that are no longer desired to a key with the same locator.
	successors map[Key]Key
	writes     *graph
	deletes    *graph
}

// scope returns the keys to look at, sorted: those asked for and those that
// share a locator with one of them.
func (b *builder) scope(asked []Key) ([]Key, error) {
	if b.opts.Digest == nil {
		return nil, errors.New("plan: Options.Digest is nil; pass manifest.Sealer.Digest")
	}
	b.indexScope(asked)
	seen := make(map[Key]bool, len(asked))
	var keys []Key
	add := func(k Key) {
		if !seen[k] {
			seen[k] = true
			keys = append(keys, k)
		}
	}
	for _, k := range asked {
		add(k)
	}
	for i := 0; i < len(keys); i++ { // keys grows while it is walked
		k := keys[i]
		for _, at := range b.locators(k) {
			if old, ok := b.in.ByLocator(k.Target, at); ok {
				add(old)
			}
			for _, other := range b.in.DesiredAt(k.Target, at) {
				add(other)
			}
		}
	}
	slices.SortFunc(keys, Key.Compare)
	return keys, nil
}

// locators are the addresses where a key is desired and where it is owned.
func (b *builder) locators(k Key) []string {
	var out []string
	if d, ok := b.in.Desired(k); ok && d.Locator != "" {
		out = append(out, d.Locator)
	}
	if e, ok := b.in.Inventory(k); ok && e.Locator != "" && !slices.Contains(out, e.Locator) {
		out = append(out, e.Locator)
	}
	return out
}

// indexScope stands in for the lookups by locator that the caller left out.
func (b *builder) indexScope(asked []Key) {
	type address struct{ target, locator string }
	if b.in.ByLocator == nil {
		owned := map[address]Key{}
		for _, k := range asked {
			if e, ok := b.in.Inventory(k); ok && e.Locator != "" {
				at := address{k.Target, e.Locator}
				if old, taken := owned[at]; !taken || k.Compare(old) < 0 {
					owned[at] = k
				}
			}
		}
		b.in.ByLocator = func(target, locator string) (Key, bool) {
			k, ok := owned[address{target, locator}]
			return k, ok
		}
	}
	if b.in.DesiredAt == nil {
		wanted := map[address]map[Key]bool{}
		for _, k := range asked {
			if d, ok := b.in.Desired(k); ok && d.Locator != "" {
				at := address{k.Target, d.Locator}
				if wanted[at] == nil {
					wanted[at] = map[Key]bool{}
				}
				wanted[at][k] = true
			}
		}
		b.in.DesiredAt = func(target, locator string) []Key {
			return slices.Collect(maps.Keys(wanted[address{target, locator}]))
		}
	}
}

// rivals returns the other desired keys with the same locator, sorted.
func (b *builder) rivals(k Key, locator string) []Key {
	if locator == "" {
		return nil
	}
	var out []Key
	for _, o := range b.in.DesiredAt(k.Target, locator) {
		if o != k {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, Key.Compare)
	return slices.Compact(out)
}

func (b *builder) decide(k Key) error {
	d, wanted := b.in.Desired(k)
	if !wanted {
		c := b.undesired(k)
		if c != nil {
			c.Depth = b.deletes.depthOrZero(k)
			b.changes[k] = c
		}
		return nil
	}
	if d.Object == nil {
		return fmt.Errorf("plan: %s is desired without content", k)
	}
	depth, err := b.writes.depth(k)
	if err != nil {
		return err
	}
	c, err := b.desired(k, d)
	if err != nil {
		return fmt.Errorf("%s (%s): %w", k, d.Object.Origin(), err)
	}
	if c != nil {
		c.Depth = depth
		b.changes[k] = c
	}
	return nil
}

// foreign returns the application, other than this one, that an entry is of.
// What an application left behind may be taken over by who desires it.
func (b *builder) foreign(e Entry) string {
	if e.Owner == b.opts.Application || e.State == EntryOrphaned {
		return ""
	}
	return e.Owner
}

// strange returns the mark of an application, other than this one and the one
// that the entry is of, on a live object.
func (b *builder) strange(obs Observed, e Entry) string {
	if obs.Owner == b.opts.Application || obs.Owner == e.Owner || e.WasOf(obs.Owner) {
		return ""
	}
	return obs.Owner
}

func unknown(obs Observed) (string, bool) {
	switch {
	case obs.Presence == Absent, obs.Presence == Present && obs.Object != nil:
		return "", false
	case obs.Presence == Present:
		return "observation unknown: the target answered without content", true
	case obs.Reason == "":
		return "observation unknown: the target gave no answer", true
	default:
		return "observation unknown: " + obs.Reason, true
	}
}

// plan puts the changes in order and counts them.
func (b *builder) plan() *Plan {
	p := &Plan{Application: b.opts.Application}
	for _, c := range b.changes {
		p.Changes = append(p.Changes, *c)
	}
	slices.SortFunc(p.Changes, inOrder)
	if b.putLate(p.Changes) {
		slices.SortFunc(p.Changes, inOrder)
	}
	for i := range p.Changes {
		p.Counts.add(&p.Changes[i])
	}
	p.Gates = b.gates(p)
	return p
}

func (n *Counts) add(c *Change) {
	if c.Drifted() {
		n.Drifted++
	}
	if c.Blocked != "" {
		n.Blocked++
		return
	}
	switch c.Action {
	case Create:
		n.Create++
	case Update:
		n.Update++
		n.Remove += len(c.Removes)
	case Adopt:
		n.Adopt++
	case Delete:
		n.Delete++
	case Forget:
		n.Forget++
	}
}

// Drifted reports whether the live object moved by itself: a field of it, or
// the whole object when it was deleted by hand.
func (c *Change) Drifted() bool {
	moved := func(f FieldChange) bool { return f.Cause != Intended }
	return slices.ContainsFunc(c.Fields, moved) || slices.ContainsFunc(c.Reported, moved)
}

// Done returns the record to store once the change has succeeded. For a delete
// and a forget there is none: the record goes.
func (c *Change) Done() Entry {
	e := c.Entry
	e.State, e.Applied, e.Writing, e.Token = EntryOwned, c.Applied, nil, ""
	if c.Action != None { // the write put our mark on the object
		e.MovedFrom = ""
	}
	return e
}

// Want is what an approval of the change names.
func (c *Change) Want(digest func(any) manifest.Digest) GatedChange {
	g := GatedChange{Key: c.Key, Action: c.Action}
	if c.Desired != nil {
		g.Want = digest(c.Desired.Content())
	}
	return g
}
