package reconciler

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	memstore "github.com/gitopsd/gitopsd/internal/store/memory"
)

// G-105, D-57: 1,000 applications, and one of two targets hangs for ever. The
// others keep their interval, the status answers at once, the number of hanging
// calls is that of the pool, and when it answers again everything converges
// without a herd.
func TestOneTargetHangs(t *testing.T) {
	const n, interval = 1000, 2 * time.Minute
	simulate(t, func(s *sim) {
		s.worlds["two"] = memapply.NewWorld()
		files := map[string]string{}
		for i := range n {
			name := fmt.Sprintf("app%04d", i)
			target := []string{"one", "two"}[i%2]
			s.app(name, name, func(a *Application) { a.Routes, a.Interval = []appliers.Route{{Target: target}}, interval })
			files[name+"/x.yaml"] = thing(name, "1")
		}
		s.commit(files)
		s.start()
		s.pass(time.Minute)
		for i := range n {
			s.wantSync(fmt.Sprintf("app%04d", i), Synced, "")
		}
		s.wantCounts("one", n/2, 0, 0)
		s.wantCounts("two", n/2, 0, 0)

		goroutines := runtime.NumGoroutine()
		hang := make(chan struct{})
		s.worlds["two"].SetFaults(memapply.Faults{Hang: hang})
		for i := range n {
			files[fmt.Sprintf("app%04d/x.yaml", i)] = thing(fmt.Sprintf("app%04d", i), "2")
		}
		s.commit(files)
		s.pass(5 * time.Minute)
		for i := 0; i < n; i += 2 {
			st := s.status(fmt.Sprintf("app%04d", i))
			if st.Sync != Synced || time.Since(st.ObservedAt) > interval+interval/2 {
				t.Fatalf("%s is hindered: %s %s, seen %s ago", st.Application, st.Sync, st.Message, time.Since(st.ObservedAt))
			}
		}
		if ts := s.m.Targets()[1]; ts.Breaker == "closed" || ts.Error == "" {
			t.Errorf("target %+v", ts)
		}
		if now := runtime.NumGoroutine(); now > goroutines+50 {
			t.Errorf("%d goroutines, %d before", now, goroutines)
		}
		at := time.Now()
		if list, err := s.m.Status(); err != nil || len(list) != n || time.Since(at) != 0 {
			t.Errorf("status: %d, %v, took %s", len(list), err, time.Since(at))
		}
		before := s.worlds["two"].Counters()
		s.worlds["two"].SetFaults(memapply.Faults{})
		close(hang)
		s.pass(12 * time.Minute)
		for i := range n {
			s.wantSync(fmt.Sprintf("app%04d", i), Synced, "")
		}
		s.wantCounts("two", n/2, n/2, 0)
		if calls := s.worlds["two"].Counters().Observes - before.Observes; calls > 30*n {
			t.Errorf("%d reads after the outage", calls)
		}
	})
}

// startHanging starts n applications, app00 and so on, whose target hangs until
// the channel is closed.
func (s *sim) startHanging(n int) chan struct{} {
	files := map[string]string{}
	for i := range n {
		name := fmt.Sprintf("app%02d", i)
		s.app(name, name)
		files[name+"/x.yaml"] = thing(name, "1")
	}
	s.commit(files)
	hang := make(chan struct{})
	s.worlds["one"].SetFaults(memapply.Faults{Hang: hang})
	s.start()
	s.pass(time.Second)
	return hang
}

// Ending the process while calls hang takes the grace of one call, not of all.
func TestStopWhileTargetHangs(t *testing.T) {
	simulate(t, func(s *sim) {
		hang := s.startHanging(50)
		began := time.Now()
		s.stop()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("stopping took %s", took)
		}
		close(hang)
		synctest.Wait()
	})
}

// A reload replaces many applications at once while their target hangs.
func TestReloadWhileTargetHangs(t *testing.T) {
	simulate(t, func(s *sim) {
		hang := s.startHanging(50)
		for i := range 50 {
			name := fmt.Sprintf("app%02d", i)
			s.app(name, name, func(a *Application) { a.Interval = 2 * time.Minute })
		}
		began := time.Now()
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the reload took %s", took)
		}
		s.worlds["one"].SetFaults(memapply.Faults{})
		close(hang)
		s.pass(10 * time.Minute)
		for i := range 50 {
			s.wantSync(fmt.Sprintf("app%02d", i), Synced, "")
		}
	})
}

// A target that is only slow, and busy, is not taken for a dead one.
func TestBusyTargetIsNotDead(t *testing.T) {
	const n = 200
	simulate(t, func(s *sim) {
		files := map[string]string{}
		for i := range n {
			name := fmt.Sprintf("app%03d", i)
			s.app(name, name, func(a *Application) { a.Interval = time.Hour })
			files[name+"/x.yaml"] = thing(name, "1")
		}
		s.commit(files)
		s.worlds["one"].SetFaults(memapply.Faults{Latency: func(context.Context, string) { time.Sleep(5 * time.Second) }})
		s.start()
		for range 60 {
			s.pass(time.Minute)
			if ts := s.m.Targets()[0]; ts.Breaker != "closed" {
				t.Fatalf("target %+v", ts)
			}
		}
		s.wantCounts("one", n, 0, 0)
	})
}

// Ending in the middle of an apply records what was done; the next start does
// nothing twice.
func TestStopDuringApply(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(things("o", 200, "1"))
		began := make(chan struct{}, 1000)
		s.worlds["one"].SetFaults(memapply.Faults{Latency: func(_ context.Context, call string) {
			if call == "apply" {
				began <- struct{}{}
				time.Sleep(2 * time.Second)
			}
		}})
		s.start()
		<-began
		<-began
		s.stop()
		done := s.worlds["one"].Counters().Creates
		if done == 0 || done == 200 {
			t.Fatalf("%d created, want some", done)
		}
		owned := newRegistry(s.store, 1)
		if err := owned.load(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := owned.count("web"); got < done {
			t.Errorf("%d on record, %d created", got, done)
		}
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.start()
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 200, 0, 0)
	})
}

// Two daemons: the one whose epoch is over writes nothing more.
func TestFencedManagerStopsWriting(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		if _, err := s.store.(*memstore.Store).Commit(context.Background(), 2, nil, nil); err != nil {
			t.Fatal(err)
		}
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.wantQuiet("web", time.Hour, 120)
		s.wantValue("one", "a", int64(1))
		s.wantSync("web", Stale, "newer leader") // with what was accepted before
	})
}
