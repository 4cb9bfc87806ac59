package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// watched is what applications want watched. It is safe for concurrent use.
type watched struct {
	mu    sync.Mutex
	byApp map[string]map[string][]plan.Key // application, path
	paths map[string]int                   // path, and every directory above it: how many applications name it
	kicks map[chan struct{}]bool           // one for each running Watch
}

func newWatched() *watched {
	return &watched{byApp: map[string]map[string][]plan.Key{}, paths: map[string]int{}, kicks: map[chan struct{}]bool{}}
}

// declared reports whether a path, or something below it, is watched: it is
// declared somewhere, whether or not it has been written yet.
func (w *watched) declared(p string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.paths[p] > 0
}

func above(p string, each func(string)) {
	for ; p != "/" && p != "."; p = path.Dir(p) {
		each(p)
	}
}

// SetWatched implements appliers.Watcher.
func (a *Applier) SetWatched(application string, queries []appliers.Query) {
	w := a.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	for p := range w.byApp[application] {
		above(p, func(p string) {
			if w.paths[p]--; w.paths[p] == 0 {
				delete(w.paths, p)
			}
		})
	}
	keys := make(map[string][]plan.Key, len(queries))
	for _, q := range queries {
		keys[q.Locator] = append(keys[q.Locator], q.Key)
	}
	for p := range keys {
		above(p, func(p string) { w.paths[p]++ })
	}
	w.byApp[application] = keys
	for kick := range w.kicks {
		select {
		case kick <- struct{}{}:
		default:
		}
	}
}

// keysAt returns the keys that events at the given paths concern: those at the
// paths, those below them, and the directories they lie directly in.
func (w *watched) keysAt(paths map[string]bool) []plan.Key {
	parents := make(map[string]bool, len(paths))
	for p := range paths {
		parents[path.Dir(p)] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []plan.Key
	for _, app := range w.byApp {
		for p, at := range app {
			hit := parents[p]
			above(p, func(up string) { hit = hit || paths[up] })
			if hit {
				keys = append(keys, at...)
			}
		}
	}
	slices.SortFunc(keys, plan.Key.Compare)
	return slices.Compact(keys)
}

// dirs returns the directories to watch: those of the watched paths, and the
// paths themselves, which may be directories.
func (w *watched) dirs() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	set := map[string]bool{}
	for _, app := range w.byApp {
		for p, keys := range app {
			set[path.Dir(p)] = true
			for _, k := range keys {
				if k.ID.Kind == kindDirectory {
					set[p] = true
				}
			}
		}
	}
	list := make([]string, 0, len(set))
	for d := range set {
		list = append(list, d)
	}
	slices.Sort(list)
	return list
}

// gather is how long events are collected before they are reported together.
const gather = 50 * time.Millisecond

// maxGathered is how many paths are told apart; more are reported as a loss.
const maxGathered = 1000

// Watch implements appliers.Watcher by inotify on the directories of watched
// files. Where the kernel lost events, or takes no more watches, everything has
// to be looked at.
func (a *Applier) Watch(ctx context.Context, changed func(keys []plan.Key, lost bool)) error {
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer n.Close()
	kick := make(chan struct{}, 1)
	kick <- struct{}{}
	a.watch.mu.Lock()
	a.watch.kicks[kick] = true
	a.watch.mu.Unlock()
	defer func() {
		a.watch.mu.Lock()
		defer a.watch.mu.Unlock()
		delete(a.watch.kicks, kick)
	}()
	g := &gathering{set: a.watch, notify: n, roots: a.roots, watching: map[string]bool{}, paths: map[string]bool{}}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-kick:
			g.follow()
		case e, ok := <-n.Events:
			if !ok {
				return errors.New("watch files: the notifier has ended")
			}
			g.event(e)
		case err := <-n.Errors:
			g.lost = g.lost || err != nil
		case <-timer.C:
			g.report(changed)
			continue
		}
		if g.pending() && !g.due {
			timer.Reset(gather)
			g.due = true
		}
	}
}

// gathering is the state of one Watch. It is not for concurrent use.
type gathering struct {
	set      *watched
	notify   *fsnotify.Watcher
	roots    []*root
	watching map[string]bool
	paths    map[string]bool
	lost     bool
	due      bool // the timer runs
}

func (g *gathering) pending() bool { return g.lost || len(g.paths) > 0 }

func (g *gathering) event(e fsnotify.Event) {
	base := path.Base(e.Name)
	if tempName(base) || base == stateDir {
		return
	}
	if len(g.paths) >= maxGathered {
		g.lost = true
		return
	}
	g.paths[e.Name] = true
	// A directory on the way came or went: what is watched has to be found again.
	if e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 && g.set.declared(e.Name) {
		for dir := range g.watching {
			if dir == e.Name || strings.HasPrefix(dir, e.Name+"/") {
				g.drop(dir)
			}
		}
		g.follow()
	}
}

func (g *gathering) drop(dir string) {
	_ = g.notify.Remove(dir) // one that is gone is no matter
	delete(g.watching, dir)
}

func (g *gathering) report(changed func([]plan.Key, bool)) {
	paths, lost := g.paths, g.lost
	g.paths, g.lost, g.due = map[string]bool{}, false, false
	if lost {
		changed(nil, true)
		return
	}
	if keys := g.set.keysAt(paths); len(keys) > 0 {
		changed(keys, false)
	}
}

// follow watches what is to be watched and no more: the directories of watched
// files, and those above them up to the root, whose renaming would move them away.
func (g *gathering) follow() {
	want := map[string]bool{}
	for _, dir := range g.set.dirs() {
		for ; g.inside(dir) && !want[dir]; dir = path.Dir(dir) {
			want[dir] = true
			if err := g.add(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNoDirectory) {
				g.lost = true // no more watches: what happens there is seen by the next look only
			}
		}
	}
	for dir := range g.watching {
		if !want[dir] {
			g.drop(dir)
		}
	}
}

// inside reports whether a directory is a root or lies in one.
func (g *gathering) inside(dir string) bool {
	return slices.ContainsFunc(g.roots, func(r *root) bool {
		return dir == r.path || strings.HasPrefix(dir, strings.TrimSuffix(r.path, "/")+"/")
	})
}

var errNoDirectory = errors.New("not a directory")

func (g *gathering) add(dir string) error {
	if g.watching[dir] {
		return nil
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s: %w", dir, errNoDirectory)
	}
	if err := g.notify.Add(dir); err != nil {
		return err
	}
	g.watching[dir] = true
	return nil
}
