package reconciler

import (
	"context"
	"errors"
	"fmt"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// conclude writes the history and leaves the look's result complete.
func (r *round) conclude(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	r.out.blocked = map[plan.Key]string{}
	r.out.again = r.waited && r.met
	if p := r.out.after; p != nil {
		for i := range p.Changes {
			c := &p.Changes[i]
			if _, failed := r.out.failures[c.Key]; c.Blocked != "" && !failed {
				r.out.blocked[c.Key] = c.Blocked
			}
		}
	}
	if err := r.tellViolations(ctx); err != nil {
		r.out.message = err.Error()
	}
	entry := r.historyEntry()
	if entry == nil {
		return
	}
	if entry.Outcome == OutcomeHeld {
		r.out.record.Asked = r.out.candidate.asked()
	}
	rec, err := r.m.appendHistory(ctx, r.app.Name, r.out.record, *entry)
	if err != nil {
		r.out.message = errors.Join(errors.New("the history was not written"), err).Error()
		return
	}
	r.out.record = rec
}

// historyEntry says how a revision ended, or nil when there is no news.
func (r *round) historyEntry() *HistoryEntry {
	e := HistoryEntry{
		Application: r.app.Name, Revision: r.head.revision, Commit: r.head.commit,
		Started: r.started, Finished: r.m.opts.Now(),
	}
	if r.approval != nil {
		e.Approver = r.approval.By
	}
	last, planned := r.record.Last, r.out.before
	switch c := r.out.candidate; {
	case c != nil && c.State == CandidateRefused:
		e.Outcome, e.Reason, planned = OutcomeRefused, c.Reason, r.out.proposed
	case c != nil && c.State == CandidateHeld:
		if r.record.Asked == c.asked() {
			return nil
		}
		e.Outcome, e.Reason, planned = OutcomeHeld, c.Reason, r.out.proposed
	case !r.news(last):
		return nil
	default:
		e.Revision, e.Commit = r.accepted.revision, r.accepted.commit
		e.Outcome, e.Reason = OutcomeSynced, ""
		failed, waiting := r.open()
		alone := r.leftAlone()
		if failed+waiting+alone > 0 {
			e.Outcome, e.Reason = OutcomePartial, fmt.Sprintf("%d failed, %d wait", failed, waiting)
			if alone > 0 {
				e.Reason += fmt.Sprintf(", %d contended", alone)
			}
			if last.Outcome == OutcomePartial && last.Revision == e.Revision {
				return nil // its end is told once it is complete
			}
		}
	}
	if planned != nil {
		e.Counts = planned.Counts
	}
	if e.Outcome != OutcomeHeld && e.Approver == "" && last == (lastOutcome{Revision: e.Revision, Outcome: e.Outcome, Reason: e.Reason}) {
		r.out.record.Owed = r.out.record.Owed && e.Outcome == OutcomeRefused // else it is told already
		return nil
	}
	return &e
}

func (c *Candidate) asked() asked { return asked{Revision: c.Revision, Digest: c.Digest} }

// news reports whether the accepted revision has come to an end worth a line:
// it is not told yet, an approval was used, or what was open is complete.
func (r *round) news(last lastOutcome) bool {
	if r.accepted == nil || r.out.before == nil {
		return false
	}
	return r.record.Owed || r.approval != nil && r.out.deleted > 0 || last.Outcome == OutcomePartial && last.Revision == r.record.Revision
}

// open counts the objects of the whole application that are not as desired.
func (r *round) open() (failed, waiting int) {
	waiting = len(r.out.blocked) + len(r.out.pending)
	for k := range r.blocked {
		if _, looked := r.out.scope[k]; !looked {
			waiting++
		}
	}
	for k := range r.pending {
		if _, looked := r.out.scope[k]; !looked {
			waiting++
		}
	}
	return len(r.out.failures), waiting
}
