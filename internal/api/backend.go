// Package api is the server and the client of the protobuf contract in api/:
// Connect, gRPC and JSON over one handler, on a Unix socket whose peer says who
// is calling. The daemon's state is behind the interfaces of this file.
package api

import (
	"context"
	"encoding/json"
	"time"

	"github.com/gitopsd/gitopsd/reconciler"
)

// Viewer answers what is known of everything. Results are copies.
type Viewer interface {
	// Status returns the named applications, or all, sorted by name. A name that
	// is not configured is reconciler.ErrUnknownApplication.
	Status(apps ...string) ([]reconciler.Status, error)
	// Changed tells that some status may have changed. It coalesces, and is
	// closed when ctx ends.
	Changed(ctx context.Context) <-chan struct{}
}

// Informer answers what is known of what applications use. Results are copies.
type Informer interface {
	Sources() []reconciler.SourceStatus
	Targets() []reconciler.TargetStatus
	PolicySets() []reconciler.PolicySetStatus
}

// Looker answers what is known of one application.
type Looker interface {
	Plan(ctx context.Context, app string) (reconciler.PlanView, error)
	// Object finds one object by its key or any part of it that names only one.
	Object(ctx context.Context, app, ref string) (reconciler.ObjectView, error)
	// Objects lists everything that the application desires, owns or left behind,
	// sorted by key.
	Objects(ctx context.Context, app string) ([]reconciler.ObjectSummary, error)
}

// Historian answers what happened to one application.
type Historian interface {
	// History returns at most limit revisions, newest first.
	History(ctx context.Context, app string, limit int) ([]reconciler.HistoryEntry, error)
}

// Stopper holds applications and lets them go. by is who asks and why is their
// reason; all without app means every application. Results are the names of the
// applications concerned.
type Stopper interface {
	Suspend(ctx context.Context, by, app string, all bool, why string, until time.Time) ([]string, error)
	Resume(ctx context.Context, by, app string, all bool, why string) ([]string, error)
}

// Steerer moves the loop on.
type Steerer interface {
	// Sync polls and looks now; with wait it returns when that round has ended.
	// The empty app means all.
	Sync(ctx context.Context, by, app string, wait bool) error
	// Approve lets the held plan with this digest go ahead.
	Approve(ctx context.Context, by reconciler.Approver, app, digest, why string, validFor time.Duration) (reconciler.Approval, error)
	// AcceptHistory accepts, once, a rewritten branch of the application's source.
	AcceptHistory(ctx context.Context, by, app, revision, why string) (source, accepted string, err error)
}

// Forgetter drops what was left behind from the inventory.
type Forgetter interface {
	// Forget drops the named objects that an application left behind, or all of
	// them, without touching them, and returns their keys.
	Forget(ctx context.Context, by, app string, objects []string, why string) ([]string, error)
}

// Backend is what the server asks; reconciler.Manager is one. All methods are
// safe for concurrent use.
type Backend interface {
	Viewer
	Informer
	Looker
	Historian
	Stopper
	Steerer
	Forgetter
}

// Audit answers from the audit log.
type Audit interface {
	// Query returns at most limit records, newest first. Empty application and
	// kind match all.
	Query(ctx context.Context, application, kind string, limit int) ([]AuditRecord, error)
	// Verify walks the hash chain. The error says that it could not be read; a
	// chain that does not hold is in the result.
	Verify(ctx context.Context) (AuditVerdict, error)
}

// AuditRecord is one record of the audit log.
type AuditRecord struct {
	Seq         uint64
	At          time.Time
	Kind        string
	Application string
	Principal   string
	Message     string
	Data        json.RawMessage // nil when there is none
	Hash        string
}

// AuditVerdict is the result of checking the audit log.
type AuditVerdict struct {
	Records uint64
	Head    string // hash of the newest record
	Problem string // "" when the chain holds; else where it does not and why
}

// Info says what is running.
type Info struct {
	Version      string
	Started      time.Time
	ConfigDigest string
	ConfigError  string // why the newest configuration was refused
}
