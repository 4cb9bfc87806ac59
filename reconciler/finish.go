package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// finish takes in what a round brought back.
func (a *app) finish(st *appState, res roundResult) {
	now := a.m.opts.Now()
	run := st.running
	st.running = nil
	st.rounds++
	a.m.opts.Metrics.round(a.Name)
	if res.evaluated {
		a.finishCandidate(st, res, now)
	}
	if res.hold != nil || res.looked || res.accepted != st.accepted || st.hold.within(res.scope) {
		a.tellHold(st.hold, res.hold)
		st.hold = res.hold
	}
	if res.accepted != st.accepted {
		st.fights.forget(res.delta)
	}
	a.watch(st, res)
	st.record, st.accepted, st.outdated, st.judgedBy = res.record, res.accepted, res.outdated, res.judgedBy
	st.restored = st.restored || res.restored
	st.observed, st.failures = res.observed, res.failures
	st.message = res.message
	st.takeLook(res)
	if res.looked {
		st.nextLook = now.Add(a.m.jitter(a.Interval))
		st.fights.tidy(a.Contention, now)
	}
	switch {
	case res.broken:
		st.brokenRetry.fail(a.m, now, a.RetryMax)
	case res.looked:
		st.brokenRetry = retryTimer{}
	}
	switch {
	case res.stuck:
		st.stepRetry.fail(a.m, now, a.RetryMax)
	case res.stepped:
		st.stepRetry = retryTimer{}
	}
	replaceScope(st.blocked, res.scope, res.blocked)
	replaceScope(st.pending, res.scope, res.pending)
	replaceScope(st.unhealthy, res.scope, res.unhealthy)
	st.takeCautions(res)
	a.scheduleLooks(st, now)
	if res.again {
		a.again()
	}
	a.takeDrift(st, res, now)
	if res.after != nil && a.syncOf(st) == Synced {
		st.syncedAt = now
	}
	a.setHopes(st)
	if a.hopes.Load()&hopesForOwner != 0 && a.m.registry.heard(a.Name) != res.heard || a.m.moved(a.Source, res.awaits) {
		a.again() // the news came while nobody knew that it was hoped for
	}
	a.report(st, res)
	st.release = append(st.release, run.waiters...)
	a.departed()
}

// replaceScope replaces what is known of the keys that were looked at.
func replaceScope[V any](known map[plan.Key]V, scope map[plan.Key]struct{}, news map[plan.Key]V) {
	for k := range known {
		if _, looked := scope[k]; looked {
			delete(known, k)
		}
	}
	maps.Copy(known, news)
}

// takeCautions keeps what policies warned of: about a change until another one of
// the same object is judged, and no longer than until the next revision is.
func (st *appState) takeCautions(res roundResult) {
	if res.cautioned {
		clear(st.cautions)
	}
	for k, warned := range res.cautions {
		if len(warned) == 0 {
			delete(st.cautions, k)
		} else {
			st.cautions[k] = warned
		}
	}
}

// cautionList is at most maxErrors of the cautions, sorted by key.
func (st *appState) cautionList() []policies.Finding {
	var out []policies.Finding
	for _, k := range slices.SortedFunc(maps.Keys(st.cautions), plan.Key.Compare) {
		out = append(out, st.cautions[k]...)
	}
	if len(out) > maxErrors {
		out = append(out[:maxErrors], policies.Finding{Msg: "and more"})
	}
	return out
}

// takeLook keeps when all objects were known together. A look that left some
// unread is complete once each of them is known, or of no concern any more: its
// answers are then at most as old as its beginning.
func (st *appState) takeLook(res roundResult) {
	if !res.lookedAt.IsZero() {
		st.askedAt, st.unread = res.lookedAt, res.unread
	}
	maps.DeleteFunc(st.unread, func(k plan.Key, _ struct{}) bool {
		o, asked := st.observed.get(k)
		return !asked || o.Presence != plan.PresenceUnknown
	})
	if len(st.unread) == 0 && !st.askedAt.IsZero() {
		st.lookedAt, st.askedAt = st.askedAt, time.Time{}
	}
}

// scheduleLooks sets when objects are looked at again that nobody will report.
func (a *app) scheduleLooks(st *appState, now time.Time) {
	unread, moving := len(st.unread) > 0, false
	for k := range st.blocked {
		o, _ := st.observed.get(k)
		unread = unread || o.Presence == plan.PresenceUnknown
	}
	for _, h := range st.unhealthy {
		moving = moving || h.Status == appliers.Progressing
	}
	set := func(t *retryTimer, wanted bool, limit time.Duration) {
		switch {
		case !wanted:
			*t = retryTimer{}
		case t.over(now): // one that runs is left to run
			t.fail(a.m, now, limit)
		}
	}
	set(&st.unreadRetry, unread, a.RetryMax)
	set(&st.healthRetry, moving, a.Interval)
}

