package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/sources"
)

// considerCandidate takes the head through render, policies, plan and gates,
// and when all of them let it pass, accepts and applies it.
func (r *round) considerCandidate(ctx context.Context) {
	cand := &Candidate{Revision: r.head.revision, State: CandidatePending, Since: r.started}
	r.out.candidate, r.out.retry = cand, true
	for _, step := range []struct {
		phase Phase
		do    func(context.Context, *Candidate) error
	}{
		{PhaseRendering, r.renderCandidate},
		{PhaseRendering, r.judgeCandidate},
		{PhaseWaiting, r.checkRivals},
		{PhaseWaiting, r.awaitOthers},
		{PhaseObserving, r.observeCandidate},
		{PhasePlanning, r.planCandidate},
		{PhaseWaiting, r.awaitHandover},
		{PhasePlanning, r.judgeChanges},
		{PhasePlanning, r.gateCandidate},
		{PhaseApplying, r.acceptCandidate},
	} {
		r.phase(step.phase)
		err := step.do(ctx, cand)
		if ctx.Err() != nil && (r.candidate == nil || r.accepted != r.candidate) { // told to end, which says nothing about the revision
			err, r.out.retry = ctx.Err(), true
			cand.State, cand.Denied, cand.Gates, cand.Digest = CandidatePending, nil, nil, ""
		}
		if err != nil {
			r.candidate = nil
			cand.Reason = err.Error()
			if why := r.unaccepted(); why != "" {
				cand.Reason += "; " + why
			}
			return
		}
	}
	r.out.candidate, r.out.retry = nil, false
	r.reportDrift()
	r.applyAndVerify(ctx, r.accepted, r.out.before)
}

// refuse makes the revision wait for a new commit.
func (r *round) refuse(cand *Candidate, err error) error {
	cand.State, r.out.retry = CandidateRefused, false
	return err
}

// refuseForNow refuses what may pass at another time, and tries again.
func (r *round) refuseForNow(cand *Candidate, err error) error {
	cand.State = CandidateRefused
	return err
}

// renderCandidate: any error refuses the revision; the one before stays.
func (r *round) renderCandidate(ctx context.Context, cand *Candidate) error {
	tree, err := r.m.open(ctx, r.app.Source, r.head.revision)
	if err != nil {
		return err // pending: the mirror is being repaired
	}
	defer r.m.renderSlot(ctx)()
	start := r.m.opts.Now()
	state, delta, err := r.next(ctx, tree)
	r.m.opts.Metrics.step(stepRender, r.m.opts.Now().Sub(start))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		r.m.registry.failDesire(r.app.Name, r.head.seq)
	}
	if errors.Is(err, errUnread) {
		return errors.Join(err, r.m.mend(ctx, r.app.Source, r.head.revision, err)) // pending: tried again
	}
	if errors.Is(err, appliers.ErrUndecided) {
		return err // pending: it says nothing about the revision
	}
	if err != nil {
		return r.refuse(cand, err)
	}
	state.seq, state.commit = r.head.seq, r.head.commit
	r.candidate, r.delta = state, delta
	r.m.registry.setDesire(r.app.Name, desire{source: r.app.Source, seq: state.seq, state: state})
	return nil
}

// next renders the head. What other settings made of a revision is no base to render
// from: the difference to it is then everything.
func (r *round) next(ctx context.Context, tree sources.Tree) (*desiredState, []plan.Key, error) {
	if !r.outdated {
		return r.app.pipe.next(ctx, tree, r.accepted)
	}
	state, delta, err := r.app.pipe.next(ctx, tree, nil)
	if err != nil {
		return nil, nil, err
	}
	for k := range r.accepted.items.all() {
		if _, still := state.items.get(k); !still {
			delta = append(delta, k)
		}
	}
	return state, dedupe(delta), nil
}

// judgeCandidate: a denial refuses the revision, and so does a policy that
// cannot be asked, which is asked again later. Either way nothing is allowed.
func (r *round) judgeCandidate(ctx context.Context, cand *Candidate) error {
	if r.policy.err != nil {
		return fmt.Errorf("%w; new revisions wait until it is mended", r.policy.err)
	}
	if !r.judged() {
		return fmt.Errorf("what runs could not be judged by the new policies, so new revisions wait: %s", r.out.message)
	}
	state, err := r.judge(ctx, r.candidate, r.delta)
	if err != nil {
		return r.refuseForNow(cand, err)
	}
	r.candidate = state
	for _, k := range r.delta {
		denied, _ := state.denied.get(k)
		for _, f := range denied {
			item, _ := state.items.get(k)
			f.Msg = named(item.Source.Origin(), k.ID, f.Msg)
			cand.Denied = append(cand.Denied, f)
		}
	}
	r.m.registry.setDesire(r.app.Name, desire{source: r.app.Source, seq: state.seq, state: state})
	if len(cand.Denied) > 0 {
		return r.refuse(cand, denial(cand.Denied))
	}
	return nil
}

