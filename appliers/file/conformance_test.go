package file

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/appliers/applytest"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func TestMain(m *testing.M) {
	if scenario := os.Getenv(childEnv); scenario != "" {
		os.Exit(runChild(scenario))
	}
	goleak.VerifyTestMain(m)
}

// memKV is a durable map as the daemon's store gives it; it outlives appliers.
type memKV struct {
	mu sync.Mutex
	m  map[string][]byte
}

func newKV() *memKV { return &memKV{m: map[string][]byte{}} }

func (k *memKV) Get(_ context.Context, key string) ([]byte, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.m[key]
	return v, ok, nil
}

func (k *memKV) Put(_ context.Context, key string, value []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if value == nil {
		delete(k.m, key)
	} else {
		k.m[key] = value
	}
	return nil
}

func (k *memKV) List(_ context.Context, prefix string) (map[string][]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := maps.Clone(k.m)
	maps.DeleteFunc(out, func(key string, _ []byte) bool { return !strings.HasPrefix(key, prefix) })
	return out, nil
}

// host is a root in a temporary directory with an applier on it.
type host struct {
	*Applier
	root  string
	kv    *memKV
	env   appliers.Env
	locks *Locks

	mu      sync.Mutex
	effects []effect.Name
	fault   func(name effect.Name, key string, do func() error) error
}

func (h *host) seam(name effect.Name, key string, do func() error) error {
	h.mu.Lock()
	h.effects = append(h.effects, name)
	fault := h.fault
	h.mu.Unlock()
	if fault != nil {
		return fault(name, key, do)
	}
	return do()
}

// count returns how often the given effects passed the seam.
func (h *host) effectCount(names ...effect.Name) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, e := range h.effects {
		if slices.Contains(names, e) {
			n++
		}
	}
	return n
}

// realDir returns a temporary directory by its real path.
func realDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// newHost makes an applier on a fresh root. config is more JSON for its section,
// as in `, "crossMounts": true`.
func newHost(t testing.TB, config string) *host {
	t.Helper()
	return hostAt(t, realDir(t), config)
}

