package reconciler

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// refusing refuses operations by the name of their object.
func refusing(classes map[string]appliers.Class, tries *tries) memapply.Faults {
	return memapply.Faults{Refuse: func(op appliers.Operation) error {
		name := op.Change.Key.ID.Name
		class, ok := classes[name]
		if !ok {
			return nil
		}
		tries.add(name)
		return appliers.WithClass(class, fmt.Errorf("disk quota of %s", name))
	}}
}

// tries counts by name. It is safe for concurrent use.
type tries struct {
	mu sync.Mutex
	n  map[string]int
}

func (t *tries) add(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[string]int{}
	}
	t.n[name]++
}

func (t *tries) of(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[name]
}

// D-48: k of n objects fail. The others converge, each failed one has its own
// status, the prune of that round waits, and each class is retried its own way.
func TestFailuresStayWithTheirObjects(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.RetryMax = 16 * time.Second; a.Interval = 10 * time.Minute })
		s.commit(map[string]string{"old.yaml": thing("old", "1"), "keep.yaml": thing("keep", "1")})
		s.start()
		tries := &tries{}
		s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"r": appliers.Retry, "w": appliers.Wait, "x": appliers.Stop}, tries))
		s.commit(map[string]string{
			"r.yaml": thing("r", "1"), "w.yaml": thing("w", "1"), "x.yaml": thing("x", "1"),
			"g.yaml": thing("g", "1"), "h.yaml": thing("h", "1"), "old.yaml": "",
		})
		s.pass(11 * time.Second)
		s.wantValue("one", "g", int64(1))
		s.wantValue("one", "h", int64(1))
		s.wantValue("one", "old", int64(1)) // its prune waits
		s.wantFailure("web", "old", "prune waits")
		for _, name := range []string{"r", "w", "x"} {
			s.wantFailure("web", name, "disk quota of "+name)
		}
		for _, f := range s.status("web").Failures {
			if f.Key.ID.Name == "r" && (f.Origin.String() != "r.yaml:1" || f.Class != appliers.Retry || f.RetryAt.IsZero()) {
				t.Errorf("failure %+v", f)
			}
			if f.Key.ID.Name == "x" && !f.RetryAt.IsZero() {
				t.Errorf("class stop has a time: %+v", f)
			}
		}
		if st := s.status("web"); st.Health != appliers.Degraded || st.Objects.Failed != 3 || st.Sync != OutOfSync {
			t.Errorf("status %+v", st)
		}
		s.pass(8 * time.Minute)
		// 1+2+4+8 s and then every 16 s, jittered.
		if n := tries.of("r"); n < 25 || n > 40 {
			t.Errorf("class retry was tried %d times in 8 minutes, want about one in 16 s", n)
		}
		if tries.of("w") != 1 || tries.of("x") != 1 {
			t.Errorf("tries %v, want one of w (waits for its interval) and x (stops)", tries)
		}
		s.pass(40 * time.Minute)
		if tries.of("x") != 1 || tries.of("w") < 3 || tries.of("w") > 8 {
			t.Errorf("tries %v after complete looks", tries)
		}
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.commit(map[string]string{"x.yaml": thing("x", "2")}) // the input of x changes
		s.pass(15 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "x", int64(2))
		if s.value("one", "old") != nil {
			t.Error("the prune did not happen after the failures ended")
		}
		h, _ := s.m.History(s.t.Context(), "web", 0)
		if h[0].Outcome != OutcomeSynced || h[1].Outcome != OutcomePartial {
			t.Errorf("history %+v", h)
		}
		s.wantQuiet("web", time.Hour, 8)
	})
}

// A person who asks for it gets another try of what had stopped.
func TestSyncTriesAgainWhatStopped(t *testing.T) {
	simulate(t, func(s *sim) {
		tries := &tries{}
		s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"x": appliers.Stop}, tries))
		s.app("web", ".")
		s.commit(map[string]string{"x.yaml": thing("x", "1")})
		s.start()
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(10 * time.Minute)
		s.wantSync("web", OutOfSync, "x.yaml:1: test.example/Thing/x: ")
		if err := s.m.Sync(s.t.Context(), "ops", "web", true); err != nil {
			t.Fatal(err)
		}
		s.wantSync("web", Synced, "")
	})
}

// D-50: a reply that was lost is read back before anything is written again.
func TestLostReplyIsReadBack(t *testing.T) {
	simulate(t, func(s *sim) {
		s.worlds["one"].SetFaults(memapply.Faults{LostReply: func(appliers.Operation) bool { return true }})
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 0, 0)
		s.commit(map[string]string{"a.yaml": thing("a", "2"), "b.yaml": ""})
		s.pass(11 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 1)
	})
}

