// Package appliers is the contract between the loop and the things it acts on:
// a host's files, a cluster, a service manager. It does no I/O; its children
// implement it, and applytest holds all of them to it.
package appliers

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Answer is a three-valued yes: a target may not know, and unknown is not no.
type Answer uint8

// The three answers. The zero value is Unknown.
const (
	Unknown Answer = iota
	No
	Yes
)

// Resolved is a desired object as its target understands it.
type Resolved struct {
	// Object has defaults filled in and holds only fields that Observe can
	// return, so that comparing the two is enough. Secrets are Sensitive.
	Object *manifest.Object
	// Locator is the physical address of the object on this target. Two objects
	// with one locator are the same thing in the world.
	Locator string
}

// Query asks about one object.
type Query struct {
	Key     plan.Key
	Locator string
	// Fields are the fields to project the live object onto: the union of what
	// is desired and what was last applied. Extra fields in the answer are ignored.
	Fields []manifest.Pointer
	// Token is that of the entry: a write that was Pending and is not yet seen through.
	Token string
	// Desired is the resolved object, nil when it is no longer desired. It may
	// guide normalisation (which form of a value means the same).
	Desired *manifest.Object
}

// Operation is one write.
type Operation struct {
	// Change says what to do: Create, Update, Adopt (record only, for targets
	// with marks or a ledger) or Delete. Of what nobody declared only what
	// Change.Removes names may go. Change.Entry.Token, where it is set, is the
	// write that an earlier Apply left Pending: if it is this write, the applier may
	// look how far it has come instead of starting again.
	Change plan.Change
	// Application is the owner to mark the object with.
	Application string
	// Epoch is the fence: a target that keeps marks refuses an older one.
	Epoch uint64
}

// Outcome is how an operation ended.
type Outcome uint8

// The outcomes. The zero value is Uncertain: an operation that gave no result
// may have happened, and is read back before anything else is done.
const (
	Uncertain Outcome = iota // may or may not have happened: observe before the next try
	Done                     // durable on the target
	Pending                  // accepted, completes by itself; observe again after CheckAfter
	Refused                  // did not happen; Err says why
	// Released answers a Delete: gitopsd is done with the object, which may still
	// be there. It was left or restored because it says so, or nothing of it was
	// ours. The record goes, as after Forget, and presence afterwards is no reason
	// to delete again.
	Released
)

// String returns the word used in reports.
func (o Outcome) String() string {
	return [...]string{"uncertain", "done", "pending", "refused", "released"}[o]
}

// Result is the answer to one operation.
type Result struct {
	Outcome Outcome
	// Err explains Refused and Uncertain. ClassOf(Err) says what to do about it.
	// It does not begin with the name of the object, which the caller knows.
	Err error
	// CheckAfter is when to look at a Pending object again. Default 1 s.
	CheckAfter time.Duration
	// Token names a Pending write to the applier, for plan.Entry.Token. It is at
	// most 1 KiB, and empty when the applier can do without.
	Token string
	// Backup names what was kept of replaced content, for plan.Entry.Backup.
	Backup string
	// Removed lists what of Change.Removes was removed by this Apply, whatever
	// became of the rest of the operation.
	Removed []Removed
}

// Removed is something undeclared that was removed.
type Removed struct {
	Address string
	// Backup names what was kept of it; "" when nothing was.
	Backup string
}

// Applier acts on one target. All methods are safe for concurrent use; each
// returns soon after ctx ends. Ending the process, at any moment, leaves the
// target in a state that Observe tells truthfully.
type Applier interface {
	// Takes reports whether this target handles a kind; Unknown (with the reason
	// as error) when it cannot tell now. Objects of an unknown kind are held.
	Takes(gk manifest.GroupKind) (Answer, error)
	// Resolve validates and normalises a desired object. It is a function of the
	// object and the applier's configuration alone. Errors name the field; those of
	// type manifest.FieldErrors or manifest.FieldError are shown with its line. One that
	// wraps ErrUndecided says nothing about the object: the target cannot tell now.
	Resolve(obj *manifest.Object) (Resolved, error)
	// Observe answers queries. A key missing from the map, and every key when err
	// is not nil, is unknown. Absent is answered only after a successful read.
	Observe(ctx context.Context, queries []Query) (map[plan.Key]plan.Observed, error)
	// Apply carries out operations that do not depend on each other and returns
	// one result for each, in order. It is idempotent; deleting the absent and
	// creating what is already as desired are Done. A target with marks or a ledger
	// removes nothing that these do not show as the application's (or as that of
	// Change.Entry.MovedFrom): such a Delete is Released. Once ctx ends, operations not
	// begun are Refused with a class of Retry. Work that is shared by the
	// operations (syncing a directory, reloading a service) is done once, before
	// Apply returns. Where such work fails, the write is Uncertain and Observe answers
	// Observed.Unfinished for it; an Update whose Change has no Fields does the rest alone.
	Apply(ctx context.Context, ops []Operation) []Result
}

