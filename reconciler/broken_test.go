package reconciler

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// A round that panics every time, while the retry of a failed object is overdue,
// is tried again after growing pauses and not at once; afterwards all goes on.
func TestRoundsThatBreakArePaced(t *testing.T) {
	for name, panics := range map[string]func(policies.Change) bool{
		"at any change":   func(policies.Change) bool { return true },
		"at the retry":    func(c policies.Change) bool { return c.Change.Key.ID.Name == "late" },
		"at another heal": func(c policies.Change) bool { return c.Change.Key.ID.Name == "a" },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.judge = &rules{digest: "p1"}
				s.app("web", ".", func(a *Application) { a.Interval = 10 * time.Minute })
				tried := &tries{}
				s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"late": appliers.Retry}, tried))
				s.commit(map[string]string{"a.yaml": thing("a", "1"), "late.yaml": thing("late", "1")})
				s.start()
				s.judge.set("p2", func(r *rules) {
					r.change = func(c policies.Change) string {
						if panics(c) {
							panic("index out of range")
						}
						return ""
					}
				})
				if err := s.reload(); err != nil {
					t.Fatal(err)
				}
				s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
				s.pass(time.Second)
				s.wantSync("web", OutOfSync, "")
				s.wantQuiet("web", time.Hour, 60)
				s.worlds["one"].SetFaults(memapply.Faults{})
				s.judge.set("p3", func(r *rules) { r.change = nil })
				if err := s.reload(); err != nil {
					t.Fatal(err)
				}
				s.pass(11 * time.Minute)
				s.wantSync("web", Synced, "in step")
				s.wantValue("one", "a", int64(1))
				s.wantValue("one", "late", int64(1))
			})
		})
	}
}

// Drift is told before what is done about it.
func TestDriftIsToldBeforeItsHeal(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		before := len(s.happened())
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		var kinds []string
		for _, e := range s.happened()[before:] {
			kinds = append(kinds, string(e.Kind))
		}
		if got := strings.Join(kinds, " "); got != "DriftDetected ObjectApplied" {
			t.Errorf("events %s", got)
		}
		s.wantValue("one", "a", int64(1))
	})
}

// SyncedAt is when everything was last seen as desired, not when that was last said.
func TestSyncedAtIsOfALook(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour; a.StaleAfter = 3 * time.Hour })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		first := s.status("web").SyncedAt
		if first.IsZero() {
			t.Fatal("synced, and never")
		}
		s.pass(10 * time.Minute)
		a, err := s.m.app("web")
		if err != nil {
			t.Fatal(err)
		}
		a.kick() // publishes, and looks at nothing
		s.pass(time.Second)
		if got := s.status("web").SyncedAt; !got.Equal(first) {
			t.Errorf("synced at %s without a look, want %s", got, first)
		}
		s.setReadErr(errors.New("no answer"))
		s.pass(2 * time.Hour)
		if got := s.status("web").SyncedAt; !got.Equal(first) {
			t.Errorf("synced at %s unread, want %s", got, first)
		}
		s.setReadErr(nil)
		s.pass(time.Hour)
		if got := s.status("web").SyncedAt; time.Since(got) > time.Hour {
			t.Errorf("synced at %s after a complete look", got)
		}
	})
}

// A budget of zero means it: every delete needs an approval.
func TestZeroBudgetHoldsEveryDelete(t *testing.T) {
	for name, budget := range map[string]plan.Budget{
		"both": {}, "count": {MaxCount: 0, MaxPercent: -1}, "percent": {MaxCount: -1, MaxPercent: 0},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.app("web", ".", func(a *Application) { a.Budget = budget })
				s.commit(things("o", 100, "1"))
				s.start()
				s.commit(map[string]string{"o/000/o00000.yaml": ""})
				s.pass(15 * time.Second)
				s.wantSync("web", OutOfSync, "needs an approval")
				s.pass(time.Hour)
				s.wantCounts("one", 100, 0, 0)
				s.approve("web", s.heldDigest("web"))
				s.wantCounts("one", 100, 0, 1)
			})
		})
	}
}
