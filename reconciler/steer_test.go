package reconciler

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
)

// While suspended, an application observes and reports and writes nothing, over
// restarts too; resuming lets everything follow.
func TestSuspendAndResume(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.app("db", "db")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "db/d.yaml": thing("d", "1")})
		s.start()
		if _, err := s.m.Suspend(s.t.Context(), "ops", "web", false, "", time.Time{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("without a reason: %v", err)
		}
		if _, err := s.m.Suspend(s.t.Context(), "ops", "web", false, "incident 7", time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		s.wantSync("web", Synced, "suspended by ops: incident 7")
		s.commit(map[string]string{"web/a.yaml": thing("a", "2"), "web/b.yaml": "", "db/d.yaml": thing("d", "2")})
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "suspended by ops")
		if d := s.status("web").Drift; len(d) != 1 {
			t.Errorf("drift is not reported: %+v", d)
		}
		s.wantSync("db", Synced, "") // others go on
		s.stop()
		s.start()
		s.wantQuiet("web", time.Hour, 70)
		st := s.status("web")
		if st.Phase != PhaseSuspended || st.Health != appliers.Suspended || st.Candidate == nil {
			t.Errorf("after a restart %+v", st)
		}
		s.wantCounts("one", 3, 1, 0)
		if p, err := s.m.Plan(s.t.Context(), "web"); err != nil || len(p.Plan.Changes) == 0 {
			t.Errorf("plan %+v, %v", p, err)
		}
		if _, err := s.m.Resume(s.t.Context(), "ops", "web", false, "over"); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		s.wantSync("web", Synced, "in step")
		s.wantCounts("one", 3, 2, 1)
		if _, err := s.m.Resume(s.t.Context(), "ops", "web", false, "over"); !errors.Is(err, ErrPrecondition) {
			t.Errorf("resuming twice: %v", err)
		}
	})
}

// Resuming all names those that were suspended, and says nothing of the others.
func TestResumeAll(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.app("db", "db")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "db/d.yaml": thing("d", "1")})
		s.start()
		if _, err := s.m.Suspend(s.t.Context(), "ops", "web", false, "incident 7", time.Time{}); err != nil {
			t.Fatal(err)
		}
		for _, want := range [][]string{{"web"}, nil} {
			got, err := s.m.Resume(s.t.Context(), "ops", "", true, "over")
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("resumed %q, %v, want %q", got, err, want)
			}
		}
		s.pass(time.Second)
		s.wantSync("web", Synced, "in step")
		if n := s.eventKinds()[EventResumed]; n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}

// A suspension of all applications, and one that ends by itself.
func TestSuspendAllUntil(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web", func(a *Application) { a.Interval = time.Hour })
		s.app("db", "db", func(a *Application) { a.Interval = time.Hour })
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "db/d.yaml": thing("d", "1")})
		s.start()
		names, err := s.m.Suspend(s.t.Context(), "ops", "", true, "change freeze", time.Now().Add(10*time.Minute))
		if err != nil || strings.Join(names, " ") != "db web" {
			t.Fatal(names, err)
		}
		s.commit(map[string]string{"web/a.yaml": thing("a", "2"), "db/d.yaml": thing("d", "2")})
		s.pass(9 * time.Minute)
		s.wantCounts("one", 2, 0, 0)
		s.stop()
		s.start()
		s.wantCounts("one", 2, 0, 0)
		s.pass(time.Minute + time.Second)
		s.wantCounts("one", 2, 2, 0)
		s.wantSync("web", Synced, "")
		s.wantSync("db", Synced, "")
		if _, err := s.m.Suspend(s.t.Context(), "ops", "nobody", false, "x", time.Time{}); !errors.Is(err, ErrUnknownApplication) {
			t.Errorf("unknown: %v", err)
		}
	})
}

// spec.suspend in the configuration.
func TestSuspendByConfiguration(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Suspend = true })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.wantQuiet("web", time.Hour, 70)
		s.wantCounts("one", 0, 0, 0)
		s.wantSync("web", SyncUnknown, "suspended by configuration: spec.suspend is set; let it go on by taking suspend out of its spec")
		if _, err := s.m.Resume(s.t.Context(), "ops", "web", false, "go on"); !errors.Is(err, ErrPrecondition) || !strings.Contains(err.Error(), "take suspend out of its spec") {
			t.Errorf("Resume = %v, want what ends it", err)
		}
		s.app("web", ".")
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 1, 0, 0)
	})
}

// A suspension that is said while the configuration is being replaced is not lost.
func TestSuspensionSurvivesReload(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		old, _ := s.m.app("web")
		s.app("web", ".", func(a *Application) { a.Interval = 2 * time.Minute })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		// A call that found the application before the reload and gets to work now.
		err := old.steer(s.t.Context(), func(c *control) error {
			c.Suspended = &Suspension{By: "ops", Why: "late", At: time.Now()}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(time.Hour)
		s.wantCounts("one", 1, 0, 0)
	})
}