// Watcher is the ability to notice drift without being asked. Who arms the watch
// before he looks misses nothing: what happens to an object after SetWatched or
// UpdateWatched has returned is reported by each running Watch, or is a loss.
type Watcher interface {
	// Watch reports keys whose objects may have changed, until ctx ends. Which
	// keys to watch is whatever SetWatched was last given. lost says that something
	// was missed and everything has to be looked at; keys do not matter then. What
	// is watched already when a Watch begins is a loss: nobody watched it before.
	// No keys and nothing lost is no news.
	Watch(ctx context.Context, changed func(keys []plan.Key, lost bool)) error
	// SetWatched replaces the set of watched objects of an application.
	SetWatched(application string, queries []Query)
}

// WatchUpdater is the ability of a Watcher to take a difference, so that a small
// change of a large application costs little.
type WatchUpdater interface {
	// UpdateWatched adds or replaces the watched objects of set and drops those of
	// gone, and leaves the others of the application as they are.
	UpdateWatched(application string, set []Query, gone []plan.Key)
}

// HealthChecker is the ability to tell the health of objects.
type HealthChecker interface {
	Health(ctx context.Context, queries []Query) (map[plan.Key]Health, error)
}

// Batcher marks an applier that wants all operations of a round in one Apply,
// because its target takes only consistent sets.
type Batcher interface{ Batch() }

// Preflight is the ability to try operations without changing anything.
type Preflight interface {
	Preflight(ctx context.Context, ops []Operation) []Result
}

// Marker is the ability to list what carries our mark, or stands in the ledger:
// the way back after the store is lost.
type Marker interface {
	Marked(ctx context.Context) ([]Mark, error)
}

// Mark is one object that this or another gitopsd wrote.
type Mark struct {
	Key         plan.Key
	Locator     string
	Application string
	Epoch       uint64
}

// Placer is the ability to name the physical place that a target acts on. Targets
// that reach the same place answer the same, over restarts too: one locator there
// is one thing, through whichever of them it is reached.
type Placer interface {
	// Place is a constant of the applier's configuration. It is not empty.
	Place() string
}

// Reacher is the ability to tell whether an address lies within what the
// configuration lets a target act on.
type Reacher interface {
	// Reaches returns why the target, as it is configured, cannot act on what is at
	// a locator, or nil. It asks the target nothing.
	Reaches(locator string) error
}

// PlaceOf returns the place that an applier acts on: what it says itself, or
// else the name of its target, which then shares nothing with any other.
func PlaceOf(a Applier, target string) string {
	if p, ok := Ability[Placer](a); ok {
		return p.Place()
	}
	return target
}

// Closer is the ability to release what an applier holds open. It changes nothing on the target.
type Closer interface{ Close() error }

// Health is the health of one object.
type Health struct {
	Status  HealthStatus
	Message string
}

// HealthStatus is ordered: the worst of several wins (Worst). Suspended is next
// to Healthy, because somebody meant it and it must not hide a failure; Missing
// may be on its way and Degraded is not; what nobody knows may be anything. This
// is the order that users of Argo CD know.
type HealthStatus string

// The health words, best first.
const (
	Healthy       HealthStatus = "Healthy"
	Suspended     HealthStatus = "Suspended"
	Progressing   HealthStatus = "Progressing"
	Missing       HealthStatus = "Missing"
	Degraded      HealthStatus = "Degraded"
	HealthUnknown HealthStatus = "Unknown"
)

var healthOrder = map[HealthStatus]int{Healthy: 0, Suspended: 1, Progressing: 2, Missing: 3, Degraded: 4, HealthUnknown: 5}

// Worst returns the worse of two.
func Worst(a, b HealthStatus) HealthStatus {
	if healthOrder[b] > healthOrder[a] {
		return b
	}
	return a
}

// Ability returns the applier as an optional interface. It is the one place
// where abilities are probed. An applier that implements the interface answers
// itself. A decorator (Unwrap() Applier) that does not is looked through, unless
// it has a method
//
//	Ability(target any) bool
//
// which then decides alone, in the manner of errors.As: target is a *T; it sets
// what target points to and answers true, or answers false, and nothing below it
// is asked. A decorator that changes what goes in or comes out of Observe and
// Apply needs it, because an ability of the applier below would pass it by.
func Ability[T any](a Applier) (T, bool) {
	var zero T
	for {
		if t, ok := a.(T); ok {
			return t, true
		}
		if d, ok := a.(interface{ Ability(target any) bool }); ok {
			if t := zero; d.Ability(&t) {
				return t, true
			}
			return zero, false
		}
		u, ok := a.(interface{ Unwrap() Applier })
		if !ok {
			return zero, false
		}
		a = u.Unwrap()
	}
}

// KV is a durable map of an applier's own, apart from everybody else's. Values
// are at most 64 KiB. It is safe for concurrent use.
type KV interface {
	Get(ctx context.Context, key string) (value []byte, found bool, err error)
	Put(ctx context.Context, key string, value []byte) error // a nil value deletes
	List(ctx context.Context, prefix string) (map[string][]byte, error)
}

// Env is what a factory may use.
type Env struct {
	// Target is the name of the configured target; it is the Target of all keys.
	Target string
	// Config is the target's own section, still undecoded: the factory decodes it
	// strictly and validates it.
	Config json.RawMessage
	KV     KV
	Log    *slog.Logger
	Now    func() time.Time
	Effect effect.Seam
	Sealer *manifest.Sealer
}

// Factory makes an applier. It checks the configuration and does not touch the target.
type Factory func(env Env) (Applier, error)
