package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// backoffFirst is the pause after a first failure; it doubles up to the cap of
// the application.
const backoffFirst = time.Second

// Manager runs all applications of one daemon and is the only owner of the
// ownership registry. All methods are safe for concurrent use.
type Manager struct {
	opts     Options
	registry *registry
	slots    chan struct{} // renderings under way
	crew     *crew
	reloads  chan reloadRequest
	ready    chan struct{} // closed when the first configuration is running
	stopped  chan struct{} // closed when Run has ended

	journal *journal
	randMu  sync.Mutex

	mu       sync.RWMutex
	running  map[string]*app
	sources  map[string]*source
	targets  map[string]*target
	policies map[string]*policySet
	hosts    map[string]chan struct{}
	signal   chan struct{} // closed and replaced when any status changed

	departures chan struct{} // nothing is left of some application that departs
}

// New reads the inventory from the store. It fails when that cannot be read:
// who owns what has to be known before anything is done.
func New(ctx context.Context, opts Options) (*Manager, error) {
	setDefaults(&opts)
	m := &Manager{
		opts: opts, registry: newRegistry(opts.Store, opts.Epoch),
		slots: make(chan struct{}, opts.RenderSlots), crew: newCrew(),
		running: map[string]*app{}, sources: map[string]*source{}, targets: map[string]*target{},
		policies: map[string]*policySet{}, hosts: map[string]chan struct{}{},
		signal: make(chan struct{}), departures: make(chan struct{}, 1), reloads: make(chan reloadRequest), ready: make(chan struct{}), stopped: make(chan struct{}),
	}
	m.journal = &journal{events: opts.Events, save: m.commit, log: opts.Log, now: opts.Now, records: map[string]func(error){}}
	return m, m.registry.load(ctx)
}

type reloadRequest struct {
	config Config
	done   chan error
}

// Run works on config until ctx ends: what is being written then is finished or
// abandoned, and recorded; nothing in the world is changed by ending. It fails
// at once when config cannot be carried out. It is called once, and returns
// when all its goroutines have ended, except calls that a target or a source
// never came back from; what has not ended after 30 s is left behind and said.
func (m *Manager) Run(ctx context.Context, config Config) error {
	defer close(m.stopped)
	life, end := context.WithCancel(ctx)
	err := m.carryOut(life, config)
	if err == nil {
		close(m.ready)
	}
	for err == nil && ctx.Err() == nil {
		select {
		case req := <-m.reloads:
			req.done <- m.carryOut(life, req.config)
		case <-m.departures:
			m.endDepartures(life)
		case <-ctx.Done():
		}
	}
	end()
	m.settle()
	return errors.Join(err, m.closeAll())
}

// settle waits until all goroutines have ended and all events are written. What
// does not end within stopGrace is left behind, and said.
func (m *Manager) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
	defer cancel()
	if left := m.crew.wait(ctx); len(left) > 0 {
		m.opts.Log.Error("left behind: it did not end in time", "what", left, "after", stopGrace)
	}
	if m.journal.flush(ctx) != nil {
		m.opts.Log.Error("events are missing from the audit log: they could not be written before the end", "events", m.journal.left())
	}
}

// Ready returns a channel that is closed once the first configuration is
// running: before that, Status knows of no application.
func (m *Manager) Ready() <-chan struct{} { return m.ready }

// Reload makes config the running configuration. What has the digest it had
// before keeps running undisturbed. On an error nothing changes: the running
// configuration stays.
func (m *Manager) Reload(ctx context.Context, config Config) error {
	req := reloadRequest{config, make(chan error, 1)}
	select {
	case m.reloads <- req:
		return <-req.done
	case <-m.stopped:
		return errShutdown
	case <-ctx.Done():
		return ctx.Err()
	}
}

func setDefaults(o *Options) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	if o.Events == nil {
		o.Events = func(context.Context, []Event) error { return nil }
	}
	o.Epoch = max(1, o.Epoch)
	o.RenderSlots = cmp.Or(o.RenderSlots, 2)
	o.HostBudget = cmp.Or(o.HostBudget, 4)
}

// closeAll releases targets and mirrors.
func (m *Manager) closeAll() error {
	m.mu.RLock()
	targets, sources := m.targets, m.sources
	m.mu.RUnlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		errs = append(errs, targets[name].close())
	}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		errs = append(errs, sources[name].close())
	}
	return errors.Join(errs...)
}

func (m *Manager) app(name string) (*app, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	a, ok := m.running[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownApplication, name)
	}
	return a, nil
}

// apps returns all applications, sorted by name.
func (m *Manager) apps() []*app {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := slices.Collect(maps.Values(m.running))
	slices.SortFunc(out, func(a, b *app) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func (m *Manager) source(name string) *source {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.sources[name]
}

func (m *Manager) target(name string) *target {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.targets[name]
}

func (m *Manager) policySet(name string) *policySet {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.policies[name]
}

func (m *Manager) head(name string) sourceHead {
	if s := m.source(name); s != nil {
		return s.current()
	}
	return sourceHead{}
}

func (m *Manager) sourceStatus(name string) SourceStatus {
	if s := m.source(name); s != nil {
		return s.status()
	}
	return SourceStatus{Name: name, Error: "source " + name + " is not configured"}
}

// changed wakes everybody who watches statuses.
func (m *Manager) changed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.signal)
	m.signal = make(chan struct{})
}

// event tells what happened and returns once that is durable, or ctx has ended.
// The goroutine of an application must not wait: see app.tell.
func (m *Manager) event(ctx context.Context, e Event) {
	m.journal.tell(e, nil)
	_ = m.journal.flush(ctx) // it stays handed over
}

// jitter spreads a duration by a tenth in both directions.
func (m *Manager) jitter(d time.Duration) time.Duration {
	m.randMu.Lock()
	defer m.randMu.Unlock()
	return d + time.Duration(pollJitter*(2*m.opts.Rand.Float64()-1)*float64(d))
}

// backoff returns the pause after the n-th failure in a row, n from 1.
func (m *Manager) backoff(n int, limit time.Duration) time.Duration {
	d := backoffFirst
	for i := 1; i < n && d < limit; i++ {
		d *= 2
	}
	return m.jitter(min(d, limit))
}

// renderSlot waits for its turn to render and returns the function that ends it.
func (m *Manager) renderSlot(ctx context.Context) func() {
	select {
	case m.slots <- struct{}{}:
		return func() { <-m.slots }
	case <-ctx.Done():
		return func() {}
	}
}
