package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// notifier tells of changes in the directories that were added.
type notifier struct {
	events <-chan fsnotify.Event
	errors <-chan error
	add    func(dir string) error
	close  func() error
}

func inotify() (*notifier, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	return &notifier{events: w.Events, errors: w.Errors, add: w.Add, close: w.Close}, nil
}

// Watch implements sources.Watcher. A hint comes within Settle of a change. When
// notices are lost (too many at once, the folder replaced) all directories are
// watched anew and a hint makes up for them; where they cannot be had at all (the
// limit on watches, a folder that is missing) a hint comes every Interval, and
// the log says so once. It ends with ctx, or with Close.
func (r *Repository) Watch(ctx context.Context, hint func()) error {
	w := &watch{r: r}
	defer w.stop()
	w.restart()
	interval := time.NewTicker(r.o.Interval)
	defer interval.Stop()
	due := time.NewTimer(r.o.Settle) // what happened before the watch began is hinted at, too
	defer due.Stop()
	pending := true
	changed := func() {
		if !pending {
			due.Reset(r.o.Settle)
			pending = true
		}
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.closing:
			return nil
		case <-due.C:
			pending = false
			hint()
		case e, ok := <-w.n.events:
			if !ok || w.see(e) {
				w.restart()
			}
			if !ok || w.concerns(e.Name) {
				changed()
			}
		case err, ok := <-w.n.errors:
			if ok && !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.degrade(err)
			}
			w.restart()
			changed()
		case <-interval.C:
			if w.blind || w.replaced() {
				w.restart()
				changed()
			}
		}
	}
}

// watch is one call of Watch; one goroutine uses it.
type watch struct {
	r     *Repository
	n     *notifier
	root  os.FileInfo // the folder that is watched; nil when it is missing
	blind bool        // some changes are not told
	said  bool        // and the log says so
}

func (w *watch) stop() {
	if w.n != nil {
		_ = w.n.close() // it only stops telling
	}
}

// restart watches everything anew. What is watched twice, or no more, is gone
// with the old notifier.
func (w *watch) restart() {
	w.stop()
	w.blind, w.root = false, nil
	n, err := w.r.notifier()
	if err != nil {
		w.n = &notifier{close: func() error { return nil }} // its channels never send
		w.degrade(err)
		return
	}
	w.n = n
	// The directory above tells when the folder is replaced or comes back.
	if err := n.add(filepath.Dir(w.r.o.Path)); err != nil {
		w.degrade(err)
	}
	info, err := os.Stat(w.r.o.Path)
	if err != nil {
		w.degrade(err)
		return
	}
	w.root = info
	w.add(w.r.o.Path)
}

// add watches a directory and all below it. Each is watched before it is listed,
// so that what appears in it meanwhile is either listed or told.
func (w *watch) add(dir string) {
	if w.skipped(dir) {
		return
	}
	if err := w.n.add(dir); err != nil {
		if !errors.Is(err, fs.ErrNotExist) || dir == w.r.o.Path {
			w.degrade(err)
		}
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // gone again; or unreadable, and then Refs says so
	}
	for _, e := range entries {
		if e.IsDir() {
			w.add(filepath.Join(dir, e.Name()))
		}
	}
}

// see takes note of an event and reports whether everything must be watched anew.
func (w *watch) see(e fsnotify.Event) bool {
	if e.Name == w.r.o.Path {
		return e.Has(fsnotify.Create) || e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename)
	}
	if e.Has(fsnotify.Create) && w.concerns(e.Name) {
		if info, err := os.Lstat(e.Name); err == nil && info.IsDir() {
			w.add(e.Name)
		}
	}
	return false
}

// concerns reports whether a path is in the folder, or the folder itself; the
// directory above tells of its other content as well.
func (w *watch) concerns(name string) bool {
	root := w.r.o.Path
	return (name == root || strings.HasPrefix(name, strings.TrimSuffix(root, "/")+"/")) && !w.skipped(name)
}

func (w *watch) skipped(name string) bool { return name == filepath.Join(w.r.o.Path, ".git") }

// replaced reports whether the path now leads to another folder than the watched one.
func (w *watch) replaced() bool {
	info, err := os.Stat(w.r.o.Path)
	return err != nil || w.root == nil || !os.SameFile(info, w.root)
}

// degrade notes that changes will be missed.
func (w *watch) degrade(err error) {
	w.blind = true
	if w.said {
		return
	}
	w.said = true
	w.r.o.Log.Warn("folder cannot be watched in full; it is looked at every interval instead (if this is a limit, raise fs.inotify.max_user_watches and max_user_instances)",
		"path", w.r.o.Path, "interval", w.r.o.Interval, "error", fmt.Sprint(err))
}