// D-50, D-51: the reply is lost and the read back is refused or stale: nothing
// is written twice.
func TestLostReplyAndBadReads(t *testing.T) {
	for name, faults := range map[string]memapply.Faults{
		"unread": {Unread: func(plan.Key) string { return "try later" }},
		"stale":  {Stale: true},
		"dead":   {ReadErr: errors.New("connection reset")},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(s *sim) {
				s.app("web", ".")
				s.commit(map[string]string{"a.yaml": thing("a", "1")})
				s.start()
				faults := faults
				faults.LostReply = func(appliers.Operation) bool {
					return true
				}
				var applied atomic.Bool
				faults.Refuse = func(appliers.Operation) error { applied.Store(true); return nil }
				read := faults
				if name != "stale" { // the first read succeeds, those after the write do not
					unread, dead := faults.Unread, faults.ReadErr
					read.ReadErr = nil
					read.Unread = func(k plan.Key) string {
						if applied.Load() && dead != nil {
							return dead.Error()
						}
						if applied.Load() && unread != nil {
							return unread(k)
						}
						return ""
					}
				}
				s.worlds["one"].SetFaults(read)
				s.commit(map[string]string{"a.yaml": thing("a", "2"), "b.yaml": thing("b", "1")})
				s.pass(5 * time.Minute)
				s.worlds["one"].SetFaults(memapply.Faults{})
				s.pass(10 * time.Minute)
				s.wantSync("web", Synced, "")
				s.wantCounts("one", 2, 1, 0)
			})
		})
	}
}

// D-51: stale reads lead to no second write and to no false Synced.
func TestStaleReads(t *testing.T) {
	simulate(t, func(s *sim) {
		s.worlds["one"].SetFaults(memapply.Faults{Stale: true})
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.commit(map[string]string{"a.yaml": "", "b.yaml": thing("b", "1")})
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 1)
	})
}

// D-52: what cannot be read now is neither written nor pruned, the rest goes on,
// and it is looked at again before the next complete look.
func TestPartialReads(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1"), "c.yaml": thing("c", "1")})
		s.start()
		s.worlds["one"].SetFaults(memapply.Faults{Unread: func(k plan.Key) string {
			if k.ID.Name == "b" || k.ID.Name == "c" {
				return "page 2 of the list timed out"
			}
			return ""
		}})
		s.commit(map[string]string{"a.yaml": thing("a", "2"), "b.yaml": thing("b", "2"), "c.yaml": ""})
		s.pass(time.Minute)
		s.wantValue("one", "a", int64(2))
		s.wantCounts("one", 3, 1, 0)
		s.wantFailure("web", "b", "page 2 of the list timed out")
		s.wantFailure("web", "c", "page 2 of the list timed out")
		if st := s.status("web"); st.Sync != OutOfSync || st.Health != appliers.HealthUnknown {
			t.Errorf("status %s %s", st.Sync, st.Health)
		}
		s.wantQuiet("web", 30*time.Minute, 20)
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(6 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 3, 2, 1)
	})
}

// D-52: a kind that discovery cannot tell about is held and never pruned.
func TestUnknownKindIsHeld(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		s.worlds["one"].SetFaults(memapply.Faults{UnknownKind: func(manifest.GroupKind) error { return errors.New("aggregated API is down") }})
		s.commit(map[string]string{"a.yaml": "", "b.yaml": thing("b", "2")})
		s.wantQuiet("web", time.Hour, 110)
		s.wantCounts("one", 2, 0, 0)
		s.wantFailure("web", "a", "aggregated API is down")
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(10 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 2, 1, 1)
	})
}

// Asynchronous writes are not Synced before they are seen complete, what depends
// on them waits, and only they are looked at meanwhile.
func TestPendingWritesComplete(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Async: &memapply.Async{After: 20 * time.Second}}
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		files := things("many", 50, "1")
		s.commit(files)
		s.start()
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		s.commit(map[string]string{
			"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1", "gitopsd.io/depends-on: test.example/Thing/a"), "many/000/o00000.yaml": "",
		})
		keys := s.worlds["one"].Counters().KeysObserved
		s.pass(15 * time.Second)
		if st := s.status("web"); st.Sync != OutOfSync || st.Health != appliers.Missing {
			t.Fatalf("while a write is pending the status is %s, %s: %s", st.Sync, st.Health, st.Message)
		}
		s.wantFailure("web", "b", "waits for one:test.example/Thing/a, which is not complete yet")
		s.wantFailure("web", "o00000", "prune waits")
		s.pass(2 * time.Minute)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "b", int64(1))
		s.wantCounts("one", 52, 0, 1)
		if n := s.worlds["one"].Counters().KeysObserved - keys; n > 25 {
			t.Errorf("%d keys were read for three objects", n)
		}
	})
}

