package reconciler

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
	memstore "github.com/gitopsd/gitopsd/internal/store/memory"
	"github.com/gitopsd/gitopsd/sources"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// gateChecks is how many lives a property test draws unless -rapid.checks says
// otherwise: each life is some 40 steps of a whole loop.
const gateChecks = "40"

func TestMain(m *testing.M) {
	flag.Parse()
	told := false
	flag.Visit(func(f *flag.Flag) { told = told || f.Name == "rapid.checks" })
	if !told {
		if err := flag.Set("rapid.checks", gateChecks); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m)
}

// sim is a whole loop on memory parts inside a bubble of fake time: a
// repository "fleet" with branch main, a target "one" (and what else a test
// adds), and the applications of its configuration.
type sim struct {
	t      *testing.T
	repo   *memsource.Repository
	worlds map[string]*memapply.World
	is     map[string]memapply.Personality
	more   map[string]*memsource.Repository // further sources
	tune   func(*TargetConfig)
	serve  func(keepOpen) sources.Repository // what a source is opened as
	store  store.Store
	sealer *manifest.Sealer
	judge  *rules // of policy set "rules"; nil when there is none
	apps   []Application
	reg    *prometheus.Registry
	crash  crash
	log    *slog.Logger
	sink   func([]Event) // sees each batch of events before it is taken

	m      *Manager
	cancel context.CancelFunc
	ended  chan error
	mu     sync.Mutex
	events []Event
}

// simulate runs fn in a bubble with a stopped sim; fn configures and starts it.
// Tests that simulate are not parallel: under the race detector of Go 1.26 the
// timers of bubbles that run side by side end the process with SIGSEGV, in
// runtime.(*timer).maybeRunChan.
func simulate(t *testing.T, fn func(s *sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sealer, err := manifest.NewSealer([]byte(strings.Repeat("k", 32)))
		if err != nil {
			t.Fatal(err)
		}
		s := &sim{
			t: t, repo: memsource.New(), worlds: map[string]*memapply.World{"one": memapply.NewWorld()},
			is: map[string]memapply.Personality{}, store: memstore.New(), sealer: sealer,
		}
		s.more, s.tune = map[string]*memsource.Repository{}, func(*TargetConfig) {}
		s.log = slog.New(slog.DiscardHandler)
		s.serve = func(r keepOpen) sources.Repository { return r }
		defer func() { s.stop() }()
		fn(s)
	})
}

// app is an application of source fleet on target one.
func (s *sim) app(name, path string, change ...func(*Application)) {
	a := Application{
		Name: name, Source: "fleet", Path: path, Prune: true,
		Routes: []appliers.Route{{Target: "one"}}, Interval: time.Minute,
		Budget: plan.Budget{MaxCount: 10, MaxPercent: 50},
	}
	if s.judge != nil {
		a.Policies = []string{"rules"}
	}
	for _, c := range change {
		c(&a)
	}
	a.Digest = fmt.Sprintf("%+v", a)
	s.apps = append(slices.DeleteFunc(s.apps, func(o Application) bool { return o.Name == name }), a)
}

