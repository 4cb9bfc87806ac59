package reconciler

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/sources"
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
		s.wantSync("web", OutOfSync, "accept-history web --why")
		s.wantValue("one", "a", int64(2))
		s.pass(time.Hour)
		s.wantSync("web", OutOfSync, "accept-history web --why") // the source has answered: this is not Stale
	})
}

// A branch that is gone is an answer, and not what runs.
func TestLostBranchIsOutOfSync(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		rev := s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.wantSync("web", Synced, "")
		s.repo.Point("refs/heads/main", "")
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "ref not found")
		s.pass(time.Hour)
		s.wantSync("web", OutOfSync, "ref not found")
		s.wantValue("one", "a", int64(1))
		s.repo.Point("refs/heads/main", rev)
		s.pass(15 * time.Minute)
		s.wantSync("web", Synced, "in step")
	})
}

// Wrong credentials are shown at once, and make the application stale in time.
func TestUnauthorizedSourceIsShown(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.repo.SetDown(fmt.Errorf("%w: the server answers with status 401", sources.ErrUnauthorized))
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "not authorized")
		s.pass(4 * time.Minute)
		s.wantSync("web", Stale, "not authorized")
	})
}

// The log says once what is refused, what is held, what failed, and what is wrong
// with a source, and not again at each try.
func TestLogTellsTroubleOnce(t *testing.T) {
	simulate(t, func(s *sim) {
		var out bytes.Buffer
		s.log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
		once := func(text string) {
			t.Helper()
			s.pass(10 * time.Minute)
			if n := strings.Count(out.String(), text); n != 1 {
				t.Errorf("%d times %q in the log:\n%s", n, text, out.String())
			}
		}
		s.app("web", ".", func(a *Application) { a.Budget = plan.Budget{MaxCount: 0, MaxPercent: -1} })
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1"), "c.yaml": thing("c", "1")})
		s.start()
		s.commit(map[string]string{"bad.yaml": "a: [b"})
		once(`level=WARN msg="revision refused" application=web`)
		s.commit(map[string]string{"bad.yaml": "", "c.yaml": ""})
		once(`level=WARN msg="revision held" application=web`)
		s.worlds["one"].SetFaults(stopping("a"))
		s.commit(map[string]string{"a.yaml": thing("a", "2"), "b.yaml": thing("b", "2"), "c.yaml": thing("c", "1")})
		once(`level=WARN msg="object failed" application=web object=one:test.example/Thing/a`)
		once(`level=WARN msg="revision applied in part" application=web`)
		s.repo.SetDown(sources.ErrUnavailable)
		once(`level=WARN msg="source fails" source=fleet`)
		s.repo.SetDown(nil)
		once(`level=INFO msg="source works again" source=fleet`)
	})
}
