package reconciler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/policies"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// suspendAt suspends web while an object of this name is written.
func (s *sim) suspendAt(name string) {
	s.worlds["one"].SetFaults(memapply.Faults{Refuse: func(op appliers.Operation) error {
		if op.Change.Key.ID.Name != name {
			return nil
		}
		_, err := s.m.Suspend(context.Background(), "ops", "web", false, "stop", time.Time{})
		return err
	}})
}

// A suspension stops the round under way: what it had not begun to write stays,
// also of a level that takes many calls.
func TestSuspendStopsTheRoundUnderWay(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{
			"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1", `gitopsd.io/wave: "1"`), "c.yaml": thing("c", "1", `gitopsd.io/wave: "2"`),
		})
		s.suspendAt("a")
		s.start()
		s.wantCounts("one", 1, 0, 0)
		s.wantFailure("web", "b", "suspended; let it go on with: gitopsd resume web")
		s.wantQuiet("web", time.Hour, 70)
		s.wantCounts("one", 1, 0, 0)
		s.worlds["one"].SetFaults(memapply.Faults{})
		if _, err := s.m.Resume(s.t.Context(), "ops", "web", false, "on"); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		s.wantSync("web", Synced, "in step")
		s.wantCounts("one", 3, 0, 0)
	})
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(things("o", store.MaxOps+10, "1"))
		s.suspendAt(objectName(0))
		s.start()
		s.wantCounts("one", store.MaxOps/2, 0, 0)
	})
}

// untilEnd is a policy that answers when it is told to end.
type untilEnd struct {
	*loaded
	asked chan struct{}
}

func (u *untilEnd) Objects(ctx context.Context, objects []*manifest.Object) ([]policies.Verdict, error) {
	close(u.asked)
	<-ctx.Done()
	return nil, fmt.Errorf("eval_cancel_error: %w", ctx.Err())
}

// S7: a round that is told to end while a policy is asked refuses nothing: there
// is no event and no line in the history.
func TestEndIsNoRefusal(t *testing.T) {
	for name, end := range map[string]func(s *sim){
		"shutdown": (*sim).stop,
		"reload": func(s *sim) {
			s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
			if err := s.reload(); err != nil {
				s.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.judge = &rules{digest: "p1"}
				s.app("web", ".")
				s.commit(map[string]string{"a.yaml": thing("a", "1")})
				asked := make(chan struct{})
				s.judge.wrap = func(l *loaded) policies.Policy { return &untilEnd{loaded: l, asked: asked} }
				s.start()
				<-asked
				s.judge.set("p2", func(r *rules) { r.wrap = nil })
				end(s)
				if s.m == nil {
					s.start()
				}
				s.pass(time.Second)
				s.wantSync("web", Synced, "in step")
				if n := s.eventKinds()[EventRefused]; n != 0 {
					t.Errorf("%d refusals", n)
				}
				h, _ := s.m.History(s.t.Context(), "web", 0)
				if len(h) != 1 || h[0].Outcome != OutcomeSynced {
					t.Errorf("history %+v", h)
				}
			})
		})
	}
}

// slowAccept holds the record of an accepted rewrite back for a minute.
type slowAccept struct{ store.Store }

func (s *slowAccept) Commit(ctx context.Context, epoch uint64, compares []store.Compare, ops []store.Op) (uint64, error) {
	for _, op := range ops {
		if strings.HasPrefix(op.Key, sourcePrefix) && strings.Contains(string(op.Value), `"accept"`) {
			time.Sleep(time.Minute)
		}
	}
	return s.Store.Commit(ctx, epoch, compares, ops)
}

// A poll that moves the head while a rewrite is being accepted is not undone by
// the acceptance: the high-water mark never goes back.
func TestAcceptHistoryDuringAPoll(t *testing.T) {
	simulate(t, func(s *sim) {
		s.store = &slowAccept{s.store}
		s.app("web", ".")
		base := s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.repo.CommitFiles("main", map[string]string{"a.yaml": thing("a", "2")}, memsource.Orphan())
		s.pass(15 * time.Second)
		accepted := make(chan error, 1)
		go func() {
			_, _, err := s.m.AcceptHistory(context.Background(), "ops", "web", "", "reviewed")
			accepted <- err
		}()
		synctest.Wait()                       // it has read what there is
		s.repo.Point("refs/heads/main", base) // put right, and it goes on
		next := s.commit(map[string]string{"a.yaml": thing("a", "3")})
		if err := <-accepted; err != nil {
			t.Fatal(err)
		}
		s.pass(15 * time.Second)
		s.wantValue("one", "a", int64(3))
		s.repo.Point("refs/heads/main", base) // a replay
		s.pass(15 * time.Second)
		if src := s.m.Sources()[0]; src.Revision != next || src.Rewrite != base {
			t.Fatalf("source %+v, want the head to stay at %s", src, next)
		}
	})
}

// dependsOn waits until the other application is healthy, not only in step.
func TestDependencyMustBeHealthy(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("base", "base")
		s.app("top", "top", func(a *Application) { a.DependsOn = []string{"base"} })
		s.worlds["one"].SetHealth(where("b"), appliers.Health{Status: appliers.Progressing, Message: "starting"})
		s.commit(map[string]string{"base/b.yaml": thing("b", "1"), "top/t.yaml": thing("t", "1")})
		s.start()
		s.wantSync("base", Synced, "")
		s.wantSync("top", OutOfSync, "waits for application base: it is Progressing")
		s.pass(10 * time.Minute)
		s.wantCounts("one", 1, 0, 0)
		s.worlds["one"].SetHealth(where("b"), appliers.Health{Status: appliers.Degraded, Message: "crashed"})
		s.pass(10 * time.Minute)
		s.wantSync("top", OutOfSync, "waits for application base: it is Degraded")
		s.worlds["one"].SetHealth(where("b"), appliers.Health{Status: appliers.Healthy})
		s.pass(2 * time.Minute)
		s.wantSync("top", Synced, "")
		s.wantCounts("one", 2, 0, 0)
	})
}

// Unread is not refused: a target that cannot tell what an object is lets its
// revision wait, and the accepted one after a restart too.
func TestUndecidedWaits(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		deaf := memapply.Faults{UnknownKind: func(manifest.GroupKind) error { return errors.New("discovery failed") }}
		s.worlds["one"].SetFaults(deaf)
		s.commit(map[string]string{"b.yaml": thing("b", "1")})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "discovery failed")
		if c := s.status("web").Candidate; c == nil || c.State != CandidatePending {
			t.Fatalf("candidate %+v", c)
		}
		s.stop()
		s.start()
		s.wantQuiet("web", time.Hour, 120)
		s.wantSync("web", OutOfSync, "discovery failed")
		s.wantCounts("one", 1, 0, 0)
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(6 * time.Minute)
		s.wantSync("web", Synced, "in step")
		s.wantCounts("one", 2, 0, 0)
		if n := s.eventKinds()[EventRefused]; n != 0 {
			t.Errorf("%d refusals", n)
		}
	})
}
