package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// look asks an application to look at keys; nil means everything.
func (m *Manager) look(name string, keys []plan.Key) {
	if a, err := m.app(name); err == nil {
		a.look(keys)
	}
}

// advanced is called after each poll of a source; changed says that its head
// moved or that it works, or does not work, anew.
func (m *Manager) advanced(ctx context.Context, s *source, changed bool) {
	affected := map[string]bool{}
	for _, set := range m.policySetsOf(s.Name) {
		if m.refreshPolicy(ctx, set) {
			affected[set.config.Name] = true
		}
	}
	if !changed && len(affected) == 0 {
		return
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, a := range m.running {
		if changed && a.Source == s.Name || slices.ContainsFunc(a.Policies, func(p string) bool { return affected[p] }) {
			a.kick()
		}
	}
}

func (m *Manager) policySetsOf(source string) []*policySet {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []*policySet
	for _, p := range m.policies {
		if p.config.Source == source {
			out = append(out, p)
		}
	}
	return out
}

// refreshPolicy loads the newest accepted revision of a policy set.
func (m *Manager) refreshPolicy(ctx context.Context, set *policySet) (changed bool) {
	if set.config.Source == "" {
		return set.refresh(ctx, "", nil)
	}
	head := m.head(set.config.Source)
	if head.seq == 0 {
		set.unavailable(errors.New("its source has no revision yet"))
		return true
	}
	set.mu.Lock()
	current := set.tried && set.loaded == head.revision
	set.mu.Unlock()
	if current {
		return false
	}
	tree, err := m.open(ctx, set.config.Source, head.revision)
	if err != nil {
		set.unavailable(err)
		return true
	}
	changed = set.refresh(ctx, head.revision, tree)
	if _, err := set.current(); err != nil {
		m.opts.Log.Error("policy set was not loaded", "policySet", set.config.Name, "revision", shortRevision(head.revision), "error", err)
	}
	return changed
}

// notReady says why an application that others depend on is not healthy and in
// step with revision seq of a source, or "". What it accepted counts only once its status
// tells of it: before that, it is being applied.
func (m *Manager) notReady(name, source string, seq uint64) string {
	a, err := m.app(name)
	if err != nil {
		return "it is not configured"
	}
	s := m.status(a)
	if a.Source == source {
		d := m.registry.desire(name)
		switch {
		case !d.ready || d.seq < seq:
			if s.Candidate != nil {
				return fmt.Sprintf("it has not accepted this revision: %s", firstLine(s.Candidate.Reason))
			}
			return "it has not accepted this revision yet"
		case d.state.revision != s.Revision:
			return "it is being applied"
		}
	}
	if s.Sync != Synced {
		return fmt.Sprintf("it is %s: %s", s.Sync, s.Message)
	}
	if s.Health != appliers.Healthy {
		return fmt.Sprintf("it is %s", s.Health)
	}
	return ""
}

// awaited is an application that a revision waits for, and why it had to when it
// was asked about.
type awaited struct {
	name   string
	seq    uint64
	reason string
}

// moved reports whether the reason is another one by now.
func (m *Manager) moved(source string, w awaited) bool {
	return w.name != "" && m.notReady(w.name, source, w.seq) != w.reason
}

// published is called after an application published a status: others may have
// waited for it.
func (m *Manager) published(a *app, old, now *Status) {
	m.opts.Metrics.status(now)
	ready := old.Sync != now.Sync || old.Health != now.Health || old.Revision != now.Revision
	wishes := old.wishes != now.wishes
	if ready || wishes {
		m.mu.RLock()
		for _, other := range m.running {
			hopes := other.hopes.Load()
			if other != a && (ready && hopes&hopesForDependency != 0 && slices.Contains(other.DependsOn, a.Name) ||
				wishes && hopes&hopesForOwner != 0) {
				other.again()
			}
		}
		m.mu.RUnlock()
	}
	m.changed()
}

// policySources returns the sources that the policies of an application come from.
func (m *Manager) policySources(a *app) []string {
	var names []string
	for _, name := range a.Policies {
		if set := m.policySet(name); set != nil && set.config.Source != "" {
			names = append(names, set.config.Source)
		}
	}
	return names
}
