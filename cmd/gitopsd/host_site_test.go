//go:build failpoint && host

package main

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"

	"github.com/gitopsd/gitopsd/internal/gittest"
)

// site is a web host: a real nginx that serves files which a real gitopsd keeps,
// with visitors who never stop asking and an observer who never stops looking.
// A fault of gitopsd must not reach either.
type site struct {
	t       *testing.T
	dir     string // has host, state, gitopsd.yaml, policies and the socket
	address string // of nginx
	repo    *gittest.Repo
	git     *gittest.HTTP
	daemon  *daemonProcess
	others  []*daemonProcess // that ran before
	mounts  []string
	nginx   *exec.Cmd
	birth   string // of nginx
	head    string // the last good commit

	mu    sync.RWMutex
	files map[string]string   // declared content, by path
	may   map[string][]string // what may lie there now

	probes, samples atomic.Int64
	faults          faultList
	judge           func() // ends visitors and observer
}

const siteConfig = `apiVersion: gitopsd.io/v1alpha1
kind: Source
metadata: {name: fleet}
spec:
  git: {url: "URL", branch: main, interval: 1s, timeout: 5s}
---
apiVersion: gitopsd.io/v1alpha1
kind: PolicySet
metadata: {name: rules}
spec: {dir: DIR/policies}
---
apiVersion: gitopsd.io/v1alpha1
kind: Target
metadata: {name: host}
spec:
  file:
    prefix: DIR/host
    roots: [/etc/nginx, /srv/www]
    commands:
      nginx-syntax: {run: [nginx, -t, -c, "{file}"]}
      nginx-reload: {run: [sh, -c, "echo >> DIR/reloads; [ ! -s DIR/nginx.pid ] || kill -HUP $(cat DIR/nginx.pid)"]}
---
apiVersion: gitopsd.io/v1alpha1
kind: Application
metadata: {name: web}
spec:
  source: fleet
  path: web
  targets: [{name: host}]
  policies: [rules]
  retry: {max: 1s}
`

const siteRules = `package rules

deny contains "forbidden word" if contains(input.spec.content, "forbidden")
`

// newSite starts all of it and waits until the first commit is in place.
func newSite(t *testing.T) *site {
	if os.Getuid() != 0 {
		t.Fatal("this test mounts file systems and needs root: make test-host")
	}
	dir, err := os.MkdirTemp("", "site") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, dir: dir, repo: gittest.NewRepo(t), git: gittest.NewHTTP(t, gittest.HTTPOptions{}), files: map[string]string{}, may: map[string][]string{}}
	t.Cleanup(s.tearDown)
	// An address of its own, and a port that no client is given by chance.
	s.address = fmt.Sprintf("127.%d.%d.%d:8080", 1+rand.IntN(250), 1+rand.IntN(250), 1+rand.IntN(250))
	s.must(os.Chmod(dir, 0o755))
	for _, d := range []string{"host/etc/nginx/conf.d", "host/srv/www", "policies"} {
		s.must(os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	s.mountSmall("host/srv/www")
	s.write("gitopsd.yaml", strings.NewReplacer("URL", s.git.Serve("fleet", s.repo), "DIR", dir).Replace(siteConfig))
	s.write("policies/rules.rego", siteRules)
	s.files["/etc/nginx/nginx.conf"] = s.nginxConf("first")
	s.files["/etc/nginx/conf.d/site.conf"] = fmt.Sprintf("server { listen %s; root %s/host/srv/www; }\n", s.address, dir)
	for i := range pageCount {
		s.files[page(i)] = fmt.Sprintf("page %d, version 0\n", i)
	}
	s.commit(nil)
	s.start()
	s.converge()
	s.startNginx()
	s.observe()
	return s
}

func page(i int) string { return fmt.Sprintf("/srv/www/p%d.html", i) }

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		said := ""
		if s.daemon != nil {
			said = s.daemon.said()
		}
		s.t.Fatalf("%v\n%s", err, said)
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }
func (s *site) host(p string) string    { return filepath.Join(s.dir, "host", p) }
func (s *site) write(name, text string) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(name), []byte(text), 0o644))
}

// mountSmall puts a file system of 2 MiB at a directory, in the mount namespace
// that make test-host has made for these tests.
func (s *site) mountSmall(name string) {
	s.t.Helper()
	s.must(os.MkdirAll(s.path(name), 0o755))
	s.mount("tmpfs", name, "tmpfs", 0, "size=2m,mode=755")
}

func (s *site) mount(what, name, kind string, flags uintptr, options string) {
	s.t.Helper()
	s.must(syscall.Mount(what, s.path(name), kind, flags, options))
	s.mounts = append(s.mounts, s.path(name))
}

// tearDown removes all of it, first those who would notice.
func (s *site) tearDown() {
	if s.judge != nil {
		s.judge()
	}
	if s.nginx != nil {
		_ = s.nginx.Process.Signal(syscall.SIGTERM)
		_ = s.nginx.Wait()
	}
	for _, p := range s.others {
		p.kill()
	}
	for _, m := range slices.Backward(s.mounts) {
		_ = syscall.Unmount(m, syscall.MNT_DETACH) // the last of a place ends with an error
	}
	_ = os.RemoveAll(s.dir)
}

func (s *site) nginxConf(version string) string {
	return fmt.Sprintf("# %s\nuser root;\nworker_processes 1;\npid %s/nginx.pid;\nerror_log %s/nginx.log;\nevents { worker_connections 256; }\n"+
		"http {\n  access_log off;\n  include conf.d/*.conf;\n}\n", version, s.dir, s.dir)
}

