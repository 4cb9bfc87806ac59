package reconciler

import (
	"errors"
	"testing"
	"time"
)

// Stale beats wrong, and stale is said. A source that has not answered
// for longer than the bound makes its applications Stale, also after a restart,
// and a refused rewrite makes them OutOfSync; an answer ends both.
func TestSilentSourceIsStale(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.wantSync("web", Synced, "")
		s.repo.SetDown(errors.New("no route"))
		s.pass(2 * time.Minute)
		s.wantSync("web", Synced, "") // within the bound of three intervals
		s.pass(2 * time.Minute)
		s.wantSync("web", Stale, "the source has not answered")
		s.stop()
		s.start()
		s.pass(4 * time.Minute)
		s.wantSync("web", Stale, "the source has not answered")
		s.repo.SetDown(nil)
		s.pass(15 * time.Minute)
		s.wantSync("web", Synced, "in step")
		s.wantCounts("one", 1, 0, 0)
	})
}

func TestRefusedRewriteIsOutOfSync(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		first := s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.start()
		s.wantSync("web", Synced, "")
		s.repo.Point("refs/heads/main", first)
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "accept-history")
		s.wantValue("one", "a", int64(2))
	})
}
