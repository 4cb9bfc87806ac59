package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// service is a host with a reload that writes to a log and fails while a file
// named "broken" is there.
func service(t *testing.T) (h *host, reloads func() int, broken string) {
	t.Helper()
	side := realDir(t)
	log, broken := filepath.Join(side, "log"), filepath.Join(side, "broken")
	h = newHost(t, fmt.Sprintf(`, "commands": {
		"validate": {"run": ["grep", "-q", "^valid", "{file}"]},
		"reload": {"run": ["sh", "-c", "echo reload >> %s; test ! -e %s || { echo cannot bind; exit 1; }"]}}`, log, broken))
	return h, func() int {
		b, err := os.ReadFile(log)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Count(string(b), "reload")
	}, broken
}

func served(t *testing.T, h *host, name, content string) *manifest.Object {
	return object(t, kindFile, name, map[string]any{"path": h.path(name), "content": content, "check": "validate", "onChange": "reload"})
}

// Row D2-70: content that does not pass its check is not put in place, and nothing is reloaded.
func TestCheckComesFirst(t *testing.T) {
	h, reloads, _ := service(t)
	h.must(t, h.op(t, plan.Create, served(t, h, "conf", "valid 1\n")))
	before, err := os.Stat(h.path("conf"))
	if err != nil {
		t.Fatal(err)
	}
	r := h.apply(h.op(t, plan.Update, served(t, h, "conf", "nonsense\n")))[0]
	if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Stop || !strings.Contains(r.Err.Error(),
		"check validate, the old stays; correct the content, or the check: command validate failed: exit status 1; it printed nothing: run it by hand") {
		t.Errorf("%v %v", r.Outcome, r.Err)
	}
	after, err := os.Stat(h.path("conf"))
	if err != nil || !os.SameFile(before, after) || h.content(t, "conf") != "valid 1\n" || reloads() != 1 {
		t.Errorf("the old file was touched: %v, %q, %d reloads", err, h.content(t, "conf"), reloads())
	}
	if left := temps(t, h.root); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	h.converged(t, served(t, h, "conf", "valid 1\n")) // going back in Git needs no write and no reload
}

func TestOneReloadForAll(t *testing.T) {
	h, reloads, _ := service(t)
	var ops []appliers.Operation
	for i := range 5 {
		ops = append(ops, h.op(t, plan.Create, served(t, h, fmt.Sprintf("c%d", i), "valid\n")))
	}
	for _, r := range h.apply(ops...) {
		if r.Outcome != appliers.Done {
			t.Errorf("%v %v", r.Outcome, r.Err)
		}
	}
	if reloads() != 1 {
		t.Errorf("%d reloads for one Apply", reloads())
	}
	h.apply(ops...)
	if reloads() != 1 {
		t.Errorf("a reload without a change")
	}
}

