package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// carryOut makes config the running configuration, or fails and changes
// nothing. ctx is the life of what it starts. Only Run calls it.
func (m *Manager) carryOut(ctx context.Context, config Config) error {
	if err := m.checkTargets(config); err != nil {
		return err
	}
	config, err := m.withDepartures(ctx, config)
	if err != nil {
		return err
	}
	next, err := m.openAll(ctx, config)
	if err != nil {
		return errors.Join(err, next.discard())
	}
	if err := m.checkPlaces(next); err != nil {
		return errors.Join(err, next.discard())
	}
	if err := m.checkReach(next); err != nil {
		return errors.Join(err, next.discard())
	}
	apps, err := m.prepareApps(ctx, config, next)
	if err == nil {
		err = m.recordDepartures(ctx, config)
	}
	if err != nil {
		return errors.Join(err, next.discard())
	}
	m.swap(ctx, config, next, apps)
	return nil
}

// checkTargets refuses to lose a target that an application owns something on.
// What was left behind there holds it back no longer; see forgetStranded.
func (m *Manager) checkTargets(config Config) error {
	for name, k := range m.registry.targets() {
		if !slices.ContainsFunc(config.Targets, func(t TargetConfig) bool { return t.Name == name }) {
			return fmt.Errorf("target %s cannot be removed: the inventory refers to it (%s, for one); remove its objects from Git first, so that they are pruned, or, in a configuration of its own, the application, which with deletionPolicy Orphan leaves them as they are", name, k)
		}
	}
	return nil
}

// checkPlaces refuses to turn a target that something was written through to
// another place: what is there would be taken for gone.
func (m *Manager) checkPlaces(next *opened) error {
	for _, name := range slices.Sorted(maps.Keys(next.targets)) {
		t := next.targets[name]
		if e, found := m.registry.elsewhere(name, t.place); found {
			return fmt.Errorf("target %s acts on %s now, and the inventory refers to what it wrote on %s (%s, for one); give the new place a target with another name, and remove this one once its objects are gone",
				name, t.place, e.Place, e.Key)
		}
	}
	return nil
}

// places returns the place of every target.
func (o *opened) places() map[string]string {
	out := make(map[string]string, len(o.targets))
	for name, t := range o.targets {
		out[name] = t.place
	}
	return out
}

// opened is a configuration that is open and not running yet.
type opened struct {
	sources  map[string]*source
	targets  map[string]*target
	policies map[string]*policySet
	fresh    []func() error // closes what was opened for this configuration
}

