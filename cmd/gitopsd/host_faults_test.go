//go:build failpoint && host

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"

	"connectrpc.com/connect"

	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/gittest"
)

var goldenStop = flag.Duration("golden.stop", 3*time.Second, "how long TestGoldenFaults stops the daemon (F2)")

// TestGoldenFaults puts the daemon through every fault that it can have with a
// file target (GR-FS3, S8): 40 files, nginx and its visitors notice none of them,
// and after each the next good commit is taken up.
func TestGoldenFaults(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, fault := range []struct {
		name string
		run  func()
	}{
		{"F1 SIGKILL", func() { s.daemon.kill(); s.start() }},
		{"F2 SIGSTOP", func() {
			s.daemon.signal(syscall.SIGSTOP)
			pause(*goldenStop)
			s.daemon.signal(syscall.SIGCONT)
		}},
		{"F3 stop", func() { s.terminate(); s.start() }},
		{"F4 store damaged", s.damageStore},
		{"F6 disk of the state full, then read-only", s.stateDisk},
		{"F7 Git gone", s.gitGone},
		{"F9 bad YAML, denying and broken policy", s.badInput},
		{"F11 another binary and back", s.upgrade},
		{"F14 flood of calls", s.flood},
		{"F16 cold start without Git and target", s.coldStart},
	} {
		s.untouched(fault.name, func() {
			began := time.Now()
			fault.run()
			s.converge()
			t.Logf("%s: %s", fault.name, time.Since(began).Round(time.Millisecond))
		})
		s.change("after " + fault.name)
		s.converge()
	}
	for name, run := range map[string]func(){"F2 SIGSTOP during a write": s.stopMidway, "F10 out of memory": s.outOfMemory, "F15 panic in the applier": s.panics} {
		began := time.Now()
		run()
		s.converge()
		t.Logf("%s: %s", name, time.Since(began).Round(time.Millisecond))
	}
}

// terminate ends the daemon as a service manager does.
func (s *site) terminate() {
	s.t.Helper()
	s.daemon.signal(syscall.SIGTERM)
	s.ended(s.daemon)
}

// said waits for words in the daemon's log.
func (s *site) said(words string) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !strings.Contains(s.daemon.said(), words); pause(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.must(fmt.Errorf("the daemon did not say %q", words))
		}
	}
}

func (s *site) damageStore() {
	s.daemon.kill()
	db := s.path("state/gitopsd.db")
	b, err := os.ReadFile(db)
	s.must(err)
	clear(b[2*4096 : len(b)/2])
	s.must(os.WriteFile(db, b, 0o600))
	s.start()
	s.ended(s.daemon)
	s.said("can be moved aside")
	s.must(os.Rename(db, db+".damaged"))
	s.start()
}

// stateDisk gives the state a disk of its own, fills it, and makes it read-only.
func (s *site) stateDisk() {
	s.terminate()
	s.must(os.Rename(s.path("state"), s.path("state.disk")))
	s.mountSmall("state")
	s.must(os.Chmod(s.path("state"), 0o700))
	s.must(syscall.Mount("", s.path("state"), "", syscall.MS_REMOUNT, "size=16m"))
	s.must(os.CopyFS(s.path("state"), os.DirFS(s.path("state.disk"))))
	s.start()
	s.converge()
	empty := s.fill("state", 0)
	s.refuses("no space left")
	empty()
	s.converge()
	s.terminate() // who has a file open for writing keeps its disk writable
	s.readOnly("state", true)
	s.start()
	s.ended(s.daemon)
	s.said("read-only file system")
	s.readOnly("state", false)
	s.start()
}

// refuses pushes a commit that cannot be taken up because of the disk, and then
// the content that lies there as a commit of its own again.
func (s *site) refuses(words string) {
	s.t.Helper()
	files := maps.Clone(s.files)
	files[page(0)] = "must not appear\n"
	s.repo.Commit("main", manifests(files))
	s.said(words)
	s.head = s.repo.Commit("main", manifests(s.files))
}

// fill fills the disk of a directory but for some bytes and returns what empties it.
func (s *site) fill(name string, but int64) (empty func()) {
	s.t.Helper()
	path := filepath.Join(s.path(name), ".filler")
	f, err := os.Create(path)
	s.must(err)
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	at, err := f.Seek(0, io.SeekCurrent)
	s.must(err)
	s.must(f.Truncate(at - but))
	return func() { s.must(os.Remove(path)) }
}

func (s *site) gitGone() {
	for what, answer := range map[string]http.HandlerFunc{
		"down": gittest.Status(503), "unauthorized": gittest.Status(401), "gone": gittest.Status(404),
		"cut": gittest.Cut, "no Git": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>maintenance</html>") },
		"blackhole": gittest.Hang,
	} {
		before := s.git.Requests()
		s.git.Intercept(answer)
		s.sourceFails(what)
		if s.git.Requests() == before {
			s.must(fmt.Errorf("%s: the server was not asked", what))
		}
		s.git.Intercept(nil)
		s.converge()
	}
}