// claims reports whether the candidate declares what the application does not own.
func (r *round) claims() bool {
	return slices.ContainsFunc(r.delta, func(k plan.Key) bool {
		item, wanted := r.candidate.items.get(k)
		e, owned := r.m.registry.entry(r.app.Name, k)
		return wanted && (!owned || e.Owner != r.app.Name || e.Locator != item.Locator)
	})
}

func denial(denied []policies.Finding) error {
	return fmt.Errorf("denied by policy %s: %s%s; mend it in a new commit", denied[0].Rule, denied[0].Msg, more(len(denied)-1))
}

// rivalPatience is how long a revision that declares something new waits for the
// other applications of its source to look at it: who is busy for longer is too
// late, and finds that it is declared already.
const rivalPatience = 10 * time.Second

// checkRivals refuses keys or addresses that another application desires too,
// and waits for one that owns them and has not looked at this revision yet. What
// two declare in one commit is refused to both, whoever looks first.
func (r *round) checkRivals(ctx context.Context, cand *Candidate) error {
	if r.claims() {
		limited, cancel := context.WithTimeout(ctx, rivalPatience)
		r.m.registry.awaitTried(limited, r.app.Name, r.app.Source, r.candidate.seq)
		cancel()
	}
	c, found := r.m.registry.rival(r.app.Name, r.app.Source, r.candidate, r.delta)
	if !found {
		return nil
	}
	cand.contested = true
	item, _ := r.candidate.items.get(c.key)
	if c.unknown {
		return c.refusal(item)
	}
	return r.refuse(cand, c.refusal(item))
}

// refusal says why the item that is claimed cannot be had.
func (c claim) refusal(item desiredItem) error {
	place := fmt.Sprintf("%s at %s", named(item.Source.Origin(), c.key.ID, ""), item.Locator)
	if c.unknown {
		return fmt.Errorf("%s belongs to application %s, which has not looked at this revision yet", place, c.rival)
	}
	return fmt.Errorf("%s is also declared by application %s at %s; keep one of them", place, c.rival, c.origin)
}

// awaitOthers holds the revision until the applications it depends on are in
// step with the same revision.
func (r *round) awaitOthers(_ context.Context, _ *Candidate) error {
	if r.suspended {
		r.out.retry = false // resuming is news
		return errors.New("suspended: the revision is looked at after gitopsd resume")
	}
	for _, name := range r.app.DependsOn {
		if reason := r.m.notReady(name, r.app.Source, r.candidate.seq); reason != "" {
			r.out.awaits = awaited{name, r.candidate.seq, reason}
			return fmt.Errorf("waits for application %s: %s", name, reason)
		}
	}
	return nil
}

// observeCandidate asks about everything that the revision changes, and about
// all else that is due.
func (r *round) observeCandidate(ctx context.Context, _ *Candidate) error {
	scope := append(append([]plan.Key(nil), r.delta...), r.dirty...)
	for k := range r.failures {
		scope = append(scope, k)
	}
	if r.full || r.accepted == nil {
		scope = append(append(scope, r.candidate.allKeys()...), r.m.registry.keys(r.app.Name)...)
		r.full = true
	}
	parted, err := r.part(ctx, r.candidate, dedupe(scope))
	if err != nil {
		return err // pending: the store did not take it
	}
	r.parted = parted
	r.dirty = append(r.dirty, parted...) // if it is not accepted, they are looked at as they were
	r.setScope(dedupe(append(scope, parted...)))
	r.arm(r.candidate, r.delta)
	r.observe(ctx, r.candidate)
	return ctx.Err()
}

func (r *round) planCandidate(_ context.Context, cand *Candidate) error {
	p, err := r.build(r.candidate, r.scopeKeys())
	if err != nil {
		return r.refuse(cand, err)
	}
	r.out.before, r.out.proposed = p, p
	cand.Plan = p.Counts
	return nil
}

// handoverPatience is how long a revision that needs an approval for what may be
// handed over instead waits for the other applications to look at it. Whatever
// nobody is known to want by then counts as a delete.
const handoverPatience = time.Minute

// awaitHandover waits, where it decides whether the plan runs into a guard, until
// the other applications have said which of the deletes they take over. Else part
// of the revision would be written and its deletes be held only later.
func (r *round) awaitHandover(ctx context.Context, cand *Candidate) error {
	left := r.handoverLeft()
	if !r.gatesUndecided() {
		return nil
	}
	cand.contested = true // news of the others may free it
	limited, cancel := context.WithTimeout(ctx, min(left, rivalPatience))
	late := r.m.registry.awaitTried(limited, r.app.Name, r.app.Source, r.candidate.seq)
	cancel()
	if err := r.planCandidate(ctx, cand); err != nil {
		return err
	}
	if late != "" && r.gatesUndecided() && r.handoverLeft() > 0 {
		return fmt.Errorf("%d objects go, unless another application takes them over, and application %s has not looked at this revision yet; look at it with: gitopsd status %s",
			len(r.undecided), late, late)
	}
	return nil
}

