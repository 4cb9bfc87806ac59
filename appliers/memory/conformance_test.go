package memory_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/appliers/applytest"
	"github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// serveEnv makes the test binary serve the named personality on its standard
// streams instead of running tests.
const serveEnv = "GITOPSD_TEST_SERVE_MEMORY"

func TestMain(m *testing.M) {
	if name := os.Getenv(serveEnv); name != "" {
		if err := serve(name); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func object(t *testing.T, name string, spec map[string]any) *manifest.Object {
	t.Helper()
	o, err := manifest.New(map[string]any{
		"apiVersion": "test.gitopsd.io/v1alpha1", "kind": "Thing",
		"metadata": map[string]any{"name": name, "labels": map[string]any{"app": "test"}}, "spec": spec,
	}, manifest.Origin{Path: "things/" + name + ".yaml", Line: 3})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func variant(t *testing.T, name string, variant int) *manifest.Object {
	return object(t, name, map[string]any{
		"size": int64(variant), "cpu": "1000m", "list": []any{"a", int64(1)}, "ratio": 0.5,
		"secrets": map[string]any{"token": fmt.Sprintf("hush-%d", variant)},
	})
}

// clock is a time that tests move by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func harness(is memory.Personality, faults func(*memory.World)) applytest.Harness {
	invalid := func(spec any) *manifest.Object {
		o, err := manifest.New(map[string]any{
			"apiVersion": "test.gitopsd.io/v1alpha1", "kind": "Thing", "metadata": map[string]any{"name": "bad"}, "spec": spec,
		}, manifest.Origin{Path: "bad.yaml", Line: 1})
		if err != nil {
			panic(err)
		}
		return o
	}
	return applytest.Harness{
		Target: "mem",
		Object: variant,
		Invalid: map[string]*manifest.Object{
			"spec":         invalid("text"),
			"spec.address": invalid(map[string]any{"address": int64(1)}),
			"spec.refs[1]": invalid(map[string]any{"refs": []any{"a", int64(1)}}),
		},
		Kept: kept(is),
		Open: func(t *testing.T) *applytest.Fixture {
			world, time0 := memory.NewWorld(), &clock{now: time.Unix(1000, 0)}
			reopen := func(*testing.T) appliers.Applier {
				return memory.New(appliers.Env{Target: "mem", Now: time0.Now}, world, is)
			}
			f := &applytest.Fixture{
				Applier: reopen(t), Reopen: reopen, Foreign: is.Conflicts, Records: is.Releases,
				Writes: func() int { return world.Counters().Writes() },
				Put:    func(_ *testing.T, obj *manifest.Object) { world.Set("mallory", obj) },
				Remove: func(t *testing.T, locator string) {
					if !world.Delete(locator) {
						t.Errorf("%s is not there to be removed", locator)
					}
				},
				Block: func(_ *testing.T, locator string) func() {
					world.SetFaults(memory.Faults{Unread: func(k plan.Key) string {
						if strings.HasSuffix(locator, k.ID.String()) {
							return "not allowed to read"
						}
						return ""
					}})
					return func() { world.SetFaults(memory.Faults{}) }
				},
				Settle: func() { time0.Advance(time.Second) },
			}
			if faults != nil {
				faults(world)
			} else if is.Async == nil && !is.Batch {
				f.Owe = func(t *testing.T) (*manifest.Object, func()) {
					world.SetFaults(memory.Faults{Rest: func(appliers.Operation) error { return errors.New("reload: exit status 1") }})
					return variant(t, "served", 1), func() { world.SetFaults(memory.Faults{}) }
				}
			}
			return f
		},
	}
}

func kept(is memory.Personality) func(*testing.T, string) *manifest.Object {
	if !is.Releases {
		return nil
	}
	return func(t *testing.T, name string) *manifest.Object {
		return object(t, name, map[string]any{"onPrune": "leave"})
	}
}

func TestConformance(t *testing.T) {
	for _, p := range memory.Personalities() {
		t.Run(p.Name, func(t *testing.T) { applytest.Run(t, harness(p.Personality, nil)) })
	}
}

// Rows D-50 and D-51: the suite holds on a target that loses every reply, and on
// one that answers with what was there before.
func TestConformanceUnderFaults(t *testing.T) {
	t.Run("lost replies", func(t *testing.T) {
		applytest.Run(t, harness(memory.Personality{}, func(w *memory.World) {
			w.SetFaults(memory.Faults{LostReply: func(appliers.Operation) bool { return true }})
		}))
	})
	t.Run("stale reads", func(t *testing.T) {
		applytest.Run(t, harness(memory.Personality{Marks: true}, func(w *memory.World) {
			w.SetFaults(memory.Faults{Stale: true})
		}))
	})
}
