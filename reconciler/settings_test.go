package reconciler

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// D-61: settings that make something else of the accepted revision go through
// every gate, all or nothing, whether they come by a reload or while the daemon
// is down: with one denied object or deletes over the budget nothing is written.
func TestNewSettingsAreJudgedAsAWhole(t *testing.T) {
	for name, running := range map[string]bool{"by reload": true, "while stopped": false} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				change := func(path string) {
					s.app("web", path, func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: -1} })
					if !running {
						s.stop()
						s.start()
						return
					}
					if err := s.reload(); err != nil {
						t.Fatal(err)
					}
				}
				s.judge = &rules{digest: "p1", object: denyName("evil"), change: func(c policies.Change) string {
					if c.Change.Action == plan.Delete && c.Change.Key.ID.Name == "kept" {
						return "kept is never deleted"
					}
					return ""
				}}
				s.commit(map[string]string{
					"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "web/kept.yaml": thing("kept", "1"),
					"denied/a.yaml": thing("a", "2"), "denied/evil.yaml": thing("evil", "1"), "denied/b.yaml": thing("b", "1"), "denied/kept.yaml": thing("kept", "1"),
					"less/new.yaml": thing("new", "1"), "less/a.yaml": thing("a", "2"), "less/kept.yaml": thing("kept", "1"),
					"fewer/new.yaml": thing("new", "1"), "fewer/kept.yaml": thing("kept", "1"),
					"undone/new.yaml": thing("new", "1"), "undone/a.yaml": thing("a", "1"), "undone/b.yaml": thing("b", "1"),
				})
				s.app("web", "web", func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: -1} })
				s.start()
				s.wantCounts("one", 3, 0, 0)
				for path, want := range map[string]string{
					"denied": "evil is not allowed",
					"undone": "delete: kept is never deleted",
					"fewer":  "needs an approval: 2 deletes are more than",
				} {
					change(path)
					s.pass(15 * time.Second)
					s.wantSync("web", OutOfSync, want)
					s.wantSync("web", OutOfSync, "the settings have changed since")
					s.wantQuiet("web", time.Hour, 75)
					s.wantCounts("one", 3, 0, 0)
				}
				change("less") // within the budget, and allowed
				s.pass(15 * time.Second)
				s.wantSync("web", Synced, "in step")
				s.wantCounts("one", 4, 1, 1)
				s.stop()
				s.start()
				s.wantSync("web", Synced, "in step")
				s.wantCounts("one", 4, 1, 1)
			})
		})
	}
}

// The same settings and revision are restored without being judged as new ones,
// also when the newest revision is refused: drift is healed.
func TestSameSettingsAreRestored(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.commit(map[string]string{"a.yaml": "a: [b"})
		s.pass(15 * time.Second)
		s.app("web", ".", func(a *Application) { a.Interval = 2 * time.Minute })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(1))
		s.stop()
		s.start()
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(1))
	})
}

// Settings that make nothing that can be accepted leave what was accepted before in
// charge, which is healed and prunes nothing; once they are mended, what they make
// is compared with that, also the deletes.
func TestBadSettingsLeaveTheAcceptedInCharge(t *testing.T) {
	for name, bad := range map[string]func(*sim, *Application){
		"path that is not there": func(_ *sim, a *Application) { a.Path = "wbe" },
		"content that is denied": func(_ *sim, a *Application) { a.Path = "denied" },
		"source that is down": func(s *sim, a *Application) {
			s.more["other"] = memsource.New()
			s.more["other"].SetDown(errors.New("no route"))
			a.Source = "other"
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.judge = &rules{digest: "p1", object: denyName("evil")}
				s.app("web", "web")
				s.app("twin", "twin")
				s.commit(map[string]string{
					"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "denied/evil.yaml": thing("evil", "1"),
					"next/a.yaml": thing("a", "2"), "next/c.yaml": thing("c", "1"), "twin/t.yaml": thing("t", "1"),
				})
				s.start()
				s.app("web", "web", func(a *Application) { bad(s, a) })
				if err := s.reload(); err != nil {
					t.Fatal(err)
				}
				s.pass(time.Minute)
				if st := s.status("web"); st.Sync != OutOfSync || !strings.Contains(st.Message+st.Candidate.said(), "stays in charge") {
					t.Errorf("status %s %q, %q", st.Sync, st.Message, st.Candidate.said())
				}
				s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
				s.pass(time.Second)
				s.wantValue("one", "a", int64(1))
				s.wantCounts("one", 3, 1, 0)
				// Nobody takes over what is still wanted.
				s.commit(map[string]string{"twin/b.yaml": thing("b", "5")})
				s.pass(5 * time.Minute)
				s.wantValue("one", "b", int64(1))
				s.commit(map[string]string{"twin/b.yaml": ""})
				s.pass(time.Minute)
				s.app("web", "next")
				if err := s.reload(); err != nil {
					t.Fatal(err)
				}
				s.pass(5 * time.Minute)
				s.wantSync("web", Synced, "")
				s.wantCounts("one", 4, 2, 1)
				s.wantSync("twin", Synced, "")
			})
		})
	}
}

// said is the reason of a candidate, or "".
func (c *Candidate) said() string {
	if c == nil {
		return ""
	}
	return c.Reason
}

// An approval is for the files and settings that were seen.
// The same deletes from other ones ask again, and whoever approves names them.
func TestApprovalIsForWhatWasSeen(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1"}
		s.app("web", ".", func(a *Application) { a.Budget = plan.Budget{MaxCount: 1, MaxPercent: -1} })
		s.commit(things("o", 5, "1"))
		s.start()
		s.commit(map[string]string{"o/000/o00000.yaml": "", "o/000/o00001.yaml": ""})
		s.pass(15 * time.Second)
		seen := s.status("web").Candidate
		if _, err := s.m.Approve(s.t.Context(), Approver{Name: "ops"}, "web", "", "why", 0); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "gitopsd diff web") {
			t.Fatalf("without a digest: %v", err)
		}
		s.judge.set("p1", func(r *rules) { r.err = errRuntime }) // it cannot be used at once
		s.approve("web", seen.Digest)
		s.commit(map[string]string{"o/000/o00002.yaml": thing("o00002", "2")})
		s.pass(15 * time.Second)
		s.judge.set("p1", func(r *rules) { r.err = nil })
		s.pass(10 * time.Minute)
		s.wantSync("web", OutOfSync, "needs an approval")
		s.wantCounts("one", 5, 0, 0)
		now := s.status("web").Candidate
		if now.Digest == seen.Digest {
			t.Error("another input has the same digest")
		}
		s.approve("web", now.Digest)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 5, 1, 2)
	})
}

// heldDigest names what of an application waits for an approval, or is "".
func (s *sim) heldDigest(app string) string {
	if c := s.status(app).Candidate; c != nil {
		return c.Digest
	}
	return ""
}