func hostAt(t testing.TB, root, config string) *host {
	t.Helper()
	sealer, err := manifest.NewSealer([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	h := &host{root: root, kv: newKV(), locks: NewLocks()}
	h.env = appliers.Env{
		Target: "host", KV: h.kv, Now: time.Now, Effect: h.seam, Sealer: sealer, Log: slog.New(slog.DiscardHandler),
		Config: json.RawMessage(fmt.Sprintf(`{"roots": [%q]%s}`, root, config)),
	}
	h.Applier = h.reopen(t)
	return h
}

func (h *host) reopen(t testing.TB) *Applier {
	t.Helper()
	a, err := Factory(h.locks)(h.env)
	if err != nil {
		t.Fatal(err)
	}
	f, ok := a.(*Applier)
	if !ok {
		t.Fatalf("factory made a %T", a)
	}
	return f
}

func (h *host) path(name string) string { return filepath.Join(h.root, name) }

func (h *host) put(t testing.TB, name, content string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (h *host) content(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(h.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// writes are the effects that change objects; the ledger's own are not among them.
var writes = []effect.Name{
	effect.FileWrite, effect.FileChmod, effect.FileRename, effect.FileRemove, effect.FileMkdir, effect.FileSymlink,
}

func object(t testing.TB, kind, name string, spec map[string]any) *manifest.Object {
	t.Helper()
	o, err := manifest.New(map[string]any{
		"apiVersion": Group + "/v1alpha1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec,
	}, manifest.Origin{Path: "host/" + name + ".yaml", Line: 1})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Object builders of the suite, by kind.
var variants = map[string]func(path string, n int) map[string]any{
	"File": func(p string, n int) map[string]any {
		return map[string]any{"path": p, "content": fmt.Sprintf("variant %d\n", n), "mode": "0640", "owner": int64(os.Getuid())}
	},
	"Directory": func(p string, n int) map[string]any {
		return map[string]any{"path": p, "mode": fmt.Sprintf("07%d0", n)}
	},
	"Symlink": func(p string, n int) map[string]any {
		return map[string]any{"path": p, "target": fmt.Sprintf("to/%d", n)}
	},
}

func TestConformance(t *testing.T) {
	for kind, variant := range variants {
		t.Run(kind, func(t *testing.T) {
			// Resolve knows paths only, so all fixtures of a run share one base that
			// is empty at the start of each.
			base := realDir(t)
			at := func(name string) string { return filepath.Join(base, "root", name) }
			applytest.Run(t, applytest.Harness{
				Target: "host",
				Object: func(t *testing.T, name string, n int) *manifest.Object {
					return object(t, kind, name, variant(at(name), n))
				},
				Kept: staying(kind, at),
				Invalid: map[string]*manifest.Object{
					"spec.path": object(t, kind, "outside", variant("/etc/elsewhere", 1)),
					"..":        object(t, kind, "dots", variant(base+"/root/../x", 1)),
				},
				Open: func(t *testing.T) *applytest.Fixture { return fixture(t, filepath.Join(base, "root"), kind) },
			})
		})
	}
}

// staying returns files that stay when they are pruned; other kinds have no such field.
func staying(kind string, at func(string) string) func(*testing.T, string) *manifest.Object {
	if kind != kindFile {
		return nil
	}
	return func(t *testing.T, name string) *manifest.Object {
		return object(t, kind, name, map[string]any{"path": at(name), "content": "kept\n", "onPrune": pruneLeave})
	}
}

func fixture(t *testing.T, root, kind string) *applytest.Fixture {
	t.Helper()
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(realDir(t), "broken")
	h := hostAt(t, root, fmt.Sprintf(`, "commands": {"reload": {"run": ["test", "!", "-e", %q]}}`, broken))
	f := &applytest.Fixture{
		Applier: h.Applier, Records: true,
		Reopen: func(t *testing.T) appliers.Applier { return h.reopen(t) },
		Writes: func() int { return h.effectCount(writes...) },
		Put:    func(t *testing.T, obj *manifest.Object) { byHand(t, obj) },
		Remove: func(t *testing.T, locator string) {
			if err := os.Remove(locator); err != nil {
				t.Fatal(err)
			}
		},
		Block: func(t *testing.T, _ string) func() {
			// The root is gone, as when its file system is not mounted.
			if err := os.Rename(root, root+".away"); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := os.Rename(root+".away", root); err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	if kind == kindFile { // no other has a command that follows
		f.Owe = func(t *testing.T) (*manifest.Object, func()) {
			if err := os.WriteFile(broken, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			spec := map[string]any{"path": filepath.Join(root, "served"), "content": "x\n", "onChange": "reload"}
			return object(t, kind, "served", spec), func() {
				if err := os.Remove(broken); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return f
}

// byHand makes what an object declares, without an applier.
func byHand(t *testing.T, obj *manifest.Object) {
	t.Helper()
	spec := obj.Spec()
	p, _ := spec["path"].(string)
	var mode os.FileMode
	if m, ok := spec["mode"].(string); ok {
		var n uint32
		if _, err := fmt.Sscanf(m, "%o", &n); err != nil {
			t.Fatal(err)
		}
		mode = os.FileMode(n)
	}
	var err error
	switch obj.ID().Kind {
	case kindFile:
		content, _ := spec["content"].(string)
		err = os.WriteFile(p, []byte(content), mode)
	case kindDirectory:
		err = os.MkdirAll(p, mode)
	case kindSymlink:
		target, _ := spec["target"].(string)
		_ = os.Remove(p) // it may not be there
		err = os.Symlink(target, p)
	}
	if err == nil && mode != 0 {
		err = os.Chmod(p, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// result is one query or operation in the tests below.
func (h *host) resolve(t testing.TB, obj *manifest.Object) appliers.Resolved {
	t.Helper()
	r, err := h.Resolve(obj)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func key(obj *manifest.Object) plan.Key { return plan.Key{Target: "host", ID: obj.ID()} }

func query(key plan.Key, r appliers.Resolved) appliers.Query {
	q := appliers.Query{Key: key, Locator: r.Locator, Desired: r.Object}
	for _, f := range manifest.Fields(r.Object.Content()) {
		q.Fields = append(q.Fields, f.Path)
	}
	return q
}

func (h *host) see(t testing.TB, obj *manifest.Object) plan.Observed {
	t.Helper()
	return h.ask(t, query(key(obj), h.resolve(t, obj)))
}

func (h *host) ask(t testing.TB, q appliers.Query) plan.Observed {
	t.Helper()
	seen, err := h.Observe(context.Background(), []appliers.Query{q})
	if err != nil {
		t.Fatal(err)
	}
	return seen[q.Key]
}

// op is what a plan would say about an object, from what is there now.
func (h *host) op(t testing.TB, action plan.Action, obj *manifest.Object) appliers.Operation {
	t.Helper()
	r := h.resolve(t, obj)
	c := plan.Change{Key: key(obj), Action: action, Desired: r.Object, Entry: plan.Entry{Key: key(obj), Locator: r.Locator, Owner: "web"}}
	if action == plan.Delete {
		c.Desired = nil
	}
	return appliers.Operation{Change: c, Application: "web", Epoch: 1}
}

func (h *host) apply(ops ...appliers.Operation) []appliers.Result {
	return h.Apply(context.Background(), ops)
}

// claim makes the ledger say that application web wrote a path.
func (h *host) claim(t testing.TB, name string) {
	t.Helper()
	tree, err := h.open(context.Background(), h.roots[0])
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	id := object(t, kindFile, filepath.Base(name), nil).ID()
	if err := tree.write([]*record{{Path: h.path(name), ID: id, Application: "web", Epoch: 1, Known: true}}); err != nil {
		t.Fatal(err)
	}
}

// must applies one operation that has to be done.
func (h *host) must(t testing.TB, op appliers.Operation) appliers.Result {
	t.Helper()
	r := h.apply(op)[0]
	if r.Outcome != appliers.Done {
		t.Fatalf("%s %s: %v: %v", op.Change.Action, op.Change.Key, r.Outcome, r.Err)
	}
	return r
}

// converged fails unless what is there is as desired.
func (h *host) converged(t testing.TB, obj *manifest.Object) {
	t.Helper()
	if o := h.see(t, obj); o.Presence != plan.Present || o.Unfinished != "" || !manifest.Equal(o.Object.Spec(), h.resolve(t, obj).Object.Spec()) {
		t.Errorf("%s: %v %s %s\nwant %s", obj.ID(), o.Presence, text(o.Object), o.Unfinished, text(h.resolve(t, obj).Object))
	}
}

func text(o *manifest.Object) string {
	if o == nil {
		return "nothing"
	}
	return string(manifest.Canonical(o.Content()))
}
