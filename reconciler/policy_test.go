package reconciler

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// C-45: a policy set whose new revision does not load leaves the old one in
// charge: new revisions wait, drift is healed, and the status says why.
func TestPolicySetThatDoesNotLoad(t *testing.T) {
	simulate(t, func(s *sim) {
		rego := memsource.New()
		s.more["policies"] = rego
		commitTo(rego, map[string]string{"main.rego": "v1"})
		s.judge = &rules{digest: "p1", source: "policies", object: denyName("evil")}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")

		s.judge.set("p1", func(r *rules) { r.loadErr = errors.New("main.rego:1: unexpected eof") })
		commitTo(rego, map[string]string{"main.rego": "v2"})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "new revisions wait: policy set rules: main.rego:1: unexpected eof")
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.wantQuiet("web", time.Hour, 90)
		s.wantSync("web", OutOfSync, "new revisions wait until it is mended")
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(1))

		// The same through the configuration: the set is replaced by one that does not load.
		s.judge.set("p3", func(*rules) {})
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(1))

		s.judge.set("p2", func(r *rules) { r.loadErr = nil })
		commitTo(rego, map[string]string{"main.rego": "v3"})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "a", int64(2))
	})
}

// A sync asks the sources of the policies too, before that of the application.
func TestSyncRefreshesPolicies(t *testing.T) {
	simulate(t, func(s *sim) {
		rego := memsource.New()
		s.more["policies"] = rego
		commitTo(rego, map[string]string{"main.rego": "v1"})
		s.judge = &rules{digest: "p1", source: "policies"}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.judge.set("p1", func(r *rules) { r.loadErr = errors.New("main.rego:1: unexpected eof") })
		commitTo(rego, map[string]string{"main.rego": "v2"})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "unexpected eof")
		rego.SetDown(errors.New("no route")) // so that nobody hears of the mend
		s.judge.set("p2", func(r *rules) { r.loadErr = nil })
		commitTo(rego, map[string]string{"main.rego": "v3"})
		s.pass(10 * time.Minute)
		s.wantSync("web", Synced, "unexpected eof")
		rego.SetDown(nil)
		if err := s.m.Sync(s.t.Context(), "ops", "web", true); err != nil {
			t.Fatal(err)
		}
		if st := s.status("web"); strings.Contains(st.Message, "unexpected eof") {
			t.Errorf("after a sync the status still says %q", st.Message)
		}
	})
}

// A changed policy that denies what runs is a PolicyViolation: that
// object is left as it is, nothing is deleted, and the others go on.
func TestChangedPolicyDeniesWhatRuns(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1"}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		s.judge.set("p2", func(r *rules) { r.object = denyName("a") })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		s.wantSync("web", Synced, "1 object is denied") // nothing has to change
		const said = "a.yaml:1: test.example/Thing/a: PolicyViolation: test.deny: a is not allowed"
		if w := s.status("web").Warnings; len(w) != 1 || !strings.HasPrefix(w[0].Msg, said) || w[0].Rule != "test.deny" {
			t.Errorf("warnings %+v", w)
		}
		if list, err := s.m.Objects(s.t.Context(), "web"); err != nil || !strings.HasPrefix(list[0].Problem, "PolicyViolation: ") || list[1].Problem != "" {
			t.Errorf("objects %+v, %v", list, err)
		}
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.worlds["one"].SetField("x", where("b"), "/spec/value", int64(9))
		s.pass(time.Second)
		s.wantFailure("web", "a", "PolicyViolation: test.deny: a is not allowed")
		s.wantValue("one", "a", int64(9))
		s.wantValue("one", "b", int64(1))
		s.commit(map[string]string{"b.yaml": thing("b", "2")}) // others go on
		s.pass(15 * time.Second)
		s.wantValue("one", "b", int64(2))
		s.commit(map[string]string{"a.yaml": thing("a", "2")}) // an intended change of it is refused
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "denied by policy test.deny: a.yaml:1: test.example/Thing/a: a is not allowed")
		s.wantQuiet("web", time.Hour, 70)
		s.wantCounts("one", 2, 2, 0)
		s.stop()
		s.start() // it stays a violation after a restart
		s.pass(time.Minute)
		s.wantFailure("web", "a", "PolicyViolation")
		if n := s.eventKinds()[EventViolation]; n != 1 {
			t.Errorf("%d events, want one for what is denied", n)
		}
		s.judge.set("p3", func(r *rules) { r.object = nil })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		s.wantValue("one", "a", int64(2))
		s.wantSync("web", Synced, "")
	})
}

