package reconciler

import (
	"context"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Drift is healed, reported or ignored, by kind and field.
func TestDriftModes(t *testing.T) {
	simulate(t, func(s *sim) {
		gk := s.key("one", "a").ID.GroupKind()
		s.app("web", ".", func(a *Application) {
			a.Drift = []plan.DriftRule{
				{GroupKind: &gk, Path: "/spec/replicas", Mode: plan.DriftReport},
				{GroupKind: &gk, Path: "/metadata/labels", Mode: plan.DriftIgnore},
			}
		})
		text := thing("a", "1") + "  replicas: 3\n"
		text = text[:len("apiVersion: test.example/v1\nkind: Thing\nmetadata:\n")] + "  labels:\n    team: x\n" + text[len("apiVersion: test.example/v1\nkind: Thing\nmetadata:\n"):]
		s.commit(map[string]string{"a.yaml": text})
		s.start()
		s.wantSync("web", Synced, "")
		hand := s.worlds["one"]
		hand.SetField("hpa", where("a"), "/spec/replicas", int64(9))
		hand.SetField("hpa", where("a"), "/metadata/labels/team", "theirs")
		hand.SetField("ann", where("a"), "/spec/value", int64(7))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(1))
		s.wantSync("web", OutOfSync, "1 field drifted and is left as it is")
		d := s.status("web").Drift
		if len(d) != 1 || d[0].Change.Path != "/spec/replicas" || d[0].Mode != plan.DriftReport || d[0].Change.Before != int64(9) {
			t.Fatalf("drift %+v", d)
		}
		first := d[0].FirstSeen
		s.wantQuiet("web", time.Hour, 70)
		s.stop()
		s.start()
		if d := s.status("web").Drift; len(d) != 1 || !d[0].FirstSeen.Equal(first) {
			t.Errorf("after a restart %+v, first seen %s", d, first)
		}
		if n := s.eventKinds()[EventDrift]; n != 2 {
			t.Errorf("%d events of drift, want one for each field", n)
		}
		hand.SetField("hpa", where("a"), "/spec/replicas", int64(3))
		s.pass(time.Second)
		s.wantSync("web", Synced, "")
		if v, _ := s.worlds["one"].Get(where("a")); v.Content["metadata"].(map[string]any)["labels"].(map[string]any)["team"] != "theirs" {
			t.Error("an ignored field was written")
		}
	})
}

// D-53: a field that somebody else writes again and again is left alone after
// three heals, told once, and healed again after the pause.
func TestFightOverAField(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		bad := func(v int64) {
			s.worlds["one"].SetField("cron", where("a"), "/spec/value", v)
			s.pass(10 * time.Second)
		}
		for i := range 6 {
			bad(int64(10 + i))
		}
		s.wantValue("one", "a", int64(15))
		s.wantCounts("one", 2, 3, 0)
		d := s.status("web").Drift
		if len(d) != 1 || !d[0].Contended || d[0].Writer != "cron" || d[0].Mode != plan.DriftHeal {
			t.Fatalf("drift %+v", d)
		}
		s.wantSync("web", OutOfSync, "1 field drifted and is left as it is; 1 contended: something else keeps writing there, and healing pauses until 2000-01-01T00:30:20Z")
		if n := s.eventKinds()[EventContended]; n != 1 {
			t.Errorf("%d events of the fight", n)
		}
		s.worlds["one"].SetField("cron", where("b"), "/spec/value", int64(9)) // others are healed
		s.pass(time.Second)
		s.wantValue("one", "b", int64(1))
		s.wantQuiet("web", 25*time.Minute, 30)
		s.wantValue("one", "a", int64(15))
		s.pass(10 * time.Minute)
		s.wantValue("one", "a", int64(1))
		s.wantSync("web", Synced, "")
	})
}

