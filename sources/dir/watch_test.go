package dir

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
)

// watching is a Watch that runs for the length of a test.
type watching struct {
	*testing.T
	r     *Repository
	hints chan struct{}
}

func watchDir(t *testing.T, r *Repository) *watching {
	t.Helper()
	w := &watching{T: t, r: r, hints: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, func() {
			select {
			case w.hints <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("watch: %v", err)
		}
	})
	w.want("the beginning")
	return w
}

// want waits for a hint, and then until there are no more.
func (w *watching) want(what string) {
	w.Helper()
	select {
	case <-w.hints:
	case <-time.After(10 * time.Second):
		w.Fatalf("no hint after %s", what)
	}
	for quiet := time.NewTimer(10 * w.r.o.Settle); ; quiet.Reset(10 * w.r.o.Settle) {
		select {
		case <-w.hints:
		case <-quiet.C:
			return
		}
	}
}

// Row D2-69: every change gives a hint, also in directories that are new, came
// back, or were put in place of others.
func TestWatchTellsOfChanges(t *testing.T) {
	above := t.TempDir()
	path := filepath.Join(above, "folder")
	write(t, "1", path, "sub/file")
	join := func(name string) string { return filepath.Join(path, name) }
	w := watchDir(t, openDir(t, quick(path)))
	for _, step := range []struct {
		what   string
		change func() error
	}{
		{"a write", func() error { return appendTo(join("sub/file"), "2") }},
		{"a mode", func() error { return os.Chmod(join("sub/file"), 0o755) }},
		{"a new file", func() error { return os.WriteFile(join("new"), nil, 0o644) }},
		{"new directories", func() error { return os.MkdirAll(join("a/b/c"), 0o755) }},
		{"a file in a new directory", func() error { return os.WriteFile(join("a/b/c/file"), nil, 0o644) }},
		{"a deleted directory", func() error { return os.RemoveAll(join("sub")) }},
		{"the directory created again", func() error { return os.Mkdir(join("sub"), 0o755) }},
		{"a file in it", func() error { return os.WriteFile(join("sub/file"), nil, 0o644) }},
		{"a directory moved away", func() error { return os.Rename(join("sub"), filepath.Join(above, "moved")) }},
		{"another in its place", func() error { return os.Mkdir(join("sub"), 0o755) }},
		{"a file in that", func() error { return os.WriteFile(join("sub/file"), nil, 0o644) }},
		{"a directory moved in", func() error { return os.Rename(filepath.Join(above, "moved"), join("in")) }},
		{"a write in that", func() error { return appendTo(join("in/file"), "3") }},
		{"the folder deleted", func() error { return os.RemoveAll(path) }},
		{"the folder created again", func() error { return os.MkdirAll(join("x"), 0o755) }},
		{"a file in it", func() error { return os.WriteFile(join("x/file"), nil, 0o644) }},
		{"the folder moved away", func() error { return os.Rename(path, path+".old") }},
		{"the folder moved back", func() error { return os.Rename(path+".old", path) }},
		{"a write after that", func() error { return appendTo(join("x/file"), "4") }},
		{"a link in place of the folder", func() error {
			return errors.Join(os.Rename(path, path+".1"), os.MkdirAll(path+".2/y", 0o755), os.Symlink(path+".1", path))
		}},
		{"a write behind the link", func() error { return appendTo(join("x/file"), "5") }},
		{"the link pointing elsewhere", func() error {
			return errors.Join(os.Symlink(path+".2", path+".new"), os.Rename(path+".new", path))
		}},
		{"a write there", func() error { return os.WriteFile(join("y/file"), nil, 0o644) }},
	} {
		must(t, step.change())
		w.want(step.what)
	}
	must(t, os.WriteFile(filepath.Join(above, "beside"), nil, 0o644), os.Mkdir(join(".git"), 0o755))
	select {
	case <-w.hints:
		t.Error("a hint for what is not in the folder")
	case <-time.After(10 * w.r.o.Settle):
	}
}

// A folder whose parents are missing is looked at every interval and then watched.
func TestWatchBeforeTheFolderExists(t *testing.T) {
	path := filepath.Join(t.TempDir(), "not", "there", "folder")
	o := quick(path)
	o.Interval = 20 * time.Millisecond
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&log, nil))
	r := openDir(t, o)
	hints := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- r.Watch(ctx, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
	}()
	for range 5 {
		<-hints
	}
	write(t, "x", path, "file")
	<-hints
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), path) {
		t.Errorf("%d warnings: %s", n, log.String())
	}
}

// fake is a notifier under a test's control.
type fake struct {
	events chan fsnotify.Event
	errors chan error
	starts atomic.Int32
	adds   atomic.Int32
	limit  int32 // of directories added
}

func (f *fake) open() (*notifier, error) {
	f.starts.Add(1)
	return &notifier{events: f.events, errors: f.errors, close: func() error { return nil }, add: func(string) error {
		if f.adds.Add(1) > f.limit {
			return syscall.ENOSPC
		}
		return nil
	}}, nil
}

// Row D2-69: when the kernel's queue overflowed, a hint makes up for what was
// lost, and all directories are watched anew.
func TestWatchOverflow(t *testing.T) {
	path := t.TempDir()
	write(t, "x", path, "sub/file")
	r := openDir(t, quick(path))
	f := &fake{events: make(chan fsnotify.Event), errors: make(chan error), limit: 1000}
	r.notifier = f.open
	w := watchDir(t, r)
	starts, adds := f.starts.Load(), f.adds.Load()
	f.errors <- fsnotify.ErrEventOverflow
	w.want("an overflow")
	if f.starts.Load() != starts+1 || f.adds.Load() != adds+3 { // above, folder, sub
		t.Errorf("%d starts after %d, %d directories after %d", f.starts.Load(), starts, f.adds.Load(), adds)
	}
}

// Row D2-69: at the limit on watches the folder is looked at every interval, and
// the log says so once.
func TestWatchLimit(t *testing.T) {
	for name, open := range map[string]func(f *fake) func() (*notifier, error){
		"watches":   func(f *fake) func() (*notifier, error) { return f.open },
		"instances": func(*fake) func() (*notifier, error) { return func() (*notifier, error) { return nil, syscall.EMFILE } },
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			write(t, "x", path, "sub/file")
			o := quick(path)
			o.Interval = 5 * time.Millisecond
			var log bytes.Buffer
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
			r := openDir(t, o)
			r.notifier = open(&fake{limit: 2})
			hints := 0
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			err := r.Watch(ctx, func() {
				if hints++; hints == 4 {
					cancel()
				}
			})
			if !errors.Is(err, context.Canceled) || hints != 4 {
				t.Fatalf("%d hints, %v", hints, err)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), path) || !strings.Contains(log.String(), "max_user_watches") {
				t.Errorf("%d warnings: %s", n, log.String())
			}
		})
	}
}

func TestCloseEndsWatch(t *testing.T) {
	r := openDir(t, quick(t.TempDir()))
	done := make(chan error)
	go func() { done <- r.Watch(context.Background(), func() { _ = r.Close() }) }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
