package api_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/api/apitest"
)

func TestListenModes(t *testing.T) {
	for access, want := range map[api.Access]fs.FileMode{{}: 0o600, {Group: "0"}: 0o660, {Everyone: true}: 0o666} {
		if access.Group != "" && os.Geteuid() != 0 {
			continue // only root may hand a file to group 0
		}
		path := filepath.Join(t.TempDir(), "s")
		ln, err := api.Listen(path, access)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%+v: mode %v, %v", access, info.Mode(), err)
		}
		if got := ln.Addr().String(); got != path {
			t.Errorf("address %s", got)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(entries) != 0 {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	}
}

// TestStaleSocketIsReplaced: what a killed daemon left does not stop the next one.
func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	old.SetUnlinkOnClose(false)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = api.Dial(context.Background(), path)
	if !errors.Is(err, api.ErrNoDaemon) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("dial: %v", err)
	}
	ln, err := api.Listen(path, api.Access{})
	if err != nil {
		t.Fatal(err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
}

// TestSecondDaemonIsRefused: the first keeps its socket (row E-87).
func TestSecondDaemonIsRefused(t *testing.T) {
	socket := apitest.Serve(t, apitest.Sample(), roles(api.RoleViewer))
	_, err := api.Listen(socket, api.Access{})
	if err == nil || !strings.Contains(err.Error(), "another gitopsd answers") {
		t.Fatalf("second: %v", err)
	}
	c, err := api.Dial(context.Background(), socket)
	if err != nil {
		t.Fatalf("the first is gone: %v", err)
	}
	c.Close()
}

func TestListenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file:                            "no socket",
		filepath.Join(dir, "none", "s"): "make the directory",
		filepath.Join(dir, strings.Repeat("x", 120)): "too long",
	} {
		if _, err := api.Listen(path, api.Access{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := api.Listen(filepath.Join(dir, "s"), api.Access{Group: "no-such-group"}); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("group: %v", err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "keep" {
		t.Errorf("file: %q, %v", data, err)
	}
}

// TestCloseLeavesTheSuccessorsSocket: a daemon that ends late does not remove
// the socket of the one that took its place.
func TestCloseLeavesTheSuccessorsSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := api.Listen(path, api.Access{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := api.Listen(path, api.Access{})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket of the second is gone: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
}

func TestDialSaysWhatToDo(t *testing.T) {
	dir := t.TempDir()
	_, err := api.Dial(context.Background(), filepath.Join(dir, "none"))
	var dial *api.DialError
	if !errors.As(err, &dial) || !strings.Contains(dial.Hint, "gitopsd run") || !strings.Contains(dial.Hint, "--socket") {
		t.Errorf("got %v", err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = api.Dial(context.Background(), file)
	if !errors.As(err, &dial) || !strings.Contains(err.Error(), "not a socket") || strings.Contains(dial.Hint, "start it again") {
		t.Errorf("a file: %v, %s", err, dial.Hint)
	}
}
