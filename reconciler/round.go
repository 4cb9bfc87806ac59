package reconciler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// roundInput is what a round starts from: a snapshot that nobody else changes.
type roundInput struct {
	app       *app
	head      sourceHead
	policy    policySnapshot
	attempt   attempt
	record    appRecord
	accepted  *desiredState
	outdated  bool // accepted is what other settings made of it
	judgedBy  string
	observed  keyMap[plan.Observed]
	contended map[plan.FieldRef]bool
	failures  map[plan.Key]failure
	blocked   map[plan.Key]string
	pending   map[plan.Key]time.Time
	watching  watching
	drift     map[plan.FieldRef]DriftedField
	suspended bool
	restore   bool      // look for the accepted revision of the record first
	rejudge   bool      // ask the policies about what is accepted
	evaluate  bool      // look at the head of the source
	full      bool      // look at every object
	force     bool      // do not wait for the time of a retry
	stuck     string    // why restoring or judging did not work the last time
	since     time.Time // when the head was first looked at; zero when it was not
	dirty     []plan.Key
}

// roundResult is what a round hands back to the application's goroutine.
type roundResult struct {
	record    appRecord
	accepted  *desiredState
	outdated  bool
	delta     []plan.Key // what differs between the accepted state and the one before
	judgedBy  string
	restored  bool
	stepped   bool // restoring or judging what is accepted was tried
	stuck     bool // that did not work and is tried again
	broken    bool // the round did not come to its end: look again after a pause
	evaluated bool // the attempt was made
	attempt   attempt
	candidate *Candidate
	retry     bool       // the candidate may pass later without any news
	awaits    awaited    // the application that it waits for
	proposed  *plan.Plan // what the candidate would do
	hold      *Candidate // changes of the accepted revision that need an approval
	first     bool       // the revision was not accepted before
	observed  keyMap[plan.Observed]
	writers   map[plan.Key]string   // who wrote what drifted
	lookedAt  time.Time             // when every object was last asked for; zero when not all were
	unread    map[plan.Key]struct{} // what was not answered for then
	looked    bool                  // a complete look was made, with or without all answers
	scope     map[plan.Key]struct{}
	before    *plan.Plan // what there was to do
	after     *plan.Plan // what is left
	failures  map[plan.Key]failure
	blocked   map[plan.Key]string
	pending   map[plan.Key]time.Time // when to look at asynchronous work again
	unhealthy map[plan.Key]appliers.Health
	watching  watching
	cautions  map[plan.Key][]policies.Finding // what policies warned of, by each change that was judged
	cautioned bool                            // these are about a whole revision
	written   map[plan.Key]struct{}           // what was written, and is confirmed or was found there
	applied   int
	deleted   int
	again     bool   // what had to wait can go on
	heard     uint64 // the news about others that the round knew, see registry.heard
	message   string
}

// round is one pass over an application: a list of named steps, run outside the
// application's goroutine. Everything up to the plan is read-only.
type round struct {
	roundInput
	m   *Manager
	out roundResult

	candidate *desiredState // the head, rendered and judged; nil when not viable
	delta     []plan.Key    // what differs between accepted and candidate
	parted    []plan.Key    // what the candidate gives another address, under its name and under the one of the old address
	moves     []transfer
	// undecided are the deletes that the candidate would bring unless another
	// application, whose wishes are not known, takes the objects over.
	undecided map[plan.Key]bool
	approval  *Approval
	started   time.Time

	// waited: a change waited for another one of this round; met: such a one turned
	// out to be complete after all.
	waited, met bool
}

// guard runs the round and turns a panic into a failure of this application alone.
func (r *round) guard(ctx context.Context) roundResult {
	err := contained(func() error { r.run(ctx); return nil })
	if err == nil {
		return r.out
	}
	var p *panicked
	for errors.As(err, &p) { // the innermost one tells where it broke
		inner, ok := p.value.(error)
		if !ok || !errors.As(inner, new(*panicked)) {
			break
		}
		err = inner
	}
	r.app.log.Error("round ended by a panic", "error", p.value, "stack", p.stack)
	r.out.message = err.Error()
	r.out.looked, r.out.stuck, r.out.broken = r.full, true, true
	// What the round had found is not complete: all that was known stays.
	r.out.scope, r.out.before, r.out.after = nil, nil, nil
	for k, f := range r.failures {
		if _, known := r.out.failures[k]; !known {
			r.out.failures[k] = f
		}
	}
	if r.out.evaluated && r.out.candidate == nil && r.out.accepted == r.roundInput.accepted {
		r.out.candidate = &Candidate{Revision: r.head.revision, State: CandidatePending, Since: r.started}
	}
	if c := r.out.candidate; c != nil && c.Reason == "" {
		c.Reason, r.out.retry = r.out.message, true
	}
	return r.out
}

// run goes through the steps. A candidate that cannot be accepted leaves the
// accepted revision in charge, whose drift is still healed.
func (r *round) run(ctx context.Context) {
	r.started = r.m.opts.Now()
	r.out = roundResult{
		heard:   r.m.registry.heard(r.app.Name),
		attempt: r.attempt, record: r.record, accepted: r.accepted, outdated: r.outdated, judgedBy: r.judgedBy, observed: r.observed,
		watching: r.watching, failures: r.failures, pending: map[plan.Key]time.Time{}, writers: map[plan.Key]string{},
		cautions: map[plan.Key][]policies.Finding{}, written: map[plan.Key]struct{}{},
	}
	if r.restore {
		r.restoreAccepted(ctx)
	} else if r.accepted == nil {
		r.out.message = r.stuck
	}
	r.rejudgeAccepted(ctx)
	if r.evaluate {
		r.out.evaluated = true
		if r.accepted == nil || r.out.outdated || r.accepted.revision != r.head.revision {
			r.considerCandidate(ctx)
		} else {
			r.catchUp()
		}
	}
	if r.out.message == "" {
		r.out.message = r.unaccepted()
	}
	if r.candidate == nil {
		r.maintain(ctx)
	}
	r.conclude(ctx)
}

