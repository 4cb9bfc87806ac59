package file

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// holdsRoot is another process that writes below a root and stays.
func holdsRoot(c *childT) {
	h := hostAt(c, c.dir, "")
	h.must(c, h.op(c, plan.Create, file(c, h.path("theirs"), "theirs\n")))
	fmt.Println("holds")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent goes, or kills it
}

// anotherProcess starts a process that has written below dir.
func anotherProcess(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=holder", childDir+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // it may have been killed
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "holds\n" {
		t.Fatalf("the other process said %q: %v", line, err)
	}
	return cmd
}

// Two processes never write below one root: the second is told who is in the way,
// may look all the same, and goes on when the first was killed.
func TestTwoProcessesOnOneRoot(t *testing.T) {
	dir := realDir(t)
	other := anotherProcess(t, dir)
	h := hostAt(t, dir, "")
	ours := file(t, h.path("ours"), "ours\n")
	leftover := h.path(newTempName())
	h.put(t, filepath.Base(leftover), "being written by the other process")
	if o := h.see(t, file(t, h.path("theirs"), "theirs\n")); o.Presence != plan.Present {
		t.Errorf("looking needs no lock: %v %s", o.Presence, o.Reason)
	}
	if err := h.Check(); err != nil {
		t.Errorf("checking needs no lock: %v", err)
	}
	if _, err := h.Marked(t.Context()); err != nil {
		t.Errorf("listing needs no lock: %v", err)
	}
	for _, op := range []appliers.Operation{h.op(t, plan.Create, ours), h.op(t, plan.Delete, file(t, h.path("theirs"), ""))} {
		r := h.apply(op)[0]
		if r.Outcome != appliers.Refused || !errors.Is(r.Err, ErrHeld) || appliers.ClassOf(r.Err) != appliers.Wait {
			t.Fatalf("%s next to another process: %v %v", op.Change.Action, r.Outcome, r.Err)
		}
		for _, word := range []string{dir, fmt.Sprintf("process %d", other.Process.Pid), "stop that process"} {
			if !strings.Contains(r.Err.Error(), word) {
				t.Errorf("%v\ndoes not say %q", r.Err, word)
			}
		}
	}
	if h.effectCount(effect.Names...) > 0 {
		t.Errorf("effects: %v", h.effects)
	}
	if _, err := os.Stat(leftover); err != nil {
		t.Errorf("a temporary file of the other process: %v", err)
	}
	if err := other.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.Wait() // killed
	h.must(t, h.op(t, plan.Create, ours))
	h.converged(t, ours)
}

// Who was there first stays: a process that starts again and has nothing to write
// keeps others out as soon as it has looked.
func TestLookingTakesAFreeLock(t *testing.T) {
	h := newHost(t, "")
	obj := file(t, h.path("f"), "x\n")
	h.see(t, obj)
	if _, err := os.Lstat(h.path(stateDir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("looking made the state directory: %v", err)
	}
	h.must(t, h.op(t, plan.Create, obj))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.locks = NewLocks() // those of another process
	h.Applier = h.reopen(t)
	h.see(t, obj)
	second := h.rival(t)
	if r := second.apply(h.op(t, plan.Update, obj))[0]; !errors.Is(r.Err, ErrHeld) {
		t.Errorf("a second process: %v %v", r.Outcome, r.Err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	second.must(t, h.op(t, plan.Update, obj))
	// Somebody clears the state directory: the lock is taken anew on what is there then.
	if err := os.Remove(h.path(stateDir + "/" + lockName)); err != nil {
		t.Fatal(err)
	}
	second.must(t, h.op(t, plan.Update, file(t, h.path("f"), "y\n")))
	h.Applier = h.reopen(t)
	if r := h.apply(h.op(t, plan.Update, obj))[0]; !errors.Is(r.Err, ErrHeld) {
		t.Errorf("after the lock file was removed: %v %v", r.Outcome, r.Err)
	}
}

// Targets of one process share a root, and a changed target takes over from the
// one it replaces, in any order of opening, writing and closing.
func TestTargetsOfOneProcessShareARoot(t *testing.T) {
	h := newHost(t, "")
	h.must(t, h.op(t, plan.Create, file(t, h.path("a"), "a\n")))
	old := h.Applier
	h.Applier = h.reopen(t)
	h.must(t, h.op(t, plan.Create, file(t, h.path("b"), "b\n")))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	rival := h.rival(t)
	if r := rival.apply(h.op(t, plan.Create, file(t, h.path("c"), "c\n")))[0]; !errors.Is(r.Err, ErrHeld) {
		t.Errorf("one of two was closed, and the root was free: %v %v", r.Outcome, r.Err)
	}
	// A write that goes on while its target is closed keeps the lock to its end.
	h.fault = func(name effect.Name, _ string, do func() error) error {
		if name == effect.FileRename {
			if err := h.Close(); err != nil {
				return err
			}
			if r := rival.apply(h.op(t, plan.Create, file(t, h.path("c"), "c\n")))[0]; !errors.Is(r.Err, ErrHeld) {
				t.Errorf("a closed target still wrote, and the root was free: %v %v", r.Outcome, r.Err)
			}
		}
		return do()
	}
	h.must(t, h.op(t, plan.Create, file(t, h.path("d"), "d\n")))
	h.fault = nil
	rival.must(t, h.op(t, plan.Create, file(t, h.path("c"), "c\n")))
}

// rival is another process on the same root.
func (h *host) rival(t *testing.T) *host {
	t.Helper()
	return hostAt(t, h.root, "")
}
