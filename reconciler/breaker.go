package reconciler

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrBreakerOpen: the target failed several times in a row and is left alone
// for a while. Its objects are unknown until it answers again.
var ErrBreakerOpen = errors.New("target is not answering")

// Numbers of the breaker: how many failures in a row open it, and how long it
// stays open, doubling from the first to the last value. A call that ignored
// the end of its context opens it at once.
const (
	breakerThreshold = 3
	breakerMinOpen   = 5 * time.Second
	breakerMaxOpen   = 5 * time.Minute
)

// breaker keeps calls from a target that does not answer. After a pause one
// call is let through; its result closes the breaker or doubles the pause.
// It is safe for concurrent use.
type breaker struct {
	now func() time.Time

	mu       sync.Mutex
	failures int
	pause    time.Duration // 0 while closed
	until    time.Time
	probing  bool
	last     error
	since    time.Time
	opened   chan struct{} // closed when it opens; nil until somebody waits for that
}

// allow reports whether a call may go ahead, and whether it is the one that
// finds out if the target answers again.
func (b *breaker) allow() (probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pause == 0 {
		return false, nil
	}
	if b.probing || b.now().Before(b.until) {
		return false, b.refusal()
	}
	b.probing = true
	return true, nil
}

// refusal is the error of a call that is not made; the caller holds the lock.
func (b *breaker) refusal() error {
	return fmt.Errorf("%w since %s: %w", ErrBreakerOpen, b.since.UTC().Format(time.RFC3339), b.last)
}

// opens returns a channel that is closed when the breaker opens, for calls that
// wait for their turn.
func (b *breaker) opens() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened == nil {
		b.opened = make(chan struct{})
	}
	return b.opened
}

// why returns the error of a call that the opening breaker ended.
func (b *breaker) why() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil { // it closed again meanwhile
		return ErrBreakerOpen
	}
	return b.refusal()
}

// done records how an allowed call ended.
func (b *breaker) done(probe bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
	if err == nil {
		b.failures, b.pause, b.last = 0, 0, nil
		return
	}
	b.last = err
	b.failures++
	if b.failures < breakerThreshold && !errors.Is(err, ErrAbandoned) {
		return
	}
	now := b.now()
	if b.pause > 0 && now.Before(b.until) {
		return // calls that were under way when it opened do not double the pause
	}
	if b.pause == 0 {
		b.since = now
		if b.opened != nil {
			close(b.opened)
			b.opened = nil
		}
	}
	b.pause = min(max(2*b.pause, breakerMinOpen), breakerMaxOpen)
	b.until = now.Add(b.pause)
}

// release gives back an allowed call that ended for our own reasons.
func (b *breaker) release(probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if probe {
		b.probing = false
	}
}

// state returns the word for the status, the last error and since when it is open.
func (b *breaker) state() (state, lastError string, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last != nil {
		lastError = b.last.Error()
	}
	switch {
	case b.pause == 0:
		return "closed", lastError, time.Time{}
	case b.probing:
		return "half-open", lastError, b.since
	default:
		return "open", lastError, b.since
	}
}