// An object deleted by hand is drift as a whole: created again, told once, and
// left alone when it is deleted again and again.
func TestDeletedByHand(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1") + "  more: 2\n"})
		s.start()
		s.worlds["one"].Delete(where("a"))
		s.pass(time.Second)
		s.wantCounts("one", 2, 0, 0)
		if n := s.eventKinds()[EventDrift]; n != 1 {
			t.Errorf("%d events of drift, want one for the object", n)
		}
		for range 5 {
			s.worlds["one"].Delete(where("a"))
			s.pass(10 * time.Second)
		}
		s.wantCounts("one", 4, 0, 0)
		d := s.status("web").Drift
		if len(d) != 1 || !d[0].Contended || d[0].Change.Path != "" {
			t.Fatalf("drift %+v", d)
		}
		if n := s.eventKinds()[EventContended]; n != 1 {
			t.Errorf("%d events of the fight", n)
		}
		s.pass(35 * time.Minute)
		s.wantCounts("one", 5, 0, 0)
		s.wantSync("web", Synced, "")
	})
}

// A new intent for a contended field is written at once.
func TestIntentEndsAFight(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		for i := range 5 {
			s.worlds["one"].SetField("cron", where("a"), "/spec/value", int64(10+i))
			s.pass(10 * time.Second)
		}
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(15 * time.Second)
		s.wantValue("one", "a", int64(2))
		s.wantSync("web", Synced, "")
		s.worlds["one"].SetField("cron", where("a"), "/spec/value", int64(77))
		s.pass(time.Second)
		s.wantValue("one", "a", int64(2)) // the fight is counted anew
	})
}

// D-57: drift of 10,000 objects at once is healed in a bounded number of calls.
func TestDriftOfEverything(t *testing.T) {
	const n = 3000
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		s.commit(things("o", n, "1"))
		s.start()
		s.wantSync("web", Synced, "")
		before := s.worlds["one"].Counters()
		for i := range n {
			s.worlds["one"].SetField("script", where(objectName(i)), "/spec/value", int64(9))
		}
		s.pass(time.Minute)
		s.wantSync("web", Synced, "")
		c := s.worlds["one"].Counters()
		if got := c.Updates - before.Updates; got != n {
			t.Errorf("%d updates", got)
		}
		if calls := c.Observes - before.Observes + c.Applies - before.Applies; calls > n/33 {
			t.Errorf("%d calls for %d objects", calls, n)
		}
	})
}

// What is remembered of drift is shown once it is seen again: until the first look
// after a start nobody knows whether it is there.
func TestDriftOfAnotherLife(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Drift = []plan.DriftRule{{Mode: plan.DriftReport}} })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.worlds["one"].SetField("x", where("a"), "/spec/value", int64(9))
		s.pass(time.Second)
		first := s.status("web").Drift
		s.stop()
		s.worlds["one"].SetFaults(memapply.Faults{Latency: func(context.Context, string) { time.Sleep(20 * time.Second) }})
		s.start()
		s.pass(5 * time.Second)
		s.wantSync("web", SyncUnknown, "was accepted before; since the start nothing has been looked at")
		if st := s.status("web"); len(st.Drift) != 0 || st.Objects.Drifted != 0 || st.Phase != PhaseObserving {
			t.Errorf("before the first look: %s, drift %+v", st.Phase, st.Drift)
		}
		s.pass(5 * time.Minute)
		if d := s.status("web").Drift; len(first) != 1 || len(d) != 1 || !d[0].FirstSeen.Equal(first[0].FirstSeen) || d[0].Change.Before == nil {
			t.Errorf("drift %+v, want that of before: %+v", d, first)
		}
	})
}

// D-53: a heal that fails is no fight. It stays a failure, is retried with its
// backoff, and heals once it can.
func TestFailedHealIsNoFight(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.RetryMax = 30 * time.Second; a.Interval = 3 * time.Second })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		for round := range 2 { // the second time on top of a heal that was written
			tries := &tries{}
			s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"a": appliers.Retry}, tries))
			s.worlds["one"].SetField("hand", where("a"), "/spec/value", int64(7))
			s.pass(2 * time.Minute)
			if n := tries.of("a"); n < 5 {
				t.Fatalf("%d tries in two minutes", n)
			}
			st := s.status("web")
			if len(st.Drift) != 1 || st.Drift[0].Contended || st.Drift[0].Mode != plan.DriftHeal || st.Drift[0].Seen != 1 || st.Health != appliers.Degraded {
				t.Fatalf("status %+v", st)
			}
			s.wantSync("web", OutOfSync, "1 object failed")
			s.wantFailure("web", "a", "disk quota of a")
			s.worlds["one"].SetFaults(memapply.Faults{})
			s.pass(35 * time.Second)
			s.wantValue("one", "a", int64(1))
			s.wantSync("web", Synced, "")
			s.wantCounts("one", 1, round+1, 0)
		}
		if n := s.eventKinds()[EventContended]; n != 0 {
			t.Errorf("%d events of a fight", n)
		}
	})
}

