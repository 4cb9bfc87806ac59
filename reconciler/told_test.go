package reconciler

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// What needs an approval is asked for once, also over restarts: a line of the
// history with the deletes that wait, and one event. Another set is asked for anew.
func TestApprovalIsAskedForOnce(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: 100} })
		s.commit(things("o", 6, "1"))
		s.start()
		s.commit(map[string]string{"o/000/o00000.yaml": "", "o/000/o00001.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "needs an approval")
		for range 2 {
			s.stop()
			s.start()
			s.pass(10 * time.Minute)
		}
		s.wantSync("web", OutOfSync, "needs an approval")
		if n := s.eventKinds()[EventHeld]; n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
		h, _ := s.m.History(s.t.Context(), "web", 0)
		if len(h) != 2 || h[0].Outcome != OutcomeHeld || h[0].Counts.Delete != 2 {
			t.Errorf("history %+v", h)
		}
		s.commit(map[string]string{"o/000/o00002.yaml": ""})
		s.pass(15 * time.Second)
		if n := s.eventKinds()[EventHeld]; n != 2 {
			t.Errorf("asked %d times, want once for each set", n)
		}
		h, _ = s.m.History(s.t.Context(), "web", 0)
		if len(h) != 3 || h[0].Counts.Delete != 3 {
			t.Errorf("history %+v", h)
		}
		// Refused in between, and back: it was asked for.
		s.commit(map[string]string{"bad.yaml": "a: [b"})
		s.pass(15 * time.Second)
		s.stop()
		s.start()
		s.pass(time.Minute)
		if n := s.eventKinds()[EventRefused]; n != 1 {
			t.Errorf("refused %d times, want once", n)
		}
	})
}

// G-105: a round that breaks after it has accepted a revision owes the history
// its end, and so does one that a restart cuts off.
func TestEndOfABrokenRoundIsTold(t *testing.T) {
	for name, restart := range map[string]bool{"goes on": false, "restarted": true} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.app("web", ".")
				s.commit(map[string]string{"a.yaml": thing("a", "1")})
				s.start()
				var broken atomic.Bool
				s.worlds["one"].SetFaults(memapply.Faults{UnknownKind: func(manifest.GroupKind) error {
					if s.value("one", "a") == int64(2) && broken.CompareAndSwap(false, true) {
						panic("index out of range") // while it reads back what it wrote
					}
					return nil
				}})
				rev := s.commit(map[string]string{"a.yaml": thing("a", "2")})
				s.pass(10 * time.Second)
				if !broken.Load() {
					t.Fatal("the round did not break")
				}
				if restart {
					s.stop()
					s.start()
				}
				s.pass(10 * time.Minute)
				s.wantSync("web", Synced, "")
				h, _ := s.m.History(s.t.Context(), "web", 0)
				if len(h) != 2 || h[0].Outcome != OutcomeSynced || h[0].Revision != rev {
					t.Errorf("history %+v", h)
				}
				s.worlds["one"].SetField("hand", where("a"), "/spec/value", int64(9))
				s.pass(10 * time.Minute)
				if h, _ := s.m.History(s.t.Context(), "web", 0); len(h) != 2 {
					t.Errorf("a heal is no news of the revision: %+v", h)
				}
			})
		})
	}
}

// B-36: what two applications declare in one commit, neither having it before,
// is refused to both, with both places, and is nobody's.
func TestTwoApplicationsDeclareOneObjectInOneCommit(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "a")
		s.app("b", "b")
		s.commit(map[string]string{"a/k.yaml": thing("ka", "1"), "b/k.yaml": thing("kb", "1")})
		s.start()
		// One of the two is busy for a while when the commit comes.
		s.worlds["one"].SetFaults(memapply.Faults{Refuse: func(op appliers.Operation) error {
			if op.Application == "b" {
				time.Sleep(5 * time.Second)
			}
			return nil
		}})
		s.pass(8 * time.Second)
		s.worlds["one"].SetField("hand", where("kb"), "/spec/value", int64(9))
		s.commit(map[string]string{"a/x.yaml": addressed("x", "motd", "1"), "b/y.yaml": addressed("y", "motd", "2")})
		s.pass(30 * time.Second)
		s.wantSync("a", OutOfSync, "a/x.yaml:1: test.example/Thing/x at memory:motd is also declared by application b at b/y.yaml:1; keep one of them")
		s.wantSync("b", OutOfSync, "b/y.yaml:1: test.example/Thing/y at memory:motd is also declared by application a at a/x.yaml:1; keep one of them")
		if _, there := s.worlds["one"].Get("memory:motd"); there {
			t.Error("one of the two was written")
		}
		s.commit(map[string]string{"a/x.yaml": ""})
		s.pass(30 * time.Second)
		s.wantSync("a", Synced, "")
		s.wantSync("b", Synced, "")
	})
}

// An application that cannot look at a revision for long holds nobody else up.
func TestPatienceWithABusyApplicationEnds(t *testing.T) {
	simulate(t, func(s *sim) {
		s.worlds["two"] = memapply.NewWorld()
		s.app("a", "a")
		s.app("busy", "b", func(a *Application) { a.Routes = []appliers.Route{{Target: "two"}} })
		s.commit(map[string]string{"a/k.yaml": thing("ka", "1"), "b/k.yaml": thing("kb", "1")})
		s.start()
		hang := make(chan struct{})
		defer close(hang)
		s.worlds["two"].SetFaults(memapply.Faults{Hang: hang})
		s.pass(9 * time.Second)
		a, _ := s.m.app("busy")
		a.look(nil)
		s.pass(time.Millisecond) // it is busy
		s.commit(map[string]string{"a/x.yaml": thing("x", "1")})
		s.pass(rivalPatience + 5*time.Second)
		s.wantValue("one", "x", int64(1))
		s.wantSync("a", Synced, "")
		s.pass(time.Minute)
	})
}

// After a restart, change rules see the commit of what is accepted, also when the
// source has moved on to a revision that was refused.
func TestRulesSeeTheCommitAfterARestart(t *testing.T) {
	simulate(t, func(s *sim) {
		var seen atomic.Pointer[policies.Commit]
		s.judge = &rules{digest: "p", change: func(c policies.Change) string {
			seen.Store(c.Commit)
			return ""
		}}
		s.app("web", ".")
		rev := s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.commit(map[string]string{"bad.yaml": "a: [b"})
		s.pass(15 * time.Second)
		s.stop()
		s.worlds["one"].SetField("hand", where("a"), "/spec/value", int64(9))
		seen.Store(nil)
		s.start()
		s.pass(time.Minute)
		s.wantValue("one", "a", int64(1))
		if c := seen.Load(); c == nil || c.ID != rev || c.Author == "" {
			t.Errorf("commit %+v, want that of %s", c, rev)
		}
	})
}
