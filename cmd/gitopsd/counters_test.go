package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/config"
	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/reconciler"
	"github.com/gitopsd/gitopsd/sources"
)

// meters count what passes between the parts of a daemon, which are the real ones.
type meters struct {
	server  *gittest.HTTP
	decoded atomic.Int64 // files read from trees of the followed repository
	applied atomic.Int64 // operations handed to the target
	verdict atomic.Pointer[policies.Cache]
}

// work is what a stretch of time cost.
type work struct{ refs, transfers, decoded, judged, applied int }

func (m *meters) total() work {
	w := work{
		refs: m.server.InfoRefs(), transfers: m.server.UploadPacks(),
		decoded: int(m.decoded.Load()), applied: int(m.applied.Load()),
	}
	if c := m.verdict.Load(); c != nil {
		_, asked := c.Stats()
		w.judged = int(asked)
	}
	return w
}

func (m *meters) cost(do func()) work {
	was := m.total()
	do()
	now := m.total()
	return work{now.refs - was.refs, now.transfers - was.transfers, now.decoded - was.decoded, now.judged - was.judged, now.applied - was.applied}
}

// attach puts the meters between the parts of a configuration.
func (m *meters) attach(c *reconciler.Config) {
	for i := range c.Sources {
		if c.Sources[i].Name != "fleet" {
			continue
		}
		open := c.Sources[i].Open
		c.Sources[i].Open = func() (*sources.Source, error) {
			s, err := open()
			if err == nil {
				s.Repository = meteredRepository{s.Repository, m}
			}
			return s, err
		}
	}
	for i := range c.Targets {
		open := c.Targets[i].Open
		c.Targets[i].Open = func() (appliers.Applier, error) {
			a, err := open()
			return meteredApplier{a, m}, err
		}
	}
	for i := range c.PolicySets {
		load := c.PolicySets[i].Load
		c.PolicySets[i].Load = func(ctx context.Context, files map[string][]byte) (policies.Policy, error) {
			p, err := load(ctx, files)
			if named, ok := p.(interface{ Unwrap() policies.Policy }); ok {
				cache, _ := named.Unwrap().(*policies.Cache)
				m.verdict.Store(cache)
			}
			return p, err
		}
	}
}

type meteredRepository struct {
	sources.Repository
	m *meters
}

func (r meteredRepository) Unwrap() sources.Repository { return r.Repository }

func (r meteredRepository) Open(ctx context.Context, revision string) (sources.Tree, error) {
	t, err := r.Repository.Open(ctx, revision)
	return meteredTree{t, r.m}, err
}

type meteredTree struct {
	sources.Tree
	m *meters
}

func (t meteredTree) ReadFile(path string, limit int64) ([]byte, error) {
	t.m.decoded.Add(1)
	return t.Tree.ReadFile(path, limit)
}

type meteredApplier struct {
	appliers.Applier
	m *meters
}

func (a meteredApplier) Unwrap() appliers.Applier { return a.Applier }

func (a meteredApplier) Apply(ctx context.Context, ops []appliers.Operation) []appliers.Result {
	a.m.applied.Add(int64(len(ops)))
	return a.Applier.Apply(ctx, ops)
}