// D-53: a write that completes by itself is one heal, however often it is looked at.
func TestPendingHealsAreCountedOnce(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Async: &memapply.Async{After: 20 * time.Second}}
		s.app("web", ".", func(a *Application) { a.Interval = 3 * time.Second })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.pass(time.Minute)
		for n := range 4 {
			s.worlds["one"].SetField("cron", where("a"), "/spec/value", int64(10+n))
			s.pass(30 * time.Second)
			if n < 3 {
				s.wantValue("one", "a", int64(1))
			}
		}
		s.wantValue("one", "a", int64(13))
		s.wantSync("web", OutOfSync, "1 contended")
		if n := s.eventKinds()[EventContended]; n != 1 {
			t.Errorf("%d events of the fight", n)
		}
	})
}

// fight brings field value of object a into contention: what a hand wrote stays.
func (s *sim) fight() {
	s.t.Helper()
	for i := range 5 {
		s.worlds["one"].SetField("cron", where("a"), "/spec/value", int64(10+i))
		s.pass(10 * time.Second)
	}
	s.wantValue("one", "a", int64(14))
	s.wantSync("web", OutOfSync, "1 contended: something else keeps writing there, and healing pauses until 2000-01-01T00:30:20Z")
}

// D-53: while a field is left alone, no commit makes the application Synced, and the
// history says why until it is healed.
func TestContendedIsNotSynced(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		s.fight()
		before := s.eventKinds()[EventSynced]
		s.commit(map[string]string{"b.yaml": thing("b", "2")})
		s.pass(15 * time.Second)
		s.wantValue("one", "b", int64(2))
		s.wantSync("web", OutOfSync, "healing pauses until 2000-01-01T00:30:20Z")
		if n := s.eventKinds()[EventSynced]; n != before {
			t.Errorf("%d events that say Synced, before the commit %d", n, before)
		}
		h, _ := s.m.History(s.t.Context(), "web", 0)
		if h[0].Outcome != OutcomePartial || h[0].Reason != "0 failed, 0 wait, 1 contended" {
			t.Errorf("history %+v", h[0])
		}
		s.worlds["one"].SetFaults(refusing(map[string]appliers.Class{"b": appliers.Stop}, &tries{}))
		s.commit(map[string]string{"b.yaml": thing("b", "3")})
		s.pass(15 * time.Second)
		s.wantSync("web", OutOfSync, "disk quota of b; 1 contended: something else keeps writing there, and healing pauses until 2000-01-01T00:30:20Z")
		s.worlds["one"].SetFaults(memapply.Faults{})
		s.commit(map[string]string{"b.yaml": thing("b", "4")})
		s.pass(35 * time.Minute)
		s.wantValue("one", "a", int64(1))
		s.wantSync("web", Synced, "")
		if h, _ = s.m.History(s.t.Context(), "web", 0); h[0].Outcome != OutcomeSynced || h[0].Revision != s.status("web").Revision {
			t.Errorf("history %+v", h[0])
		}
	})
}

// D-53: a commit to the object ends the fight over all of its fields, so that what
// it leaves is as the commit says.
func TestIntentForAnotherFieldEndsAFight(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.fight()
		s.commit(map[string]string{"a.yaml": thing("a", "1") + "  more: 2\n"})
		s.pass(15 * time.Second)
		s.wantValue("one", "a", int64(1))
		s.wantSync("web", Synced, "")
		if d := s.status("web").Drift; len(d) != 0 {
			t.Errorf("drift %+v", d)
		}
		if h, _ := s.m.History(s.t.Context(), "web", 0); h[0].Outcome != OutcomeSynced {
			t.Errorf("history %+v", h[0])
		}
	})
}