// Row D2-70: a reload that fails is the rest of the write until it has succeeded, also after a
// restart, and no field of the object differs for it.
func TestFailedReloadIsOwed(t *testing.T) {
	h, reloads, broken := service(t)
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	obj := served(t, h, "conf", "valid 1\n")
	r := h.apply(h.op(t, plan.Create, obj))[0]
	if r.Outcome != appliers.Uncertain || !strings.Contains(r.Err.Error(),
		h.path("conf")+" is in place, but its onChange has not succeeded and is tried again: command reload failed: exit status 1: cannot bind") {
		t.Errorf("%v %v", r.Outcome, r.Err)
	}
	h.Applier = h.reopen(t)
	o := h.see(t, obj)
	if o.Unfinished != "onChange reload is still owed" || !manifest.Equal(o.Object.Spec(), h.resolve(t, obj).Object.Spec()) {
		t.Errorf("the reload that failed: %q, and the object %s", o.Unfinished, text(o.Object))
	}
	health := func() appliers.HealthStatus {
		t.Helper()
		answers, err := h.Health(t.Context(), []appliers.Query{query(key(obj), h.resolve(t, obj))})
		if err != nil {
			t.Fatal(err)
		}
		return answers[key(obj)].Status
	}
	if got := health(); got != appliers.Degraded {
		t.Errorf("%s while the reload is owed", got)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	before := h.effectCount(writes...)
	op := h.op(t, plan.Update, obj)
	op.Change.Version = o.Version
	h.must(t, op)
	h.converged(t, obj)
	if n := h.effectCount(writes...) - before; n != 0 || reloads() != 2 || health() != appliers.Healthy {
		t.Errorf("%d writes and %d reloads, want the reload alone; %s", n, reloads(), health())
	}
}

// Interrupted between the replacement and the reload: the reload still comes.
func TestInterruptedReload(t *testing.T) {
	h, reloads, _ := service(t)
	obj := served(t, h, "conf", "valid 1\n")
	h.fault = func(name effect.Name, key string, do func() error) error {
		if name == effect.CommandRun && key == "reload" {
			panic(errKilled)
		}
		return do()
	}
	if !h.killed([]appliers.Operation{h.op(t, plan.Create, obj)}) {
		t.Fatal("not killed")
	}
	h.fault = nil
	h.Applier = h.reopen(t)
	if o := h.see(t, obj); o.Unfinished == "" {
		t.Errorf("the reload that never came is not owed")
	}
	h.must(t, h.op(t, plan.Update, obj))
	h.converged(t, obj)
	if reloads() != 1 {
		t.Errorf("%d reloads", reloads())
	}
}

// A removed file calls for its reload too, and is not gone before that has succeeded.
func TestReloadAfterRemoval(t *testing.T) {
	h, reloads, broken := service(t)
	obj := served(t, h, "conf", "valid 1\n")
	h.must(t, h.op(t, plan.Create, obj))
	if err := os.WriteFile(broken, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := h.apply(h.op(t, plan.Delete, obj))[0]; r.Outcome != appliers.Uncertain || !strings.Contains(r.Err.Error(), h.path("conf")+" is gone, but its onChange has not succeeded") {
		t.Errorf("%v %v", r.Outcome, r.Err)
	}
	q := query(key(obj), h.resolve(t, obj))
	q.Desired = nil
	if o := h.ask(t, q); o.Presence != plan.Present || o.Unfinished == "" {
		t.Errorf("gone, though its reload has failed: %v %q", o.Presence, o.Unfinished)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	h.must(t, h.op(t, plan.Delete, obj))
	if o := h.ask(t, q); o.Presence != plan.Absent || reloads() != 3 {
		t.Errorf("%v after %d reloads", o.Presence, reloads())
	}
}

func TestCommandLimits(t *testing.T) {
	t.Setenv("GITOPSD_TEST_CANARY", "CANARY")
	side := realDir(t)
	pidfile := filepath.Join(side, "pid")
	h := newHost(t, fmt.Sprintf(`, "commands": {
		"env": {"run": ["sh", "-c", "env > %s/env"], "env": ["LANG=C", "COLOR=blue"]},
		"hang": {"run": ["sh", "-c", "sleep 1000 & echo $! > %s; wait"], "timeout": "300ms"},
		"flood": {"run": ["sh", "-c", "yes flood | head -c 10000000; exit 1"]},
		"missing": {"run": ["no-such-program-at-all"]},
		"shell": {"run": ["echo", "$(touch %s/injected)", ";", "exit"]}}`, side, pidfile, side))
	run := func(name string) appliers.Result {
		obj := object(t, kindFile, name, map[string]any{"path": h.path(name), "content": "x", "onChange": name})
		return h.apply(h.op(t, plan.Create, obj))[0]
	}
	if r := run("env"); r.Outcome != appliers.Done {
		t.Errorf("env: %v", r.Err)
	}
	env, err := os.ReadFile(filepath.Join(side, "env"))
	if err != nil || strings.Contains(string(env), "CANARY") || !strings.Contains(string(env), "COLOR=blue") || !strings.Contains(string(env), "PATH=/usr") {
		t.Errorf("environment %q %v", env, err)
	}
	start := time.Now()
	if r := run("hang"); r.Outcome != appliers.Uncertain || !strings.Contains(r.Err.Error(), "timeout of 300ms") || time.Since(start) > 10*time.Second {
		t.Errorf("hang: %v %v after %v", r.Outcome, r.Err, time.Since(start))
	}
	var pid int
	if b, err := os.ReadFile(pidfile); err != nil {
		t.Error(err)
	} else if _, err := fmt.Sscan(string(b), &pid); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); alive(pid); {
		if time.Now().After(deadline) {
			t.Fatalf("the command's child %d outlives it", pid)
		}
	}
	if r := run("flood"); r.Outcome != appliers.Uncertain || len(r.Err.Error()) > 2*maxOutput || !strings.HasSuffix(r.Err.Error(), "...") {
		t.Errorf("flood: %v, %d bytes", r.Outcome, len(r.Err.Error()))
	}
	if r := run("missing"); r.Outcome != appliers.Uncertain || !strings.Contains(r.Err.Error(), "no-such-program-at-all") {
		t.Errorf("missing: %v %v", r.Outcome, r.Err)
	}
	if r := run("shell"); r.Outcome != appliers.Done {
		t.Errorf("shell: %v", r.Err)
	}
	if _, err := os.Stat(filepath.Join(side, "injected")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a shell has read the arguments: %v", err)
	}
}

// alive reports whether a process runs; one that nobody has waited for yet does not.
func alive(pid int) bool {
	if unix.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// A context that ends stops a running command; what it was for stays pending.
func TestContextEndsDuringReload(t *testing.T) {
	h := newHost(t, `, "commands": {"hang": {"run": ["sleep", "1000"]}}`)
	obj := object(t, kindFile, "x", map[string]any{"path": h.path("x"), "content": "x", "onChange": "hang"})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r := h.Apply(ctx, []appliers.Operation{h.op(t, plan.Create, obj)})[0]
	if r.Outcome != appliers.Uncertain || !errors.Is(r.Err, context.DeadlineExceeded) {
		t.Errorf("%v %v", r.Outcome, r.Err)
	}
	if o := h.see(t, obj); o.Unfinished == "" {
		t.Errorf("the run that was stopped is not owed")
	}
}

func TestLeaks(t *testing.T) {
	for _, tt := range []struct {
		word, secret string
		want         bool
	}{
		{"password=hunter2;", "hunter2\n", true}, {"hunt", "hunter2", true}, {"hun", "hunter2", true}, {"line", "hunter2", false},
		{"x=ab", "ab\n", true}, {"ok", "", false}, {"3", "hunter2", false},
	} {
		if got := leaks(tt.word, tt.secret); got != tt.want {
			t.Errorf("leaks(%q, %q) = %v", tt.word, tt.secret, got)
		}
	}
}
