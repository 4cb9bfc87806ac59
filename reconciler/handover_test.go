package reconciler

import (
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// named files with addresses: two names can mean one thing.
func addressed(name, address, value string) string {
	return strings.Replace(thing(name, value), "spec:\n", "spec:\n  address: "+address+"\n", 1)
}

// wantHandedOver holds that x went from one application to another, both are in
// step, and of three objects none was written again.
func (s *sim) wantHandedOver(from, to string) {
	s.t.Helper()
	s.wantSync(from, Synced, "")
	s.wantSync(to, Synced, "")
	s.wantCounts("one", 3, 0, 0)
	if got := s.owner("one", "x"); got != to {
		s.t.Errorf("owner %q, want %s", got, to)
	}
}

// D-55: a file that is renamed is no change of its object.
func TestRenamedFileWritesNothing(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		before := s.worlds["one"].Counters()
		s.commit(map[string]string{"a.yaml": "", "dir/new.yaml": thing("a", "1")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		if after := s.worlds["one"].Counters(); after != before {
			t.Errorf("%+v -> %+v", before, after)
		}
		o, err := s.m.Object(s.t.Context(), "web", "Thing/a")
		if err != nil || o.Origin.Path != "dir/new.yaml" {
			t.Errorf("origin %v, %v", o.Origin, err)
		}
	})
}

// D-55: an object renamed at the same address is updated in place.
func TestRenamedObjectIsUpdatedInPlace(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": addressed("a", "etc-motd", "1"), "b.yaml": thing("b", "1")})
		s.start()
		s.commit(map[string]string{"a.yaml": addressed("z", "etc-motd", "2")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 0)
		if s.owner("one", "z") != "web" || s.owner("one", "a") != "" {
			t.Error("the record did not move to the new name")
		}
		// And without a change of content there is no write at all.
		s.commit(map[string]string{"a.yaml": addressed("y", "etc-motd", "2")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 0)
		if s.owner("one", "y") != "web" {
			t.Error("the record did not move")
		}
	})
}

// D-55, S11: an object that one commit moves from one application to another
// is handed over: nothing is deleted or created.
func TestObjectMovesBetweenApplications(t *testing.T) {
	for _, names := range [][2]string{{"a-first", "b-second"}, {"b-first", "a-second"}} {
		t.Run(names[0], func(t *testing.T) {
			simulate(t, func(s *sim) {
				from, to := names[0], names[1]
				s.app(from, "from")
				s.app(to, "to")
				s.commit(map[string]string{"from/x.yaml": thing("x", "1"), "from/y.yaml": thing("y", "1"), "to/z.yaml": thing("z", "1")})
				s.start()
				s.commit(map[string]string{"from/x.yaml": "", "to/x.yaml": thing("x", "1")})
				s.pass(15 * time.Second)
				s.wantHandedOver(from, to)
				if n := s.eventKinds()[EventMoved]; n != 1 {
					t.Errorf("%d events of the move, want 1", n)
				}
				// The new owner manages it now.
				s.commit(map[string]string{"to/x.yaml": thing("x", "2")})
				s.pass(15 * time.Second)
				s.wantCounts("one", 3, 1, 0)
				// The move is remembered.
				s.stop()
				s.start()
				if got := s.owner("one", "x"); got != to {
					t.Errorf("owner after a restart %q", got)
				}
				s.wantCounts("one", 3, 1, 0)
			})
		})
	}
}

// D-55: so is one that is declared in the new place first, and taken out of the
// old one by a second commit. Between the two, both places are named (B-36).
func TestObjectMovesInTwoCommits(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("one-app", "from")
		s.app("two-app", "to")
		s.commit(map[string]string{"from/x.yaml": thing("x", "1"), "from/w.yaml": thing("w", "1"), "to/z.yaml": thing("z", "1")})
		s.start()
		s.commit(map[string]string{"to/x.yaml": thing("x", "1")})
		s.pass(15 * time.Second)
		s.wantSync("two-app", OutOfSync, "to/x.yaml:1: test.example/Thing/x at memory:test.example/Thing/x is also declared by application one-app at from/x.yaml:1")
		s.wantSync("one-app", Synced, "")
		s.wantQuiet("two-app", time.Hour, 70)
		s.commit(map[string]string{"from/x.yaml": ""})
		s.pass(15 * time.Second)
		s.wantHandedOver("one-app", "two-app")
	})
}

