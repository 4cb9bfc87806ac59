package reconciler

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/sources"
)

// Numbers of polling: the jitter spreads sources that started together, the
// cap bounds the backoff of a source that fails.
const (
	defaultPoll    = 30 * time.Second
	defaultTimeout = time.Minute
	pollJitter     = 0.1
	pollMaxBackoff = 10 * time.Minute
)

const sourcePrefix = "source/"

// sourceRecord is the high-water mark of a source: an older head is refused
// even after a restart.
type sourceRecord struct {
	Identity string    `json:"identity"`
	Revision string    `json:"revision"`
	At       time.Time `json:"at"`
	// Accept is a rewritten revision that a person accepted and that was not seen again yet.
	Accept string `json:"accept,omitempty"`
}

// sourceHead is the newest trusted revision of a source. Seq grows with every
// one, so that "at or after" is a comparison of numbers, never of dates.
type sourceHead struct {
	revision string
	seq      uint64
	commit   *policies.Commit
}

// source follows one source: one goroutine polls, readers get copies. It is
// safe for concurrent use.
type source struct {
	*sources.Source
	config  SourceConfig
	store   store.Store
	epoch   uint64
	opts    *Options
	budget  chan struct{}                        // per host, shared
	advance func(context.Context, *source, bool) // called after each poll: did anything change?
	jitter  func(time.Duration) time.Duration
	reader  func() string      // the first application of the source
	stop    context.CancelFunc // nil until it runs
	done    chan struct{}      // closed when run has ended
	event   func(context.Context, Event)
	kicks   chan struct{}
	polling chan struct{} // one poll at a time

	mu     sync.Mutex
	head   sourceHead
	record sourceRecord
	// announced is the seq of the head that the applications were told of.
	announced uint64
	polledAt  time.Time
	// answeredAt is when it was last known what the branch is, be it refused or gone.
	answeredAt time.Time
	next       time.Time
	err        error
	rewrite    string
	unsure     string // refused too: whether it descends from the head is not known
	opened     time.Time
	failures   int
	counted    sources.Requests // that Metrics know of
}

// load reads the high-water mark.
func (s *source) load(ctx context.Context) error {
	rec, err := s.store.Get(ctx, sourcePrefix+s.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	var r sourceRecord
	if err := json.Unmarshal(rec.Value, &r); err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	if r.Identity != s.config.Identity {
		return nil
	}
	s.record = r
	// The mirror may already hold it: then work goes on without the network.
	if _, err := s.Repository.Open(ctx, r.Revision); err == nil {
		s.head = sourceHead{revision: r.Revision, seq: 1, commit: s.describe(ctx, r.Revision)}
		s.announced = s.head.seq // whoever starts looks at it
	}
	return nil
}

// run polls until ctx ends.
func (s *source) run(ctx context.Context) {
	defer close(s.done)
	var watch sync.WaitGroup
	defer watch.Wait()
	if w, ok := sources.Ability[sources.Watcher](s.Repository); ok {
		watch.Go(func() { // a watch that fails leaves the polls
			err := patiently(ctx, closeGrace, func() error { return w.Watch(ctx, s.kick) })
			if err != nil && ctx.Err() == nil {
				s.opts.Log.Warn("source is not watched, only polled", "source", s.Name, "error", err)
			}
		})
	}
	for ctx.Err() == nil {
		_ = s.poll(ctx) // kept for the status; the delay grows with failures
		timer := time.NewTimer(s.delay())
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-s.kicks:
		}
		timer.Stop()
	}
}

func (s *source) kick() {
	select {
	case s.kicks <- struct{}{}:
	default:
	}
}

// delay returns the time to the next poll: the interval, doubled for each
// failure in a row up to the cap, with jitter.
func (s *source) delay() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.Interval
	if d <= 0 {
		d = defaultPoll
	}
	for range min(s.failures, 20) {
		d = min(2*d, max(pollMaxBackoff, s.Interval))
	}
	d = s.jitter(d)
	s.next = s.opts.Now().Add(d)
	return d
}

// poll asks for the ref and, only when it moved, fetches and checks the new
// revision. Whatever fails, the head stays where it is.
func (s *source) poll(ctx context.Context) error {
	s.mu.Lock()
	again := s.failures > 0
	s.mu.Unlock()
	if again {
		s.opts.Metrics.sourceRetry(s.Name)
	}
	start := s.opts.Now()
	free, err := s.await(ctx)
	if err == nil {
		err = s.bounded(ctx, func(ctx context.Context) error {
			defer free()
			return s.pollOnce(ctx)
		})
	}
	if err != nil {
		err = fmt.Errorf("%w; the last good revision stays", err)
	}
	if ctx.Err() != nil {
		return ctx.Err() // we were told to end: that says nothing about the source
	}
	now := s.opts.Now()
	s.opts.Metrics.poll(s.Name, now.Sub(start), now, err)
	s.mu.Lock()
	// Also what a poll that was abandoned came back with is news once.
	moved := s.head.seq != s.announced
	s.announced = s.head.seq
	changed := moved || (err == nil) != (s.err == nil) || err != nil && err.Error() != s.err.Error()
	s.tellTrouble(s.err, err)
	s.err = err
	switch {
	case err == nil:
		s.failures, s.polledAt, s.answeredAt = 0, now, now
	case answered(err):
		s.failures, s.answeredAt = s.failures+1, now
	default:
		s.failures++
	}
	s.mu.Unlock()
	s.advance(ctx, s, changed)
	return err
}