// S7: a policy that cannot be asked allows nothing: neither a new revision nor a
// heal of what it has not judged. It is asked again.
func TestPolicyErrorAllowsNothing(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1", err: errRuntime}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.wantSync("web", OutOfSync, "divide by zero")
		s.wantQuiet("web", time.Hour, 90)
		s.wantCounts("one", 0, 0, 0)
		s.judge.set("p1", func(r *rules) { r.err = nil })
		s.pass(6 * time.Minute)
		s.wantSync("web", Synced, "")

		// A new policy fails on what runs: new revisions of other objects wait as well.
		s.judge.set("p2", func(r *rules) { r.err = errRuntime })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.commit(map[string]string{"b.yaml": thing("b", "1")})
		s.pass(time.Minute)
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.wantQuiet("web", time.Hour, 100)
		s.wantValue("one", "a", int64(9))
		s.wantCounts("one", 1, 0, 0)
		s.wantSync("web", OutOfSync, "divide by zero")
		s.judge.set("p2", func(r *rules) { r.err = nil })
		s.pass(6 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 0)
	})
}

// Rules about changes see deletes and heals. A denied intent refuses its
// revision; a denied heal is blocked by itself and hinders nobody.
func TestChangeRules(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1", change: func(c policies.Change) string {
			switch {
			case c.Change.Action == plan.Delete && c.Change.Key.ID.Name == "a":
				return "a is never deleted"
			case c.Change.Cause == plan.Drift && c.Change.Key.ID.Name == "b":
				return "b is healed by day only"
			}
			return ""
		}}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1"), "c.yaml": thing("c", "1")})
		s.start()
		s.worlds["one"].SetField("x", where("b"), "/spec/value", int64(9))
		s.pass(time.Second)
		s.wantFailure("web", "b", "b is healed by day only")
		s.commit(map[string]string{"c.yaml": thing("c", "2")}) // the denied heal does not hold it
		s.pass(15 * time.Second)
		s.wantValue("one", "c", int64(2))
		s.wantValue("one", "b", int64(9))
		s.commit(map[string]string{"a.yaml": "", "c.yaml": thing("c", "3")})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "delete: a is never deleted")
		if m := s.status("web").Message; strings.Count(m, "Thing/a") != 1 {
			t.Errorf("message %q", m)
		}
		s.wantQuiet("web", time.Hour, 70)
		s.wantCounts("one", 3, 1, 0)
	})
}

// What rules about changes warn of hinders nothing and is told: of a revision
// until the next one is judged, of a heal until the object changes again.
func TestChangeWarnings(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1", warn: func(c policies.Change) string {
			if c.Change.Action != plan.Create && c.Change.Key.ID.Name == "a" {
				return "look at a"
			}
			return ""
		}}
		warned := func(want ...string) {
			t.Helper()
			var have []string
			for _, w := range s.status("web").Warnings {
				have = append(have, w.Rule+" "+w.Msg)
			}
			if !slices.Equal(have, want) {
				t.Errorf("warnings %q, want %q", have, want)
			}
		}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		warned()
		s.commit(map[string]string{"a.yaml": thing("a", "2"), "b.yaml": thing("b", "2")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		warned("test.warn a.yaml:1: test.example/Thing/a: update: look at a")
		s.pass(time.Hour) // looks that find nothing to do say nothing new
		warned("test.warn a.yaml:1: test.example/Thing/a: update: look at a")
		s.commit(map[string]string{"b.yaml": thing("b", "3")})
		s.pass(15 * time.Second)
		warned()

		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9)) // a heal
		s.pass(time.Second)
		s.wantValue("one", "a", int64(2))
		warned("test.warn a.yaml:1: test.example/Thing/a: update: look at a")
		s.judge.set("p2", func(r *rules) { r.warn = nil })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		warned()
		s.judge.set("p3", func(r *rules) { // beside a denial
			r.change, r.warn = func(policies.Change) string { return "no" }, func(policies.Change) string { return "hm" }
		})
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.commit(map[string]string{"b.yaml": thing("b", "4")})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "update: no")
		warned("test.warn b.yaml:1: test.example/Thing/b: update: hm")
	})
}

// C-44: the policies that judge a revision are those of their own source: a
// commit that brings its own changes nothing.
func TestCommitCannotWeakenItsPolicy(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1", object: denyName("evil")}
		s.app("web", "web")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "policy/main.rego": "deny"})
		s.start()
		s.commit(map[string]string{"web/evil.yaml": thing("evil", "1"), "policy/main.rego": "allow"})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "web/evil.yaml:1: test.example/Thing/evil: evil is not allowed")
		s.wantCounts("one", 1, 0, 0)
	})
}
