package reconciler

import (
	"strings"
	"testing"
	"time"
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
