package reconciler

import (
	"errors"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/plan"
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

// D-49, D-55: the same while the answer of the first write was lost. What the
// old address holds decides: nothing lets it go on; what that write may have left
// there is not lost sight of; and as long as it cannot be read, nothing is done.
func TestCorrectedAddressOfALostReply(t *testing.T) {
	for name, c := range map[string]struct {
		written bool
		lands   bool // at the new address
	}{
		"never written": {lands: true},
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
				if _, there := s.worlds["one"].Get("memory:right"); there != c.lands {
					t.Errorf("at its new address: %v", there)
				}
				if !c.lands {
					s.wantFailure("web", "x", "moved from memory:wrong to memory:right under one name")
					s.wantQuiet("web", time.Hour, 70)
					return
				}
				s.wantSync("web", Synced, "")
				e, _ := s.m.registry.entry("web", s.key("one", "x"))
				if e.State != plan.EntryOwned || e.Locator != "memory:right" || e.Adopted {
					t.Errorf("entry %+v", e)
				}
			})
		})
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
