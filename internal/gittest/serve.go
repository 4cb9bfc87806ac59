package gittest

import (
	"net"
	"sync"
	"testing"
)

// serve runs handle for every connection until stop, which cuts those that are
// open and waits for their goroutines. It is called at the end of the test.
func serve(t testing.TB, l net.Listener, handle func(net.Conn)) (stop func()) {
	var (
		mu     sync.Mutex
		open   = map[net.Conn]bool{}
		closed bool
		wg     sync.WaitGroup
	)
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if closed {
				c.Close()
			} else {
				open[c] = true
				wg.Go(func() {
					handle(c)
					c.Close()
					mu.Lock()
					delete(open, c)
					mu.Unlock()
				})
			}
			mu.Unlock()
		}
	})
	stop = sync.OnceFunc(func() {
		l.Close()
		mu.Lock()
		closed = true
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	t.Cleanup(stop)
	return stop
}
