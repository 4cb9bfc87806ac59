package reconciler

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/render"
	"github.com/gitopsd/gitopsd/policies"
)

// app is one application: a goroutine that owns its state and does no I/O. It
// starts at most one round at a time and learns what came of it by a message.
type app struct {
	Application
	m    *Manager
	pipe *pipeline
	log  *slog.Logger
	// steering is what people said; the app that replaces this one takes it over.
	steering *steering
	// state belongs to the goroutine; others may read it once done is closed.
	state *appState

	kicks   chan struct{}    // one slot: kicks coalesce
	results chan roundResult // from the round under way
	queries chan func(*appState)
	done    chan struct{}
	cancel  context.CancelFunc

	phase  atomic.Value // Phase of the round under way
	status atomic.Pointer[Status]
	// hopes says which news of other applications would help this one.
	hopes atomic.Uint32

	// untold counts the events of this application that are not written yet; full
	// is set while they keep it from another round.
	untold atomic.Int64
	full   atomic.Bool

	// mail is what happened since the last round began: levels, not events.
	mailMu sync.Mutex
	mail   mail
}

// minPause bounds how often the timer wakes an application: what is due in less
// is due then.
const minPause = 10 * time.Millisecond

// The hopes of an application.
const (
	hopesForDependency uint32 = 1 << iota // a candidate waits for an application it depends on
	hopesForOwner                         // somebody else owns, or may want, one of its objects
)

// steering is what people said about an application.
type steering struct {
	order sync.Mutex // held over a change, its record included
	mu    sync.Mutex // guards control; never held over a record
	control
}

// mail says what has to be looked at.
type mail struct {
	full    bool
	force   bool // try now also what has a time to wait for
	again   bool // what a pending candidate waited for may have come
	dirty   map[plan.Key]struct{}
	waiters []chan struct{} // closed when a round that started later has ended
}

// appState is everything the goroutine of an application knows. Only that
// goroutine touches it; maps that a round reads are persistent or copied.
type appState struct {
	record    appRecord
	restored  bool // the accepted revision of the record was looked for
	outdated  bool // accepted is what other settings made of it, which a reload has replaced
	accepted  *desiredState
	judgedBy  string // digest of the policies that judged accepted
	tried     attempt
	candidate *Candidate
	hold      *Candidate // changes of the accepted revision that need an approval
	proposed  *plan.Plan // what the candidate would do; nil when it was not planned
	observed  keyMap[plan.Observed]
	unhealthy map[plan.Key]appliers.Health
	cautions  map[plan.Key][]policies.Finding // what policies warned of, by the change last judged
	lookedAt  time.Time                       // oldest answer of the last complete look
	askedAt   time.Time                       // when a look began that waits for unread to be complete; zero when none does
	unread    map[plan.Key]struct{}           // what that look got no answer about
	syncedAt  time.Time                       // when a round last found everything as desired
	nextLook  time.Time
	failures  map[plan.Key]failure
	blocked   map[plan.Key]string
	pending   map[plan.Key]time.Time // writes that complete by themselves: when to look
	drift     map[plan.FieldRef]DriftedField
	fights    contention
	watching  watching
	message   string
	rounds    uint64
	running   *running
	release   []chan struct{} // to be closed once the status tells what they waited for

	candidateRetry retryTimer // a candidate that may pass later without any news
	stepRetry      retryTimer // restoring or judging what is accepted did not work
	unreadRetry    retryTimer // the target gave no answer about some objects
	healthRetry    retryTimer // some objects are on their way to be healthy
	brokenRetry    retryTimer // a round broke; until then nothing else is due
}

// attempt names what a candidate depended on when it was last looked at. The
// same attempt is not made twice, unless its time has come again.
type attempt struct {
	seq      uint64
	policies string
	control  uint64
	settings string
}

type running struct {
	waiters []chan struct{}
}

// failure is an object that could not be brought to the desired state.
type failure struct {
	Failure
	attempts int
	// want and seen name what was to be written and what was there. While they
	// are the same, the next try waits for RetryAt.
	want, seen string
}

