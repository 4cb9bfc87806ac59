package reconciler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func (r *round) setScope(keys []plan.Key) {
	r.out.scope = make(map[plan.Key]struct{}, len(keys))
	for _, k := range keys {
		r.out.scope[k] = struct{}{}
	}
}

func (r *round) scopeKeys() []plan.Key {
	return slices.SortedFunc(maps.Keys(r.out.scope), plan.Key.Compare)
}

// observe asks the targets about the scope. When the scope is everything, it
// notes what was not answered for: without such keys the look is complete.
func (r *round) observe(ctx context.Context, state *desiredState) {
	start := r.m.opts.Now()
	keys := r.scopeKeys()
	r.observeKeys(ctx, state, keys)
	r.m.opts.Metrics.step(stepObserve, r.m.opts.Now().Sub(start))
	r.checkHealth(ctx, state, keys)
	if !r.full {
		return
	}
	r.out.lookedAt, r.out.unread = start, map[plan.Key]struct{}{}
	for _, k := range keys {
		if o, asked := r.out.observed.get(k); asked && o.Presence == plan.PresenceUnknown {
			r.out.unread[k] = struct{}{}
		}
	}
}

// observeKeys asks all targets concerned at once and records their answers.
func (r *round) observeKeys(ctx context.Context, state *desiredState, keys []plan.Key) {
	byTarget := map[string][]appliers.Query{}
	answers := map[plan.Key]plan.Observed{}
	reasons := map[kindAt]string{}
	for _, k := range keys {
		at := kindAt{k.Target, k.ID.GroupKind()}
		reason, known := reasons[at]
		if !known {
			reason = r.unknowable(at)
			reasons[at] = reason
		}
		if reason != "" {
			answers[k] = plan.Observed{Reason: reason}
			continue
		}
		if q, ok := r.query(state, k); ok {
			byTarget[k.Target] = append(byTarget[k.Target], q)
		}
	}
	var mu sync.Mutex
	each(byTarget, func(name string, queries []appliers.Query) {
		got := r.m.target(name).observe(ctx, queries)
		mu.Lock()
		defer mu.Unlock()
		maps.Copy(answers, got)
	})
	r.m.opts.Metrics.observedObjects(r.app.Name, len(keys))
	r.out.observed = r.out.observed.edit(func(t *keyMapTxn[plan.Observed]) {
		for _, k := range keys {
			o, ok := answers[k]
			if !ok { // neither desired nor owned: nothing to know
				t.drop(k)
				continue
			}
			t.set(k, o)
		}
	})
}

// checkHealth asks about the desired objects among keys and keeps what is not healthy.
func (r *round) checkHealth(ctx context.Context, state *desiredState, keys []plan.Key) {
	if r.out.unhealthy == nil {
		r.out.unhealthy = map[plan.Key]appliers.Health{}
	}
	byTarget := map[string][]appliers.Query{}
	for _, k := range keys {
		delete(r.out.unhealthy, k)
		o, _ := r.out.observed.get(k)
		item, ok := state.items.get(k)
		switch {
		case !ok:
		case o.Presence == plan.PresenceUnknown:
			r.out.unhealthy[k] = appliers.Health{Status: appliers.HealthUnknown, Message: o.Reason}
		case o.Presence == plan.Absent:
			r.out.unhealthy[k] = appliers.Health{Status: appliers.Missing, Message: "not there"}
		default:
			byTarget[k.Target] = append(byTarget[k.Target], appliers.Query{Key: k, Locator: item.Locator, Desired: item.Object})
		}
	}
	var mu sync.Mutex
	each(byTarget, func(name string, queries []appliers.Query) {
		answers := r.m.target(name).health(ctx, queries)
		mu.Lock()
		defer mu.Unlock()
		for k, h := range answers {
			if h.Status != appliers.Healthy || h.Message != "" { // what is well may have something to say
				r.out.unhealthy[k] = h
			}
		}
	})
}

// kindAt is a kind of object on a target.
type kindAt struct {
	target string
	kind   manifest.GroupKind
}

// unknowable says why nothing can be known of a kind now: its target is gone
// from the configuration or cannot tell whether it has the kind.
func (r *round) unknowable(at kindAt) string {
	t := r.m.target(at.target)
	if t == nil {
		return fmt.Sprintf("target %s is not configured any more", at.target)
	}
	answer, err := t.applier.Takes(at.kind)
	switch {
	case answer == appliers.Unknown && err != nil:
		return fmt.Sprintf("whether target %s has kind %s is not known: %v", at.target, at.kind, err)
	case answer == appliers.Unknown:
		return fmt.Sprintf("whether target %s has kind %s is not known", at.target, at.kind)
	default:
		return ""
	}
}

// query says what to ask about a key; a key that is neither desired nor owned
// is not asked about.
func (r *round) query(state *desiredState, k plan.Key) (appliers.Query, bool) {
	q := appliers.Query{Key: k}
	var desired *plan.Desired
	var entry *plan.Entry
	if item, ok := state.items.get(k); ok {
		desired, q.Desired, q.Locator = &item.Desired, item.Object, item.Locator
		if old, ok := r.m.registry.at(r.app.Name, k.Target, item.Locator); ok {
			if e, ok := r.m.registry.entry(r.app.Name, old); ok {
				entry = &e
			}
		}
	}
	if e, ok := r.m.registry.entry(r.app.Name, k); ok {
		entry = &e
		if desired == nil {
			q.Locator = e.Locator
		}
	}
	if entry != nil && entry.Key == k {
		q.Token = entry.Token
	}
	q.Fields = plan.Fields(desired, entry)
	return q, desired != nil || entry != nil
}