// D-55: between two sources, in either order of the commits.
func TestObjectMovesBetweenSources(t *testing.T) {
	simulate(t, func(s *sim) {
		other := memsource.New()
		s.more["other"] = other
		s.app("here", "app")
		s.app("there", "app", func(a *Application) { a.Source = "other" })
		s.commit(map[string]string{"app/x.yaml": thing("x", "1"), "app/y.yaml": thing("y", "1")})
		commitTo(other, map[string]string{"app/z.yaml": thing("z", "1")})
		s.start()
		commitTo(other, map[string]string{"app/x.yaml": thing("x", "1")})
		s.pass(15 * time.Second)
		s.wantSync("there", OutOfSync, "also declared by application here at app/x.yaml:1")
		s.commit(map[string]string{"app/x.yaml": ""})
		s.pass(15 * time.Second)
		s.wantHandedOver("here", "there")
	})
}

// D-55 over a restart: the commit that moves an object comes while nothing runs.
func TestObjectMovesWhileStopped(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "from")
		s.app("b", "to")
		s.commit(map[string]string{"from/x.yaml": thing("x", "1"), "from/y.yaml": thing("y", "1"), "to/z.yaml": thing("z", "1")})
		s.start()
		s.stop()
		s.commit(map[string]string{"from/x.yaml": "", "to/x.yaml": thing("x", "1")})
		s.start()
		s.pass(15 * time.Second)
		s.wantSync("a", Synced, "")
		s.wantSync("b", Synced, "")
		s.wantCounts("one", 3, 0, 0)
	})
}

// D-55: while the revision of the application that might want the object is
// refused, unread or not looked at because of a suspension, nothing is deleted.
func TestHandoverWaits(t *testing.T) {
	for name, hinder := range map[string]struct{ before, after func(*sim, map[string]string) }{
		"refused by its content": {
			func(_ *sim, c map[string]string) { c["to/bad.yaml"] = "not: [yaml" },
			func(_ *sim, c map[string]string) { c["to/bad.yaml"] = "" },
		},
		"refused by policy": {
			func(_ *sim, c map[string]string) { c["to/evil.yaml"] = thing("evil", "1") },
			func(_ *sim, c map[string]string) { c["to/evil.yaml"] = "" },
		},
		"suspended": {
			func(s *sim, _ map[string]string) {
				if _, err := s.m.Suspend(s.t.Context(), "ops", "b", false, "incident", time.Time{}); err != nil {
					s.t.Fatal(err)
				}
			},
			func(s *sim, _ map[string]string) {
				if _, err := s.m.Resume(s.t.Context(), "ops", "b", false, ""); err != nil {
					s.t.Fatal(err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.judge = &rules{digest: "p", object: denyName("evil")}
				s.app("a", "from")
				s.app("b", "to")
				s.commit(map[string]string{"from/x.yaml": thing("x", "1"), "from/y.yaml": thing("y", "1"), "to/z.yaml": thing("z", "1")})
				s.start()
				commit := map[string]string{"from/x.yaml": "", "to/x.yaml": thing("x", "1")}
				hinder.before(s, commit)
				s.commit(commit)
				s.pass(15 * time.Second)
				s.wantFailure("a", "x", "AwaitingHandover")
				s.wantQuiet("a", time.Hour, 70)
				s.wantQuiet("b", time.Hour, 90)
				s.wantCounts("one", 3, 0, 0)
				commit = map[string]string{"note": "x"}
				hinder.after(s, commit)
				s.commit(commit)
				s.pass(15 * time.Second)
				s.wantHandedOver("a", "b")
			})
		})
	}
}

