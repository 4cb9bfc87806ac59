package apitest

import (
	"context"
	"log/slog"
	"path/filepath"
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
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}
