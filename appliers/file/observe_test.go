package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// many makes n files by hand and the queries about them, on a clock that stands
// far enough after the writes for stat to vouch for them.
func many(t testing.TB, n int) (*host, []appliers.Query) {
	t.Helper()
	h := newHost(t, "")
	h.env.Now = func() time.Time { return time.Now().Add(time.Minute) }
	h.Applier = h.reopen(t)
	queries := make([]appliers.Query, n)
	for i := range queries {
		name := fmt.Sprintf("d%d/f%d", i/100, i)
		if i%100 == 0 {
			if err := os.Mkdir(h.path(filepath.Dir(name)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		h.put(t, name, fmt.Sprintf("content %d\n", i))
		obj := object(t, kindFile, fmt.Sprintf("f%d", i), map[string]any{"path": h.path(name), "content": fmt.Sprintf("content %d\n", i)})
		queries[i] = query(key(obj), h.resolve(t, obj))
	}
	return h, queries
}

func observeAll(t testing.TB, h *host, queries []appliers.Query) map[plan.Key]plan.Observed {
	t.Helper()
	seen, err := h.Observe(context.Background(), queries)
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// Row D-57, the part of files: of 10,000 files one look reads only those that
// changed since the last.
func TestObserveReadsOnlyWhatChanged(t *testing.T) {
	const n = 10_000
	h, queries := many(t, n)
	observeAll(t, h, queries)
	if got := h.Stats().FilesHashed; got != n {
		t.Fatalf("the first look hashed %d files", got)
	}
	observeAll(t, h, queries)
	if got := h.Stats().FilesHashed - n; got != 0 {
		t.Errorf("a look without a change hashed %d files", got)
	}
	h.put(t, "d7/f777", "by hand\n")
	if err := os.Chmod(h.path("d8/f888"), 0o600); err != nil {
		t.Fatal(err)
	}
	seen := observeAll(t, h, queries)
	if got := h.Stats().FilesHashed - n; got != 2 {
		t.Errorf("after two changes %d files were hashed", got)
	}
	drifted := 0
	for _, q := range queries {
		if o := seen[q.Key]; !sameSpec(o, q) {
			drifted++
		}
	}
	if drifted != 2 {
		t.Errorf("%d files drifted", drifted)
	}
}

func sameSpec(o plan.Observed, q appliers.Query) bool {
	return o.Presence == plan.Present && text(o.Object) == text(q.Desired)
}

// A change of the same size within the same tick of the clock is seen: what was
// hashed right after a change is hashed again.
func TestRacyChange(t *testing.T) {
	h := newHost(t, "")
	h.put(t, "f", "one")
	obj := file(t, h.path("f"), "one")
	st, err := os.Stat(h.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	now := st.ModTime().Add(time.Second)
	h.env.Now = func() time.Time { return now }
	h.Applier = h.reopen(t)
	for i, want := range []int{1, 2, 3, 3} {
		if i == 2 {
			now = now.Add(time.Minute)
		}
		h.converged(t, obj)
		if got := h.Stats().FilesHashed; got != want {
			t.Errorf("look %d: %d hashed, want %d", i, got, want)
		}
	}
	// mtime set back, size kept: ctime tells.
	h.put(t, "f", "two")
	if err := os.Chtimes(h.path("f"), st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	if o := h.see(t, obj); o.Object.Spec()["content"] != "two" {
		t.Errorf("a change with its mtime set back was not seen: %s", text(o.Object))
	}
}

// started runs Watch until the test ends and hands on its reports; nil is a loss.
func started(t *testing.T, a *Applier, changed func([]plan.Key)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- a.Watch(ctx, func(keys []plan.Key, lost bool) {
			if lost {
				keys = nil
			}
			changed(keys)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Errorf("Watch = %v", err)
		}
	})
}

// eventually does something again and again until a report satisfies want.
func eventually(t *testing.T, reports <-chan []plan.Key, again func(i int), want func([]plan.Key) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for i := 0; ; i++ {
		again(i)
		select {
		case keys := <-reports:
			if want(keys) {
				return
			}
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatal("no report came")
		}
	}
}

// A file in a directory that does not exist yet, one that is replaced as a
// whole, and one that is renamed over are all noticed.
func TestWatchFollowsDirectories(t *testing.T) {
	h := newHost(t, "")
	obj := file(t, h.path("a/b/f"), "x")
	h.SetWatched("web", []appliers.Query{query(key(obj), h.resolve(t, obj))})
	reports := make(chan []plan.Key, 1000)
	started(t, h.Applier, func(keys []plan.Key) { reports <- keys })
	hasKey := func(keys []plan.Key) bool { return slices.Contains(keys, key(obj)) }
	eventually(t, reports, func(int) {
		_ = os.RemoveAll(h.path("a"))
		if err := os.MkdirAll(h.path("a/b"), 0o755); err != nil {
			t.Fatal(err)
		}
	}, hasKey)
	eventually(t, reports, func(i int) { h.put(t, "a/b/f", fmt.Sprint(i)) }, hasKey)
	eventually(t, reports, func(i int) {
		h.put(t, "other", fmt.Sprint(i))
		if err := os.Rename(h.path("other"), h.path("a/b/f")); err != nil {
			t.Fatal(err)
		}
	}, hasKey)
	if err := os.Rename(h.path("a"), h.path("z")); err != nil {
		t.Fatal(err)
	}
	eventually(t, reports, func(int) {}, hasKey)
	h.SetWatched("web", nil)
	if h.watch.declared(h.path("a")) {
		t.Errorf("what nobody watches is still declared")
	}
}

// What happens once a change of the watch has returned is noticed, also when the
// watch is busy while it is changed.
func TestWatchIsInForceAtOnce(t *testing.T) {
	h := newHost(t, "")
	reports := make(chan []plan.Key, 1000)
	var busy sync.Mutex
	started(t, h.Applier, func(keys []plan.Key) {
		reports <- keys
		busy.Lock()
		defer busy.Unlock()
	})
	before := file(t, h.path("before"), "x")
	h.UpdateWatched("web", []appliers.Query{query(key(before), h.resolve(t, before))}, nil)
	for i := range 6 {
		dir := fmt.Sprintf("d%03d", i)
		obj := file(t, h.path(dir+"/f"), "x")
		q := query(key(obj), h.resolve(t, obj))
		if err := os.Mkdir(h.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
		busy.Lock()
		h.put(t, "before", dir)
		select {
		case <-reports:
		case <-time.After(200 * time.Millisecond): // it is busy with an earlier one
		}
		changed := make(chan struct{})
		go func() {
			defer close(changed)
			if i%2 == 0 {
				h.UpdateWatched("web", []appliers.Query{q}, nil)
			} else {
				h.SetWatched("web", []appliers.Query{q, query(key(before), h.resolve(t, before))})
			}
			h.put(t, dir+"/f", "by hand")
		}()
		select {
		case <-changed: // too early
		case <-time.After(100 * time.Millisecond):
		}
		busy.Unlock()
		<-changed
		eventually(t, reports, func(int) {}, func(keys []plan.Key) bool { return keys == nil || slices.Contains(keys, key(obj)) })
	}
}

// What is watched already when a watch begins is a loss: nobody has watched it.
func TestWatchBeginsWithALoss(t *testing.T) {
	h := newHost(t, "")
	obj := file(t, h.path("f"), "x")
	h.SetWatched("web", []appliers.Query{query(key(obj), h.resolve(t, obj))})
	reports := make(chan []plan.Key, 10)
	started(t, h.Applier, func(keys []plan.Key) { reports <- keys })
	eventually(t, reports, func(int) {}, func(keys []plan.Key) bool { return keys == nil })
}

// inotifyWatches lists the watch descriptors of this process. The kernel never
// gives a number out twice, so what is watched anew has a new one.
func inotifyWatches(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		b, err := os.ReadFile(info)
		if err != nil {
			continue // closed since it was listed
		}
		for line := range strings.Lines(string(b)) {
			if wd, ok := strings.CutPrefix(line, "inotify wd:"); ok {
				wd, _, _ = strings.Cut(wd, " ")
				found[filepath.Base(info)+"/"+wd] = true
			}
		}
	}
	return found
}

// A change of what is to be watched touches no watch that stays.
func TestWatchTakesDifferences(t *testing.T) {
	h := newHost(t, "")
	at := func(i int) *manifest.Object { return file(t, h.path(fmt.Sprintf("d%02d/f", i)), "x") }
	asked := func(i int) appliers.Query { return query(key(at(i)), h.resolve(t, at(i))) }
	var queries []appliers.Query
	for i := range 50 {
		if err := os.Mkdir(h.path(fmt.Sprintf("d%02d", i)), 0o755); err != nil {
			t.Fatal(err)
		}
		queries = append(queries, asked(i))
	}
	h.SetWatched("web", queries[:40])
	reports := make(chan []plan.Key, 1000)
	started(t, h.Applier, func(keys []plan.Key) { reports <- keys })
	noticed := func(i int) {
		t.Helper()
		eventually(t, reports, func(n int) { h.put(t, fmt.Sprintf("d%02d/f", i), fmt.Sprint(n)) },
			func(keys []plan.Key) bool { return slices.Contains(keys, key(at(i))) })
	}
	noticed(39)
	before := inotifyWatches(t)
	if len(before) < 41 { // the root too
		t.Fatalf("%d watches", len(before))
	}
	h.UpdateWatched("web", queries[40:41], []plan.Key{queries[0].Key})
	noticed(40)
	added, gone := 0, 0
	after := inotifyWatches(t)
	for wd := range after {
		if !before[wd] {
			added++
		}
	}
	for wd := range before {
		if !after[wd] {
			gone++
		}
	}
	if added != 1 || gone != 1 {
		t.Errorf("one directory more and one less: %d watches added, %d dropped", added, gone)
	}
	h.SetWatched("web", queries[1:42]) // the whole set again: a difference too
	noticed(41)
	if again := len(inotifyWatches(t)); again != len(after)+1 {
		t.Errorf("%d watches, want %d", again, len(after)+1)
	}
	for wd := range after {
		if !inotifyWatches(t)[wd] {
			t.Errorf("watch %s was made anew", wd)
		}
	}
	// What another application watches too stays when one lets it go, and its key moves with its path.
	h.SetWatched("other", queries[1:2])
	h.UpdateWatched("web", nil, []plan.Key{queries[1].Key})
	noticed(1)
	moved := queries[2]
	moved.Locator = h.path("elsewhere")
	h.UpdateWatched("web", []appliers.Query{moved}, nil)
	eventually(t, reports, func(n int) { h.put(t, "elsewhere", fmt.Sprint(n)) },
		func(keys []plan.Key) bool { return slices.Contains(keys, moved.Key) })
	if h.watch.declared(h.path("d02")) || !h.watch.declared(h.path("d01")) {
		t.Errorf("declared: %v", h.watch.paths)
	}
	h.SetWatched("web", nil)
	h.SetWatched("other", nil)
	if w := h.watch; len(w.paths)+len(w.at)+len(w.dirs) > 0 {
		t.Errorf("left over: %v %v %v", w.paths, w.at, w.dirs)
	}
}

// Row D2-69: when the kernel loses events, everything is looked at.
func TestWatchOverflow(t *testing.T) {
	h := newHost(t, "")
	obj := file(t, h.path("f"), "x")
	h.SetWatched("web", []appliers.Query{query(key(obj), h.resolve(t, obj))})
	reports, hold := make(chan []plan.Key, 100), make(chan struct{})
	begun := make(chan struct{})
	var once sync.Once
	started(t, h.Applier, func(keys []plan.Key) {
		busy := false
		once.Do(func() { busy = true }) // by the loss of what was before the watch
		if busy {
			close(begun)
			<-hold // while events pile up
			return
		}
		reports <- keys
	})
	<-begun
	limit := 16384
	if b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		if _, err := fmt.Sscan(string(b), &limit); err != nil {
			t.Fatal(err)
		}
	}
	for i := range limit/2 + 5000 { // each makes and removes an entry: two events at least
		p := h.path(fmt.Sprintf("n%d", i%2))
		if fd, err := unix.Open(p, unix.O_CREAT|unix.O_WRONLY, 0o600); err != nil {
			t.Fatal(err)
		} else {
			unix.Close(fd)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	eventually(t, reports, func(int) {}, func(keys []plan.Key) bool { return keys == nil })
}

func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{1000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h, queries := many(b, n)
			observeAll(b, h, queries)
			for b.Loop() {
				observeAll(b, h, queries)
			}
			if got := h.Stats().FilesHashed; got != n {
				b.Errorf("%d files hashed, want %d", got, n)
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := newHost(b, "")
			ops := make([]appliers.Operation, n)
			for round := 0; b.Loop(); round++ {
				for i := range ops {
					ops[i] = h.op(b, plan.Update, file(b, h.path(fmt.Sprintf("f%d", i)), strings.Repeat(fmt.Sprint(round, "\n"), 100)))
				}
				for _, r := range h.apply(ops...) {
					if r.Outcome != appliers.Done {
						b.Fatal(r.Err)
					}
				}
			}
		})
	}
}
