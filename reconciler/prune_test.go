package reconciler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// D-61: whatever a commit does to the path of an application, nothing is
// deleted without an approval, and the status says why.
func TestPathsThatVanish(t *testing.T) {
	for name, c := range map[string]struct {
		change func(s *sim)
		want   string
	}{
		"emptied": {func(s *sim) {
			s.commit(map[string]string{"web/a.yaml": "", "web/b.yaml": "", "web/README.md": "moved"})
		}, "approve"},
		"missing":     {func(s *sim) { s.commit(map[string]string{"web/a.yaml": "", "web/b.yaml": ""}) }, "does not exist"},
		"is a file":   {func(s *sim) { s.commit(map[string]string{"web": "gone", "web/a.yaml": "", "web/b.yaml": ""}) }, "is a file and no manifest"},
		"all ignored": {func(s *sim) { s.commit(map[string]string{"web/.gitopsdignore": "*.yaml\n"}) }, "approve"},
		"path typo in the configuration": {func(s *sim) {
			s.app("web", "wbe")
			if err := s.reload(); err != nil {
				s.t.Fatal(err)
			}
		}, "does not exist"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.app("web", "web")
				s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "else/x": "1"})
				s.start()
				s.wantCounts("one", 2, 0, 0)
				c.change(s)
				s.pass(15 * time.Second)
				s.wantSync("web", OutOfSync, c.want)
				s.wantQuiet("web", time.Hour, 75)
				s.stop()
				s.start()
				s.pass(time.Hour)
				s.wantSync("web", OutOfSync, c.want)
				s.wantCounts("one", 2, 0, 0)
			})
		})
	}
}

// D-61: an emptied path deletes once it is approved, and only then.
func TestEmptyRenderIsApproved(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1")})
		s.start()
		s.commit(map[string]string{"web/a.yaml": "", "web/README.md": "nothing here"})
		s.pass(15 * time.Second)
		c := s.status("web").Candidate
		if c == nil || c.State != CandidateHeld || c.Gates[0].Kind != plan.GateEmpty {
			t.Fatalf("candidate %+v", c)
		}
		s.approve("web", c.Digest)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 1, 0, 1)
	})
}

func (s *sim) approve(app, digest string) {
	s.t.Helper()
	if _, err := s.m.Approve(s.t.Context(), Approver{Name: "ops"}, app, digest, "cleaning up", 0); err != nil {
		s.t.Fatal(err)
	}
	s.pass(time.Second)
}

// A subset of what was approved goes ahead, growth asks
// again, the approval expires, and it is in the history.
func TestApprovalCoversASubsetAndExpires(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: -1} })
		files := things("o", 10, "1")
		s.commit(files)
		s.start()
		gone := func(names ...string) {
			c := map[string]string{}
			for _, n := range names {
				c["o/000/"+n+".yaml"] = ""
			}
			s.commit(c)
			s.pass(15 * time.Second)
		}
		gone("o00000", "o00001")
		first := s.status("web").Candidate
		if first == nil || first.State != CandidateHeld {
			t.Fatalf("candidate %+v", first)
		}
		gone("o00002") // grows before it is approved: another digest
		second := s.status("web").Candidate
		if _, err := s.m.Approve(s.t.Context(), Approver{Name: "ops"}, "web", first.Digest, "why", 0); err == nil || !strings.Contains(err.Error(), "changed since you looked") {
			t.Fatalf("approval of what was held before: %v", err)
		}
		s.commit(map[string]string{"o/000/o00000.yaml": thing("o00000", "1")}) // shrinks to 1, 2
		s.pass(15 * time.Second)
		s.approve("web", s.status("web").Candidate.Digest)
		s.wantCounts("one", 10, 0, 2)
		h, _ := s.m.History(s.t.Context(), "web", 1)
		if h[0].Approver != "ops" || h[0].Outcome != OutcomeSynced || second.Digest == first.Digest {
			t.Errorf("history %+v", h[0])
		}

		gone("o00003", "o00004", "o00005") // not covered by the approval
		s.wantSync("web", OutOfSync, "needs an approval")
		s.setReadErr(errors.New("no answer")) // the approval cannot be used in time
		if _, err := s.m.Approve(s.t.Context(), Approver{Name: "ops"}, "web", s.status("web").Candidate.Digest, "ok", time.Hour); err != nil {
			t.Fatal(err)
		}
		s.pass(2 * time.Hour)
		s.setReadErr(nil)
		s.pass(time.Hour)
		s.wantCounts("one", 10, 0, 2)
		c := s.status("web").Candidate
		s.approve("web", c.Digest)
		s.wantCounts("one", 10, 0, 5)
		if n := s.eventKinds()[EventApproved]; n != 3 {
			t.Errorf("%d events of approvals", n)
		}
	})
}

