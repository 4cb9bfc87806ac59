package apitest

import (
	"encoding/json"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/reconciler"
)

// Hostile is a text that would move the cursor, change colours, set the title of
// the terminal or forge a line if it were printed as it is (row F-101).
const Hostile = "red \x1b[31malert\x1b[0m\x1b]0;owned\x07\r\nforged line\u202e\u0085"

const (
	good = "8843d7f92416211de9ebb963ff4ce28125932878"
	bad  = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
)

func key(kind, name string) plan.Key {
	return plan.Key{Target: "host", ID: manifest.ID{Group: "host.gitopsd.io", Kind: kind, Name: name}}
}

// Sample returns a backend with one application in each state worth showing.
func Sample() *Backend {
	return &Backend{
		Apps: []reconciler.Status{healthy(), drifted(), held(), refused(), suspended()},
		Source: []reconciler.SourceStatus{
			{Name: "rules", Error: "source unavailable: connection refused", NextPoll: Now().Add(20 * time.Second)},
			{Name: "site", Revision: good, PolledAt: Now().Add(-12 * time.Second), NextPoll: Now().Add(18 * time.Second)},
		},
		Target: []reconciler.TargetStatus{{Name: "host", Breaker: "closed"}},
		Sets:   []reconciler.PolicySetStatus{{Name: "guard", Source: "rules", Revision: bad, Error: "main.rego:1: unexpected eof", Since: Now().Add(-time.Minute)}},
		Plans: map[string]reconciler.PlanView{
			"held": heldPlan(), "web": {Plan: &plan.Plan{Application: "web"}, Revision: good, At: Now(), Sync: reconciler.Synced},
			"old": {Plan: &plan.Plan{Application: "old", Unknown: suspended().Message}, Sync: reconciler.SyncUnknown},
		},
		Views:  map[string]reconciler.ObjectView{"host:host.gitopsd.io/File/motd": object()},
		Listed: map[string][]reconciler.ObjectSummary{"web": listed()},
		Past:   map[string][]reconciler.HistoryEntry{"web": past()},
		Records: []api.AuditRecord{
			{Seq: 2, At: Now().Add(-time.Minute), Kind: "Suspended", Application: "old", Principal: "ana (uid 1000)", Message: "suspended: " + Hostile, Hash: "b1b2"},
			{Seq: 1, At: Now().Add(-time.Hour), Kind: "RevisionAccepted", Application: "web", Message: "accepted", Data: json.RawMessage(`{"revision":"8843d7f"}`), Hash: "a1a2"},
		},
		Verdict: api.AuditVerdict{Records: 2, Head: "b1b2"},
	}
}

func base(name string) reconciler.Status {
	return reconciler.Status{
		Application: name, Source: "site", Path: "apps/" + name, Targets: []string{"host"},
		Sync: reconciler.Synced, Health: appliers.Healthy, Phase: reconciler.PhaseIdle, Message: "in sync",
		Revision: good, Objects: reconciler.ObjectCounts{Desired: 4, Owned: 4},
		ObservedAt: Now().Add(-40 * time.Second), SyncedAt: Now().Add(-time.Hour), Round: 7,
		Commit: &policies.Commit{ID: good, Author: "Ana <ana@example.org>", Message: "raise limits\n\nbecause of load\n", When: Now().Add(-time.Hour)},
	}
}

func healthy() reconciler.Status { return base("web") }

func drifted() reconciler.Status {
	s := base("drifted")
	s.Sync, s.Health, s.Message = reconciler.OutOfSync, appliers.Degraded, "1 object drifted and is healed in 3s"
	s.Objects.Drifted, s.Objects.Failed = 1, 1
	s.Drift = []reconciler.DriftedField{{
		Key: key("File", "motd"), FirstSeen: Now().Add(-time.Minute), Seen: 2, Mode: plan.DriftReport, Contended: true, Writer: "root",
		Change: plan.FieldChange{Path: "/spec/mode", Op: plan.FieldReplace, Before: "0777", After: "0644", Cause: plan.Drift},
	}}
	s.Failures = []reconciler.Failure{{
		Key: key("File", "site"), Origin: manifest.Origin{Path: "apps/drifted/site.yaml", Line: 3}, Message: "read-only file system",
		Class: appliers.Retry, Since: Now().Add(-2 * time.Minute), RetryAt: Now().Add(30 * time.Second),
	}}
	s.Failures = append(s.Failures, reconciler.Failure{
		Key: key("File", "waiting"), Message: "suspended; let it go on with: gitopsd resume drifted", Class: appliers.Wait, Waits: true,
	})
	s.Warnings = []policies.Finding{{Rule: "main.warn_owner", Msg: "no owner label", Details: map[string]any{"label": "owner"}}}
	s.Orphaned = []plan.Key{key("File", "left-behind")}
	return s
}

