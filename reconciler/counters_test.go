package reconciler

import (
	"strings"
	"testing"
	"time"

	memapply "github.com/gitopsd/gitopsd/appliers/memory"
)

// work is what a stretch of time cost.
type work struct {
	refs, files     int
	judged          int
	observes, keys  int
	applies, writes int
	rounds          uint64
}

func (s *sim) cost(app string, do func()) work {
	repo, world, judged, rounds := s.repo.Stats(), s.worlds["one"].Counters(), s.judge.count(), s.status(app).Round
	do()
	r, w := s.repo.Stats(), s.worlds["one"].Counters()
	return work{
		refs: r.RefsRequests - repo.RefsRequests, files: r.FilesRead - repo.FilesRead, judged: s.judge.count() - judged,
		observes: w.Observes - world.Observes, keys: w.KeysObserved - world.KeysObserved,
		applies: w.Applies - world.Applies, writes: w.Writes() - world.Writes(), rounds: s.status(app).Round - rounds,
	}
}

// Cost follows the change, not the repository.
func TestCostFollowsTheChange(t *testing.T) {
	const n = 10_000
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p1"}
		s.app("web", "web", func(a *Application) { a.Interval = time.Hour })
		s.commit(things("web", n, "1"))
		s.start()
		s.wantSync("web", Synced, "")
		s.wantCounts("one", n, 0, 0)
		if got := s.judge.count(); got != n {
			t.Fatalf("judged %d objects, want each once", got)
		}
		s.pass(time.Minute)

		before := s.repo.Stats().RefsRequests
		quiet := s.cost("web", func() {
			for s.repo.Stats().RefsRequests == before {
				s.pass(time.Second)
			}
		})
		if quiet != (work{refs: 1}) {
			t.Errorf("a poll without a change cost %+v, want one refs request", quiet)
		}

		small := s.cost("web", func() { // the commit is seen at once
			s.commit(map[string]string{"web/050/o05000.yaml": thing("o05000", "2")})
			s.pass(12 * time.Second)
		})
		if small.files != 1 || small.judged != 1 || small.keys != 2 || small.applies != 1 || small.writes != 1 || small.rounds != 1 {
			t.Errorf("a commit of one file cost %+v, want 1 file, 1 judged, 2 keys read (before and after), 1 write, 1 round", small)
		}

		other := s.cost("web", func() {
			s.commit(map[string]string{"elsewhere/x.yaml": thing("x", "1")})
			s.pass(12 * time.Second)
		})
		if other.files+other.judged+other.keys+other.applies != 0 {
			t.Errorf("a commit elsewhere cost %+v, want nothing", other)
		}

		full := s.cost("web", func() {
			if err := s.m.Sync(s.t.Context(), "test", "web", true); err != nil {
				t.Fatal(err)
			}
		})
		if full.files+full.judged+full.applies != 0 || full.keys != n || full.rounds != 1 {
			t.Errorf("a complete look without a change cost %+v, want %d keys read and nothing else", full, n)
		}
	})
}

// An application is what it reads: a commit that does not concern an application leaves
// no trace in its history, its events or its log.
func TestCommitElsewhereIsNoNews(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1")})
		s.start()
		h, _ := s.m.History(s.t.Context(), "web", 0)
		events := len(s.happened())
		rev := s.commit(map[string]string{"db/a.yaml": thing("a", "1")})
		s.pass(15 * time.Second)
		if got := s.status("web"); got.Revision != rev || got.Sync != Synced {
			t.Fatalf("status %+v, want revision %s", got, rev)
		}
		after, _ := s.m.History(s.t.Context(), "web", 0)
		if len(after) != len(h) || len(s.happened()) != events {
			t.Errorf("history %d -> %d lines, events %v", len(h), len(after), s.happened()[events:])
		}
		// It survives a restart, on the revision that matters.
		s.stop()
		s.start()
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 1, 0, 0)
	})
}

// D-56: after convergence another look writes nothing, whatever the target is like.
func TestSecondRoundWritesNothing(t *testing.T) {
	for _, p := range memapply.Personalities() {
		t.Run(p.Name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.is["one"] = p.Personality
				s.app("web", ".")
				s.commit(map[string]string{
					"a.yaml": strings.Replace(thing("a", "1"), "spec:\n", "spec:\n  cpu: 1000m\n  restartPolicy: Never\n", 1),
					"b.yaml": thing("b", "1", "gitopsd.io/depends-on: test.example/Thing/a"),
				})
				s.start()
				s.pass(10 * time.Minute)
				s.wantSync("web", Synced, "")
				before := s.worlds["one"].Counters()
				s.pass(time.Hour)
				after := s.worlds["one"].Counters()
				if after.Applies != before.Applies || after.Writes() != before.Writes() {
					t.Errorf("%+v -> %+v", before, after)
				}
				s.stop()
				s.start()
				s.pass(10 * time.Minute)
				if again := s.worlds["one"].Counters(); again.Applies != before.Applies {
					t.Errorf("a restart wrote: %+v -> %+v", before, again)
				}
				s.wantSync("web", Synced, "")
			})
		})
	}
}
