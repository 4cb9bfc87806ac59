package reconciler

import (
	"errors"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// D-55: an object whose creation was refused was never written: its address may
// be corrected under the same name, and its record is gone meanwhile.
func TestCorrectedAddressOfARefusedCreate(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"x": appliers.Stop}, &tries{}))
		s.commit(map[string]string{"x.yaml": addressed("x", "wrong", "1"), "y.yaml": thing("y", "1")})
		s.start()
		s.wantFailure("web", "x", "disk quota of x")
		if owner := s.owner("one", "x"); owner != "" {
			t.Errorf("%s owns what was never written", owner)
		}
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.commit(map[string]string{"x.yaml": addressed("x", "right", "1")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 0, 0)
		if _, there := s.worlds["one"].Get("memory:right"); !there || s.owner("one", "x") != "web" {
			t.Error("it is not at its new address, or nobody owns it")
		}
	})
}

// D-49, D-55: the same while the answer of the first write was lost. It lands at its
// new address, what that write may have left at the old one is pruned, and as long
// as that cannot be read, nothing is forgotten.
func TestCorrectedAddressOfALostReply(t *testing.T) {
	for name, c := range map[string]struct{ written bool }{
		"never written": {},
		"written":       {written: true},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				lost := true
				s.tune = func(tc *TargetConfig) {
					tc.Open = func() (appliers.Applier, error) {
						return memapply.New(appliers.Env{Target: "one", Now: time.Now, Sealer: s.sealer, Effect: func(_ effect.Name, key string, do func() error) error {
							if !lost || key != s.key("one", "x").String() {
								return do()
							}
							if c.written {
								_ = do()
							}
							s.setReadErr(errors.New("connection reset")) // nor is it read back
							return errors.New("connection reset")
						}}, s.worlds["one"], s.is["one"]), nil
					}
				}
				s.app("web", ".")
				s.commit(map[string]string{"x.yaml": addressed("x", "wrong", "1")})
				s.start()
				lost = false
				s.commit(map[string]string{"x.yaml": addressed("x", "right", "1")})
				s.pass(time.Minute)
				s.wantFailure("web", "x", "connection reset")
				s.wantCounts("one", count(c.written), 0, 0)
				s.setReadErr(nil)
				s.pass(10 * time.Minute)
				s.wantSync("web", Synced, "")
				s.wantCounts("one", 1+count(c.written), 0, count(c.written))
				if n := len(s.worlds["one"].List()); n != 1 || s.m.registry.count("web") != 1 {
					t.Errorf("%d objects and %d records, want one", n, s.m.registry.count("web"))
				}
				e, _ := s.m.registry.entry("web", s.key("one", "x"))
				if e.State != plan.EntryOwned || e.Locator != "memory:right" || e.Adopted {
					t.Errorf("entry %+v", e)
				}
			})
		})
	}
}

// D-55, D-61: an object that moves to another address under its name is a create
// and a prune: held where prunes are, with the old one as it was meanwhile, also
// over a restart; and no more than that once it is approved.
func TestMoveUnderOneNameIsAPrune(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Budget.MaxCount = 0 })
		s.commit(map[string]string{"x.yaml": addressed("x", "old", "1"), "y.yaml": thing("y", "1")})
		s.start()
		s.commit(map[string]string{"x.yaml": addressed("x", "new", "1")})
		s.pass(15 * time.Second)
		for healed := range 2 {
			s.wantSync("web", OutOfSync, "1 deletes are more than prune.maxCount 0")
			s.wantCounts("one", 2, healed, 0)
			if e, ok := s.m.registry.entry("web", s.key("one", "x")); !ok || e.Locator != "memory:old" {
				t.Errorf("x is on record as %+v", e)
			}
			s.worlds["one"].SetField("hand", "memory:old", "/spec/value", int64(9))
			s.pass(5 * time.Minute)
			if live, _ := s.worlds["one"].Get("memory:old"); live.Content["spec"].(map[string]any)["value"] != int64(1) {
				t.Errorf("drift at the old address is not healed: %+v", live)
			}
			s.restart()
			s.pass(5 * time.Minute)
		}
		if err := s.approveHeld("web"); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 3, 2, 1)
		if n := s.m.registry.count("web"); n != 2 {
			t.Errorf("%d records, want 2", n)
		}
	})
}

// Objects that exchange their addresses, or shift them, are updated where they are.
func TestAddressesAreExchanged(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": addressed("a", "p1", "1"), "b.yaml": addressed("b", "p2", "2"), "c.yaml": addressed("c", "p3", "3")})
		s.start()
		s.commit(map[string]string{"a.yaml": addressed("a", "p2", "1"), "b.yaml": addressed("b", "p1", "2")})
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 3, 2, 0)
		s.commit(map[string]string{"a.yaml": addressed("a", "p1", "1"), "b.yaml": addressed("b", "p3", "2"), "c.yaml": addressed("c", "p4", "3")})
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 4, 4, 1)
		if n := s.m.registry.count("web"); n != 3 {
			t.Errorf("%d records, want 3", n)
		}
	})
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// The old one stays until the new one is there: while a stranger's object is in its
// way, there would be neither.
func TestMoveKeepsTheOldOneUntilTheNewOneIsThere(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.worlds["one"].Set("admin", object(t, addressed("other", "new", "7")))
		s.commit(map[string]string{"x.yaml": addressed("x", "old", "1"), "y.yaml": thing("y", "1")})
		s.start()
		s.commit(map[string]string{"x.yaml": addressed("x", "new", "1")})
		s.pass(10 * time.Minute)
		s.wantFailure("web", "x", "already there with other content")
		s.wantCounts("one", 2, 0, 0)
		s.restart()
		s.pass(10 * time.Minute)
		s.wantCounts("one", 2, 0, 0)
		s.worlds["one"].Delete("memory:new")
		s.pass(10 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 3, 0, 1)
	})
}

// A rule about deletes sees the name that was declared, and its denial refuses the
// revision as a whole.
func TestMovedDeleteIsJudgedByItsName(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1", change: func(c policies.Change) string {
			live := c.Change.Live
			if c.Change.Action == plan.Delete && c.Change.Key.ID.Name == "kept" && live != nil && live.ID().Name == "kept" {
				return "kept is never deleted"
			}
			return ""
		}}
		s.app("web", ".")
		s.commit(map[string]string{"x.yaml": addressed("kept", "old", "1"), "y.yaml": thing("y", "1")})
		s.start()
		s.commit(map[string]string{"x.yaml": addressed("kept", "new", "1"), "z.yaml": thing("z", "1")})
		s.pass(10 * time.Minute)
		s.wantSync("web", OutOfSync, "kept is never deleted")
		s.wantCounts("one", 2, 0, 0)
		if e, ok := s.m.registry.entry("web", s.key("one", "kept")); !ok || e.Locator != "memory:old" {
			t.Errorf("kept is on record as %+v", e)
		}
	})
}