// start starts the daemon, with more in its environment.
func (s *site) start(env ...string) { s.t.Helper(); s.startUnder(env) }

// startUnder starts it under the program and arguments of a wrapper.
func (s *site) startUnder(env []string, wrapper ...string) {
	s.t.Helper()
	p, err := launch(s.dir, env, wrapper...)
	s.must(err)
	s.daemon, s.others = p, append(s.others, p)
}

// commit pushes what is declared after a change, as a good commit: until it is
// in place, the old and the new content may lie there.
func (s *site) commit(change func(files map[string]string)) {
	s.t.Helper()
	s.mu.Lock()
	before := maps.Clone(s.files)
	if change != nil {
		change(s.files)
	}
	for p := range before {
		if _, kept := s.files[p]; !kept {
			s.may[p] = append(s.may[p], gone)
		}
	}
	for p, text := range s.files {
		if _, there := before[p]; !there || len(s.may[p]) == 0 {
			s.may[p] = append(s.may[p], gone)
		}
		s.may[p] = append(s.may[p], text)
	}
	files := maps.Clone(s.files)
	s.mu.Unlock()
	s.head = s.repo.Commit("main", manifests(files))
}

// gone stands for the content of a file that is not there.
const gone = "\x00gone"

// manifests declares files.
func manifests(files map[string]string) map[string]gittest.File {
	out := map[string]gittest.File{}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		name := strings.NewReplacer("/", "-", ".", "-").Replace(strings.TrimPrefix(p, "/"))
		text := fmt.Sprintf("apiVersion: host.gitopsd.io/v1alpha1\nkind: File\nmetadata: {name: %s}\nspec:\n  path: %s\n  content: %q\n", name, p, files[p])
		if strings.HasSuffix(p, "nginx.conf") {
			text += "  check: nginx-syntax\n"
		}
		if strings.HasSuffix(p, ".conf") {
			text += "  onChange: nginx-reload\n"
		}
		out["web/"+name+".yaml"] = gittest.File{Data: text}
	}
	return out
}

// change writes a new version into every page and the configuration of nginx.
func (s *site) change(version string) {
	s.t.Helper()
	s.commit(func(files map[string]string) {
		files["/etc/nginx/nginx.conf"] = s.nginxConf(version)
		for p := range files {
			if strings.HasSuffix(p, ".html") {
				files[p] = fmt.Sprintf("%s, version %s\n", filepath.Base(p), version)
			}
		}
	})
}

// until waits for the status of the application.
func (s *site) until(what string, wanted func(*apiv1.ApplicationStatus) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 40*time.Second)
	defer cancel()
	err := watchStatus(ctx, s.dir, true, func(apps []*apiv1.ApplicationStatus) error {
		if len(apps) != 1 {
			return fmt.Errorf("%d applications", len(apps))
		}
		return wanted(apps[0])
	})
	if err != nil {
		s.must(fmt.Errorf("%s: %w", what, err))
	}
}

// converge waits until the last good commit is in place, and lets nothing else
// lie there from now on.
func (s *site) converge() {
	s.t.Helper()
	s.until("the last good commit is not taken up", func(a *apiv1.ApplicationStatus) error {
		if a.GetSync() != "Synced" || a.GetRevision() != s.head || len(a.GetFailures()) > 0 || a.GetPhase() != "Idle" ||
			int(a.GetObjects().GetOwned()) != len(s.files) {
			return fmt.Errorf("%d files expected at %s: %v", len(s.files), s.head, a)
		}
		return nil
	})
	s.mu.Lock()
	for p := range s.may {
		if text, declared := s.files[p]; declared {
			s.may[p] = []string{text}
		} else {
			s.may[p] = []string{gone}
		}
	}
	s.mu.Unlock()
	s.look()
	s.litter()
}

// litter fails when there are files nobody declared, such as temporary ones.
func (s *site) litter() {
	s.t.Helper()
	for _, root := range []string{"/etc/nginx", "/srv/www"} {
		s.must(filepath.WalkDir(s.host(root), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Name() == ".gitopsd" {
				return fs.SkipDir
			}
			if _, declared := s.files[strings.TrimPrefix(p, s.path("host"))]; !d.IsDir() && !declared {
				return fmt.Errorf("nobody declared %s", p)
			}
			return nil
		}))
	}
}

// identities is what changes when somebody writes, replaces or touches a file.
func (s *site) identities() map[string]string {
	s.t.Helper()
	out := map[string]string{}
	for p := range s.files {
		info, err := os.Lstat(s.host(p))
		if err != nil {
			out[p] = err.Error()
			continue
		}
		st := info.Sys().(*syscall.Stat_t)
		out[p] = fmt.Sprintf("inode %d, mode %o, changed %d.%09d", st.Ino, st.Mode, st.Ctim.Sec, st.Ctim.Nsec)
	}
	b, err := os.ReadFile(s.path("reloads"))
	s.must(err)
	out["reloads"] = fmt.Sprint(len(b))
	return out
}

// untouched runs a fault during which not one file may be written, nor nginx reloaded.
func (s *site) untouched(fault string, do func()) {
	s.t.Helper()
	before := s.identities()
	do()
	after := s.identities()
	for _, p := range slices.Sorted(maps.Keys(before)) {
		if before[p] != after[p] {
			s.must(fmt.Errorf("%s: %s was touched: %s, now %s", fault, p, before[p], after[p]))
		}
	}
}
