package reconciler

import (
	"context"
	"fmt"
	"slices"

	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// maintain heals what the accepted revision says, over what is due.
func (r *round) maintain(ctx context.Context) {
	r.out.looked, r.out.before = r.full, nil // what a refused candidate left there is not about this
	r.setScope(nil)
	if r.accepted == nil {
		return
	}
	scope := append([]plan.Key(nil), r.dirty...)
	if r.full {
		scope = append(append(scope, r.accepted.allKeys()...), r.m.registry.keys(r.app.Name)...)
	}
	if len(scope) == 0 {
		return
	}
	r.phase(PhaseObserving)
	parted, err := r.part(ctx, r.accepted, dedupe(scope))
	if err != nil {
		r.out.message, r.out.broken = err.Error(), true
		return
	}
	r.setScope(dedupe(append(scope, parted...)))
	r.arm(r.accepted, nil)
	r.observe(ctx, r.accepted)
	r.phase(PhasePlanning)
	p, err := r.build(r.accepted, r.scopeKeys())
	if err != nil {
		r.out.message, r.out.broken = err.Error(), true
		return
	}
	r.out.before = p
	r.restrain(ctx, p)
	r.reportDrift()
	r.applyAndVerify(ctx, r.accepted, p)
}

// restrain blocks what a round without a new revision must not do by itself:
// everything while suspended or unjudged, deletes over budget, what policy denies.
func (r *round) restrain(ctx context.Context, p *plan.Plan) {
	switch {
	case r.suspended:
		block(p, func(*plan.Change) string {
			return r.app.suspended()
		})
		return
	case r.policy.policy == nil && r.policy.err != nil:
		block(p, func(*plan.Change) string { return r.policy.err.Error() })
		return
	case !r.judged():
		block(p, func(*plan.Change) string {
			return "the policies could not be asked about what runs, so nothing is written: " + r.out.message
		})
		return
	}
	r.holdDeletes(p, r.accepted)
	verdicts, err := r.judgePlan(ctx, p, r.accepted.commit)
	if err != nil {
		block(p, func(*plan.Change) string { return err.Error() })
		return
	}
	block(p, func(c *plan.Change) string {
		if denied := verdicts[c.Key].Deny; len(denied) > 0 {
			return violation(denied[0].Rule, denied[0].Msg)
		}
		return ""
	})
}

// suspended is why a change of a suspended application is not made.
func (a *app) suspended() string {
	s := a.suspension()
	if s == nil { // it has run out meanwhile
		s = &Suspension{}
	}
	return "suspended; " + s.end(a.Name)
}

// holdDeletes blocks deletes of a plan for state that need an approval nobody has
// given, and changes that would delete besides.
func (r *round) holdDeletes(p *plan.Plan, state *desiredState) {
	if len(p.Gates) == 0 {
		return
	}
	input := r.app.pipe.input(state)
	if r.approval = r.app.approved(input, p.Gates, r.m.opts.Now()); r.approval != nil {
		return
	}
	reason := needsApproval(r.app.Name, p).Error()
	r.out.hold = &Candidate{
		Revision: state.revision, State: CandidateHeld, Reason: reason,
		Gates: p.Gates, Digest: approvalDigest(p, input), Plan: p.Counts, Since: r.started, input: input,
	}
	block(p, func(c *plan.Change) string {
		if deletes(c) {
			return reason
		}
		return ""
	})
}

func violation(rule, msg string) string {
	return fmt.Sprintf("PolicyViolation: %s: %s; it is left as it is until a commit or the policy changes", rule, msg)
}

// judgePlan asks about every change that would write and returns the verdicts
// by key. What they warn of is noted for the status.
func (r *round) judgePlan(ctx context.Context, p *plan.Plan, commit *policies.Commit) (map[plan.Key]policies.Verdict, error) {
	var changes []policies.Change
	var judged []*plan.Change
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Blocked == "" && c.Action != plan.None && c.Action != plan.Forget {
			known, err := asDeclared(c)
			if err != nil {
				return nil, fmt.Errorf("policy: %s: %w", c.Key, err)
			}
			judged = append(judged, c)
			changes = append(changes, policies.Change{Application: r.app.Name, Change: known, Commit: commit, LastApplied: c.Entry.Applied})
		}
	}
	if len(changes) == 0 || r.policy.policy == nil {
		return nil, nil
	}
	start := r.m.opts.Now()
	verdicts, err := r.policy.policy.Changes(ctx, changes)
	r.m.opts.Metrics.step(stepPolicy, r.m.opts.Now().Sub(start))
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if len(verdicts) != len(changes) {
		return nil, fmt.Errorf("policy: %d verdicts for %d changes", len(verdicts), len(changes))
	}
	byKey := make(map[plan.Key]policies.Verdict, len(changes))
	for i, v := range verdicts {
		c := judged[i]
		byKey[c.Key] = v
		r.out.cautions[c.Key] = about(c, v.Warn)
	}
	return byKey, nil
}

// about names in findings the change that they are about.
func about(c *plan.Change, findings []policies.Finding) []policies.Finding {
	out := slices.Clone(findings)
	for i := range out {
		out[i].Msg = fmt.Sprintf("%s: %s: %s", named(c.Origin, c.Key.ID, ""), c.Action, out[i].Msg)
	}
	return out
}

// block sets the reason on every change that is not blocked yet and would do something.
func block(p *plan.Plan, reason func(*plan.Change) string) {
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Blocked != "" || c.Action == plan.None {
			continue
		}
		if why := reason(c); why != "" {
			c.Blocked = why
			p.Counts.Blocked++
		}
	}
}