// restoreAccepted renders, after a start, the revision that was accepted last.
// The mirror serves it without the network; if it is not there, work waits for the source.
func (r *round) restoreAccepted(ctx context.Context) {
	if r.record.Revision == "" {
		r.out.restored = true
		return
	}
	r.out.stepped = true
	tree, err := r.m.open(ctx, r.app.Source, r.record.Revision)
	if err != nil {
		r.out.stuck = true
		r.out.message = fmt.Sprintf("the accepted revision %s is not in the local mirror yet: %v", shortRevision(r.record.Revision), err)
		return
	}
	r.phase(PhaseRendering)
	defer r.m.renderSlot(ctx)()
	state, _, err := r.app.pipe.next(ctx, tree, nil)
	switch {
	case errors.Is(err, appliers.ErrUndecided): // it will tell
		r.out.stuck = true
		r.out.message = fmt.Sprintf("the accepted revision %s: %v", shortRevision(r.record.Revision), err)
		return
	case errors.Is(err, errUnread):
		r.out.stuck = true
		r.out.message = fmt.Sprintf("the accepted revision %s: %v", shortRevision(r.record.Revision), errors.Join(err, r.m.mend(ctx, r.app.Source, r.record.Revision, err)))
		return
	case err != nil:
		// The settings have changed since it was accepted; the newest revision is
		// judged by itself.
		r.out.restored = true
		r.out.message = fmt.Sprintf("the accepted revision %s does not render any more: %v", shortRevision(r.record.Revision), err)
		r.m.registry.failDesire(r.app.Name, 0)
		return
	}
	if r.app.pipe.input(state) != r.record.Input {
		// The settings have changed: what they make of the revision was never
		// accepted, and goes through every gate like a new one.
		r.out.restored = true
		return
	}
	if state.revision == r.head.revision {
		state.seq, state.commit = r.head.seq, r.head.commit
	} else if s := r.m.source(r.app.Source); s != nil { // its place in the order is not known
		state.commit = s.describe(ctx, state.revision)
	}
	r.accepted, r.out.accepted, r.out.restored = state, state, true
	r.outdated, r.out.outdated = false, false
	r.judgedBy = ""
	r.full = true
	r.m.registry.setDesire(r.app.Name, desire{source: r.app.Source, seq: state.seq, ready: true, state: state})
}

// rejudgeAccepted asks new policies about what already runs. What they deny is
// not deleted: changes to it are blocked until the policy or the object changes.
func (r *round) rejudgeAccepted(ctx context.Context) {
	if r.accepted == nil || r.policy.policy == nil || r.judgedBy == r.policy.judge {
		return
	}
	if r.accepted == r.roundInput.accepted && !r.rejudge && !r.evaluate {
		r.out.message = r.stuck // it did not work a moment ago
		return
	}
	r.out.stepped = true
	state, err := r.judge(ctx, r.accepted, r.accepted.allKeys())
	if err != nil {
		r.out.stuck = true
		r.out.message = err.Error()
		return
	}
	r.setAccepted(state, r.policy.judge)
	for k := range state.denied.all() {
		r.dirty = append(r.dirty, k)
	}
}

// unaccepted says why nothing at all is written while there is no accepted
// state, or "" when none was ever accepted.
func (r *round) unaccepted() string {
	switch {
	case r.out.outdated:
		return fmt.Sprintf("the settings have changed since %s was accepted, and what they were before stays in charge until what they make of the newest revision is accepted", shortRevision(r.accepted.revision))
	case r.accepted != nil || r.record.Revision == "":
		return ""
	}
	return fmt.Sprintf("the settings have changed since %s was accepted, so nothing is written, not even against drift, until what they make of the newest revision is accepted", shortRevision(r.record.Revision))
}

// judged reports whether the policies in force were asked about all that is accepted.
func (r *round) judged() bool {
	return r.accepted == nil || r.policy.policy == nil || r.judgedBy == r.policy.judge
}

func (r *round) judge(ctx context.Context, state *desiredState, keys []plan.Key) (*desiredState, error) {
	start := r.m.opts.Now()
	next, err := state.judge(ctx, r.policy.policy, keys)
	r.m.opts.Metrics.step(stepPolicy, r.m.opts.Now().Sub(start))
	return next, err
}

func (r *round) setAccepted(state *desiredState, judgedBy string) {
	r.accepted, r.judgedBy = state, judgedBy
	r.out.accepted, r.out.judgedBy = state, judgedBy
}

// catchUp notes that the head is the accepted revision, and at which place in
// the order of the source it stands.
func (r *round) catchUp() {
	if r.accepted.seq != r.head.seq {
		state := *r.accepted
		state.seq, state.commit = r.head.seq, r.head.commit
		r.setAccepted(&state, r.judgedBy)
	}
	r.m.registry.setDesire(r.app.Name, desire{source: r.app.Source, seq: r.accepted.seq, ready: true, state: r.accepted})
}

func (r *round) phase(p Phase) {
	r.app.phase.Store(p)
	r.m.changed()
}

// event tells what happened. It is durable before the round writes anything more
// to a target.
func (r *round) event(kind EventKind, message string, data map[string]any) {
	r.app.tell(kind, message, data)
}

// shortRevision is a revision as people read it.
func shortRevision(rev string) string {
	return rev[:min(12, len(rev))]
}
