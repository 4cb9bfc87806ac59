package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// ofKind declares something of a kind at the path "x".
func ofKind(t testing.TB, h *host, kind string) *manifest.Object {
	spec := map[string]any{"path": h.path("x")}
	switch kind {
	case kindFile:
		spec["content"], spec["mode"] = "content\n", "0640"
	case kindDirectory:
		spec["mode"] = "0750"
	case kindSymlink:
		spec["target"] = "nowhere"
	}
	return object(t, kind, "x", spec)
}

// kindAt returns the kind of what is at the path "x"; "" for nothing.
func kindAt(t testing.TB, h *host) string {
	t.Helper()
	st, err := os.Lstat(h.path("x"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ""
	case err != nil:
		t.Fatal(err)
	case st.IsDir():
		return kindDirectory
	case st.Mode()&fs.ModeSymlink != 0:
		return kindSymlink
	}
	return kindFile
}

// eachPair runs a test for every change of a kind.
func eachPair(t *testing.T, run func(t *testing.T, from, to string)) {
	for from := range kinds {
		for to := range kinds {
			if from != to {
				t.Run(from+"-"+to, func(t *testing.T) { run(t, from, to) })
			}
		}
	}
}

// Row D-55: what we wrote is replaced by something of another kind, by us alone.
func TestChangedKind(t *testing.T) {
	eachPair(t, func(t *testing.T, from, to string) {
		h := newHost(t, "")
		old, want := ofKind(t, h, from), ofKind(t, h, to)
		h.must(t, h.op(t, plan.Create, old))
		o := h.see(t, want)
		if o.Presence != plan.Present || !strings.HasSuffix(o.Instead, map[string]string{kindFile: "a file", kindDirectory: "a directory", kindSymlink: "a symbolic link"}[from]) || o.Owner != "web" {
			t.Errorf("seen: %v %q owner %q", o.Presence, o.Instead, o.Owner)
		}
		op := h.op(t, plan.Update, want)
		op.Change.Version = o.Version
		if r := h.must(t, op); r.Backup != "" {
			t.Errorf("what we wrote ourselves was kept as %s", r.Backup)
		}
		h.converged(t, want)
		if o := h.see(t, want); o.Instead != "" {
			t.Errorf("afterwards: %q", o.Instead)
		}
		h.Applier = h.reopen(t)
		h.must(t, h.op(t, plan.Delete, want))
		if k := kindAt(t, h); k != "" {
			t.Errorf("after the prune a %s is there", k)
		}
	})
}

// A file system that cannot exchange two entries is served in two steps.
func TestChangedKindWithoutExchange(t *testing.T) {
	for _, pair := range [][2]string{{kindDirectory, kindFile}, {kindFile, kindDirectory}, {kindSymlink, kindDirectory}} {
		h := newHost(t, "")
		h.must(t, h.op(t, plan.Create, ofKind(t, h, pair[0])))
		asked := false
		h.fault = func(name effect.Name, _ string, do func() error) error {
			if name == effect.FileRename && !asked {
				asked = true
				return unix.EINVAL
			}
			return do()
		}
		want := ofKind(t, h, pair[1])
		h.must(t, h.op(t, plan.Update, want))
		h.converged(t, want)
		if left := temps(t, h.root); len(left) > 0 || !asked {
			t.Errorf("%v: asked %v, left behind %v", pair, asked, left)
		}
	}
}

// What a hand put there is refused, whatever the ledger says of the path.
func TestChangedKindOfAStranger(t *testing.T) {
	eachPair(t, func(t *testing.T, from, to string) {
		h := newHost(t, "")
		byHand(t, h.resolve(t, ofKind(t, h, from)).Object)
		refused := func(when string, adopting bool) {
			t.Helper()
			op := h.op(t, plan.Update, ofKind(t, h, to))
			op.Change.Adopting = adopting
			r := h.apply(op)[0]
			if r.Outcome != appliers.Refused || !errors.Is(r.Err, ErrOddType) || appliers.ClassOf(r.Err) != appliers.Stop || kindAt(t, h) != from {
				t.Errorf("%s: %v %v, a %s is there", when, r.Outcome, r.Err, kindAt(t, h))
			}
		}
		refused("nothing on record", true)
		if err := os.Remove(h.path("x")); err != nil {
			t.Fatal(err)
		}
		h.must(t, h.op(t, plan.Create, ofKind(t, h, to)))
		if err := os.Remove(h.path("x")); err != nil {
			t.Fatal(err)
		}
		byHand(t, h.resolve(t, ofKind(t, h, from)).Object)
		refused("another type on record", false)
		// Of another application.
		h.must(t, h.op(t, plan.Update, ofKind(t, h, from)))
		op := h.op(t, plan.Update, ofKind(t, h, to))
		op.Application = "shop"
		if r := h.apply(op)[0]; r.Outcome != appliers.Refused || !errors.Is(r.Err, ErrOddType) {
			t.Errorf("of another application: %v %v", r.Outcome, r.Err)
		}
	})
}

// A hand has put a file where our link was, and Git wants a file: its content is kept.
func TestChangedKindByHandToo(t *testing.T) {
	h := newHost(t, "")
	h.must(t, h.op(t, plan.Create, ofKind(t, h, kindSymlink)))
	if err := os.Remove(h.path("x")); err != nil {
		t.Fatal(err)
	}
	h.put(t, "x", "by hand\n")
	r := h.must(t, h.op(t, plan.Update, ofKind(t, h, kindFile)))
	if b, err := os.ReadFile(r.Backup); err != nil || !strings.HasSuffix(string(b), "by hand\n") {
		t.Errorf("backup %q: %q %v", r.Backup, b, err)
	}
}

// A directory with something in it stays, also when that comes at the last moment.
func TestChangedKindOfAFullDirectory(t *testing.T) {
	for _, to := range []string{kindFile, kindSymlink} {
		for _, moment := range []string{"before", "exchange", "two steps"} {
			t.Run(to+" "+moment, func(t *testing.T) {
				h := newHost(t, "")
				h.must(t, h.op(t, plan.Create, ofKind(t, h, kindDirectory)))
				fill := func() { h.put(t, "x/theirs", "theirs\n") }
				if moment == "before" {
					fill()
				}
				h.fault = func(name effect.Name, _ string, do func() error) error {
					if name == effect.FileRename && moment != "before" {
						if _, err := os.Lstat(h.path("x/theirs")); err != nil && kindAt(t, h) == kindDirectory {
							fill()
						}
						if moment == "two steps" {
							return unix.EINVAL
						}
					}
					return do()
				}
				r := h.apply(h.op(t, plan.Update, ofKind(t, h, to)))[0]
				if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Wait || !strings.Contains(r.Err.Error(), "x is a directory that is not empty (theirs)") {
					t.Errorf("%v %v", r.Outcome, r.Err)
				}
				if c := h.content(t, "x/theirs"); c != "theirs\n" {
					t.Errorf("content %q", c)
				}
				if left := temps(t, h.root); len(left) > 0 {
					t.Errorf("left behind %v", left)
				}
				h.fault = nil
				if err := os.Remove(h.path("x/theirs")); err != nil {
					t.Fatal(err)
				}
				h.must(t, h.op(t, plan.Update, ofKind(t, h, to)))
				h.converged(t, ofKind(t, h, to))
			})
		}
	}
}

// Rows D-49 and D-55: killed before or after any effect, the old or the new is
// there - or nothing, between the two steps of a file system that cannot exchange
// a directory - and the next process completes it, or goes back.
func TestChangedKindKilled(t *testing.T) {
	eachPair(t, func(t *testing.T, from, to string) {
		for _, exchange := range []bool{true, false} {
			for n := 1; n > 0; n++ {
				for _, after := range []bool{false, true} {
					if !killedWhileChanging(t, from, to, n, after, exchange) {
						if n < 5 {
							t.Errorf("only %d effects", n-1)
						}
						n = -1
						break
					}
				}
			}
		}
	})
}

func killedWhileChanging(t *testing.T, from, to string, n int, after, exchange bool) (died bool) {
	t.Helper()
	h := newHost(t, "")
	h.must(t, h.op(t, plan.Create, ofKind(t, h, from)))
	when := fmt.Sprintf("killed at %d (after: %v, exchange: %v)", n, after, exchange)
	h.dieAt(n, after)
	if kill := h.fault; !exchange && (from == kindDirectory || to == kindDirectory) {
		asked := false
		h.fault = func(name effect.Name, key string, do func() error) error {
			if name == effect.FileRename && !asked {
				asked = true
				return unix.EINVAL
			}
			return kill(name, key, do)
		}
	}
	died = h.killed([]appliers.Operation{h.op(t, plan.Update, ofKind(t, h, to))})
	there := kindAt(t, h)
	if there != from && there != to && (exchange || there != "") {
		t.Errorf("%s: %q is there", when, there)
	}
	h.fault = nil
	h.Applier = h.reopen(t)
	next := to
	if n%2 == 0 { // the commit is reverted meanwhile
		next = from
	}
	action := plan.Update
	if there == "" {
		action = plan.Create
	}
	if r := h.apply(h.op(t, action, ofKind(t, h, next)))[0]; r.Outcome != appliers.Done {
		t.Fatalf("%s, then %s over %s: %v %v", when, next, there, r.Outcome, r.Err)
	}
	h.converged(t, ofKind(t, h, next))
	if left := temps(t, h.root); len(left) > 0 {
		t.Errorf("%s: left behind %v", when, left)
	}
	h.must(t, h.op(t, plan.Delete, ofKind(t, h, next)))
	if k := kindAt(t, h); k != "" {
		t.Errorf("%s: after the prune a %s is there", when, k)
	}
	return died
}

// What was in a directory that became a file or link is gone, and what is to be in
// one that was a file or link is written in the same go.
func TestChangedKindWithEntries(t *testing.T) {
	for _, other := range []string{kindFile, kindSymlink} {
		h := newHost(t, "")
		inside := file(t, h.path("x/inside"), "inside\n")
		h.must(t, h.op(t, plan.Create, ofKind(t, h, other)))
		if o := h.see(t, inside); o.Presence != plan.Absent {
			t.Errorf("below a %s of ours: %v %s", other, o.Presence, o.Reason)
		}
		for _, r := range h.apply(h.op(t, plan.Create, inside), h.op(t, plan.Update, ofKind(t, h, kindDirectory))) {
			if r.Outcome != appliers.Done {
				t.Errorf("%s to a directory: %v %v", other, r.Outcome, r.Err)
			}
		}
		h.converged(t, inside)
		h.must(t, h.op(t, plan.Delete, inside))
		h.must(t, h.op(t, plan.Update, ofKind(t, h, other)))
		if o := h.see(t, inside); o.Presence != plan.Absent {
			t.Errorf("afterwards below a %s: %v %s", other, o.Presence, o.Reason)
		}
	}
}

// A link on the way is named, at whatever depth and with any kernel, and so is
// anything else that is no directory.
func TestNoWay(t *testing.T) {
	for _, walk := range []bool{false, true} {
		h := newHost(t, "")
		h.roots[0].walk = walk
		if err := os.MkdirAll(h.path("d/real/sub"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("real", h.path("d/link")); err != nil {
			t.Fatal(err)
		}
		h.put(t, "d/file", "")
		for _, tt := range []struct{ path, want string }{
			{"d/link/f", "path goes through a symbolic link: " + h.path("d/link") + " is one"},
			{"d/link/sub/f", "path goes through a symbolic link: " + h.path("d/link") + " is one"},
			{"d/file/f", h.path("d/file") + " is a file: not a directory; remove it by hand"},
			{"d/file/sub/f", h.path("d/file") + " is a file: not a directory; remove it by hand"},
		} {
			obj := file(t, h.path(tt.path), "")
			o := h.see(t, obj)
			if below := strings.HasPrefix(tt.path, "d/file"); below != (o.Presence == plan.Absent) || !below && !strings.Contains(o.Reason, tt.want) {
				t.Errorf("walk %v: %s: %v %q\nwant %q", walk, tt.path, o.Presence, o.Reason, tt.want)
			}
			r := h.apply(h.op(t, plan.Create, obj))[0]
			if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Wait || !strings.Contains(r.Err.Error(), tt.want) {
				t.Errorf("walk %v: %s: %v %v\nwant %q", walk, tt.path, r.Outcome, r.Err, tt.want)
			}
		}
	}
}
