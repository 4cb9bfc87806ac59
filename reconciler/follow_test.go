package reconciler

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/sources"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// S6: a forced push, a replay of an older commit and an unrelated
// history are refused, once each; a person accepts one of them, and only that one.
func TestRewrittenHistory(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		first := s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		good := s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(15 * time.Second)
		s.wantValue("one", "a", int64(2))

		s.repo.Point("refs/heads/main", first) // replay
		s.pass(time.Minute)
		s.wantValue("one", "a", int64(2))
		if st := s.status("web"); st.Revision != good || !strings.Contains(st.Message, "accept-history") {
			t.Fatalf("status %+v", st)
		}
		if src := s.m.Sources()[0]; src.Rewrite != first || !strings.Contains(src.Error, "history rewritten") {
			t.Fatalf("source %+v", src)
		}
		s.repo.Point("refs/heads/main", good) // put right
		s.pass(11 * time.Minute)
		s.wantSync("web", Synced, "in step")
		if src := s.m.Sources()[0]; src.Rewrite != "" || src.Error != "" {
			t.Errorf("source %+v after the branch is back", src)
		}

		forced := s.repo.CommitFiles("main", map[string]string{"a.yaml": thing("a", "3")}, memsource.Orphan())
		s.pass(15 * time.Second)
		s.stop()
		s.start() // the high-water mark survives
		s.pass(15 * time.Second)
		s.wantValue("one", "a", int64(2))
		if _, _, err := s.m.AcceptHistory(s.t.Context(), "ops", "web", good, "reviewed"); !errors.Is(err, ErrPrecondition) {
			t.Errorf("accepting another revision: %v", err)
		}
		if _, got, err := s.m.AcceptHistory(s.t.Context(), "ops", "web", "", "reviewed"); err != nil || got != forced {
			t.Fatal(got, err)
		}
		s.pass(time.Second)
		s.wantValue("one", "a", int64(3))
		s.wantSync("web", Synced, "")
		again := s.repo.CommitFiles("main", map[string]string{"a.yaml": thing("a", "4")}, memsource.Orphan())
		s.pass(time.Hour)
		s.wantValue("one", "a", int64(3)) // it was accepted once
		if n := s.eventKinds()[EventRewrite]; n != 4 {
			t.Errorf("%d events, want one for each refused revision (one again after the restart); %s", n, again)
		}
		s.wantCounts("one", 1, 2, 0)
	})
}

// Accepting is about a rewrite that was refused, named in full or by its first
// digits, and ends when the branch moves on: it is no permit in advance.
func TestAcceptingNeedsARefusal(t *testing.T) {
	simulate(t, func(s *sim) {
		accept := func(revision string) error {
			_, _, err := s.m.AcceptHistory(s.t.Context(), "ops", "web", revision, "reviewed")
			return err
		}
		s.app("web", ".")
		good := s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		for _, revision := range []string{"", "garbage", good, strings.Repeat("a", 40)} {
			if err := accept(revision); !errors.Is(err, ErrPrecondition) {
				t.Errorf("accepting %q while nothing was refused: %v", revision, err)
			}
		}
		forced := s.repo.CommitFiles("main", map[string]string{"a.yaml": thing("a", "3")}, memsource.Orphan())
		s.pass(15 * time.Second)
		for _, revision := range []string{"garbage", forced[:acceptPrefix-1], good} {
			if err := accept(revision); !errors.Is(err, ErrPrecondition) {
				t.Errorf("accepting %q while %s was refused: %v", revision, forced, err)
			}
		}
		s.repo.SetDown(errors.New("no route"))
		if err := accept(forced[:acceptPrefix]); err != nil {
			t.Fatal(err)
		}
		s.pass(15 * time.Second)
		s.repo.Point("refs/heads/main", good)
		s.repo.SetDown(nil)
		s.pass(15 * time.Minute)
		s.wantSync("web", Synced, "in step")
		s.repo.Point("refs/heads/main", forced)
		s.pass(time.Minute)
		s.wantSync("web", OutOfSync, "accept-history") // the branch stood elsewhere since
		s.wantValue("one", "a", int64(1))
	})
}

