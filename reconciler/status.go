package reconciler

import (
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// SyncStatus says how the targets stand to the desired state.
type SyncStatus string

// The sync words, best first; over several applications the worst wins.
const (
	Synced      SyncStatus = "Synced"
	OutOfSync   SyncStatus = "OutOfSync"
	Stale       SyncStatus = "Stale" // the last complete observation is older than its bound
	SyncUnknown SyncStatus = "Unknown"
)

// Phase is what the loop is doing about an application.
type Phase string

// The phases of an application.
const (
	PhaseWaiting   Phase = "Waiting"   // for its source, a dependency or an interval
	PhaseRendering Phase = "Rendering" // reading and judging a revision
	PhaseObserving Phase = "Observing" // asking the targets
	PhasePlanning  Phase = "Planning"  // comparing, judging the changes
	PhaseApplying  Phase = "Applying"  // writing
	PhaseVerifying Phase = "Verifying" // reading back what was written
	PhaseIdle      Phase = "Idle"      // nothing to do
	PhaseHeld      Phase = "Held"      // an approval is needed
	PhaseRefused   Phase = "Refused"   // the newest revision cannot be accepted
	PhaseRetrying  Phase = "Retrying"  // something failed, the next try has a time
	PhaseSuspended Phase = "Suspended" // a person stopped it
	PhaseOrphaned  Phase = "Orphaned"  // no longer configured, its objects left behind
	PhaseDeleting  Phase = "Deleting"  // no longer configured, its objects are being deleted
)

// Status is what is known of one application: a copy, safe to keep.
type Status struct {
	Application string
	Source      string
	Path        string
	Targets     []string
	Sync        SyncStatus
	Health      appliers.HealthStatus
	Phase       Phase
	// Message says in one sentence what is going on and what to do next.
	Message string
	// Revision is the accepted one: what is applied and healed to. Empty before the first.
	Revision string
	// Commit describes Revision; nil when the source has no commits.
	Commit *policies.Commit
	// Candidate is a newer revision that is not accepted; nil when there is none.
	Candidate *Candidate
	Objects   ObjectCounts
	// ObservedAt is when all objects were last known together: the oldest
	// observation of a complete look. Zero before the first.
	ObservedAt time.Time
	// SyncedAt is when a round of this process last looked and left everything as
	// desired; zero before the first.
	SyncedAt time.Time
	// Drift lists fields that moved by themselves and have not been healed,
	// sorted by key and path.
	Drift []DriftedField
	// Failures lists objects that could not be brought to the desired state, sorted by key.
	Failures []Failure
	// Warnings are what policies said without denying, of the desired objects and of
	// the changes judged last, what targets say of objects that are as desired, and
	// which of these a changed policy denies (PolicyViolation). A
	// warning about a change stays until another change of that object, or another
	// revision, is judged.
	Warnings []policies.Finding
	// Suspended is set while a person has stopped the application.
	Suspended *Suspension
	// Orphaned lists objects that were left behind when their application was removed from
	// the configuration.
	Orphaned []plan.Key
	// Round counts the rounds of this process; it grows when anything was looked at.
	Round uint64

	running bool   // a round is under way: Phase is that of the round
	wishes  uint64 // version of what the application wants, see desire
}

// CandidateState says why a newer revision is not the accepted one.
type CandidateState string

// The states of a candidate.
const (
	CandidatePending CandidateState = "Pending" // being looked at, or the targets do not answer
	CandidateRefused CandidateState = "Refused" // an error or a denial: a new commit is needed
	CandidateHeld    CandidateState = "Held"    // waits for gitopsd approve
)

// Candidate is a revision that is newer than the accepted one.
type Candidate struct {
	Revision string
	State    CandidateState
	// Reason is the error, ready to print, with path:line and what to do.
	Reason string
	Denied []policies.Finding
	// Gates and Digest are what an approval is asked for; Digest names exactly
	// this set of gated changes of these files and settings.
	Gates  []plan.Gate
	Digest string
	// Plan counts what would be done.
	Plan  plan.Counts
	Since time.Time

	input     string // names the files and settings it was made of
	contested bool   // another application wants, or owns, one of its objects
}

// ObjectCounts are totals of one application.
type ObjectCounts struct {
	Desired, Owned, Drifted, Failed, Blocked int
	// Denied counts desired objects that run and that the policies deny by now.
	Denied int
}

// DriftedField is one field that moved without a commit.
type DriftedField struct {
	Key       plan.Key
	Change    plan.FieldChange
	FirstSeen time.Time
	// Seen counts how often the field drifted since it was last left in peace.
	Seen int
	// Mode is what is done about it; Contended says that healing is paused
	// because somebody else keeps writing the field.
	Mode      plan.DriftMode
	Contended bool
	Writer    string

	sent bool // a write of it was accepted that completes by itself
}

// seen reports whether the drift was found by this process: of what is only
// remembered, nobody knows whether it is still there.
func (d *DriftedField) seen() bool { return d.Mode != "" }

// Failure is an object that is not as desired, and why.
type Failure struct {
	Key     plan.Key
	Origin  manifest.Origin
	Message string
	Class   appliers.Class
	Since   time.Time
	RetryAt time.Time // zero when nothing is retried until something changes
	// Waits says that nothing went wrong: the object was not tried, because the
	// application is suspended, something else comes first, or a rule forbids it.
	Waits bool
}

// Suspension says who stopped an application, why, and until when.
type Suspension struct {
	By    string    `json:"by"`
	Why   string    `json:"why"`
	At    time.Time `json:"at"`
	Until time.Time `json:"until,omitzero"` // zero: until somebody resumes it
}

// configuration is Suspension.By of an application that its own spec suspends.
const configuration = "configuration"

// Approval is one recorded approval. It covers a gated set as long as every
// gated change is among Changes.
type Approval struct {
	Application string `json:"application"`
	Digest      string `json:"digest"`
	// Input names the files and settings that were approved; with others the
	// approval counts for nothing.
	Input   string             `json:"input"`
	Changes []plan.GatedChange `json:"changes"`
	By      string             `json:"by"`
	Why     string             `json:"why"`
	At      time.Time          `json:"at"`
	Expires time.Time          `json:"expires"`
}

// Outcome is how a revision ended, for the history.
type Outcome string

// The outcomes of a revision.
const (
	OutcomeSynced  Outcome = "Synced"
	OutcomePartial Outcome = "Partial" // some objects failed
	OutcomeRefused Outcome = "Refused"
	OutcomeHeld    Outcome = "Held"
	// OutcomeForgotten is no end of a revision: a person dropped objects that were
	// left behind from the inventory. Its line has the number of the one before it.
	OutcomeForgotten Outcome = "Forgotten"
)

// HistoryEntry is one line of an application's history.
type HistoryEntry struct {
	Application string           `json:"application"`
	Seq         uint64           `json:"seq"`
	Revision    string           `json:"revision"`
	Commit      *policies.Commit `json:"commit,omitempty"`
	Outcome     Outcome          `json:"outcome"`
	Reason      string           `json:"reason,omitempty"`
	Counts      plan.Counts      `json:"counts"`
	Approver    string           `json:"approver,omitempty"`
	Started     time.Time        `json:"started"`
	Finished    time.Time        `json:"finished"`
}

// SourceStatus is what is known of one source.
type SourceStatus struct {
	Name     string
	Revision string // newest one fetched and trusted
	// PolledAt is when the server last answered.
	PolledAt time.Time
	// Error is why the last poll failed, "" when it did not.
	Error    string
	NextPoll time.Time
	// Rewrite is the revision that was refused because it does not descend from Revision.
	Rewrite string
}

// PolicySetStatus is what is known of one policy set.
type PolicySetStatus struct {
	Name   string
	Source string // "" when it needs none
	// Revision is the newest one that was tried; "" before that and without a source.
	Revision string
	// Error says why the newest revision does not load, "" when it does. What was
	// loaded before judges what runs, and new revisions of applications wait.
	Error string
	Since time.Time // of Error
}

// TargetStatus is what is known of one target.
type TargetStatus struct {
	Name string
	// Breaker is "closed", "open" or "half-open".
	Breaker string
	Error   string
	Since   time.Time
}