// sourceFails waits until the status says that the source cannot be read.
func (s *site) sourceFails(what string) {
	s.t.Helper()
	s.until("the source is "+what+" and that is not said", func(a *apiv1.ApplicationStatus) error {
		if !strings.Contains(a.GetMessage(), "source fleet") {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
}

// refused waits until the status says that a commit is not taken up.
func (s *site) refused(head, words string) {
	s.t.Helper()
	s.until("the commit is not refused", func(a *apiv1.ApplicationStatus) error {
		if c := a.GetCandidate(); c.GetRevision() != head || c.GetState() == "Pending" && words == "" || !strings.Contains(a.String(), words) {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
}

func (s *site) badInput() {
	commit := func(change func(files map[string]gittest.File)) string {
		files := manifests(s.files)
		change(files)
		return s.repo.Commit("main", files)
	}
	s.refused(commit(func(files map[string]gittest.File) { files["web/bad.yaml"] = gittest.File{Data: "a: [\n"} }), "bad.yaml")
	files := maps.Clone(s.files)
	files[page(0)] = "a forbidden word\n"
	s.refused(commit(func(f map[string]gittest.File) { maps.Copy(f, manifests(files)) }), "forbidden word")
	s.write("policies/rules.rego", "package rules\n\ndeny contains {\n")
	s.said("policy set was not loaded") // until then the rules before judge
	files[page(0)] = "a new page while no policy can judge it\n"
	commit(func(f map[string]gittest.File) { maps.Copy(f, manifests(files)) })
	s.fails("new revisions wait")
	s.write("policies/rules.rego", siteRules)
	s.head = s.repo.Commit("main", manifests(s.files))
}

// upgrade ends the daemon, goes on with a copy of the program, and goes back.
func (s *site) upgrade() {
	program, err := os.Executable()
	s.must(err)
	b, err := os.ReadFile(program)
	s.must(err)
	s.must(os.MkdirAll(s.path("next"), 0o755))
	next := s.path("next/gitopsd")
	s.must(os.WriteFile(next, b, 0o755))
	s.terminate()
	s.startUnder(nil, "sh", "-c", `shift; exec "$0" "$@"`, next)
	s.converge()
	s.terminate()
	s.start()
}

func (s *site) flood() {
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			client, err := api.Dial(s.t.Context(), socketOf(s.dir))
			if err != nil {
				s.t.Errorf("flood: %v", err)
				return
			}
			defer client.Close()
			for i := range 250 {
				_, err := client.GetStatus(s.t.Context(), connect.NewRequest(&apiv1.GetStatusRequest{}))
				if err == nil && i%10 == 0 {
					_, err = client.Sync(s.t.Context(), connect.NewRequest(&apiv1.SyncRequest{}))
				}
				if err != nil {
					s.t.Errorf("flood: call %d: %v", i, err)
					return
				}
			}
		})
	}
	callers.Wait()
}

// coldStart starts the daemon while neither Git nor the disk of the pages can be used.
func (s *site) coldStart() {
	s.daemon.kill()
	s.git.Intercept(gittest.Status(503))
	s.readOnly("host/srv/www", true)
	s.start()
	s.sourceFails("down")
	s.readOnly("host/srv/www", false)
	s.git.Intercept(nil)
}

func (s *site) readOnly(name string, on bool) {
	s.t.Helper()
	flags := uintptr(syscall.MS_REMOUNT)
	if on {
		flags |= syscall.MS_RDONLY
	}
	for end := time.Now().Add(10 * time.Second); ; pause(time.Millisecond) {
		err := syscall.Mount("", s.path(name), "", flags, "")
		if err == nil {
			return
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(end) { // busy while a file is being written
			s.must(fmt.Errorf("remount %s: %w", name, err))
		}
	}
}

// midway commits a change of everything and returns when the first page has it.
func (s *site) midway(version string) {
	s.t.Helper()
	s.change(version)
	for end := time.Now().Add(30 * time.Second); ; pause(time.Millisecond) {
		for p, text := range s.files {
			if b, err := os.ReadFile(s.host(p)); err == nil && string(b) == text && strings.HasSuffix(p, ".html") {
				return
			}
		}
		if time.Now().After(end) {
			s.must(errors.New("no page was written"))
		}
	}
}

func (s *site) stopMidway() {
	s.midway("stopped midway")
	s.daemon.signal(syscall.SIGSTOP)
	pause(*goldenStop)
	s.daemon.signal(syscall.SIGCONT)
}

// panics has the applier panic between two files.
func (s *site) panics() {
	s.daemon.kill()
	s.change("panic")
	s.start(fmt.Sprintf("%s=%s:5:panic", failpointEnv, effect.FileRename))
	s.said("panic")
}

// outOfMemory runs the daemon with too little memory for its work, so that it
// ends at different places.
func (s *site) outOfMemory() {
	s.daemon.kill()
	s.change("out of memory")
	confined := s.confinement()
	ended := 0
	for step := range 7 {
		s.startUnder(nil, confined(step)...)
		select {
		case <-s.daemon.gone:
			ended++
		case <-time.After(2 * time.Second): // it fits, or it struggles
			s.daemon.kill()
		}
	}
	if ended == 0 {
		s.must(errors.New("no daemon ended for its memory"))
	}
	s.t.Logf("F10: ended for its memory %d times of 7", ended)
	s.start()
}

// confinement returns the wrapper that gives the daemon little memory, more with
// each step: a cgroup in which the kernel kills it or, where there is none to be
// had, a limit of its address space, at which it ends itself.
func (s *site) confinement() func(step int) []string {
	top, limit := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat(top); err != nil {
		top, limit = "/sys/fs/cgroup", "memory.max"
	}
	group := filepath.Join(top, filepath.Base(s.dir))
	err := os.Mkdir(group, 0o755)
	if err == nil {
		s.t.Cleanup(func() { _ = os.Remove(group) })
		err = os.WriteFile(filepath.Join(group, limit), fmt.Append(nil, 12<<20), 0o644)
	}
	if err != nil {
		s.t.Logf("F10: by ulimit, as there is no memory cgroup: %v", err)
		return func(step int) []string {
			return []string{"sh", "-c", `ulimit -v "$0" && exec "$@"`, fmt.Sprint((200 + 150*step) << 10)}
		}
	}
	return func(step int) []string {
		s.must(os.WriteFile(filepath.Join(group, limit), fmt.Append(nil, (12+4*step)<<20), 0o644))
		return []string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(group, "cgroup.procs")}
	}
}
