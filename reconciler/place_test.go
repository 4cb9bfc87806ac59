package reconciler

import (
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
)

func (s *sim) twoDoors() {
	s.worlds["one"].SetPlace("host")
	s.worlds["two"] = s.worlds["one"]
}

func routes(targets ...string) func(*Application) {
	return func(a *Application) {
		a.Routes = nil
		for _, name := range targets {
			a.Routes = append(a.Routes, appliers.Route{Target: name, Kinds: []string{"other.example/*"}})
		}
	}
}

// B-36: two targets that reach one place are one place: what is there has one
// declaration, within an application and across applications.
func TestOneObjectThroughTwoTargets(t *testing.T) {
	simulate(t, func(s *sim) {
		s.twoDoors()
		s.app("a", "a")
		s.app("b", "b", func(a *Application) { a.Routes = []appliers.Route{{Target: "two"}} })
		s.commit(map[string]string{"a/x.yaml": thing("x", "1"), "b/y.yaml": thing("y", "1")})
		s.start()
		s.commit(map[string]string{"b/x.yaml": thing("x", "2")})
		s.pass(time.Minute)
		s.wantSync("b", OutOfSync, "is also declared by application a at a/x.yaml:1")
		s.wantValue("one", "x", int64(1))
		s.commit(map[string]string{"b/x.yaml": ""})
		s.app("a", "a", routes("one", "two"))
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		on := func(target string) string { return appliers.TargetAnnotation + ": " + target }
		s.commit(map[string]string{
			"a/x.yaml": strings.Replace(thing("x", "1", on("one")), "spec:\n", "spec:\n  address: p\n", 1),
			"a/z.yaml": strings.Replace(thing("z", "1", on("two")), "spec:\n", "spec:\n  address: p\n", 1),
		})
		s.pass(time.Minute)
		s.wantSync("a", OutOfSync, "memory:p on target two is also declared by")
		s.wantCounts("one", 2, 0, 0)
	})
}

// D-55: an object that is sent through another target to the same place is not
// deleted and created: its record moves, also to another application.
func TestObjectMovesBetweenTargets(t *testing.T) {
	on := func(target string) string { return appliers.TargetAnnotation + ": " + target }
	simulate(t, func(s *sim) {
		s.twoDoors()
		s.app("a", "a", routes("one", "two"))
		s.app("b", "b", routes("one", "two"))
		s.commit(map[string]string{"a/x.yaml": thing("x", "1", on("one")), "a/y.yaml": thing("y", "1", on("one")), "b/z.yaml": thing("z", "1", on("two"))})
		s.start()
		s.commit(map[string]string{"a/x.yaml": thing("x", "1", on("two"))})
		s.pass(time.Minute)
		s.wantSync("a", Synced, "")
		s.wantCounts("one", 3, 0, 0)
		if s.owner("two", "x") != "a" || s.owner("one", "x") != "" {
			t.Errorf("owners: two %q, one %q", s.owner("two", "x"), s.owner("one", "x"))
		}
		s.commit(map[string]string{"a/x.yaml": "", "b/x.yaml": thing("x", "1", on("one"))})
		s.pass(time.Minute)
		s.wantSync("a", Synced, "")
		s.wantSync("b", Synced, "")
		s.wantCounts("one", 3, 0, 0)
		if s.owner("two", "x") != "" || s.owner("one", "x") != "b" {
			t.Errorf("owners: two %q, one %q", s.owner("two", "x"), s.owner("one", "x"))
		}
		s.stop() // the place is remembered
		s.start()
		s.pass(time.Minute)
		s.wantSync("b", Synced, "")
		s.wantCounts("one", 3, 0, 0)
	})
}

// A target that something was written through cannot be turned to another
// place: what is missing there would look deleted, and be created.
func TestTargetKeepsItsPlace(t *testing.T) {
	simulate(t, func(s *sim) {
		s.worlds["one"].SetPlace("here")
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		here, there := s.worlds["one"], memapply.NewWorld()
		there.SetPlace("there")
		s.worlds["one"] = there
		s.tune = func(c *TargetConfig) { c.Digest = "2" }
		err := s.reload()
		if err == nil || !strings.Contains(err.Error(), "target one acts on there now, and the inventory refers to what it wrote on here (one:test.example/Thing/a, for one)") {
			t.Errorf("got %v", err)
		}
		s.worlds["one"] = here
		s.pass(time.Hour)
		s.wantSync("web", Synced, "")
		if n := there.Counters().Creates; n != 0 {
			t.Errorf("%d creates at the other place", n)
		}
	})
}

// What a vanished application left behind is listed as long
// as its target is configured, and does not hold the target for ever. Nothing is
// deleted, and each record that goes is told of.
func TestTargetOfOrphansCanGo(t *testing.T) {
	simulate(t, func(s *sim) {
		two := memapply.NewWorld()
		s.worlds["two"] = two
		s.app("web", "web")
		s.app("db", "db", func(a *Application) { a.Routes = []appliers.Route{{Target: "two"}} })
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "db/d.yaml": thing("d", "1"), "db/e.yaml": thing("e", "1")})
		s.start()
		s.apps = s.apps[:1]
		delete(s.worlds, "two")
		if err := s.reload(); err == nil || !strings.Contains(err.Error(), "or, in a configuration of its own, the application") {
			t.Fatalf("got %v", err)
		}
		s.worlds["two"] = two
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		if list, _ := s.m.Status(); len(list) != 2 || len(list[0].Orphaned) != 2 {
			t.Fatalf("status %+v", list)
		}
		delete(s.worlds, "two")
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		if n := s.eventKinds()[EventForgotten]; n != 2 {
			t.Errorf("%d events, want one a record", n)
		}
		if list, _ := s.m.Status(); len(list) != 1 {
			t.Errorf("status %+v", list)
		}
		if n := len(two.List()); n != 2 {
			t.Errorf("%d objects are left, want 2", n)
		}
		s.stop()
		s.start()
		s.wantSync("web", Synced, "")
	})
}
