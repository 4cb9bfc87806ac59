package reconciler

import (
	"errors"
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// A first look that left one object unread is complete as soon as that object is
// known, or not desired any more: not only with the next look at everything.
func TestFirstLookIsCompleted(t *testing.T) {
	unread := func(name string) memapply.Faults {
		return memapply.Faults{Unread: func(k plan.Key) string {
			if k.ID.Name == name {
				return "permission denied"
			}
			return ""
		}}
	}
	for name, mend := range map[string]func(*sim){
		"it is readable again":        func(s *sim) { s.worlds["one"].SetFaults(memapply.Faults{}) },
		"a commit takes it out":       func(s *sim) { s.commit(map[string]string{"a.yaml": ""}) },
		"a commit puts another there": func(s *sim) { s.commit(map[string]string{"a.yaml": thing("c", "1")}) },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.app("web", ".", func(a *Application) { a.Interval, a.RetryMax = time.Hour, 10*time.Second })
				s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
				s.worlds["one"].SetFaults(unread("a"))
				start := time.Now()
				s.start()
				s.wantSync("web", SyncUnknown, "permission denied")
				mend(s)
				s.pass(30 * time.Second)
				s.wantSync("web", Synced, "in step")
				if st := s.status("web"); st.Health != "Healthy" || !st.ObservedAt.Equal(start) {
					t.Errorf("health %s, observed at %s, want Healthy at %s", st.Health, st.ObservedAt, start)
				}
			})
		})
	}
}

// A target that cannot be read at all leaves it open whether anything differs; what
// is known to differ besides is still told.
func TestUnreadTargetIsUnknown(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.wantSync("web", Synced, "")
		s.setReadErr(errors.New("not mounted"))
		s.pass(90 * time.Second)
		s.wantSync("web", SyncUnknown, "not mounted")
		s.commit(map[string]string{"a.yaml": "not: [yaml"})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "refused")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.setReadErr(nil)
		s.pass(2 * time.Minute)
		s.wantSync("web", Synced, "in step")
	})
}
