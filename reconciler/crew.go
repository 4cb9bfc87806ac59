package reconciler

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// crew is the goroutines of a manager, by name, so that ending can say which of
// them does not. It is safe for concurrent use.
type crew struct {
	mu      sync.Mutex
	members map[string]int
	left    chan struct{} // one slot: a member has left
}

func newCrew() *crew {
	return &crew{members: map[string]int{}, left: make(chan struct{}, 1)}
}

// start runs fn in a goroutine.
func (c *crew) start(name string, fn func()) {
	c.mu.Lock()
	c.members[name]++
	c.mu.Unlock()
	go func() {
		defer c.leave(name)
		fn()
	}()
}

func (c *crew) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members[name]--; c.members[name] == 0 {
		delete(c.members, name)
	}
	select {
	case c.left <- struct{}{}:
	default:
	}
}

// wait returns when all have ended, or ctx has, with the names of those that have not.
func (c *crew) wait(ctx context.Context) []string {
	for {
		c.mu.Lock()
		names := slices.Sorted(maps.Keys(c.members))
		c.mu.Unlock()
		if len(names) == 0 {
			return nil
		}
		select {
		case <-c.left:
		case <-ctx.Done():
			return names
		}
	}
}

// patiently runs fn in a goroutine of its own and returns what it returns. When
// it has not come back grace after the end of ctx, it is left behind: the error
// is then ErrAbandoned, and what fn still writes must not be read. A panic is
// returned as an error.
func patiently(ctx context.Context, grace time.Duration, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- contained(fn) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return ErrAbandoned
	}
}

// ended runs fn, which takes no context, and leaves it behind after closeGrace.
func ended(fn func() error) error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return patiently(ctx, closeGrace, fn)
}

// Times that ending takes at most, for what does not end by itself.
const (
	stopGrace  = 30 * time.Second // of everything together
	closeGrace = 5 * time.Second  // of one thing
)
