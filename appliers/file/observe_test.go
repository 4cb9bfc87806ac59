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

// Row D2-69: when the kernel loses events, everything is looked at.
func TestWatchOverflow(t *testing.T) {
	h := newHost(t, "")
	obj := file(t, h.path("f"), "x")
	h.SetWatched("web", []appliers.Query{query(key(obj), h.resolve(t, obj))})
	reports, hold := make(chan []plan.Key, 100), make(chan struct{})
	var once sync.Once
	first := make(chan struct{})
	started(t, h.Applier, func(keys []plan.Key) {
		once.Do(func() { close(first) })
		<-hold // a reader that is busy, while events pile up
		reports <- keys
	})
	for begun := false; !begun; {
		h.put(t, "f", "y")
		select {
		case <-first:
			begun = true
		case <-time.After(100 * time.Millisecond):
		}
	}
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