// handoverLeft is what is left of the patience with the other applications.
func (r *round) handoverLeft() time.Duration {
	since := r.since
	if since.IsZero() {
		since = r.started
	}
	return max(0, handoverPatience-r.m.opts.Now().Sub(since))
}

// gatesUndecided reports whether a guard that no approval covers is about a
// delete of which nobody knows whether it is a hand-over instead.
func (r *round) gatesUndecided() bool {
	gates := r.out.before.Gates
	return r.app.approved(r.app.pipe.input(r.candidate), gates, r.m.opts.Now()) == nil &&
		slices.ContainsFunc(gates, func(g plan.Gate) bool {
			return slices.ContainsFunc(g.Changes, func(c plan.GatedChange) bool { return r.undecided[c.Key] })
		})
}

// judgeChanges asks the rules about changes. A denied intent refuses the
// revision; a denied heal is blocked by itself.
func (r *round) judgeChanges(ctx context.Context, cand *Candidate) error {
	verdicts, err := r.judgePlan(ctx, r.out.before, r.candidate.commit)
	if err != nil {
		return r.refuseForNow(cand, err)
	}
	r.out.cautioned = true
	changed := r.changed()
	intended := func(c *plan.Change) bool {
		if r.accepted == nil { // what goes is in no delta then
			return c.Cause != plan.Drift
		}
		return changed[c.Key]
	}
	var denied []policies.Finding
	for i := range r.out.before.Changes {
		c := &r.out.before.Changes[i]
		for _, f := range about(c, verdicts[c.Key].Deny) {
			if intended(c) {
				denied = append(denied, f)
			} else if c.Blocked == "" {
				c.Blocked = violation(f.Rule, f.Msg)
				r.out.before.Counts.Blocked++
			}
		}
	}
	cand.Denied = append(cand.Denied, denied...)
	if len(denied) > 0 {
		return r.refuse(cand, denial(denied))
	}
	return nil
}

// gateCandidate holds a plan that runs into a guard until somebody approves it.
func (r *round) gateCandidate(_ context.Context, cand *Candidate) error {
	p := r.out.before
	if len(p.Gates) == 0 {
		return nil
	}
	input := r.app.pipe.input(r.candidate)
	if a := r.app.approved(input, p.Gates, r.m.opts.Now()); a != nil {
		r.approval = a
		return nil
	}
	if r.holdsNothingNew(p.Gates) {
		r.holdDeletes(p, r.candidate)
		return nil
	}
	cand.State, cand.Gates, cand.Digest, cand.input = CandidateHeld, p.Gates, approvalDigest(p, input), input
	r.out.retry = false
	return needsApproval(r.app.Name, p)
}

// approvalDigest names what a person approves: the gated changes, and the files
// and settings they come from.
func approvalDigest(p *plan.Plan, input string) string {
	sum := sha256.Sum256([]byte(p.GatedDigest() + "\x00" + input))
	return hex.EncodeToString(sum[:])
}

func needsApproval(application string, p *plan.Plan) error {
	return fmt.Errorf("needs an approval: %s; look at it with: gitopsd diff %s, which prints the command that approves it",
		p.Gates[0].Message, application)
}

// acceptCandidate makes the revision the one that is applied and healed to. A
// revision that changes nothing of what this application reads costs no record:
// after a restart the one before is restored, which is the same.
func (r *round) acceptCandidate(ctx context.Context, _ *Candidate) error {
	if r.matters() {
		rec := r.record
		rec.Revision, rec.Source, rec.AcceptedAt = r.candidate.revision, r.app.Source, r.m.opts.Now()
		rec.Input, rec.Owed = r.app.pipe.input(r.candidate), true
		if err := r.m.keep(ctx, r.app.Source, "app/"+r.app.Name, rec.Revision); err != nil {
			return err
		}
		if err := r.m.saveApp(ctx, r.app.Name, rec); err != nil {
			return err
		}
		r.record, r.out.record, r.out.first = rec, rec, true
	}
	r.setAccepted(r.candidate, r.policy.judge)
	r.outdated, r.out.outdated = false, false
	r.out.message = "" // what was wrong with the one before
	r.out.delta = r.delta
	r.m.registry.setDesire(r.app.Name, desire{source: r.app.Source, seq: r.candidate.seq, ready: true, state: r.candidate})
	if r.out.first {
		r.event(EventAccepted, "accepted "+shortRevision(r.candidate.revision), map[string]any{"revision": r.candidate.revision, "counts": r.out.before.Counts})
	}
	return nil
}

// matters reports whether accepting the candidate is news for the application:
// it changes an object, or ends the refusal of another revision.
func (r *round) matters() bool {
	return r.accepted == nil || len(r.delta) > 0 || r.record.Last.Outcome == OutcomeRefused || r.record.Last.Outcome == OutcomeHeld
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" (and %d more)", n)
}

// input names what a state was made of: the files read, the variables, and the
// routes that decide its keys. Two states with one input have the same objects
// under the same keys, whatever their revisions.
func (p *pipeline) input(s *desiredState) string {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode([]any{s.rendered.InputDigest(), p.app.Routes}); err != nil { // strings always marshal
		panic(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
