//go:build failpoint && host

package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/gittest"
)

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
	empty := s.fill("host/srv/www", 0) // not even the ledger can be written
	s.change("fuller")
	s.fails("no space left")
	s.noTemporary()
	empty()
	s.converge()
	empty = s.fill("host/srv/www", 128<<10) // a page does not fit
	s.commit(func(files map[string]string) { files[page(0)] = strings.Repeat("a long page\n", 30_000) })
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