// Deletes that became possible only after their revision was accepted are held
// as well, shown and approved.
func TestDeletesHeldAfterAcceptance(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p", object: denyName("evil")}
		s.app("web", "web", func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: -1} })
		s.app("zeta", "zeta")
		files := map[string]string{"zeta/z.yaml": thing("z", "1")}
		for path, content := range things("web", 5, "1") {
			files[path] = content
		}
		s.commit(files)
		s.start()
		// zeta wants the three, but not at this revision, which is denied.
		commit := map[string]string{"web/000/o00000.yaml": "", "web/000/o00001.yaml": "", "web/000/o00002.yaml": "", "zeta/evil.yaml": thing("evil", "1")}
		for path, content := range things("zeta", 3, "1") {
			commit[path] = content
		}
		s.commit(commit)
		s.pass(15 * time.Second)
		s.wantFailure("web", "o00000", "AwaitingHandover")
		s.commit(map[string]string{"zeta/000/o00000.yaml": "", "zeta/000/o00001.yaml": "", "zeta/000/o00002.yaml": "", "zeta/evil.yaml": "", "zeta/z.yaml": thing("z", "2")})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "needs an approval")
		s.wantQuiet("web", time.Hour, 70)
		s.wantCounts("one", 6, 1, 0)
		// A newer revision that is refused does not hide it for good.
		s.commit(map[string]string{"web/bad.yaml": "a: [b"})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "web/bad.yaml")
		s.commit(map[string]string{"web/bad.yaml": ""})
		s.pass(15 * time.Second)
		c := s.status("web").Candidate
		if c == nil || c.State != CandidateHeld {
			t.Fatalf("candidate %+v, status %+v", c, s.status("web"))
		}
		s.approve("web", c.Digest)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 6, 1, 3)
		h, _ := s.m.History(s.t.Context(), "web", 1)
		if h[0].Approver != "ops" {
			t.Errorf("history %+v", h[0])
		}
	})
}

// fleetWithDeletes runs 13 applications of one source, and commits: web loses 4
// objects, over its budget of 2, and another one changes. What becomes of that is
// not to depend on who looks first.
func fleetWithDeletes(s *sim, before func(commit map[string]string)) {
	s.app("web", "web", func(a *Application) { a.Budget = plan.Budget{MaxCount: 2, MaxPercent: -1} })
	files := things("web", 8, "1")
	for i := range 12 {
		name := fmt.Sprintf("app%02d", i)
		s.app(name, name)
		files[name+"/k.yaml"] = thing(name, "1")
	}
	s.commit(files)
	s.start()
	s.wantCounts("one", 20, 0, 0)
	commit := map[string]string{"web/000/o00007.yaml": thing("o00007", "2")}
	for i := range 4 {
		commit[fmt.Sprintf("web/000/o%05d.yaml", i)] = ""
	}
	before(commit)
	s.commit(commit)
}

// occupy keeps an application from looking at anything for so long.
func (s *sim) occupy(app string, d time.Duration) {
	a, err := s.m.app(app)
	if err != nil {
		s.t.Fatal(err)
	}
	go func() { _ = a.ask(s.t.Context(), func(*appState) { time.Sleep(d) }) }()
	synctest.Wait()
}

