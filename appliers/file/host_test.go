package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Row D2-62: no shape of symbolic link leads out of the root, with openat2 and without.
func TestLinksLeadNowhere(t *testing.T) {
	for _, walk := range []bool{false, true} {
		t.Run(map[bool]string{false: "openat2", true: "walk"}[walk], func(t *testing.T) {
			base := realDir(t)
			outside := filepath.Join(base, "outside")
			for _, d := range []string{"root/inside", "outside/sub"} {
				if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			can := filepath.Join(outside, "can")
			for _, p := range []string{can, filepath.Join(outside, "sub/can")} {
				if err := os.WriteFile(p, []byte("CAN"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			h := hostAt(t, filepath.Join(base, "root"), "")
			h.roots[0].walk = walk
			links := map[string]string{
				"absolute": outside, "relative": "../outside", "up": "..", "inside-out": "inside/../../outside", "chain": "absolute",
				"chain2": "chain", "loop": "loop", "a": "b", "b": "a", "dangling": "/nonexistent", "proc": "/proc/self/root", "cwd": "/proc/self/cwd",
				"alias": "inside",
			}
			for name, to := range links {
				if err := os.Symlink(to, h.path(name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink(can, h.path("inside/file")); err != nil {
				t.Fatal(err)
			}
			targets := []string{"inside/file"}
			for name := range links {
				targets = append(targets, name+"/can", name+"/sub/can", name)
			}
			for _, p := range targets {
				h.claim(t, p)
				for _, action := range []plan.Action{plan.Create, plan.Update, plan.Delete} {
					op := h.op(t, action, file(t, h.path(p), "overwritten"))
					op.Change.Adopting = true
					r := h.apply(op)[0]
					if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) == appliers.Retry {
						t.Errorf("%s %s: %v %v", action, p, r.Outcome, r.Err)
					}
				}
				if o := h.see(t, file(t, h.path(p), "CAN")); o.Presence == plan.Absent {
					t.Errorf("%s: what cannot be reached was answered as absent", p)
				}
			}
			for _, p := range []string{can, filepath.Join(outside, "sub/can")} {
				if b, err := os.ReadFile(p); err != nil || string(b) != "CAN" {
					t.Errorf("%s: %q %v", p, b, err)
				}
			}
		})
	}
}

// Row D2-63: while the parent is swapped for a link to the outside, again and
// again, nothing outside is touched.
func TestParentSwappedForALink(t *testing.T) {
	base := realDir(t)
	outside := filepath.Join(base, "outside")
	for _, d := range []string{"root/dir", "outside"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	can := filepath.Join(outside, "f")
	if err := os.WriteFile(can, []byte("CAN"), 0o644); err != nil {
		t.Fatal(err)
	}
	h := hostAt(t, filepath.Join(base, "root"), "")
	dir, link := h.path("dir"), h.path("link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swapper sync.WaitGroup
	swaps := 0
	swapper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Exchange the directory and the link in one step, and back.
			if unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE) == nil {
				swaps++
			}
			runtime.Gosched()
		}
	})
	written, end := 0, time.Now().Add(2*time.Second)
	for i := 0; time.Now().Before(end); i++ {
		h.roots[0].walk = i%2 == 1
		op := h.op(t, plan.Update, file(t, filepath.Join(dir, "f"), fmt.Sprintf("round %d", i)))
		if i%5 == 0 {
			op = h.op(t, plan.Delete, file(t, filepath.Join(dir, "f"), ""))
		}
		if h.apply(op)[0].Outcome == appliers.Done {
			written++
		}
	}
	close(stop)
	swapper.Wait()
	if written == 0 || swaps == 0 {
		t.Fatalf("%d writes and %d swaps: the race was not run", written, swaps)
	}
	if b, err := os.ReadFile(can); err != nil || string(b) != "CAN" {
		t.Errorf("outside: %q %v (after %d writes, %d swaps)", b, err, written, swaps)
	}
	if list, err := os.ReadDir(outside); err != nil || len(list) != 1 {
		t.Errorf("outside: %v %v", list, err)
	}
}

// Row D2-68: what is no plain file is not replaced, and says what it is.
func TestOddTypes(t *testing.T) {
	h := newHost(t, "")
	if err := unix.Mkfifo(h.path("fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(h.path("dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	if err := unix.Bind(socket, &unix.SockaddrUnix{Name: h.path("socket")}); err != nil {
		t.Fatal(err)
	}
	h.put(t, "one", "old")
	if err := os.Link(h.path("one"), h.path("two")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("one", h.path("link")); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		is   error
		word string
	}{
		"fifo": {ErrOddType, "a named pipe"}, "dir": {ErrOddType, "a directory"}, "socket": {ErrOddType, "a socket"},
		"link": {ErrOddType, "a symbolic link"}, "two": {ErrHardLinks, "2 names"},
	}
	if unix.Mknod(h.path("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) == nil { // root only
		tests["device"] = struct {
			is   error
			word string
		}{ErrOddType, "a device"}
	}
	for name, tt := range tests {
		before, err := os.Lstat(h.path(name))
		if err != nil {
			t.Fatal(err)
		}
		obj := file(t, h.path(name), "new")
		if o := h.see(t, obj); o.Presence != plan.Present {
			t.Errorf("%s: %v %s", name, o.Presence, o.Reason)
		}
		op := h.op(t, plan.Update, obj)
		op.Change.Adopting = true
		r := h.apply(op)[0]
		if r.Outcome != appliers.Refused || !errors.Is(r.Err, tt.is) || appliers.ClassOf(r.Err) != appliers.Stop || !strings.Contains(r.Err.Error(), tt.word) {
			t.Errorf("%s: %v %v", name, r.Outcome, r.Err)
		}
		if name != "two" {
			if r := h.apply(h.op(t, plan.Delete, obj))[0]; r.Outcome != appliers.Released {
				t.Errorf("delete %s, which the ledger does not list: %v", name, r.Outcome)
			}
			h.claim(t, name)
			if r := h.apply(h.op(t, plan.Delete, obj))[0]; r.Outcome != appliers.Refused {
				t.Errorf("delete %s: %v", name, r.Outcome)
			}
		}
		if after, err := os.Lstat(h.path(name)); err != nil || !os.SameFile(before, after) || after.Mode() != before.Mode() {
			t.Errorf("%s was changed: %v %v", name, after, err)
		}
	}
}

// Row D2-68: at no moment can others read a secret that is written, neither in
// the temporary file nor in its place.
func TestSecretIsNeverReadable(t *testing.T) {
	h := newHost(t, "")
	stop := make(chan struct{})
	var sampler sync.WaitGroup
	samples := 0
	sampler.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			list, _ := os.ReadDir(h.root) // entries may vanish meanwhile
			for _, e := range list {
				st, err := e.Info()
				if err != nil || st.IsDir() {
					continue
				}
				samples++
				if st.Mode()&0o077 != 0 {
					t.Errorf("%s has mode %v", e.Name(), st.Mode())
					return
				}
			}
		}
	})
	old := unix.Umask(0)
	defer unix.Umask(old)
	for i := range 60 {
		obj := object(t, kindFile, "s", map[string]any{
			"path": h.path("s"), "content": fmt.Sprintf("secret %d %s", i, strings.Repeat("x", 50000)), "sensitive": true, "mode": "0600",
		})
		op := h.op(t, plan.Update, obj)
		if i == 0 {
			op.Change.Action = plan.Create
		}
		h.must(t, op)
	}
	close(stop)
	sampler.Wait()
	if samples < 100 {
		t.Errorf("%d samples prove nothing", samples)
	}
}

var errKilled = errors.New("killed")

// dieAt makes the n-th effect panic, before or after it is done, as a kill does.
func (h *host) dieAt(n int, after bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := 0
	h.fault = func(_ effect.Name, _ string, do func() error) error {
		h.mu.Lock()
		seen++
		die := seen == n
		h.mu.Unlock()
		if !die {
			return do()
		}
		if after {
			_ = do()
		}
		panic(errKilled)
	}
}

// killed runs one Apply and reports whether it was killed.
func (h *host) killed(ops []appliers.Operation) (died bool) {
	defer func() {
		if p := recover(); p != nil && p != errKilled { // the very value
			panic(p)
		} else if p != nil {
			died = true
		}
	}()
	h.apply(ops...)
	return false
}

// Rows D-49 and GR-FS1: killed before or after any effect, every file is old or
// new; the next process converges, leaves no temporary file and knows what it owns.
func TestKilledAtEveryEffect(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			h := newHost(t, `, "commands": {"reload": {"run": ["sh", "-c", "echo x >> `+filepath.Join(realDir(t), "log")+`"]}}`)
			h.put(t, "adopted", "foreign\n")
			replaced := file(t, h.path("replaced"), "old\n")
			gone := file(t, h.path("gone"), "gone\n")
			h.must(t, h.op(t, plan.Create, replaced))
			h.must(t, h.op(t, plan.Create, gone))
			want := []struct {
				action plan.Action
				obj    string
				spec   map[string]any
			}{
				{plan.Create, kindDirectory, map[string]any{"path": h.path("new")}},
				{plan.Create, kindFile, map[string]any{"path": h.path("new/f"), "content": "new\n", "onChange": "reload"}},
				{plan.Update, kindFile, map[string]any{"path": h.path("replaced"), "content": "new\n", "mode": "0600"}},
				{plan.Update, kindFile, map[string]any{"path": h.path("adopted"), "content": "new\n"}},
				{plan.Create, kindSymlink, map[string]any{"path": h.path("link"), "target": "new/f"}},
			}
			operations := func() []appliers.Operation {
				ops := []appliers.Operation{h.op(t, plan.Delete, gone)}
				for i, w := range want {
					op := h.op(t, w.action, object(t, w.obj, fmt.Sprintf("o%d", i), w.spec))
					op.Change.Adopting = w.spec["path"] == h.path("adopted")
					if w.action == plan.Create && h.see(t, object(t, w.obj, "o", w.spec)).Presence == plan.Present {
						op.Change.Action = plan.Update
					}
					ops = append(ops, op)
				}
				return ops
			}
			ops := operations()
			h.dieAt(n, after)
			died := h.killed(ops)
			for _, name := range []string{"replaced", "adopted"} {
				if c := h.content(t, name); c != "old\n" && c != "foreign\n" && c != "new\n" {
					t.Fatalf("killed at %d (after: %v): %s is %q", n, after, name, c)
				}
			}
			if c := h.content(t, "adopted"); c == "foreign\n" {
				if o := h.see(t, file(t, h.path("adopted"), "x")); o.Owner != "" {
					t.Errorf("killed at %d (after: %v): foreign content carries our mark", n, after)
				}
			}
			h.fault = nil
			h.Applier = h.reopen(t)
			backup := ""
			for _, r := range h.apply(operations()...) {
				if r.Outcome != appliers.Done {
					t.Fatalf("after a kill at %d (after: %v): %v %v", n, after, r.Outcome, r.Err)
				}
				backup += r.Backup
			}
			for i, w := range want {
				h.converged(t, object(t, w.obj, fmt.Sprintf("o%d", i), w.spec))
			}
			if b, err := os.ReadFile(backup); err != nil || !strings.HasSuffix(string(b), "foreign\n") {
				t.Errorf("killed at %d (after: %v): backup %q: %q %v", n, after, backup, b, err)
			}
			if _, err := os.Lstat(h.path("gone")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("killed at %d (after: %v): the pruned file is there: %v", n, after, err)
			}
			if left := temps(t, h.root); len(left) > 0 {
				t.Errorf("killed at %d (after: %v): left behind %v", n, after, left)
			}
			marks, err := h.Marked(context.Background())
			if err != nil || len(marks) != len(want) {
				t.Errorf("killed at %d (after: %v): %d marks, want %d: %v", n, after, len(marks), len(want), err)
			}
			if !died {
				if n < 20 {
					t.Errorf("only %d effects", n-1)
				}
				break
			}
		}
	}
}

// Row D2-66: after an error of fsync nothing is called done, and the next try
// writes a new file.
func TestSyncError(t *testing.T) {
	h := newHost(t, "")
	obj := file(t, h.path("f"), "new\n")
	h.fault = func(name effect.Name, _ string, do func() error) error {
		if err := do(); err != nil || name != effect.FileSyncDir {
			return err
		}
		return unix.EIO
	}
	if r := h.apply(h.op(t, plan.Create, obj))[0]; r.Outcome != appliers.Uncertain || !errors.Is(r.Err, unix.EIO) {
		t.Errorf("directory: %v %v", r.Outcome, r.Err)
	}
	h.fault = func(name effect.Name, _ string, do func() error) error {
		if err := do(); err != nil || name != effect.FileChmod {
			return err
		}
		return unix.EIO
	}
	if r := h.apply(h.op(t, plan.Update, file(t, h.path("f"), "newer\n")))[0]; r.Outcome == appliers.Done || h.content(t, "f") != "new\n" {
		t.Errorf("file: %v %v, content %q", r.Outcome, r.Err, h.content(t, "f"))
	}
	if left := temps(t, h.root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Row D2-64: the directory of files that are written together is made durable once.
func TestDirectorySyncedOnce(t *testing.T) {
	h := newHost(t, "")
	var ops []appliers.Operation
	for i := range 100 {
		ops = append(ops, h.op(t, plan.Create, file(t, h.path(fmt.Sprintf("f%03d", i)), "x\n")))
	}
	for _, r := range h.apply(ops...) {
		if r.Outcome != appliers.Done {
			t.Fatalf("%v %v", r.Outcome, r.Err)
		}
	}
	if n := h.effectCount(effect.FileSyncDir); n != 1 {
		t.Errorf("the directory of 100 files was synced %d times", n)
	}
	for i := range ops {
		ops[i] = h.op(t, plan.Delete, file(t, h.path(fmt.Sprintf("f%03d", i)), ""))
	}
	h.apply(ops...)
	if n := h.effectCount(effect.FileSyncDir); n != 2 {
		t.Errorf("the directory of 100 deletes was synced %d times", n-1)
	}
}
