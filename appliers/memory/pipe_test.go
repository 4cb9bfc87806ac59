package memory_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/appliers/applytest"
	"github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// serve runs in the child process until its standard input ends.
func serve(name string) error {
	for _, p := range memory.Personalities() {
		if p.Name != name {
			continue
		}
		sealer, err := manifest.NewSealer([]byte(strings.Repeat("child key ", 4)))
		if err != nil {
			return err
		}
		world := memory.NewWorld()
		a := hands{memory.New(appliers.Env{Target: "mem", Sealer: sealer}, world, p.Personality), world}
		return memory.Serve(a, sealer, os.Stdin, os.Stdout)
	}
	return fmt.Errorf("personality %q is not known", name)
}

// hands lets the test in the parent act on the child's world over the same pipe:
// an operation on a Hand is done by another writer, and observing one counts writes.
type hands struct {
	appliers.Applier
	world *memory.World
}

func (h hands) Apply(ctx context.Context, ops []appliers.Operation) []appliers.Result {
	if len(ops) != 1 || ops[0].Change.Key.ID.Kind != "Hand" {
		return h.Applier.Apply(ctx, ops)
	}
	spec := ops[0].Change.Desired.Spec()
	locator, _ := spec["locator"].(string)
	switch spec["do"] {
	case "put":
		content, _ := manifest.Clone(spec["object"]).(map[string]any)
		obj, err := manifest.New(content, manifest.Origin{})
		if err != nil {
			return []appliers.Result{{Outcome: appliers.Refused, Err: err}}
		}
		h.world.Set("mallory", obj)
	case "remove":
		h.world.Delete(locator)
	case "block":
		h.world.SetFaults(memory.Faults{Unread: func(k plan.Key) string {
			if locator != "" && strings.HasSuffix(locator, k.ID.String()) {
				return "not allowed to read"
			}
			return ""
		}})
	case "hang":
		h.world.SetFaults(memory.Faults{Hang: make(chan struct{})})
	case "die":
		os.Exit(0)
	}
	return []appliers.Result{{Outcome: appliers.Done}}
}

func (h hands) Observe(ctx context.Context, queries []appliers.Query) (map[plan.Key]plan.Observed, error) {
	if len(queries) != 1 || queries[0].Key.ID.Kind != "Hand" {
		return h.Applier.Observe(ctx, queries)
	}
	obj, err := manifest.New(map[string]any{
		"apiVersion": "v1", "kind": "Hand", "metadata": map[string]any{"name": "hand"},
		"spec": map[string]any{"writes": int64(h.world.Counters().Writes())},
	}, manifest.Origin{})
	return map[plan.Key]plan.Observed{queries[0].Key: {Presence: plan.Present, Object: obj}}, err
}

var handKey = plan.Key{Target: "mem", ID: manifest.ID{Kind: "Hand", Name: "hand"}}

// hand has the child do something by another writer's hand.
func hand(t *testing.T, c *memory.Client, spec map[string]any) appliers.Result {
	t.Helper()
	obj, err := manifest.New(map[string]any{
		"apiVersion": "v1", "kind": "Hand", "metadata": map[string]any{"name": "hand"}, "spec": spec,
	}, manifest.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Apply(t.Context(), []appliers.Operation{{Change: plan.Change{Key: handKey, Action: plan.Update, Desired: obj}}})[0]
}

// child starts a process with an applier of the personality and returns the near end.
func child(t *testing.T, personality string) *memory.Client {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+personality)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
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
	sealer, err := manifest.NewSealer([]byte(strings.Repeat("parent key", 4)))
	if err != nil {
		t.Fatal(err)
	}
	c := memory.Dial(sealer, out, in)
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // a hanging call would keep it; one that has ended is no matter
		if err := c.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("close: %v", err)
		}
		_ = cmd.Wait() // killed
	})
	return c
}

// The whole contract crosses a process boundary: the suite runs with the applier in a child.
func TestConformanceOverAPipe(t *testing.T) {
	for _, personality := range []string{"plain", "owners", "async"} {
		t.Run(personality, func(t *testing.T) {
			h := harness(memory.Personality{}, nil)
			h.Open = func(t *testing.T) *applytest.Fixture {
				c := child(t, personality)
				return &applytest.Fixture{
					Applier: c, Reopen: func(*testing.T) appliers.Applier { return c },
					Writes: func() int {
						seen, err := c.Observe(t.Context(), []appliers.Query{{Key: handKey}})
						if err != nil {
							t.Fatal(err)
						}
						n, _ := seen[handKey].Object.Spec()["writes"].(int64)
						return int(n)
					},
					Put: func(t *testing.T, obj *manifest.Object) {
						hand(t, c, map[string]any{"do": "put", "object": manifest.Clone(obj.Content())})
					},
					Remove: func(t *testing.T, locator string) { hand(t, c, map[string]any{"do": "remove", "locator": locator}) },
					Block: func(t *testing.T, locator string) func() {
						hand(t, c, map[string]any{"do": "block", "locator": locator})
						return func() { hand(t, c, map[string]any{"do": "block"}) }
					},
				}
			}
			// The suite closes its applier in the middle; a child that ended cannot be reopened.
			applytest.Run(t, keepOpen(h))
		})
	}
}

