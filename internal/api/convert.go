package api

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/reconciler"
)

func applicationStatus(s *reconciler.Status, now time.Time) *pb.ApplicationStatus {
	out := &pb.ApplicationStatus{
		Application: s.Application, Source: s.Source, Path: s.Path, Targets: s.Targets,
		Sync: string(s.Sync), Health: string(s.Health), Phase: string(s.Phase), Message: s.Message,
		Revision: s.Revision, Commit: commit(s.Commit), Candidate: candidate(s.Candidate),
		Objects: &pb.ObjectCounts{
			Desired: int32(s.Objects.Desired), Owned: int32(s.Objects.Owned), Drifted: int32(s.Objects.Drifted),
			Failed: int32(s.Objects.Failed), Blocked: int32(s.Objects.Blocked),
		},
		ObservedAt: stamp(s.ObservedAt), SyncedAt: stamp(s.SyncedAt), Round: s.Round,
		Warnings: findings(s.Warnings),
	}
	if !s.ObservedAt.IsZero() {
		out.ObservationAge = durationpb.New(now.Sub(s.ObservedAt))
	}
	for i := range s.Drift {
		out.Drift = append(out.Drift, driftedField(&s.Drift[i]))
	}
	for i := range s.Failures {
		f := &s.Failures[i]
		out.Failures = append(out.Failures, &pb.Failure{
			Key: f.Key.String(), Origin: f.Origin.String(), Message: f.Message, Class: f.Class.String(),
			Since: stamp(f.Since), RetryAt: stamp(f.RetryAt), Waits: f.Waits,
		})
	}
	if s.Suspended != nil {
		out.Suspended = &pb.Suspension{
			By: s.Suspended.By, Why: s.Suspended.Why, At: stamp(s.Suspended.At), Until: stamp(s.Suspended.Until),
		}
	}
	for _, key := range s.Orphaned {
		out.Orphaned = append(out.Orphaned, key.String())
	}
	return out
}

func driftedField(d *reconciler.DriftedField) *pb.DriftedField {
	return &pb.DriftedField{
		Key: d.Key.String(), Change: fieldChange(&d.Change), FirstSeen: stamp(d.FirstSeen), Seen: int32(d.Seen),
		Mode: string(d.Mode), Contended: d.Contended, Writer: d.Writer,
	}
}

func candidate(c *reconciler.Candidate) *pb.Candidate {
	if c == nil {
		return nil
	}
	out := &pb.Candidate{
		Revision: c.Revision, State: string(c.State), Reason: c.Reason, Denied: findings(c.Denied),
		Digest: c.Digest, Plan: counts(c.Plan), Since: stamp(c.Since),
	}
	for _, g := range c.Gates {
		gate := &pb.Gate{Kind: string(g.Kind), Message: g.Message, Hint: g.Hint}
		for _, ch := range g.Changes {
			gate.Changes = append(gate.Changes, gatedChange(ch))
		}
		out.Gates = append(out.Gates, gate)
	}
	return out
}

func gatedChange(c plan.GatedChange) *pb.GatedChange {
	return &pb.GatedChange{Key: c.Key.String(), Action: string(c.Action), Removes: c.Removes}
}

func counts(c plan.Counts) *pb.Counts {
	return &pb.Counts{
		Create: int32(c.Create), Update: int32(c.Update), Adopt: int32(c.Adopt), Delete: int32(c.Delete),
		Forget: int32(c.Forget), Blocked: int32(c.Blocked), Drifted: int32(c.Drifted), Remove: int32(c.Remove),
	}
}

func commit(c *policies.Commit) *pb.Commit {
	if c == nil {
		return nil
	}
	return &pb.Commit{Id: c.ID, Author: c.Author, Message: c.Message, When: stamp(c.When)}
}

// findings keeps the text of a finding whose details cannot be written as JSON.
func findings(list []policies.Finding) []*pb.Finding {
	var out []*pb.Finding
	for _, f := range list {
		finding := &pb.Finding{Rule: f.Rule, Msg: f.Msg}
		if len(f.Details) > 0 {
			if data, err := json.Marshal(f.Details); err == nil {
				finding.DetailsJson = string(data)
			}
		}
		out = append(out, finding)
	}
	return out
}

// fieldChange writes values in canonical JSON, in which secrets are masked. An
// absent value is "".
func fieldChange(f *plan.FieldChange) *pb.FieldChange {
	out := &pb.FieldChange{Path: string(f.Path), Op: string(f.Op), Cause: string(f.Cause)}
	if f.Op != plan.FieldAdd {
		out.BeforeJson = string(manifest.Canonical(f.Before))
	}
	if f.Op != plan.FieldRemove {
		out.AfterJson = string(manifest.Canonical(f.After))
	}
	return out
}

func historyEntry(e *reconciler.HistoryEntry) *pb.HistoryEntry {
	return &pb.HistoryEntry{
		Seq: e.Seq, Revision: e.Revision, Commit: commit(e.Commit), Outcome: string(e.Outcome), Reason: e.Reason,
		Counts: counts(e.Counts), Approver: e.Approver, Started: stamp(e.Started), Finished: stamp(e.Finished),
	}
}

// presence is how the three answers of an observation are written.
func presence(p plan.Presence) string {
	switch p {
	case plan.Present:
		return "Present"
	case plan.Absent:
		return "Absent"
	default:
		return "Unknown"
	}
}

func objectSummary(o *reconciler.ObjectSummary) *pb.ObjectSummary {
	return &pb.ObjectSummary{
		Key: o.Key.String(), Origin: o.Origin.String(), Locator: o.Locator, Desired: o.Desired, State: string(o.State),
		Presence: presence(o.Presence), Health: string(o.Health), Problem: o.Problem,
	}
}

func objectView(v *reconciler.ObjectView) (*pb.GetObjectResponse, error) {
	out := &pb.GetObjectResponse{
		Key: v.Key.String(), Origin: v.Origin.String(), Locator: v.Locator,
		Presence: presence(v.Observed.Presence), Reason: v.Observed.Reason, ObservedAt: stamp(v.Observed.At),
		Health: string(v.Health), Problem: v.Problem,
	}
	for _, part := range []struct {
		obj *manifest.Object
		out *string
	}{{v.Desired, &out.DesiredJson}, {v.Observed.Object, &out.LiveJson}} {
		if part.obj == nil {
			continue
		}
		data, err := json.Marshal(part.obj)
		if err != nil {
			return nil, fmt.Errorf("object %s: %w", v.Key, err)
		}
		*part.out = string(data)
	}
	if v.Entry != nil {
		out.State = string(v.Entry.State)
	}
	for i := range v.Fields {
		out.Fields = append(out.Fields, fieldChange(&v.Fields[i]))
	}
	return out, nil
}
