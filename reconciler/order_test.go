package reconciler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
)

// order returns the names of applied objects in the order of the events.
func (s *sim) order() string {
	var names []string
	for _, e := range s.happened() {
		if e.Kind == EventApplied || e.Kind == EventDeleted {
			key := e.Data["key"].(string)
			names = append(names, key[strings.LastIndexByte(key, '/')+1:])
		}
	}
	return strings.Join(names, " ")
}

// Applications that depend on others wait for them at the same revision; a chain
// of three goes in order, also when the names sort the other way.
func TestApplicationsInOrder(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Async: &memapply.Async{After: 5 * time.Second}}
		needs := func(names ...string) func(*Application) { return func(a *Application) { a.DependsOn = names } }
		s.app("a-last", "l", needs("b-middle"))
		s.app("b-middle", "m", needs("c-first"))
		s.app("c-first", "f")
		s.commit(map[string]string{"l/l.yaml": thing("l", "1"), "m/m.yaml": thing("m", "1"), "f/f.yaml": thing("f", "1")})
		s.start()
		s.wantSync("b-middle", OutOfSync, "waits for application c-first")
		s.wantValue("one", "m", nil)
		s.pass(time.Minute)
		for _, a := range []string{"a-last", "b-middle", "c-first"} {
			s.wantSync(a, Synced, "")
		}
		s.commit(map[string]string{"l/l.yaml": thing("l", "2"), "m/m.yaml": thing("m", "2"), "f/f.yaml": thing("f", "2")})
		var seen []string
		for range 60 {
			s.pass(time.Second)
			for _, name := range []string{"f", "m", "l"} {
				if s.value("one", name) == int64(2) && !slices.Contains(seen, name) {
					seen = append(seen, name)
				}
			}
		}
		if got := strings.Join(seen, " "); got != "f m l" {
			t.Errorf("order %q, want f m l", got)
		}
	})
}

// A dependency that fails holds what depends on it, with the reason, and nothing spins.
func TestFailingDependency(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("base", "base")
		s.app("top", "top", func(a *Application) { a.DependsOn = []string{"base"} })
		s.commit(map[string]string{"base/b.yaml": thing("b", "1"), "top/t.yaml": thing("t", "1")})
		s.start()
		s.wantSync("top", Synced, "")
		s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"b": appliers.Stop}, &tries{}))
		s.commit(map[string]string{"base/b.yaml": thing("b", "2"), "top/t.yaml": thing("t", "2")})
		s.pass(15 * time.Second)
		s.wantSync("top", OutOfSync, "waits for application base: it is OutOfSync: 1 object failed")
		s.wantQuiet("top", time.Hour, 90)
		s.wantValue("one", "t", int64(1))
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.commit(map[string]string{"base/b.yaml": thing("b", "3")})
		s.pass(15 * time.Second)
		s.wantSync("top", Synced, "")
		s.wantValue("one", "t", int64(2))
		// A dependency that refuses the revision.
		s.commit(map[string]string{"base/b.yaml": "a: [b", "top/t.yaml": thing("t", "4")})
		s.pass(15 * time.Second)
		s.wantSync("top", OutOfSync, "waits for application base: it has not accepted this revision: base/b.yaml:1")
	})
}

// Objects go by wave and by what they depend on; deletes the other way round.
func TestObjectsInOrder(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		files := map[string]string{
			"a.yaml":    thing("a", "1", `gitopsd.io/wave: "2"`),
			"b.yaml":    thing("b", "1", "gitopsd.io/depends-on: test.example/Thing/c"),
			"c.yaml":    thing("c", "1"),
			"d.yaml":    thing("d", "1", `gitopsd.io/wave: "-1"`),
			"keep.yaml": thing("keep", "1", `gitopsd.io/wave: "9"`),
			"stay.yaml": thing("stay", "1", `gitopsd.io/wave: "9"`),
			"also.yaml": thing("also", "1", `gitopsd.io/wave: "9"`),
			"too.yaml":  thing("too", "1", `gitopsd.io/wave: "9"`),
		}
		s.commit(files)
		s.start()
		if got := s.order(); got != "d c b a also keep stay too" {
			t.Errorf("order %q", got)
		}
		s.mu.Lock()
		s.events = nil
		s.mu.Unlock()
		s.commit(map[string]string{"a.yaml": "", "b.yaml": "", "c.yaml": "", "d.yaml": ""})
		s.pass(15 * time.Second)
		if got := s.order(); got != "a b c d" {
			t.Errorf("order of deletes %q", got)
		}
	})
}

// What depends on a failed object waits, also through one that has nothing to
// do; the rest goes on, and all follows once the failure ends.
func TestDependentsOfAFailure(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.RetryMax = 10 * time.Second })
		dep := func(on string) string { return "gitopsd.io/depends-on: test.example/Thing/" + on }
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1", dep("a")), "c.yaml": thing("c", "1", dep("b")), "d.yaml": thing("d", "1")})
		s.start()
		s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"a": appliers.Retry}, &tries{}))
		s.commit(map[string]string{"a.yaml": thing("a", "2"), "c.yaml": thing("c", "2", dep("b")), "d.yaml": thing("d", "2")})
		s.pass(time.Minute)
		s.wantFailure("web", "c", "waits for one:test.example/Thing/a, which failed")
		s.wantValue("one", "c", int64(1))
		s.wantValue("one", "d", int64(2))
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "c", int64(2))
	})
}

// A cycle and a dependency on nothing are refused with the places.
func TestBadDependencies(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"z.yaml": thing("z", "1")})
		s.start()
		s.commit(map[string]string{
			"a.yaml": thing("a", "1", "gitopsd.io/depends-on: test.example/Thing/b"),
			"b.yaml": thing("b", "1", "gitopsd.io/depends-on: test.example/Thing/a"),
		})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "dependency cycle one:test.example/Thing/a -> one:test.example/Thing/b -> one:test.example/Thing/a")
		if m := s.status("web").Message; !strings.Contains(m, "(a.yaml:1)") || !strings.Contains(m, "(b.yaml:1)") {
			t.Errorf("no places in %q", m)
		}
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1", "gitopsd.io/depends-on: test.example/Thing/nobody")})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "which this application does not declare")
		s.commit(map[string]string{"b.yaml": thing("b", "1", "gitopsd.io/depends-on: test.example/Thing/z")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.commit(map[string]string{"z.yaml": ""}) // the dependent did not change, and is wrong now
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "which this application does not declare")
		s.wantCounts("one", 3, 0, 0)
	})
}
