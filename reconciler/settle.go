package reconciler

import (
	"context"
	"time"
)

// awaitMoves returns once none of the applications hopes for news of another one,
// or nobody is at work who could bring such news: what still waits then does so
// for a reason that does not pass by itself. It takes no longer than ctx and the
// patience with hand-overs.
func (m *Manager) awaitMoves(ctx context.Context, apps []*app) {
	limit := handoverPatience
	if end, ok := ctx.Deadline(); ok { // leave time to answer
		limit = min(limit, time.Until(end)*9/10)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ctx.Err() == nil {
		m.mu.RLock()
		signal := m.signal
		m.mu.RUnlock()
		if !m.moving(ctx, apps) {
			return
		}
		select {
		case <-signal:
		case <-ctx.Done():
		}
	}
}

// moving reports whether one of the applications hopes for news and some
// application may still bring it.
func (m *Manager) moving(ctx context.Context, apps []*app) bool {
	hoping := false
	for _, a := range apps {
		hoping = hoping || a.hopes.Load() != 0
	}
	if !hoping {
		return false
	}
	// One pass over all is no snapshot: who was idle may have got mail of a later
	// one. Nothing happened between two passes that count the same rounds.
	before, busy := m.atWork(ctx)
	if busy {
		return true
	}
	after, busy := m.atWork(ctx)
	return busy || before != after
}

// atWork counts the rounds of all applications and reports whether one of them is
// at work, or has something to do.
func (m *Manager) atWork(ctx context.Context) (rounds uint64, busy bool) {
	for _, a := range m.apps() {
		_ = a.ask(ctx, func(st *appState) { // who does not answer ends, or ctx does
			rounds += st.rounds
			head := m.head(a.Source).seq
			busy = busy || st.running != nil || a.hasMail() || head > 0 && st.tried.seq != head
		})
	}
	return rounds, busy
}
