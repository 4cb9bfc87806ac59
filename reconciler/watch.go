package reconciler

import (
	"context"
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

// updateWatched tells the targets of an application what changed in what they
// are to watch. A target that takes no differences is told everything.
func (m *Manager) updateWatched(a *app, state *desiredState, delta []plan.Key) {
	set, gone := map[string][]appliers.Query{}, map[string][]plan.Key{}
	for _, k := range delta {
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
	byOwner := map[string][]plan.Key{}
	m.registry.mu.RLock()
	for _, k := range keys {
		if e, ok := m.registry.entries[k]; ok {
			byOwner[e.Owner] = append(byOwner[e.Owner], k)
		}
	}
	m.registry.mu.RUnlock()
	for owner, keys := range byOwner {
		m.look(owner, keys)
	}
}
