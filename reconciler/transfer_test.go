package reconciler

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
)

// D-55: what is handed over does not take the place of a record that the heir
// has already: the heir moves an object, under its old name, to the address that
// another application gives up in the same commit. What is there changes hands,
// what was at the old address is pruned, and nothing else is written.
func TestTransferKeepsTheRecordOfTheHeir(t *testing.T) {
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		t.Run(names[0], func(t *testing.T) {
			simulate(t, func(s *sim) {
				from, to := names[0], names[1]
				s.app(from, "from")
				s.app(to, "to")
				s.commit(map[string]string{
					"from/one.yaml": addressed("one", "place1", "1"), "from/rest.yaml": thing("rest", "1"),
					"to/two.yaml": addressed("two", "place2", "1"), "to/more.yaml": thing("more", "1"),
				})
				s.start()
				s.commit(map[string]string{"from/one.yaml": "", "to/two.yaml": addressed("two", "place1", "1")})
				s.pass(time.Minute)
				s.wantSync(from, Synced, "")
				s.wantSync(to, Synced, "")
				s.wantCounts("one", 4, 0, 1)
				if e, _ := s.m.registry.entry(to, s.key("one", "two")); e.Locator != "memory:place1" || s.owner("one", "one") != "" {
					t.Errorf("two is on record as %+v, and one of %q", e, s.owner("one", "one"))
				}
				if _, there := s.worlds["one"].Get("memory:place2"); there {
					t.Error("what was at the old address is still there")
				}
			})
		})
	}
}

// D-55: a rename keeps the record of the old name while the new one is blocked,
// by the target or by a policy that came later, and until the record of the new
// one is durable.
func TestBlockedRenameKeepsTheRecord(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1"}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": addressed("a", "place", "1"), "b.yaml": thing("b", "1")})
		s.start()
		s.setReadErr(errors.New("no route"))
		s.commit(map[string]string{"a.yaml": addressed("z", "place", "2")})
		s.pass(time.Minute)
		s.judge.set("p2", func(r *rules) { r.object = denyName("z") })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.setReadErr(nil)
		s.pass(10 * time.Minute)
		s.wantFailure("web", "z", "PolicyViolation")
		if s.owner("one", "a") != "web" || s.owner("one", "z") != "" {
			t.Fatalf("owners: a %q, z %q", s.owner("one", "a"), s.owner("one", "z"))
		}
		s.judge.set("p3", func(r *rules) { r.object = nil })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 0)
		if s.owner("one", "a") != "" || s.owner("one", "z") != "web" {
			t.Errorf("owners: a %q, z %q", s.owner("one", "a"), s.owner("one", "z"))
		}
	})
}

// What depends on a failed object waits also in a round that does not look at
// that object, and so do prunes.
func TestDependentsOfAFailureOutsideTheRound(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = 24 * time.Hour })
		dep := "gitopsd.io/depends-on: test.example/Thing/a"
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1", dep), "c.yaml": thing("c", "1"), "d.yaml": thing("d", "1")})
		s.start()
		s.worlds["one"].SetFaults(stopping("a"))
		s.commit(map[string]string{"a.yaml": thing("a", "2"), "c.yaml": ""})
		s.pass(15 * time.Second)
		s.wantFailure("web", "a", "")
		s.worlds["one"].SetField("x", where("b"), "/spec/value", int64(9))
		s.worlds["one"].SetField("x", where("d"), "/spec/value", int64(9))
		s.pass(15 * time.Second)
		s.wantValue("one", "d", int64(1))
		s.wantValue("one", "b", int64(9))
		s.wantFailure("web", "b", "waits for one:test.example/Thing/a, which failed")
		s.wantValue("one", "c", int64(1))
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.commit(map[string]string{"a.yaml": thing("a", "3")})
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "b", int64(1))
		s.wantValue("one", "c", nil)
	})
}

