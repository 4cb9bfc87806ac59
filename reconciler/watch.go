package reconciler

import (
	"context"
	"slices"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Pauses before a watch that ended is begun again.
const (
	watchMinPause = time.Second
	watchMaxPause = 5 * time.Minute
)

// startWatch follows what a target notices by itself, until life ends.
func (m *Manager) startWatch(life context.Context, t *target) {
	w, ok := appliers.Ability[appliers.Watcher](t.applier)
	if !ok || t.stop != nil {
		return
	}
	var ctx context.Context
	ctx, t.stop = context.WithCancel(life)
	m.crew.start("watch of target "+t.name, func() { m.keepWatching(ctx, t, w) })
}

func (m *Manager) keepWatching(ctx context.Context, t *target, w appliers.Watcher) {
	pause := watchMinPause
	for {
		began := m.opts.Now()
		err := patiently(ctx, closeGrace, func() error {
			return w.Watch(ctx, func(keys []plan.Key, lost bool) { m.noticed(t, keys, lost) })
		})
		if ctx.Err() != nil {
			return
		}
		m.opts.Log.Warn("target is not watched for now; drift is found by the complete look", "target", t.name, "error", err)
		if m.opts.Now().Sub(began) > watchMaxPause {
			pause = watchMinPause
		}
		timer := time.NewTimer(m.jitter(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(2*pause, watchMaxPause)
	}
}

// watching says what the targets watch for an application: nothing, or what is
// accepted, with some keys as a candidate has them.
type watching struct {
	on        bool
	candidate []plan.Key
	missed    []plan.Key // those that are accepted, but not watched where they are
}

// arm has the targets watch a state before it is looked at, so that nothing that
// happens after the look is missed. Keys that go are watched until they are gone.
func (r *round) arm(state *desiredState, delta []plan.Key) {
	w := &r.out.watching
	if !w.on {
		r.m.setWatched(r.app, state)
		w.on, w.candidate, w.missed = true, delta, r.elsewhere(state, delta)
		return
	}
	coming := slices.DeleteFunc(slices.Clone(delta), func(k plan.Key) bool {
		_, wanted := state.items.get(k)
		return !wanted
	})
	if len(coming) > 0 {
		r.m.updateWatched(r.app, state, coming)
		w.candidate, w.missed = append(coming, w.candidate...), append(r.elsewhere(state, coming), w.missed...)
	}
}

// elsewhere returns those keys that a state does not have where they are accepted.
func (r *round) elsewhere(state *desiredState, keys []plan.Key) []plan.Key {
	if r.accepted == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(keys), func(k plan.Key) bool {
		there, accepted := r.accepted.items.get(k)
		here, wanted := state.items.get(k)
		return !accepted || wanted && here.Locator == there.Locator
	})
}

// watch has the targets watch what is accepted after a round, and nothing else.
func (a *app) watch(st *appState, res roundResult) {
	keys, missed := res.watching.candidate, res.watching.missed
	st.watching = watching{on: res.watching.on}
	switch {
	case !res.watching.on:
	case res.accepted == nil:
		a.m.setWatched(a, nil)
		st.watching.on = false
	case res.accepted != st.accepted:
		a.m.updateWatched(a, res.accepted, dedupe(append(slices.Clone(res.delta), keys...)))
	default:
		a.m.updateWatched(a, res.accepted, dedupe(keys))
		if len(missed) > 0 {
			a.look(dedupe(missed))
		}
	}
}

// setWatched tells the targets of an application what to watch; a nil state is nothing.
func (m *Manager) setWatched(a *app, state *desiredState) {
	for name, t := range a.pipe.targets {
		w, ok := appliers.Ability[appliers.Watcher](t.applier)
		if !ok {
			continue
		}
		if state == nil {
			w.SetWatched(a.Name, nil)
			continue
		}
		w.SetWatched(a.Name, watchedOn(name, state))
	}
}

func watchQuery(k plan.Key, item desiredItem) appliers.Query {
	return appliers.Query{Key: k, Locator: item.Locator, Desired: item.Object}
}

// updateWatched tells the targets of an application that they are to watch some
// keys as a state has them. A target that takes no differences is told everything.
func (m *Manager) updateWatched(a *app, state *desiredState, keys []plan.Key) {
	set, gone := map[string][]appliers.Query{}, map[string][]plan.Key{}
	for _, k := range keys {
		if item, ok := state.items.get(k); ok {
			set[k.Target] = append(set[k.Target], watchQuery(k, item))
		} else {
			gone[k.Target] = append(gone[k.Target], k)
		}
	}
	for name, t := range a.pipe.targets {
		if len(set[name])+len(gone[name]) == 0 {
			continue
		}
		if u, ok := appliers.Ability[appliers.WatchUpdater](t.applier); ok {
			u.UpdateWatched(a.Name, set[name], gone[name])
			continue
		}
		if w, ok := appliers.Ability[appliers.Watcher](t.applier); ok {
			w.SetWatched(a.Name, watchedOn(name, state))
		}
	}
}

func watchedOn(target string, state *desiredState) []appliers.Query {
	var queries []appliers.Query
	for k, item := range state.items.all() {
		if k.Target == target {
			queries = append(queries, watchQuery(k, item))
		}
	}
	return queries
}

// noticed takes in what a target's watch reports.
func (m *Manager) noticed(t *target, keys []plan.Key, lost bool) {
	if lost {
		for _, a := range m.apps() {
			if a.pipe.targets[t.name] != nil {
				a.look(nil)
			}
		}
		return
	}
	for name, keys := range m.concerned(t, keys) {
		m.look(name, keys)
	}
}

// concerned returns, by application, the keys of those who own them or want them.
func (m *Manager) concerned(t *target, keys []plan.Key) map[string][]plan.Key {
	out := map[string][]plan.Key{}
	var free []plan.Key
	m.registry.mu.RLock()
	for _, k := range keys {
		if e, ok := m.registry.entries[k]; ok {
			out[e.Owner] = append(out[e.Owner], k)
		} else {
			free = append(free, k)
		}
	}
	m.registry.mu.RUnlock()
	if len(free) == 0 {
		return out
	}
	for _, a := range m.apps() {
		if state := m.registry.desire(a.Name).state; state != nil && a.pipe.targets[t.name] != nil {
			for _, k := range free {
				if _, wanted := state.items.get(k); wanted {
					out[a.Name] = append(out[a.Name], k)
				}
			}
		}
	}
	return out
}
