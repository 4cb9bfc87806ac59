package reconciler

import (
	"testing"
	"time"
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
