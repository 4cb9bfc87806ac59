package file

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// watched is what applications want watched. It is safe for concurrent use.
type watched struct {
	mu     sync.Mutex
	byApp  map[string]map[plan.Key]string // application, key: path
	at     map[string]map[plan.Key]int    // path, key: how many applications name it
	paths  map[string]int                 // path, and every directory above it: how many of byApp lead there
	dirs   map[string]int                 // paths of directories that are watched themselves
	follow map[*follower]bool             // every running Watch
}

// follower is what one Watch has still to do. Its fields belong to the lock of watched.
type follower struct {
	kick    chan struct{}   // there is something to do
	dirs    map[string]bool // the directories to look at again
	waiting []chan struct{} // closed once they have been
	lost    bool            // who waited for them did not wait to the end
}

func newWatched() *watched {
	return &watched{
		byApp: map[string]map[plan.Key]string{}, at: map[string]map[plan.Key]int{},
		paths: map[string]int{}, dirs: map[string]int{}, follow: map[*follower]bool{},
	}
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

// set and drop keep the indexes; the caller holds the lock.
func (w *watched) set(app string, k plan.Key, p string) {
	if w.byApp[app] == nil {
		w.byApp[app] = map[plan.Key]string{}
	}
	if old, known := w.byApp[app][k]; known && old == p {
		return
	}
	w.drop(app, k)
	w.byApp[app][k] = p
	if w.at[p] == nil {
		w.at[p] = map[plan.Key]int{}
	}
	w.at[p][k]++
	above(p, func(up string) { w.paths[up]++ })
	if k.ID.Kind == kindDirectory {
		w.dirs[p]++
	}
	w.changed(p)
}

func (w *watched) drop(app string, k plan.Key) {
	p, known := w.byApp[app][k]
	if !known {
		return
	}
	delete(w.byApp[app], k)
	lessen(w.at[p], k)
	if len(w.at[p]) == 0 {
		delete(w.at, p)
	}
	above(p, func(up string) { lessen(w.paths, up) })
	if k.ID.Kind == kindDirectory {
		lessen(w.dirs, p)
	}
	w.changed(p)
}

// lessen takes one from a count, which goes when nothing is left.
func lessen[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] <= 0 {
		delete(counts, k)
	}
}

// changed notes that the directories around a path have to be looked at again.
func (w *watched) changed(p string) {
	for f := range w.follow {
		f.dirs[p], f.dirs[path.Dir(p)] = true, true
	}
}

// armPatience is how long a change of what is to be watched waits until it is. A
// directory on a file system that hangs must not hold up who asks; what was
// missed meanwhile is then reported as a loss.
const armPatience = 5 * time.Second

// change makes a change of what is to be watched and returns when it is in force. One
// that arms nothing is not waited for: what is not to be watched may still be.
func (w *watched) change(arms bool, do func()) {
	asked := w.ask(arms, do)
	timer := time.NewTimer(armPatience)
	defer timer.Stop()
	for f, armed := range asked {
		select {
		case <-armed:
			delete(asked, f)
		case <-timer.C:
			w.giveUp(asked)
			return
		}
	}
}

// ask makes a change and returns which Watches have to follow it, each with what
// is closed once it has.
func (w *watched) ask(arms bool, do func()) map[*follower]chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
	asked := map[*follower]chan struct{}{}
	for f := range w.follow {
		if len(f.dirs) > 0 {
			f.wake()
			if arms {
				asked[f] = make(chan struct{})
				f.waiting = append(f.waiting, asked[f])
			}
		}
	}
	return asked
}

// giveUp notes that nobody waits any more for Watches that are behind.
func (w *watched) giveUp(behind map[*follower]chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for f := range behind {
		f.lost = true
		f.wake()
	}
}

func (f *follower) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// SetWatched implements appliers.Watcher.
func (a *Applier) SetWatched(application string, queries []appliers.Query) {
	w := a.watch
	w.change(len(queries) > 0, func() {
		still := make(map[plan.Key]bool, len(queries))
		for _, q := range queries {
			still[q.Key] = true
			w.set(application, q.Key, q.Locator)
		}
		for k := range w.byApp[application] {
			if !still[k] {
				w.drop(application, k)
			}
		}
	})
}

