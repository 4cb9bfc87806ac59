// Package reconciler is the loop of gitopsd: it follows sources, renders and
// judges revisions, plans against what the targets answer, applies in order,
// heals drift, and owns the only registry of who owns what.
//
// One goroutine an application holds its state and does no I/O. What reads or
// writes is a round: a list of named steps that runs beside it and comes back
// as one message. Readers get copies that are published after each message.
package reconciler

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/sources"
)

// Config is everything the loop is told to do. It is a value: a reload hands
// over a new one, and what has the same Digest as before is not opened again.
type Config struct {
	Sources      []SourceConfig
	Targets      []TargetConfig
	PolicySets   []PolicySetConfig
	Applications []Application
}

// SourceConfig declares a source and how to open it.
type SourceConfig struct {
	Name   string
	Digest string
	// Host is what requests are counted against; sources of one host share its
	// budget. Empty for local ones.
	Host string
	// Identity names repository and ref. When it changes, the last accepted
	// revision is no ancestor to ask for: an operator has pointed elsewhere.
	Identity string
	Open     func() (*sources.Source, error)
}

// TargetConfig declares a target and how to open it.
type TargetConfig struct {
	Name   string
	Digest string
	Open   func() (appliers.Applier, error)
	// Concurrency limits calls under way; default 4.
	Concurrency int
	// Timeout of one call; default 30 s. A call that outlives it by a tenth is abandoned.
	Timeout time.Duration
}

// PolicySetConfig declares a policy set: the files under Path of a source of
// its own, never of the commit being judged.
type PolicySetConfig struct {
	Name   string
	Digest string
	// Source names the source whose accepted revision is read. Empty means that
	// Load needs no files (the built-in library).
	Source string
	Path   string
	Load   func(ctx context.Context, files map[string][]byte) (policies.Policy, error)
}

// Application is one path of one source, kept in step with targets.
type Application struct {
	Name string
	// RenamedFrom is the name that the application had before: what belongs to that
	// one is this one's. No other application has it.
	RenamedFrom string
	Digest      string
	Source      string
	Path        string
	Variables   map[string]any
	Routes      []appliers.Route
	Policies    []string
	DependsOn   []string
	Prune       bool
	Budget      plan.Budget
	Adopt       plan.AdoptMode
	Drift       []plan.DriftRule
	// Protect lists kinds that are never deleted without an approval.
	Protect []manifest.GroupKind
	// DeletionPolicy says what becomes of the objects when the application is taken
	// out of the configuration; default DeletionOrphan. What counts then is what the
	// configuration before said.
	DeletionPolicy DeletionPolicy
	// AllowAuthor lets the author of a commit approve what it is held for.
	AllowAuthor bool
	// Interval between complete looks at all objects; default 5 min.
	Interval time.Duration
	// StaleAfter is the age of a complete look past which the status says Stale;
	// default three intervals.
	StaleAfter time.Duration
	// RetryMax caps the backoff of failed objects; default 5 min.
	RetryMax time.Duration
	// Suspend stops the application by configuration.
	Suspend    bool
	Contention Contention

	departing bool // not configured any more, and its objects are to go
}

// Contention says when a field counts as fought over: healed Threshold times
// within Window, it is left alone for Cooldown. Defaults: 3, 10 min, 30 min.
type Contention struct {
	Threshold int
	Window    time.Duration
	Cooldown  time.Duration
}

// Options are what a Manager works with.
type Options struct {
	Store  store.Store
	Sealer *manifest.Sealer
	Log    *slog.Logger
	// Now and Rand are injected so that simulations are repeatable. Timers are
	// those of package time.
	Now  func() time.Time
	Rand *rand.Rand
	// Events receives every event, in order, in batches of at most 49, from one
	// goroutine at a time. When it returns nil they are durable; after an error the
	// log says which are missing. While it blocks, nothing is written to a target,
	// and what happens waits.
	Events func(ctx context.Context, events []Event) error
	// Epoch is the fence of this process; 1 while there is only one.
	Epoch uint64
	// RenderSlots limits renderings under way; default 2.
	RenderSlots int
	// HostBudget limits requests under way to one source host; default 4.
	HostBudget int
	Metrics    *Metrics
}

// EventKind names what happened.
type EventKind string

// The kinds of events. Audit keeps all of them.
const (
	EventAccepted  EventKind = "RevisionAccepted"
	EventRefused   EventKind = "RevisionRefused"
	EventHeld      EventKind = "ApprovalRequired"
	EventSynced    EventKind = "Synced"
	EventApplied   EventKind = "ObjectApplied"
	EventDeleted   EventKind = "ObjectDeleted"
	EventReleased  EventKind = "ObjectReleased" // no longer on record, and left or restored as it says itself
	EventRemoved   EventKind = "EntryRemoved"   // nobody had declared it, next to an object that does not allow that
	EventAdopted   EventKind = "ObjectAdopted"
	EventMoved     EventKind = "OwnershipMoved"
	EventDrift     EventKind = "DriftDetected"
	EventContended EventKind = "FieldContended"
	EventViolation EventKind = "PolicyViolation" // a changed policy denies what runs; changes of it are blocked
	EventFailed    EventKind = "ObjectFailed"
	EventSuspended EventKind = "Suspended"
	EventResumed   EventKind = "Resumed"
	EventApproved  EventKind = "Approved"
	EventRewrite   EventKind = "HistoryRewritten"
	EventAccepting EventKind = "HistoryAccepted"
	EventSync      EventKind = "SyncRequested"
	EventOrphaned  EventKind = "ObjectOrphaned"
	EventForgotten EventKind = "ObjectForgotten"    // left behind on a target that is gone: no longer on record
	EventDeparted  EventKind = "ApplicationDeleted" // taken out of the configuration, and all that it owned is gone
)

// Event is one thing that happened. It holds no object bodies and no secrets.
type Event struct {
	At          time.Time
	Kind        EventKind
	Application string
	// Principal is who asked for it; "" for what the loop did by itself.
	Principal string
	Message   string
	Data      map[string]any
}

func (a *Application) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&a.Interval, 5*time.Minute)
	def(&a.StaleAfter, 3*a.Interval)
	def(&a.RetryMax, 5*time.Minute)
	def(&a.Contention.Window, 10*time.Minute)
	def(&a.Contention.Cooldown, 30*time.Minute)
	if a.Contention.Threshold <= 0 {
		a.Contention.Threshold = 3
	}
	if a.Adopt == "" {
		a.Adopt = plan.AdoptIdentical
	}
}