// A target that takes only consistent sets gets one Apply with all of them.
func TestBatchTarget(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Batch: true}
		s.app("web", ".")
		refers := func(name, to string) string {
			return strings.Replace(thing(name, "1"), "spec:\n", "spec:\n  refs: ["+to+"]\n", 1)
		}
		files := things("many", 150, "1") // more than fit one transaction of the store
		files["route.yaml"] = refers("route", "cluster")
		files["cluster.yaml"] = thing("cluster", "1")
		s.commit(files)
		s.start()
		s.wantSync("web", Synced, "")
		before := s.worlds["one"].Counters()
		// The old cluster goes, the new one comes, the route moves: only together.
		s.commit(map[string]string{"route.yaml": refers("route", "next"), "cluster.yaml": "", "next.yaml": thing("next", "1")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		if got := s.worlds["one"].Counters(); got.Applies != before.Applies+1 || got.Deletes != 1 {
			t.Errorf("%+v -> %+v, want one Apply", before, got)
		}
		s.commit(map[string]string{"next.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "not consistent")
		s.wantQuiet("web", time.Hour, 130)
		if s.value("one", "next") == nil {
			t.Error("deleted although the target refused")
		}
	})
}

// D-53: another writer owns a field: the conflict is shown, and not fought.
func TestConflictIsShown(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Conflicts: true}
		s.app("web", ".", func(a *Application) { a.Interval = 5 * time.Minute })
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		s.worlds["one"].SetField("hpa", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		s.wantFailure("web", "a", "is set by hpa")
		applies := s.worlds["one"].Counters().Applies
		s.wantQuiet("web", time.Hour, 15)
		if n := s.worlds["one"].Counters().Applies - applies; n != 0 {
			t.Errorf("%d further tries of a conflict", n)
		}
	})
}

// G-105: a panic in an applier marks the objects of that call, and nothing else.
func TestPanicStaysWithItsApplication(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", "web")
		s.app("db", "db")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "db/b.yaml": thing("b", "1")})
		s.worlds["one"].SetFaults(memapply.Faults{Refuse: func(op appliers.Operation) error {
			if op.Application == "web" {
				panic("nil map in applier")
			}
			return nil
		}})
		s.start()
		s.pass(2 * time.Minute)
		s.wantSync("db", Synced, "")
		s.wantSync("web", OutOfSync, "internal error: nil map in applier")
		if m := s.status("web").Message; strings.Contains(m, "goroutine") {
			t.Errorf("the stack is in the message: %s", m)
		}
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(10 * time.Minute)
		s.wantSync("web", Synced, "")
	})
}

// G-105: so does one in the loop itself, here in a policy.
func TestPanicInARound(t *testing.T) {
	simulate(t, func(s *sim) {
		s.judge = &rules{digest: "p", object: func(o *manifest.Object) string {
			if o.ID().Name == "bad" {
				panic("index out of range")
			}
			return ""
		}}
		s.app("web", "web")
		s.app("db", "db")
		s.commit(map[string]string{"web/a.yaml": thing("a", "1"), "db/b.yaml": thing("b", "1")})
		s.start()
		s.wantSync("web", Synced, "")
		s.commit(map[string]string{"web/bad.yaml": thing("bad", "1"), "db/b.yaml": thing("b", "2")})
		s.pass(15 * time.Second)
		s.wantValue("one", "b", int64(2))
		s.wantSync("web", OutOfSync, "internal error: index out of range")
		s.wantQuiet("web", time.Hour, 90)
		s.worlds["one"].SetField("somebody", where("a"), "/spec/value", int64(7))
		s.pass(2 * time.Minute)
		s.wantValue("one", "a", int64(1)) // the accepted revision is healed to
		s.commit(map[string]string{"web/bad.yaml": ""})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
	})
}

// A source that fails is named at once, whatever else there is to say.
func TestFailingSourceIsNamedBesides(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.worlds["one"].SetFaults(stopping("b"))
		s.commit(map[string]string{"b.yaml": thing("b", "1")})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "1 object failed")
		s.repo.SetDown(errors.New("no route to the forge"))
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "1 object failed")
		s.wantSync("web", OutOfSync, "no route to the forge")
		s.repo.SetDown(nil)
		s.pass(10 * time.Minute)
		if st := s.status("web"); strings.Contains(st.Message, "no route") {
			t.Errorf("the source answers again, and the status says %q", st.Message)
		}
	})
}