// keepOpen hides Close from the suite, because the child's world ends with it.
func keepOpen(h applytest.Harness) applytest.Harness {
	inner := h.Open
	h.Open = func(t *testing.T) *applytest.Fixture {
		f := inner(t)
		near := struct {
			appliers.Applier
			appliers.Placer
		}{f.Applier, placer(t, f.Applier)}
		f.Applier, f.Reopen = near, func(*testing.T) appliers.Applier { return near }
		return f
	}
	return h
}

func placer(t *testing.T, a appliers.Applier) appliers.Placer {
	t.Helper()
	p, ok := appliers.Ability[appliers.Placer](a)
	if !ok {
		t.Fatal("the near end has no place")
	}
	return p
}

// Undeclared things that go besides, and what a write has left to do, are named on
// both ends.
func TestPipeNamesWhatIsBeside(t *testing.T) {
	near, far := net.Pipe()
	sealer, err := manifest.NewSealer([]byte(strings.Repeat("one key...", 4)))
	if err != nil {
		t.Fatal(err)
	}
	obj := variant(t, "x", 1)
	k := plan.Key{Target: "mem", ID: obj.ID()}
	served := make(chan error, 1)
	go func() { served <- memory.Serve(exclusive{}, sealer, far, far) }()
	c := memory.Dial(sealer, near, near)
	seen, err := c.Observe(t.Context(), []appliers.Query{{Key: k, Desired: obj}})
	if err != nil {
		t.Fatal(err)
	}
	r := c.Apply(t.Context(), []appliers.Operation{{Change: plan.Change{Key: k, Action: plan.Update, Desired: obj, Removes: seen[k].Removes.Addresses}}})[0]
	want := []appliers.Removed{{Address: "/spec/strangers one", Backup: "kept"}}
	if d := cmp.Diff(want, r.Removed); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if got := seen[k].Unfinished; got != "a reload is owed" {
		t.Errorf("unfinished %q", got)
	}
	if got := c.Place(); got != "there" {
		t.Errorf("place %q", got)
	}
	_ = c.Close() // a pipe has no more to say
	if err := <-served; err != nil && !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

// exclusive removes what it is told to.
type exclusive struct{ appliers.Applier }

func (exclusive) Place() string { return "there" }

func (exclusive) Observe(_ context.Context, queries []appliers.Query) (map[plan.Key]plan.Observed, error) {
	return map[plan.Key]plan.Observed{queries[0].Key: {
		Presence: plan.Present, Object: queries[0].Desired,
		Removes: plan.Removal{Field: "/spec/strangers", Addresses: []string{"/spec/strangers one"}}, Unfinished: "a reload is owed",
	}}, nil
}

func (exclusive) Apply(_ context.Context, ops []appliers.Operation) []appliers.Result {
	r := appliers.Result{Outcome: appliers.Done}
	for _, address := range ops[0].Change.Removes {
		r.Removed = append(r.Removed, appliers.Removed{Address: address, Backup: "kept"})
	}
	return []appliers.Result{r}
}

// A child that dies in the middle leaves reads failed and writes uncertain, never absent or refused.
func TestPipeChildDies(t *testing.T) {
	c := child(t, "plain")
	if r := hand(t, c, map[string]any{"do": "die"}); r.Outcome != appliers.Uncertain || r.Err == nil {
		t.Errorf("the call during which it died: %v %v, want uncertain", r.Outcome, r.Err)
	}
	if _, err := c.Observe(t.Context(), []appliers.Query{{Key: handKey}}); err == nil {
		t.Errorf("a dead child was observed")
	}
	if r := hand(t, c, map[string]any{"do": "put"}); r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Retry {
		t.Errorf("a later call: %v %v, want refused and retry", r.Outcome, r.Err)
	}
}

// A child that ignores its context is left behind: the near end returns soon after ctx ends.
func TestPipeChildHangs(t *testing.T) {
	c := child(t, "plain")
	hand(t, c, map[string]any{"do": "hang"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Observe(ctx, []appliers.Query{{Key: plan.Key{Target: "mem"}}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Observe = %v, want the deadline", err)
	}
	obj := variant(t, "x", 1)
	op := appliers.Operation{Change: plan.Change{Key: plan.Key{Target: "mem", ID: obj.ID()}, Action: plan.Create, Desired: obj}}
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r := c.Apply(ctx, []appliers.Operation{op})[0]; r.Outcome != appliers.Uncertain {
		t.Errorf("Apply = %v %v, want uncertain", r.Outcome, r.Err)
	}
}
