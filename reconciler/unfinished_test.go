package reconciler

import (
	"errors"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// restFails lets what follows every write fail, and counts.
func restFails(tries *tries) memapply.Faults {
	return memapply.Faults{Rest: func(op appliers.Operation) error {
		tries.add(op.Change.Key.ID.Name)
		return errors.New("reload: exit status 1: cannot bind")
	}}
}

// D-53: what has to follow a write and fails is no drift and no fight in any mode. It
// is a failure that is retried until it succeeds, also after a restart.
func TestUnfinishedIsRetriedInEveryMode(t *testing.T) {
	for _, mode := range []plan.DriftMode{plan.DriftHeal, plan.DriftReport, plan.DriftIgnore} {
		t.Run(string(mode), func(t *testing.T) { simulate(t, func(s *sim) { unfinishedStory(s.t, s, mode) }) })
	}
}

func unfinishedStory(t *testing.T, s *sim, mode plan.DriftMode) {
	s.app("web", ".", func(a *Application) {
		a.Drift = []plan.DriftRule{{Mode: mode}}
		a.RetryMax, a.Interval = 30*time.Second, 3*time.Second
	})
	s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
	s.start()
	tries := &tries{}
	s.worlds["one"].SetFaults(restFails(tries))
	s.commit(map[string]string{"a.yaml": thing("a", "2")})
	synced, applied := s.eventKinds()[EventSynced], s.eventKinds()[EventApplied]
	owed := func(least, most int) {
		t.Helper()
		before := tries.of("a")
		s.pass(2 * time.Minute)
		if n := tries.of("a") - before; n < least || n > most {
			t.Errorf("%d tries in two minutes, want %d to %d", n, least, most)
		}
		st := s.status("web")
		if len(st.Drift) != 0 || st.Objects.Drifted != 0 || st.Objects.Failed != 1 || st.Health != appliers.Degraded {
			t.Errorf("status %+v", st)
		}
		s.wantSync("web", OutOfSync, "written, but what follows has not succeeded: reload: exit status 1: cannot bind")
		s.wantValue("one", "a", int64(2))
		v, err := s.m.Plan(s.t.Context(), "web")
		if err != nil || len(v.Plan.Changes) != 1 || v.Plan.Changes[0].Cause != plan.Intended || v.Plan.Changes[0].Unfinished == "" || v.Plan.Counts.Drifted != 0 {
			t.Errorf("plan %+v %v", v.Plan, err)
		}
	}
	owed(4, 8)
	if n := s.eventKinds()[EventApplied] - applied; n != 1 {
		t.Errorf("%d events of the write that was made, want 1", n)
	}
	if h, _ := s.m.History(s.t.Context(), "web", 0); h[0].Outcome != OutcomePartial {
		t.Errorf("history %+v", h[0])
	}
	s.stop()
	s.start()
	owed(4, 9)
	s.worlds["one"].SetFaults(memapply.Faults{})
	if err := s.m.Sync(s.t.Context(), "ann", "web", true); err != nil {
		t.Fatal(err)
	}
	s.pass(0)
	s.wantSync("web", Synced, "")
	if h, _ := s.m.History(s.t.Context(), "web", 0); h[0].Outcome != OutcomeSynced {
		t.Errorf("history %+v", h[0])
	}
	s.wantCounts("one", 2, 1, 0)
	kinds := s.eventKinds()
	if kinds[EventDrift]+kinds[EventContended] != 0 || kinds[EventSynced] != synced || kinds[EventApplied]-applied != 2 {
		t.Errorf("events %v, want none of drift, and one for the write and one for what followed", kinds)
	}
	s.wantQuiet("web", time.Minute, 25)
}

// What a hand changes while a write is unfinished is drift: left alone where the
// rules say so, though the rest of the write is still tried.
func TestDriftOfTheUnfinished(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) {
			a.Drift = []plan.DriftRule{{Mode: plan.DriftReport}}
			a.RetryMax, a.Interval = 30*time.Second, time.Hour
		})
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.worlds["one"].SetFaults(restFails(&tries{}))
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		for n := 0; s.failure("web", "a") == "" && n < 200; n++ { // until a moment after the first try
			s.pass(100 * time.Millisecond)
		}
		s.wantFailure("web", "a", "what follows has not succeeded")
		s.worlds["one"].SetField("hand", where("a"), "/spec/value", int64(7))
		s.pass(time.Minute)
		s.wantValue("one", "a", int64(7))
		s.wantFailure("web", "a", "what follows has not succeeded")
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.pass(time.Minute)
		s.wantValue("one", "a", int64(7))
		s.wantSync("web", OutOfSync, "1 field drifted and is left as it is")
	})
}
