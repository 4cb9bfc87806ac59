package apitest

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/api"
)

// Now is the clock of the servers that Serve starts.
func Now() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

// Serve answers for b on a new socket until the test ends, with the given roles,
// and returns the path of the socket.
func Serve(t testing.TB, b *Backend, roles api.Roles) string {
	t.Helper()
	return ServeBackend(t, b, b, roles)
}

// ServeBackend is Serve for any backend and audit log.
func ServeBackend(t testing.TB, b api.Backend, audit api.Audit, roles api.Roles) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	ServeAt(t, socket, b, audit, roles)
	return socket
}

// ServeAt is ServeBackend at a path. The server ends with the test, or when stop is
// called, as a daemon does; another may then begin there.
func ServeAt(t testing.TB, socket string, b api.Backend, audit api.Audit, roles api.Roles) (stop func()) {
	t.Helper()
	ln, err := api.Listen(socket, api.Access{})
	if err != nil {
		t.Fatal(err)
	}
	handler := api.NewHandler(b, api.Options{
		Audit: audit, Log: slog.New(slog.DiscardHandler), Now: Now, WatchGap: time.Millisecond,
		Info: func() api.Info {
			return api.Info{Version: "v0.0.0-test", Started: Now().Add(-time.Hour), ConfigDigest: "0123456789abcdef"}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, ln, handler, roles) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}