// The same for one whose write is not complete yet.
func TestDependentsOfAPendingOutsideTheRound(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = 24 * time.Hour })
		dep := "gitopsd.io/depends-on: test.example/Thing/a"
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1", dep)})
		s.start()
		a, _ := s.m.app("web")
		err := a.ask(s.t.Context(), func(st *appState) { st.pending[s.key("one", "a")] = time.Now().Add(time.Hour) })
		if err != nil {
			t.Fatal(err)
		}
		s.worlds["one"].SetField("x", where("b"), "/spec/value", int64(9))
		s.pass(15 * time.Second)
		s.wantFailure("web", "b", "waits for one:test.example/Thing/a, which is not complete yet")
		s.wantValue("one", "b", int64(9))
		s.pass(2 * time.Hour)
		s.wantValue("one", "b", int64(1))
	})
}

// Two objects of one application that become one of another, by the name of the one and
// the address of the other: the address decides, and the other one goes.
func TestTwoRecordsBecomeOne(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "from")
		s.app("b", "to")
		s.commit(map[string]string{
			"from/k.yaml": addressed("k", "place1", "1"), "from/l.yaml": addressed("l", "place2", "1"), "from/rest.yaml": thing("rest", "1"),
			"to/more.yaml": thing("more", "1"),
		})
		s.start()
		s.commit(map[string]string{"from/k.yaml": "", "from/l.yaml": "", "to/k.yaml": addressed("k", "place2", "1")})
		s.pass(time.Minute)
		s.m.registry.mu.RLock()
		defer s.m.registry.mu.RUnlock()
		var places []string
		for _, e := range s.m.registry.entries {
			if strings.HasPrefix(e.Locator, "memory:place") {
				places = append(places, e.Locator)
			}
		}
		if c := s.worlds["one"].Counters(); len(places) != 1 || places[0] != "memory:place2" || c.Creates != 4 || c.Deletes != 1 {
			t.Errorf("on record are %v, want the second place; %+v", places, c)
		}
	})
}

// stopping refuses every write to an object.
func stopping(name string) memapply.Faults {
	return memapply.Faults{Refuse: func(op appliers.Operation) error {
		if op.Change.Key.ID.Name != name {
			return nil
		}
		return appliers.WithClass(appliers.Stop, errors.New("disk quota"))
	}}
}

// Who waits for a sync gets the end of a move between applications, not the
// moment in which it is open; a hand-over that nobody works on is not waited for.
func TestSyncWaitsForMoves(t *testing.T) {
	simulate(t, func(s *sim) {
		s.worlds["two"] = memapply.NewWorld()
		s.app("a", "a")
		s.app("b", "b", func(a *Application) {
			a.Routes = []appliers.Route{{Target: "one", Kinds: []string{"test.example/Thing"}}, {Target: "two", Kinds: []string{"test.example/Slow"}}}
		})
		slow := strings.Replace(thing("s", "1"), "kind: Thing", "kind: Slow", 1)
		s.commit(map[string]string{"a/x.yaml": thing("x", "1"), "a/y.yaml": thing("y", "1"), "b/s.yaml": slow})
		s.start()
		s.wantSync("b", Synced, "")
		s.worlds["two"].SetFaults(memapply.Faults{Latency: func(context.Context, string) { time.Sleep(time.Second) }})
		s.m.look("b", nil) // b is busy for a while
		synctest.Wait()
		s.commit(map[string]string{"a/x.yaml": "", "b/x.yaml": thing("x", "1")})
		if err := s.m.Sync(s.t.Context(), "ops", "a", true); err != nil {
			t.Fatal(err)
		}
		s.wantSync("a", Synced, "in step")
		if owner := s.owner("one", "x"); owner != "b" {
			t.Errorf("x belongs to %q", owner)
		}

		if _, err := s.m.Suspend(s.t.Context(), "ops", "b", false, "incident", time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.commit(map[string]string{"a/y.yaml": "", "b/y.yaml": "not: [yaml"})
		start := time.Now()
		if err := s.m.Sync(s.t.Context(), "ops", "a", true); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("a sync took %s of waiting for nobody: %+v", took, s.status("a"))
		}
	})
}
