package reconciler

import (
	"errors"
	"fmt"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Errors of the calls that steer the loop. Test with errors.Is; each is wrapped
// with what was asked for and what to do next.
var (
	// ErrUnknownApplication: no application of that name is configured.
	ErrUnknownApplication = errors.New("unknown application")
	// ErrUnknownObject: the application neither desires nor owns such an object.
	ErrUnknownObject = errors.New("unknown object")
	// ErrAmbiguous: a name fits more than one object.
	ErrAmbiguous = errors.New("ambiguous")
	// ErrPrecondition: the call does not fit the state: nothing is held, nothing
	// is suspended, the held set has changed since it was looked at.
	ErrPrecondition = errors.New("not possible now")
	// ErrInvalid: the request itself is wrong, as a reason that is missing.
	ErrInvalid = errors.New("invalid request")
)

// HintError is an error with what to do about it, which who shows it may set apart.
type HintError struct {
	Err  error
	Hint string // not empty
}

// Error returns "what is wrong; what to do".
func (e *HintError) Error() string { return e.Err.Error() + "; " + e.Hint }

// Unwrap returns what is wrong.
func (e *HintError) Unwrap() error { return e.Err }

func hinted(err error, format string, args ...any) error {
	return &HintError{err, fmt.Sprintf(format, args...)}
}

var errNoReason = hinted(fmt.Errorf("%w: there is no reason", ErrInvalid), "say why with --why")

// ObjectView is what is known of one object.
type ObjectView struct {
	Key     plan.Key
	Origin  manifest.Origin
	Locator string
	// Desired is the object as its target understands it, in which secrets are
	// masked; nil when it is not desired.
	Desired  *manifest.Object
	Observed plan.Observed
	Entry    *plan.Entry // nil when it is not owned
	// Fields is the present difference, drift and intent together.
	Fields []plan.FieldChange
	// Health and Problem are those of ObjectSummary.
	Health  appliers.HealthStatus
	Problem string
}

// ObjectSummary is one object of an application in a list.
type ObjectSummary struct {
	Key     plan.Key
	Origin  manifest.Origin
	Locator string
	Desired bool
	// State is that of the inventory entry; "" when the object is not owned.
	State    plan.EntryState
	Presence plan.Presence
	// Health is "" unless the object is known to be there.
	Health appliers.HealthStatus
	// Problem says why the object is not as desired: a failure, what it waits for,
	// or drift. "" when it is as desired, or was left behind.
	Problem string
}

// PlanView is the difference between what is desired and what was last observed.
type PlanView struct {
	Plan *plan.Plan
	// Revision is the one compared: the candidate when there is a plan of it. ""
	// when nothing was compared, and Plan.Unknown says why.
	Revision  string
	Candidate bool
	At        time.Time
	// Waits is the candidate that is refused or pending; nil when there is none, or
	// it only needs an approval. Unless Candidate is set, it came to no plan, and
	// Plan is that of the accepted revision.
	Waits *Candidate
	// Digest is what an approval of Plan names; "" when it needs none.
	Digest string
	// Sync is that of the status at the same moment; "" for an application that is
	// not configured any more.
	Sync SyncStatus
}
