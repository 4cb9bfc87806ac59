// Package policies is the contract between the loop and whatever judges desired
// objects and changes. It does no I/O; policies/opa implements it.
package policies

import (
	"context"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// InputVersion is the version of the wrapped input that change rules see
// (docs/policy-input.md, schema change-input.v1).
const InputVersion = "v1"

// Finding is one thing a rule said.
type Finding struct {
	// Rule is the full name of the rule that spoke, as in "main.deny_setuid".
	Rule string `json:"rule"`
	// Msg is the text for a person.
	Msg string `json:"msg"`
	// Details are the further members of an object result, or nil.
	Details map[string]any `json:"details,omitempty"`
}

// Verdict is what all rules together said of one object or change. The zero
// Verdict says nothing against it; only a Policy that ran to its end may
// return it.
type Verdict struct {
	Deny []Finding `json:"deny,omitempty"`
	Warn []Finding `json:"warn,omitempty"`
}

// Allowed reports whether nothing was denied.
func (v Verdict) Allowed() bool { return len(v.Deny) == 0 }

// Change is what gitopsd.change rules see of one change.
type Change struct {
	Application string
	Change      *plan.Change
	// Commit is the change's revision; nil when the source has no commits.
	Commit *Commit
	// LastApplied is the hash-only record of what was last applied; nil if nothing was.
	LastApplied plan.Applied
}

// Commit is the part of a commit that policies see.
type Commit struct {
	ID      string    `json:"id"`
	Author  string    `json:"author"` // "Name <address>"
	Message string    `json:"message"`
	When    time.Time `json:"when"`
	Signer  *string   `json:"signer"` // nil until signatures are verified
}

// Policy judges. All methods are safe for concurrent use. An error means that
// nothing was judged and therefore nothing is allowed: undefined rules, runtime
// errors, time-outs and results of the wrong type are all errors.
type Policy interface {
	// Digest names everything a verdict on an object depends on beside the
	// object: modules, data, capabilities. Equal digests give equal verdicts.
	Digest() string
	// Objects judges objects one by one, as conftest would; verdict i is about
	// object i. The rules see the object itself as input, and data.
	Objects(ctx context.Context, objects []*manifest.Object) ([]Verdict, error)
	// Changes judges changes, deletes included; verdict i is about change i.
	Changes(ctx context.Context, changes []Change) ([]Verdict, error)
}
