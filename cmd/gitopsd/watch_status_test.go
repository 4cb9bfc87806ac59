package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
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

// TestStatusWatchOutlivesDaemon: a daemon that ends is waited for. What was shown
// last stays, with a word about it; another daemon tells everything anew; a refusal
// ends the watch.
func TestStatusWatchOutlivesDaemon(t *testing.T) {
	for _, tt := range []struct {
		format   string
		terminal bool
		// what is to be seen in the output, or else among the errors
		first, lost, back string
	}{
		{"table", true, "in sync", "lost the daemon: no gitopsd answers on", "moved"},
		{"table", false, "drift=0 in sync\n", "", "web OutOfSync Healthy 8843d7f92416 drift=0 moved\n"},
		{"json", false, `"sync":"Synced"`, "", `"sync":"OutOfSync"`},
		{"json", true, `"sync":"Synced"`, "", `"sync":"OutOfSync"`},
		{"yaml", false, "sync: Synced", "", "sync: OutOfSync"},
	} {
		t.Run(fmt.Sprint(tt.format, tt.terminal), func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			b, socket := apitest.Sample(), filepath.Join(t.TempDir(), "s")
			stop := apitest.ServeAt(t, socket, b, b, approvers())
			var out, errOut lockedBuffer
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			code := make(chan int, 1)
			go func() {
				s := streams{in: strings.NewReader(""), out: &out, err: &errOut, outTerminal: tt.terminal, getenv: func(string) string { return "" }, now: apitest.Now}
				code <- execute(ctx, s, []string{"status", "web", "--watch", "-o", tt.format, "--socket", socket})
			}()
			waitFor(t, "the first status", func() bool { return strings.Contains(out.String(), tt.first) })
			stop()
			if tt.lost != "" {
				waitFor(t, "the loss", func() bool {
					screens := strings.Split(out.String(), "\x1b[2J")
					return strings.Contains(screens[len(screens)-1], tt.lost) && strings.Contains(screens[len(screens)-1], tt.first)
				})
			} else {
				waitFor(t, "the loss", func() bool {
					return strings.Contains(errOut.String(), "warning: lost the daemon: it ended the stream; trying again until it answers\n")
				})
			}

			next := apitest.Sample()
			next.Apps[0].Sync, next.Apps[0].Message = reconciler.OutOfSync, "moved"
			stop = apitest.ServeAt(t, socket, next, next, approvers())
			waitFor(t, "the status of the next daemon", func() bool {
				screens := strings.Split(out.String(), "\x1b[2J")
				last := screens[len(screens)-1]
				return strings.Contains(last, tt.back) && (tt.lost == "" || !strings.Contains(last, "lost the daemon"))
			})
			if tt.format == "json" && strings.Count(out.String(), `"full":true`) != 2 {
				t.Errorf("another daemon tells everything:\n%s", out.String())
			}
			if tt.lost == "" {
				waitFor(t, "the return", func() bool { return strings.HasSuffix(errOut.String(), "the daemon answers again\n") })
				if n := strings.Count(errOut.String(), "lost the daemon"); n != 1 {
					t.Errorf("said %d times: %s", n, errOut.String())
				}
			}

			// The application is no longer configured.
			stop()
			none := apitest.Sample()
			none.Apps = none.Apps[1:]
			apitest.ServeAt(t, socket, none, none, approvers())
			if got := <-code; got != exitNotFound || !strings.Contains(errOut.String(), `"web"`) {
				t.Errorf("exit %d: %s", got, errOut.String())
			}
		})
	}
}

// relay passes connections to socket on from a path of its own. drop ends those
// there are.
func relay(t *testing.T, socket string) (path string, drop func()) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "relay")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var running sync.WaitGroup
	drop = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
		conns = nil
	}
	running.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("unix", socket)
			if err != nil {
				from.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, from, to)
			mu.Unlock()
			running.Go(func() { _, _ = io.Copy(from, to); from.Close() })
			running.Go(func() { _, _ = io.Copy(to, from); to.Close() })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		drop()
		running.Wait()
	})
	return path, drop
}

// TestStatusWatchGoesOn: when only the connection broke, the watch goes on where
// it was, and a connection that brings nothing new prints nothing.
func TestStatusWatchGoesOn(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	b := apitest.Sample()
	socket, drop := relay(t, apitest.Serve(t, b, approvers()))
	var out, errOut lockedBuffer
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	code := make(chan int, 1)
	go func() {
		s := streams{in: strings.NewReader(""), out: &out, err: &errOut, getenv: func(string) string { return "" }, now: apitest.Now}
		code <- execute(ctx, s, []string{"status", "--watch", "-o", "json", "--socket", socket})
	}()
	waitFor(t, "the first status", func() bool { return strings.Contains(out.String(), "\n") })
	drop()
	waitFor(t, "the return", func() bool { return strings.Contains(errOut.String(), "the daemon answers again\n") })
	b.Update(func(b *apitest.Backend) { b.Apps[0].Message = "news" })
	waitFor(t, "the change", func() bool { return strings.Contains(out.String(), "news") })
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("exit %d: %s", got, errOut.String())
	}
	if lines := strings.Split(strings.TrimSpace(out.String()), "\n"); len(lines) != 2 || !strings.Contains(lines[1], `"full":false`) || strings.Count(lines[1], `"application":`) != 1 {
		t.Errorf("the second of two lines is what changed:\n%s", out.String())
	}
}

// TestStatusWatchEndsWhileLost: an interrupt ends the wait for a daemon, too.
func TestStatusWatchEndsWhileLost(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	b, socket := apitest.Sample(), filepath.Join(t.TempDir(), "s")
	stop := apitest.ServeAt(t, socket, b, b, approvers())
	var out, errOut lockedBuffer
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	code := make(chan int, 1)
	go func() {
		s := streams{in: strings.NewReader(""), out: &out, err: &errOut, getenv: func(string) string { return "" }, now: apitest.Now}
		code <- execute(ctx, s, []string{"status", "--watch", "--socket", socket})
	}()
	waitFor(t, "the first status", func() bool { return strings.Contains(out.String(), "in sync") })
	stop()
	waitFor(t, "the loss", func() bool { return strings.Contains(errOut.String(), "lost the daemon") })
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("exit %d: %s", got, errOut.String())
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