func (a *app) finishCandidate(st *appState, res roundResult, now time.Time) {
	previous := st.candidate
	st.candidate = res.candidate
	st.tried, st.proposed = res.attempt, res.proposed
	if res.candidate == nil || !res.retry {
		st.candidateRetry = retryTimer{}
	} else {
		st.candidateRetry.fail(a.m, now, a.RetryMax)
	}
	if res.candidate == nil {
		return
	}
	if previous != nil && previous.Revision == res.candidate.Revision {
		res.candidate.Since = previous.Since
	}
	if res.candidate.State == CandidatePending {
		return
	}
	if a.toldOf(st, previous, res.candidate) {
		return
	}
	kind, verb := EventRefused, "refused"
	if res.candidate.State == CandidateHeld {
		kind, verb = EventHeld, "held"
	}
	a.log.Warn("revision "+verb, "revision", shortRevision(res.candidate.Revision), "reason", res.candidate.Reason)
	a.tell(kind, fmt.Sprintf("%s %s: %s", verb, shortRevision(res.candidate.Revision), res.candidate.Reason),
		map[string]any{"revision": res.candidate.Revision, "digest": res.candidate.Digest, "removes": removes(res.candidate.Gates)})
}

// tellHold tells that changes of the accepted revision wait for an approval, when
// that is news.
func (a *app) tellHold(before, now *Candidate) {
	if now == nil || before != nil && before.Digest == now.Digest {
		return
	}
	a.log.Warn("changes held", "revision", shortRevision(now.Revision), "reason", now.Reason)
	a.tell(EventHeld, fmt.Sprintf("held of %s: %s", shortRevision(now.Revision), now.Reason),
		map[string]any{"revision": now.Revision, "digest": now.Digest, "removes": removes(now.Gates)})
}

// toldOf reports whether what became of a candidate was told before, be it in
// another life of the process.
func (a *app) toldOf(st *appState, previous, c *Candidate) bool {
	if c.State == CandidateHeld { // the same set of changes
		return st.record.Asked == c.asked()
	}
	if previous != nil && previous.Revision == c.Revision && previous.State == c.State && previous.Reason == c.Reason {
		return true
	}
	return st.record.Last == lastOutcome{Revision: c.Revision, Outcome: OutcomeRefused, Reason: c.Reason}
}

// setHopes says which news of other applications this one waits for.
func (a *app) setHopes(st *appState) {
	var hopes uint32
	if c := st.candidate; c != nil {
		if c.State == CandidatePending {
			hopes |= hopesForDependency
		}
		if c.contested {
			hopes |= hopesForOwner
		}
	}
	for k := range st.blocked {
		if owner, _ := a.m.registry.ownerOf(a.Name, k, ""); owner != "" || !a.desires(st, k) || strings.HasPrefix(st.blocked[k], awaiting) {
			hopes |= hopesForOwner // to be handed over to this application, or by it
			break
		}
	}
	a.hopes.Store(hopes)
}

func (a *app) desires(st *appState, k plan.Key) bool {
	if st.accepted == nil {
		return false
	}
	_, ok := st.accepted.items.get(k)
	return ok
}

// report writes the one log line of an applied revision; one that changed nothing
// gets none.
func (a *app) report(st *appState, res roundResult) {
	if !res.evaluated || res.candidate != nil || res.before == nil || !res.first && res.applied+res.deleted == 0 {
		return
	}
	counts := []any{
		"revision", shortRevision(st.accepted.revision), "applied", res.applied, "deleted", res.deleted,
		"failed", len(st.failures), "blocked", len(st.blocked), "pending", len(st.pending),
	}
	switch {
	case res.applied+res.deleted > 0 && len(st.failures) > 0:
		a.log.Warn("revision applied in part", counts...)
	case res.applied+res.deleted > 0 || len(st.pending) > 0:
		a.log.Info("revision applied", counts...)
	case len(st.failures)+len(st.blocked) > 0 && a.hopes.Load()&hopesForOwner == 0: // what is to be handed over comes next
		a.log.Warn("revision accepted, and nothing of it could be applied", counts...)
	}
	if len(st.failures)+len(st.blocked)+len(st.pending)+st.leftAlone() == 0 {
		a.tell(EventSynced, "in step with "+shortRevision(st.accepted.revision),
			map[string]any{"revision": st.accepted.revision, "applied": res.applied, "deleted": res.deleted})
	}
}