func newApp(m *Manager, a Application, pipe *pipeline, s *steering) *app {
	ap := &app{
		Application: a, m: m, pipe: pipe, log: m.opts.Log.With("application", a.Name), steering: s,
		kicks: make(chan struct{}, 1), results: make(chan roundResult, 1),
		queries: make(chan func(*appState)), done: make(chan struct{}),
	}
	ap.phase.Store(PhaseWaiting)
	ap.status.Store(&Status{
		Application: a.Name, Source: a.Source, Path: a.Path, Targets: routeTargets(a.Routes),
		Sync: SyncUnknown, Health: appliers.HealthUnknown, Phase: PhaseWaiting,
		Message: "waiting for the first revision of source " + a.Source,
	})
	return ap
}

func newPipeline(a Application, targets map[string]*target, digest func(any) manifest.Digest) (*pipeline, error) {
	router, err := appliers.NewRouter(a.Routes)
	if err != nil {
		return nil, err
	}
	return &pipeline{app: a, renderer: &render.Renderer{}, router: router, targets: targets, digest: digest}, nil
}

// run is the goroutine of the application.
func (a *app) run(ctx context.Context) {
	defer close(a.done)
	st := a.state
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			a.drain(st)
			return
		case <-a.kicks:
		case <-timer.C:
		case fn := <-a.queries:
			fn(st)
			continue // a question changes nothing
		case res := <-a.results:
			a.finish(st, res)
		}
		a.start(ctx, st)
		a.publish(st)
		timer.Reset(max(minPause, a.due(st).Sub(a.m.opts.Now())))
	}
}

// drain waits for the round under way, which ends soon because its context has,
// so that what it did is recorded before the store closes.
func (a *app) drain(st *appState) {
	if st.running != nil {
		a.finish(st, <-a.results)
	}
	a.publish(st)
}

// kick wakes the goroutine; it never blocks.
func (a *app) kick() {
	select {
	case a.kicks <- struct{}{}:
	default:
	}
}

// tell hands over an event of this application and does not wait for it to be
// durable; see journal.
func (a *app) tell(kind EventKind, message string, data map[string]any) {
	a.untold.Add(1)
	a.m.journal.tell(Event{Kind: kind, Application: a.Name, Message: message, Data: data}, func() {
		if a.untold.Add(-1) <= maxUntold && a.full.Swap(false) {
			a.kick()
		}
	})
}

// crowded reports whether too many events wait to be written for another round
// to begin, which then is begun by a kick. It is for the goroutine of the
// application.
func (a *app) crowded() bool {
	if a.untold.Load() <= maxUntold {
		return false
	}
	a.full.Store(true)
	if a.untold.Load() > maxUntold { // else the kick may have been missed
		return true
	}
	a.full.Store(false)
	return false
}

// look asks for a look at keys, or at everything when keys is nil.
func (a *app) look(keys []plan.Key) {
	a.write(func(m *mail) {
		m.full = m.full || keys == nil
		for _, k := range keys {
			m.dirty[k] = struct{}{}
		}
	})
}

// lookNow asks for a look at everything and another try at what waits for its
// time. waiter is closed when a round that started later has ended.
func (a *app) lookNow(waiter chan struct{}) {
	a.write(func(m *mail) {
		m.full, m.force = true, true
		m.waiters = append(m.waiters, waiter)
	})
}

// again asks for another look at a pending candidate and at what waits.
func (a *app) again() { a.write(func(m *mail) { m.again = true }) }

func (a *app) write(change func(*mail)) {
	a.mailMu.Lock()
	if a.mail.dirty == nil {
		a.mail.dirty = map[plan.Key]struct{}{}
	}
	change(&a.mail)
	a.mailMu.Unlock()
	a.kick()
}

func (a *app) takeMail() mail {
	a.mailMu.Lock()
	defer a.mailMu.Unlock()
	taken := a.mail
	a.mail = mail{}
	return taken
}

func (a *app) hasMail() bool {
	a.mailMu.Lock()
	defer a.mailMu.Unlock()
	m := &a.mail
	return m.full || m.force || m.again || len(m.dirty)+len(m.waiters) > 0
}

// ask runs fn in the goroutine of the application and waits for it.
func (a *app) ask(ctx context.Context, fn func(*appState)) error {
	answered := make(chan struct{})
	select {
	case a.queries <- func(st *appState) { fn(st); close(answered) }:
	case <-a.done:
		return errShutdown
	case <-ctx.Done():
		return ctx.Err()
	}
	<-answered
	return nil
}