// whatever is wrong with the branch or the server, nothing is
// deleted, drift is healed to the last good revision, and polls slow down.
func TestOutagesOfTheSource(t *testing.T) {
	for name, c := range map[string]struct {
		begin, end func(s *sim, tip string)
		want       string
		sync       SyncStatus
	}{
		"deleted": {
			func(s *sim, _ string) { s.repo.Point("refs/heads/main", "") },
			func(s *sim, tip string) { s.repo.Point("refs/heads/main", tip) }, "ref not found", OutOfSync,
		},
		"renamed": {
			func(s *sim, tip string) { s.repo.Point("refs/heads/trunk", tip); s.repo.Point("refs/heads/main", "") },
			func(s *sim, tip string) { s.repo.Point("refs/heads/main", tip) }, "ref not found", OutOfSync,
		},
		"down": {
			func(s *sim, _ string) { s.repo.SetDown(fmt.Errorf("%w: 503", sources.ErrUnavailable)) },
			func(s *sim, _ string) { s.repo.SetDown(nil) }, "503", Synced,
		},
		"unauthorized": {
			func(s *sim, _ string) { s.repo.SetDown(fmt.Errorf("%w: 401", sources.ErrUnauthorized)) },
			func(s *sim, _ string) { s.repo.SetDown(nil) }, "401", Synced,
		},
		"hangs": {
			func(s *sim, _ string) { s.repo.SetLatency(10 * time.Hour) },
			func(s *sim, _ string) { s.repo.SetLatency(0) }, "deadline", Synced,
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.app("web", ".")
				tip := s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
				s.start()
				c.begin(s, tip)
				s.pass(2 * time.Minute)
				if st := s.status("web"); st.Sync != c.sync || !strings.Contains(st.Message, c.want) {
					t.Errorf("status %s, want %s: %s", st.Sync, c.sync, st.Message)
				}
				before := s.repo.Stats().RefsRequests
				s.pass(time.Hour)
				if n := s.repo.Stats().RefsRequests - before; n > 30 {
					t.Errorf("%d polls in an hour of an outage", n)
				}
				s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
				s.pass(time.Second)
				s.wantValue("one", "a", int64(1))
				s.stop()
				s.start()
				s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
				s.pass(time.Minute)
				s.wantValue("one", "a", int64(1))
				s.wantCounts("one", 2, 2, 0)
				c.end(s, tip)
				s.pass(12 * time.Minute)
				s.wantSync("web", Synced, "in step")
				s.commit(map[string]string{"a.yaml": thing("a", "2")})
				s.pass(15 * time.Second)
				s.wantValue("one", "a", int64(2))
			})
		})
	}
}

// a burst of commits is one fetch and one apply of the newest.
func TestBurstOfCommits(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "0")})
		s.start()
		before := s.repo.Stats()
		rounds := s.status("web").Round
		s.repo.SetLatency(time.Second)
		for i := range 1000 {
			s.commit(map[string]string{"a.yaml": thing("a", fmt.Sprint(i+1))})
		}
		s.pass(time.Minute)
		s.wantValue("one", "a", int64(1000))
		if c := s.worlds["one"].Counters(); c.Updates > 3 {
			t.Errorf("%d updates", c.Updates)
		}
		if n := s.repo.Stats().Fetches - before.Fetches; n > 3 {
			t.Errorf("%d fetches", n)
		}
		if n := s.status("web").Round - rounds; n > 6 {
			t.Errorf("%d rounds", n)
		}
	})
}

// a damaged local copy is fetched anew; a lost one is, too, and until that works
// nothing spins and nothing is deleted.
func TestLocalMirrorIsLost(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		rev := s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		next := s.commit(map[string]string{"a.yaml": thing("a", "2")})
		_ = rev
		s.pass(15 * time.Second)
		s.stop()
		s.repo.Damage(next, "a.yaml")
		s.repo.SetDown(errors.New("no route"))
		s.start()
		s.wantQuiet("web", time.Hour, 90)
		s.wantSync("web", Stale, "local copy damaged")
		s.wantCounts("one", 1, 1, 0)
		s.repo.SetDown(nil)
		s.pass(12 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 1, 1, 0)
	})
}

// Stale beats wrong, and stale is said: what has not been seen complete for too long says so.
func TestStale(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = time.Minute; a.StaleAfter = 3 * time.Minute })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.wantSync("web", Synced, "")
		s.setReadErr(errors.New("no answer"))
		s.pass(10 * time.Minute)
		s.wantSync("web", Stale, "last seen complete")
		s.wantQuiet("web", time.Hour, 90)
		s.setReadErr(nil)
		s.pass(8 * time.Minute)
		s.wantSync("web", Synced, "")
	})
}