// UpdateWatched implements appliers.WatchUpdater. Its cost follows the difference.
func (a *Applier) UpdateWatched(application string, set []appliers.Query, gone []plan.Key) {
	w := a.watch
	w.change(len(set) > 0, func() {
		for _, k := range gone {
			w.drop(application, k)
		}
		for _, q := range set {
			w.set(application, q.Key, q.Locator)
		}
	})
}

// below reports whether something is watched below a path; the caller holds the lock.
func (w *watched) below(p string) bool {
	at := 0
	for _, n := range w.at[p] {
		at += n
	}
	return w.paths[p] > at
}

// keysAt returns the keys that events at the given paths concern: those at the
// paths, those below them, and the directories they lie directly in.
func (w *watched) keysAt(paths map[string]bool) []plan.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	var keys []plan.Key
	deep := false
	for p := range paths {
		keys = slices.AppendSeq(keys, maps.Keys(w.at[p]))
		keys = slices.AppendSeq(keys, maps.Keys(w.at[path.Dir(p)]))
		deep = deep || w.below(p)
	}
	if deep { // a directory with watched objects below it came or went
		for p, at := range w.at {
			hit := false
			above(p, func(up string) { hit = hit || paths[up] })
			if hit {
				keys = slices.AppendSeq(keys, maps.Keys(at))
			}
		}
	}
	slices.SortFunc(keys, plan.Key.Compare)
	return slices.Compact(keys)
}

// wants reports whether a directory is to be watched: it is declared as one, or
// something below it is watched, whose way there could be moved away.
func (w *watched) wants(dir string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted(dir)
}

// wanted is wants for who holds the lock.
func (w *watched) wanted(dir string) bool {
	return w.dirs[dir] > 0 || w.below(dir) || dir == "/" && len(w.at) > 0
}

// all returns every directory that is to be watched, sorted.
func (w *watched) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for p := range w.paths {
		if w.wanted(p) {
			list = append(list, p)
		}
	}
	if w.wanted("/") {
		list = append(list, "/")
	}
	slices.Sort(list)
	return list
}

// join begins to note what changes for one Watch.
func (w *watched) join() *follower {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &follower{kick: make(chan struct{}, 1), dirs: map[string]bool{}, lost: len(w.at) > 0}
	w.follow[f] = true
	return f
}

func (w *watched) leave(f *follower) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.follow, f)
	tell(f.waiting)
}

// take returns the directories to look at again and who waits for that, and
// whether something was missed. All of it counts as taken.
func (w *watched) take(f *follower) (dirs []string, waiting []chan struct{}, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	dirs, waiting, lost = slices.Sorted(maps.Keys(f.dirs)), f.waiting, f.lost
	f.dirs, f.waiting, f.lost = map[string]bool{}, nil, false
	return dirs, waiting, lost
}

func tell(waiting []chan struct{}) {
	for _, armed := range waiting {
		close(armed)
	}
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
	f := a.watch.join()
	defer a.watch.leave(f)
	g := &gathering{set: a.watch, notify: n, roots: a.roots, watching: map[string]bool{}, paths: map[string]bool{}}
	g.follow(a.watch.all())
	g.take(f)
	g.due = g.pending()
	timer := time.NewTimer(gather)
	if !g.due {
		timer.Stop()
	}
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.kick:
			g.take(f)
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
	if e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 && g.set.wants(e.Name) {
		for dir := range g.watching {
			if within(dir, e.Name) {
				g.drop(dir)
			}
		}
		g.follow(g.set.all())
	}
}

// take does what one Watch has still to do.
func (g *gathering) take(f *follower) {
	dirs, waiting, lost := g.set.take(f)
	g.follow(dirs)
	g.lost = g.lost || lost
	tell(waiting)
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

// follow watches what is to be watched of some directories, and of those above
// them up to the root, whose renaming would move them away; and no more.
func (g *gathering) follow(dirs []string) {
	seen := map[string]bool{}
	for _, dir := range dirs {
		for ; g.inside(dir) && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			if !g.set.wants(dir) {
				if g.watching[dir] {
					g.drop(dir)
				}
				continue
			}
			if err := g.add(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, errNoDirectory) {
				g.lost = true // no more watches: what happens there is seen by the next look only
			}
		}
	}
}

// inside reports whether a directory is a root or lies in one.
func (g *gathering) inside(dir string) bool {
	return slices.ContainsFunc(g.roots, func(r *root) bool { return within(dir, r.path) })
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