func (s *sim) config() Config {
	c := Config{Applications: slices.Clone(s.apps), Sources: []SourceConfig{s.sourceConfig("fleet", s.repo)}}
	for _, name := range slices.Sorted(maps.Keys(s.more)) {
		c.Sources = append(c.Sources, s.sourceConfig(name, s.more[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.worlds)) {
		t := TargetConfig{Name: name, Digest: "1", Open: func() (appliers.Applier, error) {
			return memapply.New(appliers.Env{Target: name, Now: time.Now, Sealer: s.sealer, Effect: s.crash.seam}, s.worlds[name], s.is[name]), nil
		}}
		s.tune(&t)
		c.Targets = append(c.Targets, t)
	}
	if s.judge != nil {
		c.PolicySets = []PolicySetConfig{s.judge.config()}
	}
	return c
}

func (s *sim) sourceConfig(name string, repo *memsource.Repository) SourceConfig {
	return SourceConfig{
		Name: name, Digest: "1", Identity: name + " main",
		Open: func() (*sources.Source, error) {
			return &sources.Source{Name: name, Repository: s.serve(keepOpen{repo}), Ref: sources.Ref{Branch: "main"}, Interval: 10 * time.Second}, nil
		},
	}
}

// reload hands the present configuration to the running manager.
func (s *sim) reload() error {
	err := s.m.Reload(context.Background(), s.config())
	synctest.Wait()
	return err
}

// keepOpen lets a repository survive the restart of its daemon.
type keepOpen struct{ *memsource.Repository }

func (keepOpen) Close() error { return nil }

// start begins to work and waits until nothing moves.
func (s *sim) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	opts := Options{
		Store: &mortalStore{s.store, &s.crash}, Sealer: s.sealer, Log: s.log, Rand: rand.New(rand.NewPCG(1, 2)),
		Events: func(_ context.Context, batch []Event) error {
			if s.sink != nil {
				s.sink(batch)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, batch...)
			return nil
		},
	}
	if s.reg != nil {
		opts.Metrics = NewMetrics(s.reg)
	}
	m, err := New(ctx, opts)
	if err != nil {
		s.t.Fatal(err)
	}
	s.m, s.cancel, s.ended = m, cancel, make(chan error, 1)
	go func() { s.ended <- m.Run(ctx, s.config()) }()
	synctest.Wait()
}

// stop ends the process; what it knows only in memory is lost.
func (s *sim) stop() {
	s.t.Helper()
	if s.m == nil {
		return
	}
	s.cancel()
	if err := <-s.ended; err != nil {
		s.t.Error(err)
	}
	s.m = nil
}

// commit commits files to main; an empty content deletes. It does not wait.
func (s *sim) commit(files map[string]string) string { return commitTo(s.repo, files) }

// pass lets so much time pass and waits until nothing moves.
func (s *sim) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (s *sim) status(app string) Status {
	s.t.Helper()
	st, err := s.m.Status(app)
	if err != nil {
		s.t.Fatal(err)
	}
	return st[0]
}

func (s *sim) wantSync(app string, want SyncStatus, message string) {
	s.t.Helper()
	st := s.status(app)
	if st.Sync != want || !strings.Contains(st.Message, message) {
		s.t.Fatalf("%s is %s (%s): %q\nwant %s with %q\nfailures: %+v\ncandidate: %+v", app, st.Sync, st.Phase, st.Message, want, message, st.Failures, st.Candidate)
	}
}

func (s *sim) wantCounts(target string, creates, updates, deletes int) {
	s.t.Helper()
	if c := s.worlds[target].Counters(); c.Creates != creates || c.Updates != updates || c.Deletes != deletes {
		s.t.Fatalf("target %s: %d creates, %d updates, %d deletes; want %d, %d, %d", target, c.Creates, c.Updates, c.Deletes, creates, updates, deletes)
	}
}

// happened returns all events so far.
func (s *sim) happened() []Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

func (s *sim) eventKinds() map[EventKind]int {
	out := map[EventKind]int{}
	for _, e := range s.happened() {
		out[e.Kind]++
	}
	return out
}

// thing is the manifest of an object with one field.
func thing(name, value string, lines ...string) string {
	annotations := ""
	if len(lines) > 0 {
		annotations = "  annotations:\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	return fmt.Sprintf("apiVersion: test.example/v1\nkind: Thing\nmetadata:\n  name: %q\n%sspec:\n  value: %s\n", name, annotations, value)
}

func where(name string) string { return "memory:test.example/Thing/" + name }

func (s *sim) value(target, name string) any {
	live, ok := s.worlds[target].Get(where(name))
	if !ok {
		return nil
	}
	v, _ := manifest.Lookup(live.Content, "/spec/value")
	return v
}

func (s *sim) wantValue(target, name string, want any) {
	s.t.Helper()
	if got := s.value(target, name); got != want {
		s.t.Fatalf("%s on %s is %v, want %v", name, target, got, want)
	}
}

// commitTo commits to main of any repository.
func commitTo(repo *memsource.Repository, files map[string]string) string {
	var gone []string
	for path, content := range files {
		if content == "" {
			gone = append(gone, path)
			delete(files, path)
		}
	}
	return repo.CommitFiles("main", files, memsource.Delete(gone...))
}

// things returns files with objects of these names below a directory.
func things(dir string, n int, value string) map[string]string {
	files := make(map[string]string, n)
	for i := range n {
		name := fmt.Sprintf("o%05d", i)
		files[fmt.Sprintf("%s/%03d/%s.yaml", dir, i/100, name)] = thing(name, value)
	}
	return files
}

// without returns the files with empty content: a commit that deletes them.
func without(files map[string]string) map[string]string {
	out := make(map[string]string, len(files))
	for path := range files {
		out[path] = ""
	}
	return out
}

func (s *sim) key(target, name string) plan.Key {
	return plan.Key{Target: target, ID: manifest.ID{Group: "test.example", Kind: "Thing", Name: name}}
}

func (s *sim) owner(target, name string) string {
	s.m.registry.mu.RLock()
	defer s.m.registry.mu.RUnlock()
	return s.m.registry.entries[s.key(target, name)].Owner
}

// wantQuiet holds that an application in a steady state makes few rounds: a
// complete look a minute, and a little for what is retried.
func (s *sim) wantQuiet(app string, d time.Duration, most uint64) {
	s.t.Helper()
	before := s.status(app).Round
	s.pass(d)
	if n := s.status(app).Round - before; n > most {
		s.t.Fatalf("%s made %d rounds in %s, want at most %d: %+v", app, n, d, most, s.status(app))
	}
}

// failure returns what is said of an object, or "".
func (s *sim) failure(app, name string) string {
	for _, f := range s.status(app).Failures {
		if f.Key.ID.Name == name {
			return f.Message
		}
	}
	return ""
}

func (s *sim) wantFailure(app, name, message string) {
	s.t.Helper()
	if got := s.failure(app, name); got == "" || !strings.Contains(got, message) {
		s.t.Fatalf("%s: %q, want %q\nstatus %+v", name, got, message, s.status(app))
	}
}

// setReadErr makes every read of target one fail, or succeed again.
func (s *sim) setReadErr(err error) { s.worlds["one"].SetFaults(memapply.Faults{ReadErr: err}) }

func objectName(i int) string { return fmt.Sprintf("o%05d", i) }
