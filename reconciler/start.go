package reconciler

import (
	"context"
	"maps"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// retryTimer is a pause that grows with every failure in a row. The zero value
// waits for nothing.
type retryTimer struct {
	at time.Time
	n  int
}

// over reports whether the pause, if there is one, has ended.
func (t retryTimer) over(now time.Time) bool { return !now.Before(t.at) }

// due reports whether there is a pause and it has ended.
func (t retryTimer) due(now time.Time) bool { return !t.at.IsZero() && t.over(now) }

func (t *retryTimer) fail(m *Manager, now time.Time, limit time.Duration) {
	t.n++
	t.at = now.Add(m.backoff(t.n, limit))
}

// due returns when the goroutine has to act without being kicked.
func (a *app) due(st *appState) time.Time {
	if st.running != nil || a.full.Load() { // its result, or a kick, wakes the goroutine
		return a.m.opts.Now().Add(a.StaleAfter)
	}
	next := st.nextLook
	earlier := func(t time.Time) {
		if !t.IsZero() && t.Before(st.brokenRetry.at) {
			t = st.brokenRetry.at
		}
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, t := range []retryTimer{st.candidateRetry, st.stepRetry, st.unreadRetry, st.healthRetry, st.brokenRetry} {
		earlier(t.at)
	}
	for _, f := range st.failures {
		earlier(f.RetryAt)
	}
	for _, at := range st.pending {
		earlier(at)
	}
	for _, until := range st.fights.until {
		earlier(until)
	}
	if s := a.suspension(); s != nil {
		earlier(s.Until)
	}
	return next
}

// start begins a round when there is something to do and none is under way.
func (a *app) start(ctx context.Context, st *appState) {
	if st.running != nil || a.crowded() {
		return
	}
	now := a.m.opts.Now()
	mail := a.takeMail()
	in := a.input(st, mail, now)
	if st.stepRetry.due(now) && !in.restore && !in.rejudge {
		st.stepRetry = retryTimer{}
	}
	if !in.restore && !in.rejudge && !in.evaluate && !in.full && len(in.dirty) == 0 {
		st.release = append(st.release, mail.waiters...)
		return
	}
	st.running = &running{waiters: mail.waiters}
	go func() {
		r := &round{roundInput: in, m: a.m}
		a.results <- r.guard(ctx)
	}()
}

// input takes the snapshot that a round works on, with what it has to do.
func (a *app) input(st *appState, mail mail, now time.Time) roundInput {
	in := roundInput{
		app: a, head: a.m.head(a.Source), policy: a.m.policy(a.Policies), suspended: a.suspension() != nil,
		record: st.record, accepted: st.accepted, outdated: st.outdated, judgedBy: st.judgedBy, observed: st.observed,
		failures: maps.Clone(st.failures), blocked: st.blocked, pending: st.pending, watching: st.watching, force: mail.force, stuck: st.message,
		drift: maps.Clone(st.drift),
	}
	in.attempt = attempt{seq: in.head.seq, policies: in.policy.digest, control: a.controlVersion(), settings: a.Digest}
	if c := st.candidate; c != nil && c.Revision == in.head.revision {
		in.since = c.Since
	}
	inTime := st.stepRetry.over(now) || mail.force
	in.restore = !st.restored && inTime
	in.rejudge = in.accepted != nil && in.policy.policy != nil && in.judgedBy != in.policy.judge && inTime
	in.evaluate = in.head.seq > 0 && (st.tried != in.attempt || st.candidateRetry.due(now) && st.brokenRetry.over(now) ||
		st.candidate != nil && (mail.again || mail.force))
	in.full = mail.full || !now.Before(st.nextLook) || st.brokenRetry.due(now) || (in.restore && st.record.Revision != "")
	var over map[plan.FieldRef]bool
	if st.brokenRetry.over(now) {
		over = st.fights.over(now)
	}
	in.contended = st.fights.contended(now)
	in.dirty = dirtyKeys(st, mail, over, now)
	if len(in.dirty) > 0 || mail.again || in.evaluate || in.rejudge { // what waits gets its turn too
		for k := range st.blocked {
			in.dirty = append(in.dirty, k)
		}
	}
	in.dirty = dedupe(in.dirty)
	in.blocked, in.pending = maps.Clone(in.blocked), maps.Clone(in.pending)
	return in
}

// dirtyKeys returns the keys that somebody has reported or whose time has come;
// after a round that broke, no time comes before its pause has ended.
func dirtyKeys(st *appState, m mail, over map[plan.FieldRef]bool, now time.Time) []plan.Key {
	var keys []plan.Key
	for k := range m.dirty {
		keys = append(keys, k)
	}
	if !st.brokenRetry.over(now) {
		return keys
	}
	for k, f := range st.failures {
		if !f.RetryAt.IsZero() && !now.Before(f.RetryAt) {
			keys = append(keys, k)
		}
	}
	for k, at := range st.pending {
		if !now.Before(at) {
			keys = append(keys, k)
		}
	}
	for ref := range over {
		keys = append(keys, ref.Key)
	}
	if st.unreadRetry.due(now) {
		for k := range st.unread {
			keys = append(keys, k)
		}
		for k := range st.blocked {
			if o, _ := st.observed.get(k); o.Presence == plan.PresenceUnknown {
				keys = append(keys, k)
			}
		}
	}
	if st.healthRetry.due(now) {
		for k := range st.unhealthy {
			keys = append(keys, k)
		}
	}
	return keys
}
