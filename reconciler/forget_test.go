package reconciler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// What a configured application left behind earlier can be forgotten too, and
// the history of its revisions goes on as if nothing had happened.
func TestForgetOfAConfiguredApplication(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.app("db", "db")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "db/d.yaml": thing("d", "1")})
		s.start()
		all := s.apps
		s.apps = s.apps[1:]
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.commit(map[string]string{"web/b.yaml": ""})
		s.pass(time.Minute)
		s.apps = all
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		if o := s.status("web").Orphaned; len(o) != 1 || o[0].ID.Name != "b" {
			t.Fatalf("orphaned %v", o)
		}
		if _, err := s.m.Forget(s.t.Context(), "ana", "web", []string{"Thing/a"}, "x"); !errors.Is(err, ErrPrecondition) {
			t.Errorf("what is owned: %v", err)
		}
		if _, err := s.m.Forget(s.t.Context(), "ana", "web", nil, ""); !errors.Is(err, ErrInvalid) {
			t.Errorf("no reason: %v", err)
		}
		told := s.eventKinds()[EventForgotten]
		names, err := s.m.Forget(s.t.Context(), "ana", "web", nil, "by hand from now on")
		if err != nil || len(names) != 1 || names[0] != "one:test.example/Thing/b" {
			t.Fatalf("%v, %v", names, err)
		}
		if now := s.eventKinds()[EventForgotten]; now != told+1 {
			t.Errorf("%d events, want 1", now-told)
		}
		if o := s.status("web").Orphaned; len(o) != 0 { // at once
			t.Errorf("orphaned %v", o)
		}
		if _, err := s.m.Forget(s.t.Context(), "ana", "web", nil, "again"); !errors.Is(err, ErrPrecondition) {
			t.Errorf("again: %v", err)
		}
		s.wantValue("one", "b", int64(1))
		s.commit(map[string]string{"web/a.yaml": thing("a", "2")})
		s.pass(time.Minute)
		past, err := s.m.History(s.t.Context(), "web", 10)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, e := range past {
			lines = append(lines, fmt.Sprintf("%d %s %s %s", e.Seq, e.Outcome, e.Approver, e.Reason))
		}
		want := "3 Synced  |2 Forgotten ana by hand from now on: one:test.example/Thing/b|2 Synced  |1 Synced  "
		if got := strings.Join(lines, "|"); got != want {
			t.Errorf("history %s\nwant    %s", got, want)
		}
		s.stop()
		s.start()
		if _, err := s.m.Object(s.t.Context(), "web", "Thing/b"); !errors.Is(err, ErrUnknownObject) {
			t.Errorf("after a restart: %v", err)
		}
	})
}

// A history keeps the newest of what people did, as of revisions.
func TestForgottenLinesAreBounded(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.pass(time.Minute)
		for i := range historyKept + 5 {
			s.pass(time.Second)
			if err := s.m.noteForgotten(s.t.Context(), "ana", "web", []plan.Key{s.key("one", "a")}, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		past, err := s.m.History(s.t.Context(), "web", 1000)
		if err != nil || len(past) != historyKept+1 || !strings.HasPrefix(past[0].Reason, fmt.Sprint(historyKept+4)) {
			t.Errorf("%d lines, newest %+v, %v", len(past), past[0], err)
		}
	})
}

// What fits more exactly wins: all of a key, the identity, the name, any part.
func TestFind(t *testing.T) {
	key := func(target, kind, name string) plan.Key {
		return plan.Key{Target: target, ID: manifest.ID{Group: "g.io", Kind: kind, Name: name}}
	}
	keys := []plan.Key{
		key("one", "File", "motd"), key("one", "File", "motd.bak"), key("one", "File", "old-motd"), key("one", "Link", "site"),
		key("two", "File", "site"), key("one", "Directory", "site"), key("two", "Link", "site"),
	}
	for ref, want := range map[string]string{
		"motd": "one:g.io/File/motd", "File/motd": "one:g.io/File/motd", "bak": "one:g.io/File/motd.bak", "old": "one:g.io/File/old-motd",
		"Directory": "one:g.io/Directory/site", "g.io/File/site": "two:g.io/File/site", "File/site": "two:g.io/File/site",
		"one:g.io/Link/site": "one:g.io/Link/site",
	} {
		if k, err := find(keys, "web", ref); err != nil || k.String() != want {
			t.Errorf("%s: %s, %v, want %s", ref, k, err, want)
		}
	}
	for ref, want := range map[string]string{
		"site": "ambiguous: \"site\" fits 4 objects: one:g.io/Directory/site, one:g.io/Link/site, ", "g.io/Link/site": "fits 2 objects",
		"none": "list them with: gitopsd get web",
	} {
		class := ErrAmbiguous
		if ref == "none" {
			class = ErrUnknownObject
		}
		if k, err := find(keys, "web", ref); !errors.Is(err, class) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v", ref, k, err)
		}
	}
}