func held() reconciler.Status {
	s := base("held")
	s.Sync, s.Phase, s.Message = reconciler.OutOfSync, reconciler.PhaseHeld, "12 deletes need an approval: gitopsd approve held"
	s.Candidate = &reconciler.Candidate{
		Revision: bad, State: reconciler.CandidateHeld, Reason: "12 deletes are more than 10", Digest: "5f1c0ffee",
		Gates: []plan.Gate{{Kind: plan.GatePruneCount, Message: "12 deletes are more than 10", Hint: "the limit can be raised instead",
			Changes: []plan.GatedChange{{Key: key("File", "motd"), Action: plan.Delete}, {Key: key("Directory", "conf.d"), Action: plan.Delete, Removes: "/etc/conf.d/stray"}}}},
		Plan: plan.Counts{Delete: 12}, Since: Now().Add(-5 * time.Minute),
	}
	return s
}

func refused() reconciler.Status {
	s := base("refused")
	s.Sync, s.Phase = reconciler.Stale, reconciler.PhaseRefused
	s.Message = Hostile
	s.ObservedAt = Now().Add(-26 * time.Hour)
	s.Candidate = &reconciler.Candidate{
		Revision: bad, State: reconciler.CandidateRefused, Reason: "apps/refused/a.yaml:3: " + Hostile,
		Denied: []policies.Finding{{Rule: "main.deny_setuid", Msg: Hostile}}, Since: Now().Add(-5 * time.Minute),
	}
	return s
}

func suspended() reconciler.Status {
	s := base("old")
	s.Revision, s.Commit, s.Sync, s.Health = "", nil, reconciler.SyncUnknown, appliers.Suspended
	s.Phase, s.Message, s.Objects, s.ObservedAt = reconciler.PhaseSuspended, "suspended by ana (uid 1000)", reconciler.ObjectCounts{}, time.Time{}
	s.Suspended = &reconciler.Suspension{By: "ana (uid 1000)", Why: "disk is being replaced", At: Now().Add(-time.Minute), Until: Now().Add(time.Hour)}
	return s
}

func heldPlan() reconciler.PlanView {
	return reconciler.PlanView{
		Revision: bad, Candidate: true, At: Now(), Digest: held().Candidate.Digest, Sync: reconciler.OutOfSync,
		Plan: &plan.Plan{
			Application: "held",
			Changes:     []plan.Change{{Key: key("File", "motd"), Action: plan.Delete, Origin: manifest.Origin{Path: "apps/held/motd.yaml", Line: 1}}},
			Counts:      plan.Counts{Delete: 1},
			Gates:       held().Candidate.Gates,
		},
	}
}

func object() reconciler.ObjectView {
	content := func(mode string) map[string]any {
		return map[string]any{
			"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "File", "metadata": map[string]any{"name": "motd"},
			"spec": map[string]any{"path": "/etc/motd", "mode": mode, "content": Hostile},
		}
	}
	want, err := manifest.New(content("0644"), manifest.Origin{Path: "apps/web/motd.yaml", Line: 1})
	if err != nil {
		panic(err)
	}
	live, err := manifest.New(content("0777"), manifest.Origin{})
	if err != nil {
		panic(err)
	}
	return reconciler.ObjectView{
		Key: key("File", "motd"), Origin: want.Origin(), Locator: "/etc/motd", Desired: want,
		Observed: plan.Observed{Presence: plan.Present, Object: live, At: Now().Add(-40 * time.Second), Owner: "web"},
		Entry:    &plan.Entry{State: plan.EntryOwned}, Health: appliers.Healthy, Problem: "1 field drifted",
		Fields: []plan.FieldChange{{Path: "/spec/mode", Op: plan.FieldReplace, Before: "0777", After: "0644", Cause: plan.Drift}},
	}
}

func listed() []reconciler.ObjectSummary {
	at := func(line int) manifest.Origin { return manifest.Origin{Path: "apps/web/motd.yaml", Line: line} }
	return []reconciler.ObjectSummary{
		{Key: key("File", "left"), Origin: at(9), State: plan.EntryOrphaned},
		{Key: key("File", "motd"), Origin: at(1), Locator: "/etc/motd", Desired: true, State: plan.EntryOwned, Presence: plan.Present,
			Health: appliers.Healthy, Problem: "1 field drifted"},
		{Key: key("File", "new"), Origin: at(5), Desired: true, Presence: plan.Absent, Problem: "waits: " + Hostile},
	}
}

func past() []reconciler.HistoryEntry {
	entry := func(seq uint64, revision string, outcome reconciler.Outcome, reason string) reconciler.HistoryEntry {
		at := Now().Add(-time.Duration(10-seq) * time.Hour)
		return reconciler.HistoryEntry{
			Application: "web", Seq: seq, Revision: revision, Outcome: outcome, Reason: reason, Started: at, Finished: at.Add(1500 * time.Millisecond),
			Commit: &policies.Commit{ID: revision, Author: "Ana <ana@example.org>", Message: "raise limits\n\nbecause of load\n", When: at},
		}
	}
	third := entry(3, good, reconciler.OutcomeSynced, "")
	third.Counts, third.Approver = plan.Counts{Create: 1, Update: 2, Delete: 12}, "root (uid 0)"
	return []reconciler.HistoryEntry{third, entry(2, bad, reconciler.OutcomeRefused, "a.yaml:1: "+Hostile), entry(1, good, reconciler.OutcomePartial, "1 object failed")}
}
