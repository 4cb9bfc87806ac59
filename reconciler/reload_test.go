package reconciler

import (
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// A reload disturbs only what changed; an invalid one changes nothing.
func TestReload(t *testing.T) {
	simulate(t, func(s *sim) {
		s.worlds["two"] = memapply.NewWorld()
		onTwo := func(a *Application) { a.Routes = []appliers.Route{{Target: "two"}} }
		s.app("web", "web")
		s.app("db", "db", onTwo)
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "db/d.yaml": thing("d", "1"), "db2/e.yaml": thing("e", "1")})
		s.start()
		web, _ := s.m.app("web")
		before := s.worlds["one"].Counters()
		s.app("db", "db2", onTwo, func(a *Application) { a.Budget = plan.Budget{MaxCount: 5, MaxPercent: -1} })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		if now, _ := s.m.app("web"); now != web || s.worlds["one"].Counters() != before {
			t.Error("an unchanged application was disturbed")
		}
		s.wantValue("two", "e", int64(1))
		s.wantValue("two", "d", nil)

		good := s.apps
		for name, c := range map[string]struct {
			change func()
			want   string
		}{
			"unknown target": {func() { s.app("new", ".", func(a *Application) { a.Routes = []appliers.Route{{Target: "nope"}} }) }, "target nope is not configured"},
			"unknown source": {func() { s.app("new", ".", func(a *Application) { a.Source = "nope" }) }, "source nope is not configured"},
		} {
			c.change()
			err := s.reload()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
			s.apps = good
		}
		two := s.worlds["two"]
		delete(s.worlds, "two")
		s.apps = s.apps[:0:0]
		s.app("web", "web")
		if err := s.reload(); err == nil || !strings.Contains(err.Error(), "target two cannot be removed: the inventory refers to it") {
			t.Errorf("a target in use was removed: %v", err)
		}
		s.worlds["two"], s.apps = two, good
		s.commit(map[string]string{"web/a.yaml": thing("a", "2"), "db2/e.yaml": thing("e", "2")})
		s.pass(15 * time.Second)
		s.wantValue("one", "a", int64(2))
		s.wantValue("two", "e", int64(2))
	})
}

// An application that vanishes from the configuration leaves
// its objects behind and lists them; whoever desires them takes them over
// without a write. It makes no difference whether the daemon ran meanwhile.
func TestApplicationVanishesAndReturns(t *testing.T) {
	for name, running := range map[string]bool{"by reload": true, "while stopped": false} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				change := func() {
					if !running {
						s.stop()
						s.start()
						return
					}
					if err := s.reload(); err != nil {
						t.Fatal(err)
					}
				}
				s.app("web", "web")
				s.app("db", "db")
				s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "db/d.yaml": thing("d", "1")})
				s.start()
				all := s.apps
				s.apps = s.apps[1:]
				change()
				s.pass(time.Hour)
				s.wantCounts("one", 3, 0, 0)
				list, err := s.m.Status()
				if err != nil || len(list) != 2 || list[1].Phase != PhaseOrphaned || len(list[1].Orphaned) != 2 {
					t.Fatalf("status %+v, %v", list, err)
				}
				if n := s.eventKinds()[EventOrphaned]; n != 2 {
					t.Errorf("%d events, want one an object", n)
				}
				before := s.worlds["one"].Counters()
				// The other application declares one of them: it inherits it.
				s.commit(map[string]string{"db/a.yaml": thing("a", "1"), "web/a.yaml": ""})
				s.pass(15 * time.Second)
				s.wantSync("db", Synced, "")
				if got := s.owner("one", "a"); got != "db" {
					t.Errorf("owner of a: %q", got)
				}
				// And the application itself comes back to the rest.
				s.apps = all
				change()
				s.pass(15 * time.Second)
				s.wantSync("web", Synced, "")
				if got := s.owner("one", "b"); got != "web" {
					t.Errorf("owner of b: %q", got)
				}
				after := s.worlds["one"].Counters()
				if after.Writes() != before.Writes() {
					t.Errorf("%+v -> %+v", before, after)
				}
				if o := s.status("web").Orphaned; len(o) != 0 {
					t.Errorf("orphaned %v", o)
				}
			})
		})
	}
}

// What a replaced application had just done is known to its successor: the
// history goes on, and nothing is done twice.
func TestReloadDuringARound(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		slow := make(chan struct{})
		s.worlds["one"].SetFaults(memapply.Faults{Hang: slow})
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(11 * time.Second) // the round hangs in the target
		go func() {
			time.Sleep(time.Second)
			s.worlds["one"].SetFaults(memapply.Faults{})
			close(slow)
		}()
		s.app("web", ".", func(a *Application) { a.Interval = 2 * time.Minute })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "a", int64(2))
		s.wantCounts("one", 1, 1, 0)
		h, _ := s.m.History(s.t.Context(), "web", 0)
		for i, e := range h {
			if e.Seq != uint64(len(h)-i) {
				t.Errorf("history %+v", h)
			}
		}
	})
}
