//go:build failpoint && host

package main

import (
	"errors"
	"flag"
	"fmt"
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

// TestGoldenKill kills the daemon at each step of writing files (GR-FS1): readers
// of a file, nginx and its visitors among them, see the old content or the new.
func TestGoldenKill(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, name := range []effect.Name{effect.FileWrite, effect.FileRename, effect.FileSyncDir, effect.FileLedger, effect.CommandRun, effect.StoreCommit} {
		for nth, when := range map[int]string{1: "before", 2: "after"} {
			s.daemon.kill()
			s.change(fmt.Sprint(name, when))
			s.start(fmt.Sprintf("%s=%s:%d:%s", failpointEnv, name, nth, when))
			t.Logf("killed %s %s %d", when, name, nth)
			s.ended(s.daemon)
			s.look()
			s.start()
			s.converge()
		}
	}
}

// ended waits for a daemon to end by itself.
func (s *site) ended(p *daemonProcess) {
	s.t.Helper()
	select {
	case <-p.gone:
	case <-time.After(30 * time.Second):
		s.must(errors.New("the daemon did not end"))
	}
}

// TestGoldenCheck commits a configuration that nginx does not take (GR-FS2,
// D2-70): the file, nginx and its traffic stay as they are.
func TestGoldenCheck(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	files := maps.Clone(s.files)
	files["/etc/nginx/nginx.conf"] += "not_a_directive on;\n"
	s.untouched("nginx -t fails", func() {
		s.repo.Commit("main", manifests(files))
		s.until("the failed check is not said", func(a *apiv1.ApplicationStatus) error {
			if !strings.Contains(a.String(), "not_a_directive") {
				return fmt.Errorf("%v", a)
			}
			return nil
		})
	})
	s.change("mended")
	s.converge()
}

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
	empty := s.fill("state")
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

// fill fills the disk of a directory to the last byte and returns what empties it.
func (s *site) fill(name string) (empty func()) {
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

// outOfMemory runs the daemon in a memory cgroup that is too small for its work,
// so that the kernel kills it, at different places.
func (s *site) outOfMemory() {
	s.daemon.kill()
	s.change("out of memory")
	top, limit := "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
	if _, err := os.Stat(top); err != nil {
		top, limit = "/sys/fs/cgroup", "memory.max"
	}
	group := filepath.Join(top, filepath.Base(s.dir))
	s.must(os.Mkdir(group, 0o755))
	s.t.Cleanup(func() { _ = os.Remove(group) })
	killed := 0
	for mib := 12; mib <= 36; mib += 4 {
		s.must(os.WriteFile(filepath.Join(group, limit), fmt.Append(nil, mib<<20), 0o644))
		s.startUnder(nil, "sh", "-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(group, "cgroup.procs"))
		select {
		case <-s.daemon.gone:
			if killed++; !s.daemon.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
				s.must(fmt.Errorf("%d MiB: ended with %v", mib, s.daemon.cmd.ProcessState))
			}
		case <-time.After(2 * time.Second): // it fits, or it struggles
			s.daemon.kill()
		}
	}
	if killed == 0 {
		s.must(errors.New("the kernel killed no daemon for its memory"))
	}
	s.t.Logf("F10: killed for its memory %d times of 7", killed)
	s.start()
}

// TestGoldenDisk takes the disk away under the daemon's hands (GR-FS4, D2-64,
// D2-65): read-only, full, and not mounted. Nothing is cut short, nothing is left
// lying about, nothing is written where the disk should be, and it goes on later.
func TestGoldenDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.midway("read-only")
	s.readOnly("host/srv/www", true)
	s.change("still read-only")
	s.fails("read-only file system")
	s.readOnly("host/srv/www", false)
	s.converge()

	s.midway("full")
	empty := s.fill("host/srv/www")
	s.change("fuller")
	s.fails("no space left")
	s.noTemporary()
	empty()
	s.converge()

	s.mountSmall("disk")
	mount := func() { s.mount(s.path("disk"), "host/srv/data", "", syscall.MS_BIND, "") }
	s.must(os.MkdirAll(s.host("/srv/data"), 0o755))
	mount()
	config, err := os.ReadFile(s.path("gitopsd.yaml"))
	s.must(err)
	s.write("gitopsd.yaml", strings.Replace(string(config), "/srv/www]", "/srv/www, /srv/data]", 1))
	s.said("configuration reloaded")
	data := func(text string) {
		s.commit(func(files map[string]string) {
			for i := range 5 {
				files[fmt.Sprintf("/srv/data/d%d", i)] = text
			}
		})
	}
	data("first")
	s.converge()
	s.mu.Lock()
	for p := range s.may {
		if strings.HasPrefix(p, "/srv/data") {
			s.may[p] = append(s.may[p], gone) // for the observer, while it is not mounted
		}
	}
	s.mu.Unlock()
	s.must(syscall.Unmount(s.host("/srv/data"), syscall.MNT_DETACH))
	data("second")
	s.fails("root is not available")
	if left, err := os.ReadDir(s.host("/srv/data")); err != nil || len(left) > 0 {
		s.must(fmt.Errorf("where the disk should be lies %v (%v)", left, err))
	}
	mount()
	s.converge()
}

// fails waits until the status names a failure.
func (s *site) fails(words string) {
	s.t.Helper()
	s.until("the fault is not said", func(a *apiv1.ApplicationStatus) error {
		if !strings.Contains(a.String(), words) {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
}

func (s *site) noTemporary() {
	s.t.Helper()
	for _, root := range []string{"/etc/nginx", "/srv/www"} {
		left, err := filepath.Glob(filepath.Join(s.host(root), ".gitopsd-tmp-*"))
		if err != nil || len(left) > 0 {
			s.must(fmt.Errorf("left behind: %v (%v)", left, err))
		}
	}
}

// TestGoldenRepository empties, deletes and rewrites what the daemon follows
// (GR-FS5, A-10, A-12, D-61): not one file is removed.
func TestGoldenRepository(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	refused := func(name string, files map[string]gittest.File, words string) {
		s.untouched(name, func() {
			s.refused(s.repo.Commit("main", files), words)
			s.head = s.repo.Commit("main", manifests(s.files))
			s.converge()
		})
	}
	refused("emptied", map[string]gittest.File{"README": {Data: "moved\n"}}, "")
	refused("emptied but for one file", map[string]gittest.File{"web/a.yaml": manifests(s.files)["web/srv-www-p0-html.yaml"]}, "prune.maxCount")
	s.untouched("branch deleted", func() {
		s.repo.DeleteRef("refs/heads/main")
		s.sourceFails("without its branch")
		s.repo.SetRef("refs/heads/main", s.head)
		s.converge()
	})
	s.untouched("forced push", func() {
		s.repo.ForcePush("main", map[string]gittest.File{"web/a.yaml": manifests(s.files)["web/srv-www-p0-html.yaml"]})
		s.sourceFails("rewritten")
		s.repo.SetRef("refs/heads/main", s.head)
		s.converge()
	})
	s.untouched("repository gone", func() {
		s.must(os.Rename(s.repo.Dir, s.repo.Dir+".away"))
		s.sourceFails("gone")
		s.must(os.Rename(s.repo.Dir+".away", s.repo.Dir))
		s.converge()
	})
	s.change("after all")
	s.converge()
}

// TestGoldenUninstall removes gitopsd from the host with all that is its own
// (GR-FS6); installed again, it takes over what lies there.
func TestGoldenUninstall(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	config, err := os.ReadFile(s.path("gitopsd.yaml"))
	s.must(err)
	s.untouched("uninstalled", func() {
		s.terminate()
		for _, p := range []string{"state", "gitopsd.yaml", "s", "policies", "host/etc/nginx/.gitopsd", "host/srv/www/.gitopsd"} {
			s.must(os.RemoveAll(s.path(p)))
		}
		s.look()
	})
	s.untouched("installed again", func() {
		s.must(os.Mkdir(s.path("policies"), 0o755))
		s.write("policies/rules.rego", siteRules)
		s.write("gitopsd.yaml", string(config))
		s.start()
		s.converge()
	})
	s.change("installed again")
	s.converge()
}

// TestGoldenStoreLost deletes the store (GR-FS7, E-86), and then the whole state
// directory, of a daemon that is stopped and of one that runs (GR-FS8): the files
// are taken over again without a write, and none is deleted.
func TestGoldenStoreLost(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, lost := range []string{"state/gitopsd.db", "state"} {
		s.untouched(lost+" deleted", func() {
			s.daemon.kill()
			s.must(os.RemoveAll(s.path(lost)))
			s.start()
			s.converge()
		})
		s.change("after " + lost)
		s.converge()
	}
	s.untouched("state deleted under the daemon", func() {
		s.must(os.RemoveAll(s.path("state")))
		s.until("no answer", func(*apiv1.ApplicationStatus) error { return nil })
		s.look()
		s.daemon.kill()
		s.start()
		s.converge()
	})
	s.commit(func(files map[string]string) { delete(files, page(pageCount-1)) }) // what was taken over is owned again
	s.converge()
}

// TestGoldenStoreOutdated takes a file out of Git while the store is lost (GR-FS7,
// E-86): who owned it is not known, so it stays.
func TestGoldenStoreOutdated(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.daemon.kill()
	s.must(os.RemoveAll(s.path("state")))
	before := s.identities()[page(pageCount-1)]
	without := maps.Clone(s.files)
	delete(without, page(pageCount-1))
	s.head = s.repo.Commit("main", manifests(without))
	s.mu.Lock()
	stays := s.files[page(pageCount-1)]
	delete(s.files, page(pageCount-1))
	s.mu.Unlock()
	s.start()
	s.until("not in step", func(a *apiv1.ApplicationStatus) error {
		if a.GetSync() != "Synced" || a.GetRevision() != s.head {
			return fmt.Errorf("%v", a)
		}
		return nil
	})
	s.mu.Lock()
	s.files[page(pageCount-1)] = stays
	s.mu.Unlock()
	if now := s.identities()[page(pageCount-1)]; now != before {
		s.must(fmt.Errorf("it was %s and is %s", before, now))
	}
	s.look()
}
