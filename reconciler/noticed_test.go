package reconciler

import (
	"sync/atomic"
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// A watch that reports nothing causes no look; one that lost something causes a
// complete one.
func TestEmptyReportOfAWatch(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		before := s.worlds["one"].Counters().Observes
		s.m.noticed(s.m.target("one"), nil, false)
		s.pass(time.Millisecond)
		if n := s.worlds["one"].Counters().Observes; n != before {
			t.Errorf("%d looks for nothing", n-before)
		}
		s.m.noticed(s.m.target("one"), nil, true)
		s.pass(time.Millisecond)
		if n := s.worlds["one"].Counters().Observes; n != before+1 {
			t.Errorf("%d looks after a loss, want 1", n-before)
		}
	})
}

// What somebody does to an object between the look that finds it as desired and
// the end of the round is noticed, also in the first round after a start.
func TestChangeDuringTheFirstRoundIsNoticed(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.stop()
		s.meddle(1, "a")
		s.start()
		s.pass(time.Second)
		s.wantSync("web", Synced, "")
		if got := s.worlds["one"].Counters().Writes(); got != 2 {
			t.Errorf("%d writes, want the first one and the one that heals", got)
		}
	})
}

// The same for an object that a later revision brings, after it was written and read back.
func TestChangeDuringALaterRoundIsNoticed(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.meddle(2, "b")
		s.commit(map[string]string{"b.yaml": thing("b", "1")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		if got := s.worlds["one"].Counters().Writes(); got != 3 {
			t.Errorf("%d writes, want the two first ones and the one that heals", got)
		}
	})
}

// An object that is desired, and not owned because somebody else's is in the way, is
// looked at again when its watch reports it.
func TestObjectInTheWayIsWatched(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval, a.Adopt = time.Hour, plan.AdoptNever })
		stranger := object(t, thing("a", "2"))
		s.worlds["one"].Set("bob", stranger)
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.wantSync("web", OutOfSync, "a.yaml")
		s.worlds["one"].Delete(memapply.Locate(stranger))
		s.pass(time.Second)
		s.wantSync("web", Synced, "")
	})
}

// meddle changes an object by hand right after the n-th Observe from now has read it.
func (s *sim) meddle(n int32, name string) {
	world, left := s.worlds["one"], new(atomic.Int32)
	left.Store(n)
	world.SetFaults(memapply.Faults{Answered: func() {
		if left.Add(-1) == 0 {
			world.Set("bob", object(s.t, thing(name, "by hand")))
			time.Sleep(time.Millisecond) // whoever watches hears of it now
		}
	}})
}
