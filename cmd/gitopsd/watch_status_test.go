package main

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/internal/api/apitest"
	"github.com/gitopsd/gitopsd/reconciler"
)

// lockedBuffer is written by a command and read by its test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come", what)
		}
		runtime.Gosched()
	}
}

// TestStatusWatch: a pipe gets one line for each change and no screens; an
// interrupt is how it ends, without an error.
func TestStatusWatch(t *testing.T) {
	for format, want := range map[string][2]string{
		"table": {"2026-01-02T12:00:00Z web Synced Healthy 8843d7f92416 drift=0 in sync\n", "web OutOfSync Healthy 8843d7f92416 drift=0 in sync\n"},
		"json":  {`"sync":"Synced"`, `"sync":"OutOfSync"`},
		"yaml":  {"sync: Synced", "sync: OutOfSync"},
	} {
		t.Run(format, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			b := apitest.Sample()
			socket := apitest.Serve(t, b, approvers())
			var out, errOut lockedBuffer
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			code := make(chan int, 1)
			go func() {
				s := streams{in: strings.NewReader(""), out: &out, err: &errOut, getenv: func(string) string { return "" }, now: apitest.Now}
				code <- execute(ctx, s, []string{"status", "web", "--watch", "-o", format, "--socket", socket})
			}()
			waitFor(t, "the first status", func() bool { return strings.Contains(out.String(), want[0]) })
			b.Update(func(b *apitest.Backend) { b.Apps[0].Sync = reconciler.OutOfSync })
			waitFor(t, "the change", func() bool { return strings.Contains(out.String(), want[1]) })
			if format == "table" {
				b.Update(func(b *apitest.Backend) { b.Apps[0].Round++ })
				b.Update(func(b *apitest.Backend) { b.Apps[0].Message = "last" })
				waitFor(t, "the last change", func() bool { return strings.Contains(out.String(), "last") })
				if n := strings.Count(out.String(), "\n"); n != 3 {
					t.Errorf("%d lines for 3 visible changes:\n%s", n, out.String())
				}
			}
			cancel()
			if got := <-code; got != exitOK || errOut.String() != "" {
				t.Errorf("exit %d: %s", got, errOut.String())
			}
		})
	}
}

// TestStatusWatchScreen: on a terminal the age goes on growing while nothing happens.
func TestStatusWatchScreen(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	socket := apitest.Serve(t, apitest.Sample(), approvers())
	var out, errOut lockedBuffer
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var clock atomic.Int64
	now := func() time.Time { return apitest.Now().Add(time.Duration(clock.Add(1)) * time.Minute) }
	code := make(chan int, 1)
	go func() {
		s := streams{in: strings.NewReader(""), out: &out, err: &errOut, outTerminal: true, getenv: func(string) string { return "" }, now: now}
		code <- execute(ctx, s, []string{"status", "web", "--watch", "--socket", socket})
	}()
	waitFor(t, "a second screen", func() bool { return strings.Count(out.String(), "\x1b[2J") > 1 })
	cancel()
	if got := <-code; got != exitOK || errOut.String() != "" {
		t.Errorf("exit %d: %s", got, errOut.String())
	}
	screens := strings.Split(out.String(), "\x1b[2J")
	if screens[1] == screens[2] {
		t.Errorf("the age stands still:\n%s", screens[1])
	}
}

// TestSyncShowsProgress: a terminal sees what is going on while it waits.
func TestSyncShowsProgress(t *testing.T) {
	b := apitest.Sample()
	b.Apps[0].Phase = reconciler.PhaseApplying
	release := make(chan struct{})
	slow := slowSync{b, release}
	socket := apitest.ServeBackend(t, slow, b, approvers())
	var out, errOut lockedBuffer
	code := make(chan int, 1)
	go func() {
		s := streams{in: strings.NewReader(""), out: &out, err: &errOut, errTerminal: true, getenv: func(string) string { return "" }, now: apitest.Now}
		code <- execute(context.Background(), s, []string{"sync", "web", "--wait", "--socket", socket})
	}()
	waitFor(t, "progress", func() bool { return strings.Contains(errOut.String(), "web: Applying") })
	close(release)
	if got := <-code; got != exitOK || !strings.HasSuffix(errOut.String(), "\r\x1b[K") {
		t.Errorf("exit %d: %q", got, errOut.String())
	}
}

type slowSync struct {
	*apitest.Backend
	release chan struct{}
}

func (s slowSync) Sync(ctx context.Context, by, app string, wait bool) error {
	select {
	case <-s.release:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.Backend.Sync(ctx, by, app, wait)
}
