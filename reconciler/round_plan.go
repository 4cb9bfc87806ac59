package reconciler

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// build plans over keys and measures it; see compare.
func (r *round) build(state *desiredState, keys []plan.Key) (*plan.Plan, error) {
	start := r.m.opts.Now()
	p, err := r.compare(state, keys)
	r.m.opts.Metrics.step(stepPlan, r.m.opts.Now().Sub(start))
	if err != nil {
		return nil, err
	}
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Drifted() && r.out.writers != nil {
			if o, _ := r.out.observed.get(c.Key); o.Writer != "" {
				r.out.writers[c.Key] = o.Writer
			}
		}
	}
	return p, nil
}

// compare plans over keys. What moves to another application is taken out of the
// plan and remembered for moveAway.
func (r *round) compare(state *desiredState, keys []plan.Key) (*plan.Plan, error) {
	reg, name := r.m.registry, r.app.Name
	var gone []plan.Key
	foreign, claims := map[plan.Key]string{}, map[plan.Key]string{}
	for _, k := range keys {
		item, ok := state.items.get(k)
		if !ok {
			gone = append(gone, k)
			continue
		}
		if owner, held := reg.ownerOf(name, k, item.Locator); owner != "" {
			foreign[k] = owner
			claims[k] = r.foreignClaim(owner, held, item.Locator)
		}
	}
	moves, wait, undecided := reg.release(name, r.app.Source, r.place(state), r.notTakenOver(state, slices.Clone(gone)))
	r.moves = moves
	r.unheard(gone, moves, wait)
	if state == r.accepted { // gated when it was accepted, and again once it is decided
		undecided = nil
	}
	r.undecided = undecided
	if len(moves) > 0 {
		leaving := map[plan.Key]bool{}
		for _, t := range moves {
			leaving[t.from.Key] = true
		}
		keys = slices.DeleteFunc(slices.Clone(keys), func(k plan.Key) bool { return leaving[k] })
	}
	in, besides := r.input(state), r.removals(state)
	in.Observed = besides.observed
	p, err := plan.Build(in, keys, plan.Options{
		Application: name, Digest: r.m.opts.Sealer.Digest, Adopt: r.app.Adopt,
		Prune: r.app.Prune, Budget: r.app.Budget, Undo: r.app.undo(), Drift: r.app.Drift, Contended: r.fought(state),
		Handover: wait, Undecided: undecided, Foreign: foreign, Protected: r.protected,
		Owned: reg.count(name) - len(moves), Want: state.items.len(), Epoch: r.m.opts.Epoch,
	})
	if err != nil {
		return nil, err
	}
	for i := range p.Changes {
		if why := claims[p.Changes[i].Key]; why != "" && p.Changes[i].Blocked != "" {
			p.Changes[i].Blocked = why
		}
	}
	block(p, func(c *plan.Change) string {
		denied, ok := state.denied.get(c.Key)
		if !ok || c.Action == plan.Delete || c.Action == plan.Forget {
			return ""
		}
		return violation(denied[0].Rule, denied[0].Msg)
	})
	besides.guard(p)
	return p, nil
}

// place returns at which revision of the source the others have to be for their
// wishes to count. Of a revision that was restored after a start only this is
// known: that it comes before the head, or is it.
func (r *round) place(state *desiredState) uint64 {
	if r.app.departing {
		return 0 // no revision says so; see unheard
	}
	return cmp.Or(state.seq, r.head.seq, math.MaxUint64)
}

// foreignClaim says what another application has to do with an object that this
// one desires: it declares it too, or has to hand it over.
func (r *round) foreignClaim(owner string, held plan.Key, address string) string {
	if d := r.m.registry.desire(owner); d.state != nil {
		if _, theirs, ok := d.state.find(held, r.m.registry.placed(held.Target), address); ok {
			return fmt.Sprintf("owned by application %s, which declares it at %s; keep one of them", owner, theirs.Source.Origin())
		}
		return fmt.Sprintf("AwaitingHandover: application %s does not want it any more and hands it over next", owner)
	}
	return fmt.Sprintf("AwaitingHandover: owned by application %s, and whether that still wants it is not known yet", owner)
}

// notTakenOver leaves out keys whose address this application still desires
// under another key: that is a rename, and nobody else's business.
func (r *round) notTakenOver(state *desiredState, gone []plan.Key) []plan.Key {
	return slices.DeleteFunc(gone, func(k plan.Key) bool {
		e, ok := r.m.registry.entry(r.app.Name, k)
		if !ok {
			return true
		}
		_, kept := state.locators.Get(locatorKey(r.m.registry.placed(k.Target), e.Locator))
		return kept
	})
}

func (r *round) input(state *desiredState) plan.Input {
	reg, name := r.m.registry, r.app.Name
	return plan.Input{
		Desired: func(k plan.Key) (plan.Desired, bool) {
			item, ok := state.items.get(k)
			return item.Desired, ok
		},
		Inventory: func(k plan.Key) (plan.Entry, bool) { return reg.entry(name, k) },
		Observed: func(k plan.Key) plan.Observed {
			o, _ := r.out.observed.get(k)
			return o
		},
		ByLocator: func(target, address string) (plan.Key, bool) { return reg.at(name, target, address) },
		DesiredAt: func(target, address string) []plan.Key {
			if k, ok := state.locators.Get(locatorKey(reg.placed(target), address)); ok {
				return []plan.Key{k}
			}
			return nil
		},
	}
}

func (r *round) protected(id manifest.ID) bool {
	return slices.Contains(r.app.Protect, id.GroupKind())
}
