package reconciler

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// deleting makes an application take its objects along.
func deleting(a *Application) { a.DeletionPolicy = DeletionDelete }

// without takes an application out of the configuration.
func (s *sim) without(name string) {
	s.apps = slices.DeleteFunc(s.apps, func(a Application) bool { return a.Name == name })
}

// approveHeld approves what an application holds.
func (s *sim) approveHeld(name string) error {
	st, err := s.m.Status(name)
	if err != nil {
		return err
	}
	c := st[0].Candidate
	if c == nil || c.State != CandidateHeld {
		return errors.New(name + " holds nothing")
	}
	_, err = s.m.Approve(s.t.Context(), Approver{Name: "ops"}, name, c.Digest, "it may go", 0)
	s.pass(time.Second)
	return err
}

// What counts is what the configuration before said, and only that.
func TestDeletionPolicyIsThatOfTheConfigurationBefore(t *testing.T) {
	for _, tc := range []struct {
		name        string
		life        []func(*Application)
		wantDeletes bool
	}{
		{"orphan", []func(*Application){func(*Application) {}}, false},
		{"delete", []func(*Application){deleting}, true},
		{"turned on", []func(*Application){func(*Application) {}, deleting}, true},
		{"turned off", []func(*Application){deleting, func(*Application) {}}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, running := range []bool{true, false} {
				simulate(t, func(s *sim) {
					s.app("keep", "keep")
					s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "keep/k.yaml": thing("k", "1")})
					for i, change := range tc.life {
						s.app("web", "web", change)
						if i == 0 {
							s.start()
						} else if err := s.reload(); err != nil {
							t.Fatal(err)
						}
						s.pass(time.Minute)
						s.wantSync("web", Synced, "")
					}
					s.without("web")
					if running {
						if err := s.reload(); err != nil {
							t.Fatal(err)
						}
					} else {
						s.restart()
					}
					s.pass(15 * time.Minute)
					s.wantCounts("one", 3, 0, 0) // nothing goes without a word
					if !tc.wantDeletes {
						if st := s.status("web"); st.Phase != PhaseOrphaned || len(st.Orphaned) != 2 {
							t.Fatalf("status %+v, want 2 orphans", st)
						}
						return
					}
					if err := s.approveHeld("web"); err != nil {
						t.Fatal(err)
					}
					s.pass(time.Minute)
					s.wantCounts("one", 3, 0, 2)
					if _, err := s.m.Status("web"); !errors.Is(err, ErrUnknownApplication) {
						t.Errorf("the application is still there: %v", err)
					}
					s.wantSync("keep", Synced, "")
				})
			}
		})
	}
}

// D-61: one that departs is held, obeys a suspension, says what it waits for, and
// stays whole when it is put back into the configuration.
func TestDepartingApplicationComesBack(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web", deleting)
		back := slices.Clone(s.apps)
		s.app("keep", "keep")
		back = append(back, s.apps[len(s.apps)-1])
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "keep/k.yaml": thing("k", "1")})
		s.start()
		s.pass(time.Minute)
		if _, err := s.m.Suspend(s.t.Context(), "ops", "web", false, "wait", time.Time{}); err != nil {
			t.Fatal(err)
		}
		s.without("web")
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", OutOfSync, "suspended")
		if _, err := s.m.Resume(s.t.Context(), "ops", "web", false, "go on"); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", OutOfSync, "nothing is desired any more, and 1 of 1 objects would go")
		if _, _, err := s.m.AcceptHistory(s.t.Context(), "ops", "web", "", "why not"); !errors.Is(err, ErrPrecondition) {
			t.Errorf("AcceptHistory = %v", err)
		}
		s.apps = back
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 0, 0)
	})
}

// Before anything goes, every application that reaches the same place has said what it
// wants: what another one takes over is moved and not deleted.
func TestDepartureWaitsForWhoMayInherit(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web", deleting, func(a *Application) { a.Protect = nil })
		s.commit(map[string]string{"web/a.yaml": thing("a", "1")})
		s.start()
		s.without("web")
		other := memsource.New()
		s.more["other"] = other
		s.app("heir", "web", func(a *Application) { a.Source = "other" })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", OutOfSync, "whether application heir wants it is not known")
		commitTo(other, map[string]string{"web/a.yaml": thing("a", "1")})
		s.pass(time.Minute)
		s.wantSync("heir", Synced, "")
		s.wantCounts("one", 1, 0, 0)
		if _, err := s.m.Status("web"); !errors.Is(err, ErrUnknownApplication) {
			t.Errorf("the application is still there: %v", err)
		}
	})
}

