package reconciler

import (
	"errors"
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func TestCommitIsAppliedAndDriftHealed(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "apps/web")
		s.commit(map[string]string{"apps/web/a.yaml": thing("a", "1"), "apps/web/b.yaml": thing("b", "1")})
		s.start()
		s.wantSync("web", Synced, "in step")
		s.wantCounts("one", 2, 0, 0)

		s.commit(map[string]string{"apps/web/a.yaml": thing("a", "2")})
		s.pass(15 * time.Second)
		s.wantValue("one", "a", int64(2))
		s.wantCounts("one", 2, 1, 0)

		s.worlds["one"].SetField("somebody", where("b"), "/spec/value", int64(7))
		s.pass(time.Second) // the watch tells; nobody polls
		s.wantValue("one", "b", int64(1))
		s.wantSync("web", Synced, "")
		if n := s.eventKinds()[EventDrift]; n != 1 {
			t.Errorf("%d drift events, want 1", n)
		}

		s.commit(map[string]string{"apps/web/b.yaml": ""})
		s.pass(15 * time.Second)
		s.wantCounts("one", 2, 2, 1)
		s.wantSync("web", Synced, "")
	})
}

// A restart finds everything as it was: no write, the same revision, also when
// the source does not answer.
func TestRestartWritesNothing(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.stop()
		s.repo.SetDown(errors.New("no route"))
		s.start()
		s.pass(time.Minute)
		s.wantCounts("one", 1, 0, 0)
		s.worlds["one"].SetField("somebody", where("a"), "/spec/value", int64(7))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(1))
	})
}

// An unreadable source, a broken commit and an unreadable target delete nothing.
func TestUnreadIsNotAbsent(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1")})
		s.start()
		good := s.status("web").Revision

		s.commit(map[string]string{"web/a.yaml": "not: [yaml"})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "web/a.yaml:1")
		if got := s.status("web").Revision; got != good {
			t.Fatalf("revision %s, want the good one %s", got, good)
		}
		s.worlds["one"].SetField("somebody", where("a"), "/spec/value", int64(7))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(1)) // the accepted revision is still healed to

		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "web/b.yaml": ""})
		s.worlds["one"].SetFaults(memapply.Faults{ReadErr: errors.New("no answer")})
		s.pass(time.Minute)
		s.wantCounts("one", 2, 1, 0)
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(10 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 1)
	})
}

func TestPruneOverBudgetWaitsForApproval(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: -1} })
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1"), "c.yaml": thing("c", "1")})
		s.start()
		s.commit(map[string]string{"a.yaml": "", "b.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "approve")
		st := s.status("web")
		if st.Candidate == nil || st.Candidate.State != CandidateHeld || len(st.Candidate.Gates) != 1 {
			t.Fatalf("candidate %+v", st.Candidate)
		}
		s.pass(time.Hour)
		s.wantCounts("one", 3, 0, 0)
		if _, err := s.m.Approve(s.t.Context(), Approver{Name: "ops"}, "web", "wrong", "cleaning up", 0); !errors.Is(err, ErrPrecondition) {
			t.Fatalf("approval of another digest: %v", err)
		}
		if _, err := s.m.Approve(s.t.Context(), Approver{Name: "ops"}, "web", st.Candidate.Digest, "cleaning up", 0); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 3, 0, 2)
		h, err := s.m.History(s.t.Context(), "web", 1)
		if err != nil || h[0].Approver != "ops" || h[0].Outcome != OutcomeSynced {
			t.Fatalf("history %+v, %v", h, err)
		}
	})
}