// answered reports whether an error of a poll is an answer: what the branch has
// become is known, and it is not what runs.
func answered(err error) bool {
	return errors.Is(err, sources.ErrRefNotFound) || errors.Is(err, sources.ErrHistoryRewritten)
}

// tellTrouble logs what a source fails with when that begins or becomes another
// class of error, and its end: texts may differ at each try.
func (s *source) tellTrouble(before, now error) {
	switch {
	case now == nil && before != nil:
		s.opts.Log.Info("source works again", "source", s.Name)
	case now != nil && (before == nil || class(now) != class(before)):
		s.opts.Log.Warn("source fails", "source", s.Name, "error", now)
	}
}

// class is the one of the errors of sources that err wraps, or nil.
func class(err error) error {
	for _, c := range []error{
		sources.ErrRefNotFound, sources.ErrUnauthorized, sources.ErrUntrusted, sources.ErrHistoryRewritten,
		sources.ErrRefused, sources.ErrDamaged, sources.ErrUnavailable,
	} {
		if errors.Is(err, c) {
			return c
		}
	}
	return nil
}

// bounded makes a call to the repository within the limits of a poll. One that
// outlives them by a tenth is abandoned: it keeps its turn until it returns.
func (s *source) bounded(ctx context.Context, call func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	err := patiently(limited, s.timeout()/10, func() error { return call(limited) })
	if errors.Is(err, ErrAbandoned) {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	return err
}

// close releases the mirror.
func (s *source) close() error {
	if err := ended(s.Repository.Close); err != nil {
		return fmt.Errorf("source %s: closing it: %w", s.Name, err)
	}
	return nil
}

// turn waits until no poll is under way and returns the function that lets the
// next one begin. Only who has the turn writes the record.
func (s *source) turn(ctx context.Context) (free func(), err error) {
	select {
	case s.polling <- struct{}{}:
		return func() { <-s.polling }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("source %s: another poll is under way: %w", s.Name, ctx.Err())
	}
}

// await waits for the turn of a poll and for a request to the host, in a time of
// its own: however many others ask that host, the poll then has all of its timeout.
func (s *source) await(ctx context.Context) (free func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout())
	defer cancel()
	end, err := s.turn(ctx)
	if err != nil {
		return nil, err
	}
	done, err := s.request(ctx)
	if err != nil {
		end()
		return nil, err
	}
	return func() { done(); end() }, nil
}

func (s *source) timeout() time.Duration {
	if s.Timeout > 0 {
		return s.Timeout
	}
	return defaultTimeout
}

// request waits for a turn to ask the host of the source and returns the
// function that ends it.
func (s *source) request(ctx context.Context) (free func(), err error) {
	select {
	case s.budget <- struct{}{}:
		return func() { <-s.budget; s.measure() }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("source %s: waiting for a request to %s: %w", s.Name, s.config.Host, ctx.Err())
	}
}

// measure publishes the requests that were made since it last did.
func (s *source) measure() {
	meter, ok := sources.Ability[sources.Meter](s.Repository)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, was := meter.Requests(), s.counted
	s.counted = now
	s.opts.Metrics.asked(s.Name, sources.Requests{
		Refs: now.Refs - was.Refs, RefsFailed: now.RefsFailed - was.RefsFailed,
		Fetches: now.Fetches - was.Fetches, FetchesFailed: now.FetchesFailed - was.FetchesFailed,
	})
}