func (o *opened) discard() error {
	var errs []error
	for _, c := range o.fresh {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

func (m *Manager) openAll(ctx context.Context, config Config) (*opened, error) {
	next := &opened{sources: map[string]*source{}, targets: map[string]*target{}, policies: map[string]*policySet{}}
	for _, c := range config.Sources {
		if have := m.source(c.Name); have != nil && have.config.Digest == c.Digest {
			next.sources[c.Name] = have
			continue
		}
		s, err := m.openSource(ctx, c)
		if err != nil {
			return next, fmt.Errorf("source %s: %w", c.Name, err)
		}
		next.sources[c.Name] = s
		next.fresh = append(next.fresh, s.close)
	}
	for _, c := range config.Targets {
		if have := m.target(c.Name); have != nil && have.digest == c.Digest {
			next.targets[c.Name] = have
			continue
		}
		a, err := c.Open()
		if err != nil {
			return next, fmt.Errorf("target %s: %w", c.Name, err)
		}
		t := newTarget(c, a, &m.opts)
		next.targets[c.Name] = t
		next.fresh = append(next.fresh, t.close)
	}
	for _, c := range config.PolicySets {
		if have := m.policySet(c.Name); have != nil && have.config.Digest == c.Digest {
			next.policies[c.Name] = have
			continue
		}
		set := &policySet{config: c, now: m.opts.Now}
		if have := m.policySet(c.Name); have != nil {
			set.inherit(have)
		}
		next.policies[c.Name] = set
	}
	return next, nil
}

func (m *Manager) openSource(ctx context.Context, c SourceConfig) (*source, error) {
	opened, err := c.Open()
	if err != nil {
		return nil, err
	}
	s := &source{
		opened: m.opts.Now(),
		Source: opened, config: c, store: m.opts.Store, epoch: m.opts.Epoch, opts: &m.opts,
		budget: m.hostBudget(c), advance: m.advanced, event: m.event, jitter: m.jitter,
		reader: func() string { return m.readerOf(c.Name) },
		kicks:  make(chan struct{}, 1), polling: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(err, opened.Repository.Close())
	}
	return s, nil
}

// readerOf returns the first application of a source by name, or APP when there is none.
func (m *Manager) readerOf(source string) string {
	for _, a := range m.apps() {
		if a.Source == source {
			return a.Name
		}
	}
	return "APP"
}

// hostBudget returns the pool that all sources of a host share; a source
// without a host has its own.
func (m *Manager) hostBudget(c SourceConfig) chan struct{} {
	if c.Host == "" {
		return make(chan struct{}, 1)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hosts[c.Host] == nil {
		m.hosts[c.Host] = make(chan struct{}, m.opts.HostBudget)
	}
	return m.hosts[c.Host]
}

// prepareApps makes the applications that are new or changed, or whose source
// or targets are.
func (m *Manager) prepareApps(ctx context.Context, config Config, next *opened) ([]*app, error) {
	var out []*app
	for _, c := range config.Applications {
		c.setDefaults()
		targets := map[string]*target{}
		for _, name := range routeTargets(c.Routes) {
			if next.targets[name] == nil {
				return nil, fmt.Errorf("application %s: target %s is not configured", c.Name, name)
			}
			targets[name] = next.targets[name]
		}
		if next.sources[c.Source] == nil && !c.departing {
			return nil, fmt.Errorf("application %s: source %s is not configured", c.Name, c.Source)
		}
		if m.unchanged(c, next, targets) {
			continue
		}
		pipe, err := newPipeline(c, targets, m.opts.Sealer.Digest)
		if err != nil {
			return nil, fmt.Errorf("application %s: %w", c.Name, err)
		}
		a, err := m.prepareApp(ctx, c, pipe)
		if err != nil {
			return nil, fmt.Errorf("application %s: %w", c.Name, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// prepareApp makes an application with what is remembered of it. What the one
// that it replaces remembers is taken over once that has stopped.
func (m *Manager) prepareApp(ctx context.Context, c Application, pipe *pipeline) (*app, error) {
	if have, err := m.app(c.Name); err == nil {
		return newApp(m, c, pipe, have.steering), nil
	}
	a := newApp(m, c, pipe, &steering{})
	var err error
	a.state, err = m.loadState(ctx, a)
	return a, err
}

func (m *Manager) unchanged(c Application, next *opened, targets map[string]*target) bool {
	have, err := m.app(c.Name)
	if err != nil || have.Digest != c.Digest || m.source(c.Source) != next.sources[c.Source] {
		return false
	}
	for name, t := range targets {
		if have.pipe.targets[name] != t {
			return false
		}
	}
	return true
}

// swap stops what is not in the new configuration any more and starts what is new.
func (m *Manager) swap(ctx context.Context, config Config, next *opened, apps []*app) {
	m.stopApps(config, apps)
	m.registry.setPlaces(next.places())
	apps, err := m.rename(ctx, apps)
	errs := []error{err}
	m.mu.Lock()
	oldSources, oldTargets := m.sources, m.targets
	m.sources, m.targets, m.policies = next.sources, next.targets, next.policies
	for _, a := range apps {
		m.running[a.Name] = a
	}
	m.mu.Unlock()
	errs = append(errs, m.leaveBehind(ctx, config)...)
	errs = append(errs, m.forgetStranded(ctx, next))
	for name, s := range oldSources {
		if next.sources[name] != s {
			s.stop()
			<-s.done
			errs = append(errs, s.close())
		}
		if next.sources[name] == nil {
			m.opts.Metrics.forgetSource(name)
		}
	}
	for name, t := range oldTargets {
		if next.targets[name] != t {
			errs = append(errs, t.close())
		}
		if next.targets[name] == nil {
			m.opts.Metrics.forgetTarget(name)
		}
	}
	m.startAll(ctx, next, apps)
	m.changed()
	if err := errors.Join(errs...); err != nil {
		m.opts.Log.Error("something of the previous configuration did not end well", "error", err)
	}
}

// stopApps ends the applications that are gone or replaced, all at once: each may
// have a call under way. What a replaced one knows goes to its successor.
func (m *Manager) stopApps(config Config, apps []*app) {
	successors := map[string]*app{}
	for _, a := range apps {
		successors[a.Name] = a
	}
	var ending []*app
	for _, a := range m.apps() {
		if successors[a.Name] != nil || !config.has(a.Name) {
			a.cancel()
			ending = append(ending, a)
		}
	}
	for _, a := range ending {
		<-a.done
		m.setWatched(a, nil)
		next := successors[a.Name]
		if next == nil {
			m.mu.Lock()
			delete(m.running, a.Name)
			m.mu.Unlock()
			m.registry.dropDesire(a.Name)
			m.opts.Metrics.forgetApplication(a.Name)
			continue
		}
		next.state = m.newState()
		next.state.record, next.state.drift = a.state.record, a.state.drift
		if next.state.record.Source != next.Source && !next.departing {
			next.state.record.Revision = ""
		}
		if old := a.state.accepted; old != nil && !a.departing && !next.departing {
			// It stays in charge until its settings now make something that is accepted.
			// Its place in the order of a source means nothing for another one.
			state := *old
			if a.Source != next.Source {
				state.seq = 0
			}
			next.state.accepted, next.state.outdated = &state, true
		}
	}
}

func (c *Config) has(application string) bool {
	return slices.ContainsFunc(c.Applications, func(a Application) bool { return a.Name == application })
}

// leaveBehind marks what belongs to applications that are not configured, also
// those that vanished while the daemon did not run.
func (m *Manager) leaveBehind(ctx context.Context, config Config) (errs []error) {
	renamed := config.renames()
	for _, owner := range m.registry.owners() {
		if config.has(owner) || renamed[owner] != "" { // what was not handed over yet is not left behind
			continue
		}
		keys, err := m.registry.orphan(ctx, owner)
		errs = append(errs, err)
		for _, k := range keys {
			m.event(ctx, Event{Kind: EventOrphaned, Application: owner, Message: k.String() + " was left behind", Data: map[string]any{"key": k.String()}})
		}
	}
	return errs
}

// forgetStranded drops the records of what was left behind on targets that are
// gone: the objects stay, and nobody lists them any more. Each is told before.
func (m *Manager) forgetStranded(ctx context.Context, next *opened) error {
	var drop []plan.Key
	for _, e := range m.registry.stranded(func(target string) bool { return next.targets[target] != nil }) {
		m.event(ctx, Event{
			Kind: EventForgotten, Application: e.Owner, Data: map[string]any{"key": e.Key.String(), "locator": e.Locator, "place": e.Place},
			Message: fmt.Sprintf("%s was left at %s, and its target is not configured any more: it is no longer on record", e.Key, e.Locator),
		})
		drop = append(drop, e.Key)
	}
	if len(drop) == 0 {
		return nil
	}
	return m.registry.write(ctx, nil, drop)
}

func (m *Manager) startAll(life context.Context, next *opened, apps []*app) {
	for _, set := range next.policies {
		if !set.loadedOnce() {
			m.refreshPolicy(life, set)
		}
	}
	for _, t := range next.targets {
		m.startWatch(life, t)
		t.measure()
	}
	// Before any of them works, all are known to want something.
	for _, a := range apps {
		if a.departing {
			a.depart()
			continue
		}
		m.registry.resetDesire(a.Name, a.Source, a.state.record.Revision != "", a.state.accepted)
	}
	for _, a := range apps {
		var ctx context.Context
		ctx, a.cancel = context.WithCancel(life)
		m.crew.start("application "+a.Name, func() { a.run(ctx) })
	}
	for _, s := range next.sources {
		if s.stop != nil {
			continue // it is running already
		}
		var ctx context.Context
		ctx, s.stop = context.WithCancel(life)
		m.crew.start("source "+s.Name, func() { s.run(ctx) })
	}
	for _, a := range m.apps() {
		a.kick()
	}
}

func routeTargets(routes []appliers.Route) []string {
	var names []string
	for _, r := range routes {
		if !slices.Contains(names, r.Target) {
			names = append(names, r.Target)
		}
	}
	slices.Sort(names)
	return names
}