// B-36 across applications, by name and by address alone: the second one is
// refused, both places are named, and the first one is not disturbed.
func TestTwoApplicationsWantOneObject(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "a")
		s.app("b", "b")
		s.commit(map[string]string{"a/x.yaml": addressed("x", "etc-motd", "1"), "b/z.yaml": thing("z", "1")})
		s.start()
		s.commit(map[string]string{"b/other.yaml": addressed("other", "etc-motd", "2")})
		s.pass(15 * time.Second)
		s.wantSync("b", OutOfSync, "b/other.yaml:1: test.example/Thing/other at memory:etc-motd is also declared by application a at a/x.yaml:1")
		s.wantSync("a", Synced, "")
		s.wantCounts("one", 2, 0, 0)
		s.stop()
		s.start()
		s.wantSync("a", Synced, "")
		s.wantCounts("one", 2, 0, 0)
	})
}

// B-36 within one application.
func TestOneAddressTwice(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", ".")
		s.commit(map[string]string{"x.yaml": addressed("x", "etc-motd", "1"), "y.yaml": addressed("y", "etc-motd", "1")})
		s.start()
		s.wantSync("a", OutOfSync, "y.yaml:1: test.example/Thing/y: memory:etc-motd on target one is also declared by test.example/Thing/x at x.yaml:1")
		s.wantCounts("one", 0, 0, 0)
	})
}

// An approval is asked for what is left after the hand-over, and a hand-over is
// no delete: budgets count what remains after a hand-over.
func TestHandoverNeedsNoBudget(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "a", func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: 10} })
		s.app("b", "b")
		all := things("a", 20, "1")
		all["b/z.yaml"] = thing("z", "1")
		s.commit(all)
		s.start()
		delete(all, "b/z.yaml")
		commit := without(all)
		for path, content := range things("b", 19, "1") {
			commit[path] = content
		}
		delete(commit, "a/000/o00019.yaml")
		s.commit(commit)
		s.pass(30 * time.Second)
		s.wantSync("a", Synced, "")
		s.wantSync("b", Synced, "")
		s.wantCounts("one", 21, 0, 0)
	})
}

// Two applications declare one object in one commit: whoever is refused waits
// for news of the other without the two waking each other for ever.
func TestRivalsDoNotWakeEachOther(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "a")
		s.app("b", "b")
		s.commit(map[string]string{"a/k.yaml": thing("ka", "1"), "b/k.yaml": thing("kb", "1")})
		s.start()
		s.commit(map[string]string{"a/x.yaml": thing("x", "1"), "b/x.yaml": thing("x", "1")})
		s.pass(15 * time.Second)
		s.wantQuiet("a", time.Hour, 70)
		s.wantQuiet("b", time.Hour, 70)
		if c := s.worlds["one"].Counters(); c.Creates > 3 {
			t.Errorf("%+v", c)
		}
		s.commit(map[string]string{"a/x.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("a", Synced, "")
		s.wantSync("b", Synced, "")
		s.wantCounts("one", 3, 0, 0)
	})
}

// D-55 over a restart, when the application that is to take over has not looked
// at the dropping revision: nothing is deleted, although of the restored
// revisions nobody remembers which came first.
func TestHandoverWaitsOverARestart(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "a")
		s.app("b", "b")
		s.commit(map[string]string{"a/k.yaml": thing("ka", "1"), "b/k.yaml": thing("kb", "1"), "b/x.yaml": thing("x", "1")})
		s.start()
		s.commit(map[string]string{"a/broken.yaml": "a: [b"})
		s.pass(15 * time.Second)
		s.commit(map[string]string{"b/x.yaml": "", "a/x.yaml": thing("x", "1")})
		s.pass(15 * time.Second)
		s.wantFailure("b", "x", "AwaitingHandover")
		s.commit(map[string]string{"b/broken.yaml": "a: [b"})
		s.pass(15 * time.Second)
		s.stop()
		s.start()
		s.pass(time.Hour)
		s.wantCounts("one", 3, 0, 0)
		s.commit(map[string]string{"a/broken.yaml": "", "b/broken.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("a", Synced, "")
		s.wantSync("b", Synced, "")
		s.wantCounts("one", 3, 0, 0)
	})
}