func (s *source) pollOnce(ctx context.Context) error {
	ref, revision, err := s.Resolve(ctx)
	if err != nil {
		return err
	}
	if err := s.withdraw(ctx, revision); err != nil {
		return err
	}
	head := s.current()
	if revision == head.revision {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rewrite, s.unsure = "", "" // a branch that was rewritten stands again where it stood
		return nil
	}
	if err := s.Repository.Fetch(ctx, ref, revision); err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	if err := s.trust(ctx, revision); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil { // it came back too late
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	return s.adopt(ctx, revision)
}

// withdraw ends the permit for a rewritten revision once the branch is at another
// one: what was accepted is not what is there.
func (s *source) withdraw(ctx context.Context, revision string) error {
	s.mu.Lock()
	rec := s.record
	s.mu.Unlock()
	if rec.Accept == "" || rec.Accept == revision {
		return nil
	}
	rec.Accept = ""
	return s.save(ctx, rec)
}

// trust refuses a revision that does not descend from the last accepted one.
func (s *source) trust(ctx context.Context, revision string) error {
	s.mu.Lock()
	last, accept := s.record.Revision, s.record.Accept
	s.mu.Unlock()
	history, ok := sources.Ability[sources.History](s.Repository)
	if !ok || last == "" || last == revision || s.Trust.AllowRewrite || accept == revision {
		return nil
	}
	descends, err := history.IsAncestor(ctx, last, revision)
	switch {
	case err != nil:
		s.mu.Lock()
		s.unsure = revision
		s.mu.Unlock()
		return fmt.Errorf("source %s: whether %s descends from the accepted %s is not known: %w; if the branch was rewritten on purpose, run: gitopsd accept-history %s --revision %s --why \"...\"",
			s.Name, shortRevision(revision), shortRevision(last), err, s.reader(), revision)
	case descends:
		return nil
	}
	s.mu.Lock()
	known := s.rewrite == revision
	s.rewrite, s.unsure = revision, ""
	s.mu.Unlock()
	err = fmt.Errorf("source %s: %w: %s does not descend from the accepted %s; if that is meant, run: gitopsd accept-history %s --why \"...\"",
		s.Name, sources.ErrHistoryRewritten, shortRevision(revision), shortRevision(last), s.reader())
	if !known {
		s.event(ctx, Event{Kind: EventRewrite, Message: err.Error(), Data: map[string]any{"source": s.Name, "revision": revision, "accepted": last}})
	}
	return err
}

// adopt records a trusted revision as the head.
func (s *source) adopt(ctx context.Context, revision string) error {
	if k, ok := sources.Ability[sources.Keeper](s.Repository); ok {
		if err := k.Keep(ctx, "source/"+s.Name, revision); err != nil {
			return fmt.Errorf("source %s: %w", s.Name, err)
		}
	}
	rec := sourceRecord{Identity: s.config.Identity, Revision: revision, At: s.opts.Now()}
	if err := s.save(ctx, rec); err != nil {
		return err
	}
	commit := s.describe(ctx, revision)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head = sourceHead{revision: revision, seq: s.head.seq + 1, commit: commit}
	s.rewrite, s.unsure = "", ""
	return nil
}

func (s *source) save(ctx context.Context, rec sourceRecord) error {
	value, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if _, err := s.store.Commit(ctx, s.epoch, nil, []store.Op{{Key: sourcePrefix + s.Name, Value: value}}); err != nil {
		return fmt.Errorf("source %s: %w", s.Name, err)
	}
	s.mu.Lock()
	s.record = rec
	s.mu.Unlock()
	return nil
}

// acceptPrefix is how much of a revision names it.
const acceptPrefix = 7

// accept allows the refused revision to replace the head although it does not
// descend from it. Whoever names one, in full or by its first digits, must name
// that one. It waits for a poll under way, which may save a newer record.
func (s *source) accept(ctx context.Context, revision string) (string, error) {
	free, err := s.turn(ctx)
	if err != nil {
		return "", err
	}
	defer free()
	s.mu.Lock()
	rec, refused := s.record, cmp.Or(s.rewrite, s.unsure)
	s.mu.Unlock()
	switch {
	case refused == "":
		return "", fmt.Errorf("source %s: %w: no rewritten history waits to be accepted", s.Name, ErrPrecondition)
	case revision != "" && revision != refused && (len(revision) < acceptPrefix || !strings.HasPrefix(refused, revision)):
		return "", hinted(fmt.Errorf("source %s: %w: the refused revision is %q", s.Name, ErrPrecondition, refused), "look at it first and name that one")
	}
	rec.Accept = refused
	if err := s.save(ctx, rec); err != nil {
		return "", err
	}
	s.kick()
	return refused, nil
}

// describe returns what policies see of a commit, or nil where there are none.
func (s *source) describe(ctx context.Context, revision string) *policies.Commit {
	history, ok := sources.Ability[sources.History](s.Repository)
	if !ok {
		return nil
	}
	c, err := history.Commit(ctx, revision)
	if err != nil {
		return nil
	}
	return &policies.Commit{ID: c.ID, Author: fmt.Sprintf("%s <%s>", c.Author.Name, c.Author.Email), Message: c.Message, When: c.When}
}

// current returns the newest trusted revision; its seq is 0 before the first.
func (s *source) current() sourceHead {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

// doubt lowers the sync status of an application by what is known of its source:
// a head that was refused, or is gone, is not what runs, and one that could not be
// asked for longer than bound may have moved on. Before the first answer of this process
// the time counts from its start.
func (s *source) doubt(sync SyncStatus, message string, bound time.Duration) (SyncStatus, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answered(s.err) { // which the next answer ends, however rarely it is asked for
		return OutOfSync, message
	}
	if s.rewrite != "" {
		sync = OutOfSync
	}
	at := s.answeredAt
	if at.IsZero() {
		at = s.opened
	}
	if age := s.opts.Now().Sub(at); s.err != nil && age > bound {
		return Stale, fmt.Sprintf("the source has not answered for %s; %s", age.Round(time.Second), message)
	}
	return sync, message
}

// status returns what is known of the source.
func (s *source) status() SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SourceStatus{Name: s.Name, Revision: s.head.revision, PolledAt: s.polledAt, NextPoll: s.next, Rewrite: s.rewrite}
	if s.err != nil {
		st.Error = s.err.Error()
	}
	return st
}
