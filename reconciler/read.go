package reconciler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Changed returns a channel that gets a value after any status changed, coalesced,
// and is closed when ctx ends.
func (m *Manager) Changed(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		for {
			m.mu.RLock()
			signal := m.signal
			m.mu.RUnlock()
			select {
			case <-signal:
			case <-ctx.Done():
				return
			case <-m.stopped:
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// Status returns the status of the named applications, or of all, sorted by
// name. It answers from memory, whatever sources and targets do.
func (m *Manager) Status(names ...string) ([]Status, error) {
	var out []Status
	apps := m.apps()
	if len(names) > 0 {
		apps = nil
		for _, name := range names {
			a, err := m.app(name)
			if keys := m.registry.keys(name); err != nil && len(keys) > 0 {
				out = append(out, orphanStatus(name, keys))
				continue
			}
			if err != nil {
				return nil, err
			}
			apps = append(apps, a)
		}
	}
	out = slices.Grow(out, len(apps))
	for _, a := range apps {
		out = append(out, m.status(a))
	}
	if len(names) == 0 {
		out = append(out, m.leftBehind()...)
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Application, b.Application) })
	return out, nil
}

// leftBehind returns a status for every application that is not configured any
// more and still owns something: what it left is shown until somebody takes it.
func (m *Manager) leftBehind() []Status {
	var out []Status
	for _, name := range m.registry.owners() {
		if _, err := m.app(name); err == nil {
			continue
		}
		out = append(out, orphanStatus(name, m.registry.keys(name)))
	}
	return out
}

// orphanStatus is that of an application that is nothing any more but what it
// left behind.
func orphanStatus(name string, keys []plan.Key) Status {
	return Status{
		Application: name, Sync: SyncUnknown, Health: appliers.HealthUnknown, Phase: PhaseOrphaned,
		Message: fmt.Sprintf("not configured any more, and left behind %s; an application that desires them takes them over, and gitopsd forget %s --why ... takes them off the record",
			counted(len(keys), "object"), name),
		Objects: ObjectCounts{Owned: len(keys)}, Orphaned: keys,
	}
}

// status is the published one, with what depends on the time it is read at.
func (m *Manager) status(a *app) Status {
	s := *a.status.Load()
	age := m.opts.Now().Sub(s.ObservedAt)
	if !s.ObservedAt.IsZero() && age > a.StaleAfter {
		s.Message = fmt.Sprintf("last seen complete %s ago; %s", age.Round(time.Second), s.Message)
		s.Sync = Stale
	}
	if src := m.source(a.Source); src != nil && (s.Sync == Synced || s.Sync == OutOfSync) {
		s.Sync, s.Message = src.doubt(s.Sync, s.Message, a.StaleAfter)
	}
	if s.running {
		s.Phase, _ = a.phase.Load().(Phase)
	}
	return s
}

// Sources returns the status of all sources, sorted by name.
func (m *Manager) Sources() []SourceStatus {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []SourceStatus
	for _, name := range slices.Sorted(maps.Keys(m.sources)) {
		out = append(out, m.sources[name].status())
	}
	return out
}

// PolicySets returns the status of all policy sets, sorted by name.
func (m *Manager) PolicySets() []PolicySetStatus {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []PolicySetStatus
	for _, name := range slices.Sorted(maps.Keys(m.policies)) {
		out = append(out, m.policies[name].status())
	}
	return out
}

// Targets returns the status of all targets, sorted by name.
func (m *Manager) Targets() []TargetStatus {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []TargetStatus
	for _, name := range slices.Sorted(maps.Keys(m.targets)) {
		out = append(out, m.targets[name].status())
	}
	return out
}
