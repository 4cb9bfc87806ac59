package reconciler

import (
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Whatever part of its own name an error begins with, people see path, line and
// object exactly once.
func TestErrorsNameTheirObjectOnce(t *testing.T) {
	at := manifest.Origin{Path: "web/a.yaml", Line: 7}
	id := manifest.ID{Group: "test.example", Kind: "Thing", Name: "a"}
	const want = "web/a.yaml:7: test.example/Thing/a: spec.mode: want four digits"
	for _, msg := range []string{
		"spec.mode: want four digits",
		"Thing/a: spec.mode: want four digits",
		"test.example/Thing/a: spec.mode: want four digits",
		"web/a.yaml:7: spec.mode: want four digits",
		"web/a.yaml:7: Thing/a: spec.mode: want four digits",
		"web/a.yaml:7: test.example/Thing/a: spec.mode: want four digits",
	} {
		if got := named(at, id, msg); got != want {
			t.Errorf("%q: %q", msg, got)
		}
	}
	if got := named(at, id, "web/a.yaml:9: spec.mode: x"); got != "web/a.yaml:9: test.example/Thing/a: spec.mode: x" {
		t.Errorf("the line of a field: %q", got)
	}
	if got := named(manifest.Origin{}, id, "gone"); got != "test.example/Thing/a: gone" {
		t.Errorf("without an origin: %q", got)
	}
}

// The same through the whole loop: errors of Resolve, of routing and of failures.
func TestStatusNamesTheObjectOnce(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) {
			a.Routes = []appliers.Route{{Target: "one", Kinds: []string{"test.example/Thing"}}}
		})
		s.commit(map[string]string{"web/a.yaml": addressed("a", "5", "1")})
		s.start()
		for _, c := range []struct{ file, place, want string }{
			{addressed("a", "5", "1"), "web/a.yaml:6: ", "spec.address: want"},
			{strings.Replace(thing("a", "1"), "kind: Thing", "kind: Other", 1), "web/a.yaml:1: ", "goes to no target"},
			{thing("a", "1", `gitopsd.io/wave: "soon"`), "web/a.yaml:6: ", "is not a whole number"},
		} {
			s.commit(map[string]string{"web/a.yaml": c.file})
			s.pass(15 * time.Second)
			s.wantSync("web", OutOfSync, c.want)
			if m := s.status("web").Message; strings.Count(m, c.place) != 1 || strings.Count(m, "web/a.yaml") != 1 || strings.Count(m, "/a: ")+strings.Count(m, "/a goes") != 1 {
				t.Errorf("message %q", m)
			}
		}
	})
}
