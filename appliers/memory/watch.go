package memory

import (
	"context"
	"slices"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// subscription is one running Watch. Its channel has one place: reports that
// nobody took yet are collected in locators.
type subscription struct {
	kick     chan struct{}
	locators map[string]bool
	lost     bool
}

// LoseEvents makes every running Watch report that it has lost something.
func (w *World) LoseEvents() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.subs {
		s.lost = true
		s.wake()
	}
}

// Watches is how many Watch calls are running, for tests that wait for one.
func (w *World) Watches() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.subs)
}

func (w *World) report(locator string) {
	for s := range w.subs {
		s.locators[locator] = true
		s.wake()
	}
}

func (s *subscription) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// take empties a subscription.
func (w *World) take(s *subscription) (locators map[string]bool, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	locators, lost = s.locators, s.lost
	s.locators, s.lost = map[string]bool{}, false
	return locators, lost
}

// SetWatched implements appliers.Watcher.
func (a *Applier) SetWatched(application string, queries []appliers.Query) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watched[application] = map[plan.Key]string{}
	for _, q := range queries {
		a.watched[application][q.Key] = q.Locator
	}
}

// UpdateWatched implements appliers.WatchUpdater.
func (a *Applier) UpdateWatched(application string, set []appliers.Query, gone []plan.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watched[application] == nil {
		a.watched[application] = map[plan.Key]string{}
	}
	for _, q := range set {
		a.watched[application][q.Key] = q.Locator
	}
	for _, k := range gone {
		delete(a.watched[application], k)
	}
}

// Watch implements appliers.Watcher: it reports what other writers change by hand.
func (a *Applier) Watch(ctx context.Context, changed func(keys []plan.Key, lost bool)) error {
	s := &subscription{kick: make(chan struct{}, 1), locators: map[string]bool{}}
	a.world.mu.Lock()
	a.world.subs[s] = true
	a.world.mu.Unlock()
	if a.watches() {
		changed(nil, true)
	}
	defer func() {
		a.world.mu.Lock()
		defer a.world.mu.Unlock()
		delete(a.world.subs, s)
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.kick:
		}
		locators, lost := a.world.take(s)
		if lost {
			changed(nil, true)
			continue
		}
		if keys := a.keysAt(locators); len(keys) > 0 {
			changed(keys, false)
		}
	}
}

// watches reports whether anything is watched.
func (a *Applier) watches() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, keys := range a.watched {
		if len(keys) > 0 {
			return true
		}
	}
	return false
}

func (a *Applier) keysAt(locators map[string]bool) []plan.Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	var keys []plan.Key
	for _, watched := range a.watched {
		for k, locator := range watched {
			if locators[locator] {
				keys = append(keys, k)
			}
		}
	}
	slices.SortFunc(keys, plan.Key.Compare)
	return slices.Compact(keys)
}