// All or nothing: a revision over its budget writes nothing at all before it is
// approved, whatever the other applications of its source are doing, and is held
// once nothing more is to be known of them, or they have been waited for in vain.
func TestDeletesOverBudgetHoldTheWholeRevision(t *testing.T) {
	for name, c := range map[string]struct {
		hinder         func(s *sim, commit map[string]string)
		waits, decides time.Duration // pending that long; held after that
	}{
		"all look at it":      {func(*sim, map[string]string) {}, 0, 15 * time.Second},
		"one does not render": {func(_ *sim, c map[string]string) { c["app03/bad.yaml"] = "a: [b" }, 0, 15 * time.Second},
		"one is suspended": {func(s *sim, _ map[string]string) {
			if _, err := s.m.Suspend(s.t.Context(), "ops", "app03", false, "incident", time.Time{}); err != nil {
				s.t.Fatal(err)
			}
		}, 0, 15 * time.Second},
		"one is busy": {func(s *sim, _ map[string]string) { s.occupy("app03", 40*time.Second) }, 25 * time.Second, 25 * time.Second},
		"one never looks": {func(s *sim, _ map[string]string) { s.occupy("app03", 10*time.Minute) },
			50 * time.Second, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				fleetWithDeletes(s, func(commit map[string]string) { c.hinder(s, commit) })
				s.pass(c.waits)
				if c.waits > 0 {
					s.wantSync("web", OutOfSync, "application app03 has not looked at this revision yet")
				}
				s.pass(c.decides)
				s.wantSync("web", OutOfSync, "needs an approval: 4 deletes are more than prune.maxCount 2")
				s.wantValue("one", "o00007", int64(1))
				s.approve("web", s.status("web").Candidate.Digest)
				s.wantValue("one", "o00007", int64(2))
				s.pass(15 * time.Minute)
				h, _ := s.m.History(s.t.Context(), "web", 0)
				var outcomes []Outcome
				for _, e := range h {
					outcomes = append(outcomes, e.Outcome)
				}
				if slices.Contains(outcomes, OutcomePartial) && name != "one does not render" && name != "one never looks" {
					t.Errorf("history %v: part of the revision was written", outcomes)
				}
			})
		})
	}
}

// What another application takes over is not counted, also when that one is late
// or looks at the revision only after it was held.
func TestLateHandoverNeedsNoBudget(t *testing.T) {
	for _, late := range []time.Duration{0, 40 * time.Second, 3 * time.Minute} {
		t.Run(late.String(), func(t *testing.T) {
			simulate(t, func(s *sim) {
				fleetWithDeletes(s, func(commit map[string]string) {
					for i := range 4 {
						commit[fmt.Sprintf("app03/%d.yaml", i)] = thing(objectName(i), "1")
					}
					if late > 0 {
						s.occupy("app03", late)
					}
				})
				s.pass(late + 30*time.Second)
				s.wantSync("web", Synced, "")
				s.wantSync("app03", Synced, "")
				s.wantCounts("one", 20, 1, 0)
				if n := s.eventKinds()[EventHeld]; n > 0 != (late > handoverPatience) {
					t.Errorf("%d times held", n)
				}
			})
		})
	}
}

// The prune guard is on by default: protected kinds wait for an approval,
// and with prune off nothing is deleted and that is said.
func TestProtectedKindsAndPruneOff(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("a", "a", func(a *Application) {
			a.Protect = append(a.Protect, s.key("one", "x").ID.GroupKind())
		})
		s.app("b", "b", func(a *Application) { a.Prune = false })
		s.commit(map[string]string{"a/p.yaml": thing("p", "1"), "a/q.yaml": thing("q", "1"), "b/r.yaml": thing("r", "1"), "b/s.yaml": thing("s", "1")})
		s.start()
		s.commit(map[string]string{"a/p.yaml": "", "b/r.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("a", OutOfSync, "never deleted unasked")
		s.wantFailure("b", "r", "prune is off")
		s.pass(time.Hour)
		s.wantCounts("one", 4, 0, 0)
		s.approve("a", s.status("a").Candidate.Digest)
		s.wantCounts("one", 4, 0, 1)
	})
}

// S1: what is there and not ours is not touched, and is named.
func TestStrangersAreNotTouched(t *testing.T) {
	simulate(t, func(s *sim) {
		s.worlds["one"].Set("admin", object(t, thing("x", "7")))
		s.worlds["one"].Set("admin", object(t, thing("same", "1")))
		s.worlds["one"].Set("admin", object(t, thing("elsewhere", "1")))
		s.app("web", ".")
		s.commit(map[string]string{"x.yaml": thing("x", "1"), "same.yaml": thing("same", "1"), "mine.yaml": thing("mine", "1")})
		s.start()
		s.wantFailure("web", "x", "already there with other content")
		s.wantValue("one", "x", int64(7))
		s.wantValue("one", "mine", int64(1))
		if s.owner("one", "same") != "web" || s.owner("one", "x") != "" {
			t.Error("ownership")
		}
		s.wantQuiet("web", time.Hour, 70)
		// Taken out of Git, the stranger stays; the adopted one goes.
		s.commit(map[string]string{"x.yaml": "", "same.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 1, 0, 1)
		s.wantValue("one", "elsewhere", int64(1))
	})
}

func object(t *testing.T, text string) *manifest.Object {
	t.Helper()
	list, err := manifest.Decode("hand.yaml", []byte(text), manifest.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}
