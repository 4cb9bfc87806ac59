package reconciler

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// contained runs fn and turns a panic into an error, so that what breaks in one
// part stays a failure of that part.
func contained(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicked{value: p, stack: string(debug.Stack())}
		}
	}()
	return fn()
}

// panicked is a panic on its way to where it is reported.
type panicked struct {
	value any
	stack string // of the goroutine that panicked; for the log, not for people
}

func (p *panicked) Error() string {
	return fmt.Sprintf("internal error: %v; please report it", p.value)
}

// each runs fn for all members at once and returns when all have ended. A panic
// of one goes on in the caller's goroutine, where it is caught.
func each[V any](members map[string]V, fn func(string, V)) {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		broken error
	)
	for name, v := range members {
		wg.Go(func() {
			err := contained(func() error { fn(name, v); return nil })
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				broken = err
			}
		})
	}
	wg.Wait()
	if broken != nil {
		panic(broken)
	}
}