// D-49: the process ends before or after every single effect while one application gets
// another name and one goes with its objects. In the end there is what is wanted,
// each on record once, and nothing was deleted and made again.
func TestCrashWhileApplicationsAreRenamedAndDeleted(t *testing.T) {
	done := false
	for at := 0; !done; at++ { // 0 is the run without a crash
		for _, after := range []bool{false, true} {
			simulate(t, func(s *sim) {
				crashed := s.renameAndDelete(at, after)
				done = at > 0 && !crashed
				name := fmt.Sprintf("crash at %d, after %v", at, after)
				s.wantSync("shop", Synced, "")
				if c := s.worlds["one"].Counters(); c.Creates != 4 || c.Deletes != 3 || c.Updates != 0 {
					t.Errorf("%s: %+v, want 4 creates, the delete under the new name and the 2 that were approved", name, c)
				}
				var owned []string
				for _, k := range s.m.registry.keys("shop") {
					owned = append(owned, k.ID.Name)
				}
				if got := strings.Join(owned, " "); got != "a" || len(s.m.registry.owners()) != 1 {
					t.Errorf("%s: shop owns %q, of owners %v", name, got, s.m.registry.owners())
				}
				if lines, err := s.m.History(s.t.Context(), "shop", 0); err != nil || len(lines) == 0 || lines[len(lines)-1].Application != "web" {
					t.Errorf("%s: history %+v, %v; want it to begin under the former name", name, lines, err)
				}
			})
			if t.Failed() {
				return
			}
		}
	}
}

// renameAndDelete is the life of that test. It reports whether the process ended.
func (s *sim) renameAndDelete(at int, after bool) (crashed bool) {
	s.is["one"] = memapply.Personality{Marks: true}
	s.app("web", "web")
	s.app("gone", "gone", deleting)
	s.commit(map[string]string{
		"web/a.yaml": thing("a", "1"), "web/b.yaml": thing("b", "1"), "gone/x.yaml": thing("x", "1"), "gone/y.yaml": thing("y", "1"),
	})
	s.start()
	s.pass(time.Minute)
	s.crash.arm(at, after)
	steps := []func(){
		func() {
			s.without("web")
			s.app("shop", "web", func(a *Application) { a.RenamedFrom, a.Budget.MaxPercent = "web", -1 })
			s.commit(map[string]string{"web/b.yaml": ""}) // its delete is still owed
			_ = s.reload()                                // the crash is an error of it, maybe
		},
		func() {
			s.without("gone")
			_ = s.reload()
		},
		func() { _ = s.approveHeld("gone") },
	}
	for _, step := range steps {
		step()
		s.pass(time.Minute)
		if s.crash.dead() {
			crashed = true
			s.restart()
			s.pass(time.Minute)
		}
	}
	for range 3 { // whatever was not approved because of the crash
		if err := s.approveHeld("gone"); err != nil {
			break
		}
	}
	s.pass(15 * time.Minute)
	return crashed
}

// The deletion policy of the new name counts from the moment of the renaming on.
func TestRenamedApplicationHasItsOwnDeletionPolicy(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.app("keep", "keep")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "keep/k.yaml": thing("k", "1")})
		s.start()
		s.pass(time.Minute)
		s.without("web")
		s.app("shop", "web", deleting, func(a *Application) { a.RenamedFrom = "web" })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.without("shop")
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		if err := s.approveHeld("shop"); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantCounts("one", 2, 0, 1)
	})
}

// An application that gets the name of one that is gone brings its own suspension and
// history along, and nothing of the other one's; renamed twice before anything is
// written, it still knows its objects by the marks they carry.
func TestRenameReplacesWhatANamesakeLeft(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Marks: true}
		s.app("site", "site")
		s.app("base", "base")
		s.commit(map[string]string{"site/s.yaml": thing("s", "1"), "base/a.yaml": thing("a", "1")})
		s.start()
		s.pass(time.Minute)
		s.without("site")
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.m.Suspend(s.t.Context(), "ops", "base", false, "a freeze", time.Time{}); err != nil {
			t.Fatal(err)
		}
		for _, names := range [][2]string{{"base", "shop"}, {"shop", "site"}} {
			s.without(names[0])
			s.app(names[1], "base", func(a *Application) { a.RenamedFrom = names[0] })
			if err := s.reload(); err != nil {
				t.Fatal(err)
			}
			s.pass(time.Minute)
			s.wantSync(names[1], OutOfSync, "a freeze") // the mark is the former one
		}
		if lines, err := s.m.History(s.t.Context(), "site", 0); err != nil || len(lines) != 1 || lines[0].Application != "base" {
			t.Errorf("history %+v, %v; want that of base", lines, err)
		}
		if _, err := s.m.Resume(s.t.Context(), "ops", "site", false, "go on"); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("site", Synced, "in step")
		s.worlds["one"].SetField("hand", where("a"), "/spec/value", int64(9))
		s.pass(time.Minute)
		s.wantValue("one", "a", int64(1))
		s.commit(map[string]string{"base/a.yaml": "", "base/b.yaml": thing("b", "1")})
		s.pass(time.Minute)
		s.wantSync("site", Synced, "")
		s.wantCounts("one", 3, 1, 1)
	})
}
