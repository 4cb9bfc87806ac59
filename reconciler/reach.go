package reconciler

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// checkReach refuses to change a target so that it does not reach any more what
// was written through it: its objects would be taken for moved, and the old ones
// could neither be healed nor deleted.
func (m *Manager) checkReach(next *opened) error {
	for _, name := range slices.Sorted(maps.Keys(next.targets)) {
		t := next.targets[name]
		r, ok := appliers.Ability[appliers.Reacher](t.applier)
		if !ok || m.target(name) == t {
			continue
		}
		if e, err := m.registry.unreached(name, r.Reaches); err != nil {
			return fmt.Errorf("target %s was changed and does not reach any more what it wrote (%s, for one): %w; put it back as it was, or give the new place a target with another name, and remove this one once its objects are gone",
				name, e.Key, err)
		}
	}
	return nil
}

// unreached returns the first record of a target, of what was written through it
// and not left behind, that reaches does not answer nil for, and that answer. A
// first write that was never confirmed may move; see plan.Build.
func (r *registry) unreached(target string, reaches func(locator string) error) (first plan.Entry, why error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for k, e := range r.entries {
		if k.Target != target || e.State == plan.EntryOrphaned || e.Unconfirmed() || why != nil && k.Compare(first.Key) > 0 {
			continue
		}
		if err := reaches(e.Locator); err != nil {
			first, why = e, err
		}
	}
	return first, why
}
