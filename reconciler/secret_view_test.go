package reconciler

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// G-102: what a reader gets of an object holds its secrets masked, the desired
// form as well as the live one.
func TestViewsMaskSecrets(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1") + "  secrets:\n    token: canary-value\n"})
		s.start()
		s.wantSync("web", Synced, "")
		view, err := s.m.Object(context.Background(), "web", "Thing/a")
		if err != nil {
			t.Fatal(err)
		}
		desired, err := json.Marshal(view.Desired)
		if err != nil {
			t.Fatal(err)
		}
		live, err := json.Marshal(view.Observed.Object)
		if err != nil {
			t.Fatal(err)
		}
		all := fmt.Sprintf("%s %s %+v", desired, live, view)
		if strings.Contains(all, "canary") || !strings.Contains(string(desired), "token") {
			t.Errorf("the view shows the secret, or not its field: %s", all)
		}
	})
}
