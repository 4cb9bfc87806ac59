package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/store"
)

var errCrashed = errors.New("the process has ended")

// crash ends the process at an effect: from then on nothing it does reaches the
// store or the world. The zero value never does.
type crash struct {
	mu      sync.Mutex
	n       int  // effects so far
	at      int  // the effect to end at; 0 for none
	after   bool // that effect still happens, and nobody learns of it
	crashed bool
}

func (c *crash) do(fn func() error) error {
	c.mu.Lock()
	if c.crashed {
		c.mu.Unlock()
		return errCrashed
	}
	c.n++
	now := c.n == c.at
	c.crashed = now
	c.mu.Unlock()
	if now && !c.after {
		return errCrashed
	}
	if err := fn(); err != nil || !now {
		return err
	}
	return errCrashed
}

func (c *crash) seam(_ effect.Name, _ string, do func() error) error { return c.do(do) }

func (c *crash) dead() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

func (c *crash) arm(at int, after bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n, c.at, c.after, c.crashed = 0, at, after, false
}

// mortalStore is a store whose process may end at any commit.
type mortalStore struct {
	store.Store
	crash *crash
}

func (m *mortalStore) Commit(ctx context.Context, epoch uint64, compares []store.Compare, ops []store.Op) (rev uint64, err error) {
	err = m.crash.do(func() error {
		rev, err = m.Store.Commit(ctx, epoch, compares, ops)
		return err
	})
	return rev, err
}

// scenario is a life of two applications, in steps that each settle.
func (s *sim) scenario() []func() {
	step := func(files map[string]string) func() { return func() { s.commit(files) } }
	return []func(){
		step(map[string]string{"a/x.yaml": thing("x", "1"), "a/y.yaml": thing("y", "1"), "b/z.yaml": thing("z", "1"), "a/s.yaml": thing("s", "1")}),
		step(map[string]string{"a/x.yaml": thing("x", "2"), "a/n.yaml": thing("n", "1")}),
		step(map[string]string{"a/y.yaml": "", "b/y.yaml": thing("y", "1")}),                            // moves
		step(map[string]string{"a/n.yaml": addressed("n2", "place", "1"), "b/m.yaml": thing("m", "1")}), // another object
		step(map[string]string{"a/n.yaml": addressed("n3", "place", "2")}),                              // renamed in place
		step(map[string]string{"b/m.yaml": addressed("m", "elsewhere", "1")}),                           // moves under its name
		func() { s.worlds["one"].SetField("hand", where("x"), "/spec/value", int64(9)) },                // drift
		step(map[string]string{"b/z.yaml": "", "b/y.yaml": thing("y", "3")}),
	}
}

// D-49 on memory parts: the process ends before or after every single effect of
// a scenario. After the next start the world is as desired, the inventory is as
// the world, nothing was created or deleted twice, and strangers were not touched.
func TestCrashAtEveryEffect(t *testing.T) {
	for _, p := range memapply.Personalities() {
		if p.Name != "plain" && p.Name != "marks" && p.Name != "timed" {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			var whole memapply.Counters
			for at, done := 0, false; !done; at++ { // 0 is the run without a crash
				for _, after := range []bool{false, true} {
					simulate(t, func(s *sim) {
						s.is["one"] = p.Personality
						crashed := s.live(at, after)
						s.checkWorld(fmt.Sprintf("crash at %d, after %v", at, after))
						c := s.worlds["one"].Counters()
						if at == 0 {
							whole = c
							return
						}
						if c.Creates != whole.Creates || c.Deletes != whole.Deletes || c.Updates > whole.Updates {
							t.Errorf("crash at %d, after %v: %+v, without a crash %+v", at, after, c, whole)
						}
						done = !crashed
					})
				}
				if t.Failed() {
					return
				}
			}
		})
	}
}

// live goes through the scenario with one crash, each step followed by a restart
// when the process has ended. It reports whether it did.
func (s *sim) live(at int, after bool) (crashed bool) {
	s.worlds["one"].Set("admin", object(s.t, thing("stranger", "7")))
	s.worlds["one"].Set("admin", object(s.t, thing("s", "1")))
	s.app("a", "a", func(a *Application) { a.Budget.MaxPercent = -1 })
	s.app("b", "b", func(a *Application) { a.Budget.MaxPercent = -1 })
	s.crash.arm(at, after)
	steps := s.scenario()
	steps[0]()
	s.start()
	for _, step := range append(steps[1:], func() {}) {
		s.pass(45 * time.Second)
		if s.crash.dead() {
			s.restart()
			crashed = true
			s.pass(45 * time.Second)
		}
		step()
	}
	s.pass(15 * time.Minute)
	return crashed
}

// restart ends what is left of the process and starts it again.
func (s *sim) restart() {
	s.stop()
	s.crash.arm(0, false)
	s.start()
}

// checkWorld holds that the world is what the scenario ends with.
func (s *sim) checkWorld(name string) {
	want := map[string]any{
		where("x"): int64(2), where("y"): int64(3), "memory:elsewhere": int64(1), where("s"): int64(1), "memory:place": int64(2), where("stranger"): int64(7),
	}
	live := s.worlds["one"].List()
	if len(live) != len(want) {
		s.t.Errorf("%s: %d objects, want %d: %+v", name, len(live), len(want), live)
	}
	for _, l := range live {
		if got := l.Content["spec"].(map[string]any)["value"]; got != want[l.Locator] {
			s.t.Errorf("%s: %s is %v, want %v", name, l.Locator, got, want[l.Locator])
		}
	}
	for _, app := range []string{"a", "b"} {
		if st := s.status(app); st.Sync != Synced {
			s.t.Errorf("%s: %s is %s: %s %+v", name, app, st.Sync, st.Message, st.Failures)
		}
	}
	s.m.registry.mu.RLock()
	defer s.m.registry.mu.RUnlock()
	if n := len(s.m.registry.entries); n != len(want)-1 {
		s.t.Errorf("%s: %d records for %d objects", name, n, len(want)-1)
	}
	for _, e := range s.m.registry.entries {
		if _, ok := want[e.Locator]; !ok || e.State != "Owned" {
			s.t.Errorf("%s: record %+v", name, e)
		}
	}
}