// TestCostFollowsTheChange: over smart HTTP, with policies of OPA and files on a
// host, a round without a change costs one request for refs and nothing else, and
// a commit of one file costs one of everything. The loop alone is held to the same
// with 10,000 objects; here each is written to a disk.
func TestCostFollowsTheChange(t *testing.T) {
	n, most := 2_000, 5*time.Minute
	if raceDetector {
		n = 200
	}
	dir := t.TempDir()
	files := map[string]string{}
	manifest := func(i int, content string) (path, text string) {
		return fmt.Sprintf("web/d%02d/f%05d.yaml", i%100, i), fmt.Sprintf(`apiVersion: host.gitopsd.io/v1alpha1
kind: File
metadata: {name: f%05[1]d}
spec: {path: /etc/d%02[2]d/f%05[1]d, content: %[3]q}
`, i, i%100, content)
	}
	for i := range n {
		path, text := manifest(i, "first")
		files[path] = text
	}
	for i := range 100 {
		mkdir(t, filepath.Join(dir, "host/etc", fmt.Sprintf("d%02d", i)))
	}
	mkdir(t, filepath.Join(dir, "policies"))
	writeFile(t, filepath.Join(dir, "policies/mode.rego"), `package main

deny contains msg if {
	input.kind == "File"
	endswith(input.spec.path, ".forbidden")
	msg := "no such files"
}
`)
	repo := gittest.NewRepo(t)
	repo.Write("main", files)
	m := &meters{server: gittest.NewHTTP(t, gittest.HTTPOptions{})}
	writeFile(t, filepath.Join(dir, "gitopsd.yaml"), fmt.Sprintf(`apiVersion: gitopsd.io/v1alpha1
kind: Source
metadata: {name: fleet}
spec: {git: {url: %[2]s, branch: main, interval: 1h, timeout: 2m}}
---
apiVersion: gitopsd.io/v1alpha1
kind: PolicySet
metadata: {name: rules}
spec: {dir: %[1]s/policies}
---
apiVersion: gitopsd.io/v1alpha1
kind: Target
metadata: {name: host}
spec: {file: {prefix: %[1]s/host, roots: [/etc]}}
---
apiVersion: gitopsd.io/v1alpha1
kind: Application
metadata: {name: web}
spec: {source: fleet, path: web, policies: [rules], interval: 1h, targets: [{name: host}]}
`, dir, m.server.Serve("fleet.git", repo)))

	ctx, cancel := context.WithTimeout(t.Context(), most)
	defer cancel()
	d := runMetered(ctx, t, m, dir)
	first := m.cost(func() { d.until(ctx, t, repo.Ref("refs/heads/main"), false) })
	if first.decoded != n || first.judged != n || first.applied != n {
		t.Errorf("the first round cost %+v, want %d of each", first, n)
	}

	quiet := m.cost(func() { d.until(ctx, t, repo.Ref("refs/heads/main"), true) })
	if quiet != (work{refs: 1}) {
		t.Errorf("a round without a change cost %+v, want one request for refs", quiet)
	}

	path, text := manifest(n/2, "second")
	small := m.cost(func() { d.until(ctx, t, repo.Write("main", map[string]string{path: text}), true) })
	// To fetch, HTTP asks for refs once more.
	if small != (work{refs: 2, transfers: 1, decoded: 1, judged: 1, applied: 1}) {
		t.Errorf("a commit of one file cost %+v, want one transfer and 1 file decoded, judged, applied", small)
	}
	if got, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("host/etc/d%02d/f%05d", n/2%100, n/2))); err != nil || string(got) != "second" {
		t.Errorf("on the host: %q, %v", got, err)
	}
}

// metered is a daemon whose parts are watched by meters.
type metered struct{ *daemon }

// runMetered starts a daemon over dir, without its socket, until the test ends.
func runMetered(ctx context.Context, t *testing.T, m *meters, dir string) metered {
	t.Helper()
	d := &daemon{
		daemonOptions: daemonOptions{config: filepath.Join(dir, "gitopsd.yaml"), stateDir: filepath.Join(dir, "state"), socket: filepath.Join(dir, "s")},
		log:           slog.New(slog.DiscardHandler), started: time.Now(),
	}
	cfg, err := config.LoadPath(d.config)
	if err != nil {
		t.Fatal(err)
	}
	db, err := d.openState(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, err := d.take(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.attach(&first)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.manager.Run(ctx, first) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-d.manager.Ready():
	case err := <-ended:
		t.Fatalf("the daemon ended: %v", err)
	}
	return metered{d}
}

// until waits for the application to be in step with a revision. With sync it
// polls the source and looks at every object first, once.
func (d metered) until(ctx context.Context, t *testing.T, revision string, sync bool) {
	t.Helper()
	changed := d.manager.Changed(ctx)
	if sync {
		if err := d.manager.Sync(ctx, "test", "web", true); err != nil {
			t.Fatal(err)
		}
	}
	for {
		list, err := d.manager.Status("web")
		if err != nil {
			t.Fatal(err)
		}
		if s := list[0]; s.Revision == revision && s.Sync == reconciler.Synced && s.Phase == reconciler.PhaseIdle {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%v: %+v", ctx.Err(), list[0])
		}
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
