package reconciler

import (
	"errors"
	"strings"
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// A reader that breaks is told so; the application and the daemon go on.
func TestReaderThatPanics(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		a, _ := s.m.app("web")
		var good *desiredState
		set := func(state *desiredState) {
			if err := a.ask(s.t.Context(), func(st *appState) { good, st.accepted = st.accepted, state }); err != nil {
				t.Fatal(err)
			}
		}
		set(&desiredState{}) // without the index that every state has
		_, planErr := s.m.Plan(s.t.Context(), "web")
		_, objectErr := s.m.Object(s.t.Context(), "web", "Thing/a")
		for _, err := range []error{planErr, objectErr} {
			if err == nil || !strings.Contains(err.Error(), "internal error") {
				t.Errorf("got %v", err)
			}
		}
		set(good)
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "a", int64(2))
	})
}

// A plan says that it is not known what differs, with the reason of the status:
// before anything was looked at, while an object cannot be read, and when the last
// look is too long ago. What is known besides stands in it all the same.
func TestPlanOfWhatIsNotKnown(t *testing.T) {
	simulate(t, func(s *sim) {
		want := func(sync SyncStatus, lines ...string) {
			s.t.Helper()
			view, err := s.m.Plan(s.t.Context(), "web")
			if err != nil {
				s.t.Fatal(err)
			}
			var text strings.Builder
			if err := view.Plan.Text(&text, plan.TextOptions{}); err != nil {
				s.t.Fatal(err)
			}
			for _, line := range lines {
				if !strings.Contains(text.String(), line) {
					s.t.Errorf("no %q in:\n%s", line, text.String())
				}
			}
			if view.Sync != sync || view.Plan.Empty() != (sync == Synced) || sync != Synced && strings.Contains(text.String(), "as desired") {
				s.t.Errorf("%s, empty %t, want %s:\n%s", view.Sync, view.Plan.Empty(), sync, text.String())
			}
		}
		s.app("web", ".")
		s.repo.SetDown(errors.New("no route to host"))
		s.start()
		want(SyncUnknown, "It is not known whether anything differs: ", "no route to host")

		s.repo.SetDown(nil)
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.pass(2 * time.Minute)
		want(Synced, "No changes. What is observed is as desired.")

		s.worlds["one"].SetFaults(memapply.Faults{Unread: func(k plan.Key) string {
			if k.ID.Name == "a" {
				return "permission denied"
			}
			return ""
		}})
		s.pass(90 * time.Second)
		want(SyncUnknown, "blocked: observation unknown: permission denied", "1 blocked.", "It is not known whether anything else differs: 1 object waits")
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(2 * time.Minute)
		want(Synced)

		s.repo.SetDown(errors.New("no route to host"))
		s.pass(time.Hour)
		want(Stale, "It is not known whether anything differs: the source has not answered for ")
	})
}
