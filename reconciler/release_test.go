package reconciler

import (
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
)

// S1: what its target leaves there when it is pruned is let go of once, and
// never deleted because it is still there.
func TestReleasedObjectStays(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Releases: true}
		s.app("web", "web")
		s.commit(map[string]string{
			"web/a.yaml": thing("a", "1") + "  onPrune: leave\n", "web/b.yaml": thing("b", "1"), "web/c.yaml": thing("c", "1"),
		})
		s.start()
		s.wantSync("web", Synced, "")
		s.commit(map[string]string{"web/a.yaml": ""})
		s.pass(time.Hour)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "a", int64(1))
		if owner := s.owner("one", "a"); owner != "" {
			t.Errorf("the record of what was left is still that of %q", owner)
		}
		s.stop()
		s.start()
		s.pass(time.Hour)
		s.wantQuiet("web", time.Hour, 75)
		s.wantValue("one", "a", int64(1))
		s.wantCounts("one", 3, 0, 0)
	})
}