// The list of objects holds what is desired, owned and left behind, and why
// something is not as desired.
func TestObjects(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) {
			a.Drift = []plan.DriftRule{{Path: "/spec/value", Mode: plan.DriftReport}}
		})
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1"), "c.yaml": thing("c", "1")})
		s.start()
		s.worlds["one"].SetField("x", where("b"), "/spec/value", int64(9))
		s.pass(time.Minute)
		if _, err := s.m.Suspend(s.t.Context(), "ana", "web", false, "x", time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.worlds["one"].Delete(where("c"))
		s.pass(time.Minute)
		list, err := s.m.Objects(s.t.Context(), "web")
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, o := range list {
			lines = append(lines, fmt.Sprintf("%s %s %d %q %s: %s", o.Key.ID.Name, o.State, o.Presence, o.Health, o.Origin, o.Problem))
		}
		want := []string{
			`a Owned 2 "Healthy" a.yaml:1: `,
			`b Owned 2 "Healthy" b.yaml:1: 1 field drifted`,
			`c Owned 1 "" c.yaml:1: waits: suspended; let it go on with: gitopsd resume web`,
		}
		if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
		if f := s.status("web").Failures; len(f) != 1 || !f[0].Waits {
			t.Errorf("failures %+v, want one that only waits", f)
		}
	})
}

// A policy set that stops loading is told of at once, in its own status and in
// that of each application that uses it, whatever else that has to say.
func TestPolicySetThatStopsLoadingIsShown(t *testing.T) {
	simulate(t, func(s *sim) {
		rego := memsource.New()
		s.more["policies"] = rego
		commitTo(rego, map[string]string{"main.rego": "v1"})
		s.judge = &rules{digest: "p1", source: "policies"}
		s.app("web", ".", func(a *Application) { a.Drift = []plan.DriftRule{{Mode: plan.DriftReport}} })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.pass(15 * time.Second)
		if sets := s.m.PolicySets(); len(sets) != 1 || sets[0].Error != "" || sets[0].Source != "policies" || sets[0].Revision == "" {
			t.Fatalf("policy sets %+v", sets)
		}
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Minute)
		s.judge.set("p1", func(r *rules) { r.loadErr = errors.New("main.rego:1: unexpected eof") })
		broken := commitTo(rego, map[string]string{"main.rego": "v2"})
		before := time.Now()
		s.pass(15 * time.Second)
		sets := s.m.PolicySets()
		if sets[0].Error != "policy set rules: main.rego:1: unexpected eof" || sets[0].Revision != broken || sets[0].Since.Before(before) {
			t.Errorf("policy sets %+v", sets)
		}
		const why = "; new revisions wait: policy set rules: main.rego:1: unexpected eof"
		s.wantSync("web", OutOfSync, "1 field drifted and is left as it is"+why)
		if _, err := s.m.Suspend(s.t.Context(), "ana", "web", false, "disk", time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		s.wantSync("web", OutOfSync, "suspended by ana: disk; let it go on with: gitopsd resume web"+why)
		s.judge.set("p2", func(r *rules) { r.loadErr = nil })
		commitTo(rego, map[string]string{"main.rego": "v3"})
		s.pass(15 * time.Second)
		if sets := s.m.PolicySets(); sets[0].Error != "" || !sets[0].Since.IsZero() {
			t.Errorf("policy sets %+v", sets)
		}
	})
}
