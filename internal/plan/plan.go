// Package plan compares what is desired, what was last applied and what is
// observed, and says what to do about it. It is pure: no I/O, no clock, no
// randomness. One function, Build, answers three questions: what is there to do
// (before an apply), did it converge (after it), and what has drifted (with an
// unchanged revision).
package plan

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Key names an object on one target. It is comparable and may be a map key.
type Key struct {
	Target string      `json:"target"`
	ID     manifest.ID `json:"id"`
}

// String returns "target:group/Kind/[namespace/]name".
func (k Key) String() string { return k.Target + ":" + k.ID.String() }

// Compare orders keys by target, then identity.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Target, o.Target), k.ID.Compare(o.ID))
}

// ParseKey reads the form that Key.String writes.
func ParseKey(s string) (Key, error) {
	target, id, _ := strings.Cut(s, ":")
	parsed, err := manifest.ParseID(id)
	return Key{Target: target, ID: parsed}, err
}

// Desired is one object that an application wants on a target.
type Desired struct {
	// Object is the object as its target normalises it (appliers.Resolved):
	// defaults filled in, only the fields that the target can compare.
	Object *manifest.Object
	// Digests are those of Object (function Digests with Options.Digest), for a
	// caller that keeps them from build to build: they are most of its cost. Nil
	// makes Build compute them. Shared; not to be modified.
	Digests Applied
	// Locator is the physical address, unique on the target: a host path, an API URL.
	Locator string
	// Wave orders objects within an application: lower waves are applied first,
	// pruned last. The default is 0; it comes from annotation gitopsd.io/wave.
	Wave int
	// DependsOn lists objects that must be converged before this one is applied
	// (annotation gitopsd.io/depends-on). All are keys of the same application.
	DependsOn []Key
}

// Applied is what gitopsd last wrote to an object, as keyed digests by field:
// enough to tell intent from drift, nothing to steal. The nil map means that
// nothing was applied yet.
type Applied map[manifest.Pointer]manifest.Digest

// Entry is one record of the inventory: an object that an application owns,
// because it created or adopted it, or that it is about to write.
type Entry struct {
	Key     Key    `json:"key"`
	Owner   string `json:"owner"`
	Locator string `json:"locator"`
	// Place names the physical place that Locator is an address of, whichever
	// target reaches it; "" in a record that does not say: then only its target does.
	Place string `json:"place,omitempty"`
	// State is EntryPending from before the first write until a success.
	State EntryState `json:"state"`
	// Applied is what was last written; nil while the first write is pending.
	Applied Applied `json:"applied,omitempty"`
	// Writing is what a write in flight sets. Build fills it in together with
	// EntryPending, and it counts only in that state: a live value with its digest
	// is our own, even though the success of the write was never recorded.
	Writing Applied `json:"writing,omitempty"`
	// MovedFrom are the applications that the record was handed over from since the
	// object last carried our mark, separated by commas; see WasOf. Their marks on the
	// object count as ours until our own is there.
	MovedFrom string `json:"movedFrom,omitempty"`
	// Token names the write in flight to its applier (appliers.Result.Token): while
	// it is open the applier may look it up instead of starting again. It counts
	// while State is EntryPending or EntryDeleting, and Done drops it.
	Token string `json:"token,omitempty"`
	// Adopted says that the object existed before gitopsd took it over.
	Adopted bool `json:"adopted,omitempty"`
	// Backup names what an applier kept of the content that adoption replaced.
	Backup string `json:"backup,omitempty"`
	// APIVersion, Wave, DependsOn and Origin are those of the last applied
	// object; a prune needs them when the manifest is gone.
	APIVersion string          `json:"apiVersion,omitempty"`
	Wave       int             `json:"wave,omitempty"`
	DependsOn  []Key           `json:"dependsOn,omitempty"`
	Origin     manifest.Origin `json:"origin,omitzero"`
	// Epoch is the fence under which the entry was written.
	Epoch uint64 `json:"epoch"`
}

// WasOf reports whether an application handed the record over, and its mark may
// still be on the object.
func (e *Entry) WasOf(application string) bool {
	return application != "" && slices.Contains(strings.Split(e.MovedFrom, ","), application)
}

// HandOver makes an application the owner, and remembers the ones before.
func (e *Entry) HandOver(to string) {
	if e.Owner == to {
		return
	}
	before := slices.DeleteFunc(append(strings.Split(e.MovedFrom, ","), e.Owner), func(name string) bool { return name == "" || name == to })
	slices.Sort(before)
	e.Owner, e.MovedFrom = to, strings.Join(slices.Compact(before), ",")
}

// Unconfirmed reports whether a first write was recorded and nothing is known of
// its outcome: the object may be there or not.
func (e *Entry) Unconfirmed() bool { return e.State == EntryPending && e.Applied == nil }

// EntryState is how far the write of an inventory entry has come.
type EntryState string

// The states of an inventory entry.
const (
	EntryPending  EntryState = "Pending"  // recorded, the write may or may not have happened
	EntryOwned    EntryState = "Owned"    // written at least once
	EntryDeleting EntryState = "Deleting" // a delete was started and not yet seen through
	EntryOrphaned EntryState = "Orphaned" // its application is gone and left it behind
)

// Presence says whether an object is there. The zero value is PresenceUnknown:
// an answer that was never given is no answer.
type Presence uint8

// The three answers of an observation.
const (
	PresenceUnknown Presence = iota
	Absent
	Present
)

// Observed is the answer of a target about one key.
type Observed struct {
	Presence Presence
	// Object is the live object, projected onto the fields that were asked for
	// and normalised in the same way as Desired.Object. Nil unless Present.
	Object *manifest.Object
	// Reason says why the answer is unknown, in words for a person.
	Reason string
	// Version changes whenever the live object changes, where the target knows one.
	Version string
	// At is when the target was read.
	At time.Time
	// Owner is the mark found on the live object ("" when it has none): the name
	// of the application that some gitopsd wrote it for.
	Owner string
	// Writer names who changed the object last, where the target knows.
	Writer string
	// Removes is what writing the desired object would remove besides.
	Removes Removal
	// Instead says, in words for a person ("a directory"), what is there when that is
	// nothing of the key's kind; "" when it is, or the target cannot tell.
	Instead string
	// Unfinished says, in words for a person ("onChange reload is still owed"), what
	// of our last write is still to be done though no field shows it; "" for nothing.
	// Only Present objects have it, and it goes once an Apply has done the rest.
	Unfinished string
}

// Removal is what stands next to an object, that nobody declared, and that goes
// when the object is written, because the object asks for that.
type Removal struct {
	// Field is the field of the object that shows it. It is removed when that
	// field is written; a rule that leaves the field leaves it too.
	Field manifest.Pointer
	// Addresses are locators on the object's target, sorted.
	Addresses []string
}

// Action is what a change does.
type Action string

// The actions, in the words of the report.
const (
	None   Action = "none"   // nothing to write; the entry may still have to be recorded
	Create Action = "create" // write an object that is absent
	Update Action = "update" // change fields of an object that is there
	Adopt  Action = "adopt"  // take over an object that is there and already as desired
	Delete Action = "delete" // remove an object that is no longer desired
	Forget Action = "forget" // drop the record of an object that is gone or handed over
)

// Cause says why a live field differs from the desired one.
type Cause string

// The causes. Both means that intent and the live value moved since the last apply.
const (
	Intended Cause = "intended"
	Drift    Cause = "drift"
	Both     Cause = "both"
)

// FieldOp is what happens to a field.
type FieldOp string

// The operations on a field.
const (
	FieldAdd     FieldOp = "add"
	FieldReplace FieldOp = "replace"
	FieldRemove  FieldOp = "remove"
)

// FieldChange is the difference of one field. Secrets in Before and After are
// manifest.Sensitive, so the value may be shown as it is.
type FieldChange struct {
	Path   manifest.Pointer `json:"path"`
	Op     FieldOp          `json:"op"`
	Before any              `json:"before,omitempty"` // live value
	After  any              `json:"after,omitempty"`  // desired value
	Cause  Cause            `json:"cause"`
}

// Change is what a plan does about one key.
type Change struct {
	Key    Key
	Action Action
	Cause  Cause
	// Fields are the differences that this change writes, sorted by path.
	Fields []FieldChange
	// Reported are drifted fields that a rule leaves as they are, sorted by path.
	Reported []FieldChange
	// Desired is what to write: the desired object, with the fields in Reported
	// at their live values. Nil for Delete and Forget.
	Desired *manifest.Object
	// Live is what was observed; nil when absent.
	Live *manifest.Object
	// Version is the observed version, for a conditional write. Empty when absent or unknown.
	Version string
	// Entry is the inventory record to store before the write (State Pending or
	// Deleting, Applied as before). For Forget it is the record to drop.
	Entry Entry
	// Applied is what to record as last applied once the write has succeeded.
	Applied Applied
	// Record says, for None, that Entry differs from what is stored and has to be
	// recorded (Change.Done); nothing is written to the target.
	Record bool
	// TransferFrom is the key whose record this change takes over, because both
	// have the same locator: a rename in Git that is no rename on the target. That
	// record is dropped in the commit that stores Entry; no Forget says it again.
	TransferFrom *Key
	// Removes are the addresses of what the write removes besides, because nobody
	// declared it, sorted. What is not among them stays, also when it has appeared
	// since. Prune budgets count each as a delete.
	Removes []string
	// Adopting says that the write replaces content that gitopsd did not write,
	// which the applier keeps first.
	Adopting bool
	// Unfinished is Observed.Unfinished: the change is, or comes with, the rest of our
	// own last write. That is never drift: no rule and no fight leaves it undone.
	Unfinished string
	// Wave and DependsOn order the change; for a delete they count in reverse.
	Wave      int
	DependsOn []Key
	// AfterDeletes puts a write after the deletes of its plan: it takes the place of an
	// object of another kind that others stand in which are to go, or it comes after
	// such a write by its wave or its dependencies.
	AfterDeletes bool
	// Depth is the length of the longest chain of dependencies below the key,
	// those outside the scope included. Changes of one wave and depth do not
	// depend on each other.
	Depth  int
	Origin manifest.Origin
	// Blocked says why the change must not be made now, and what would help.
	// A blocked change is listed, its dependents are blocked too, and nothing is done.
	Blocked string
}

// Counts are totals over a plan.
type Counts struct {
	Create  int `json:"create"`
	Update  int `json:"update"`
	Adopt   int `json:"adopt"`
	Delete  int `json:"delete"`
	Forget  int `json:"forget"`
	Blocked int `json:"blocked"`
	// Remove counts undeclared things that go besides; see Change.Removes.
	Remove int `json:"remove,omitempty"`
	// Drifted counts objects with at least one drifted field, healed or only reported.
	Drifted int `json:"drifted"`
}

// Plan is the answer of Build: a value with a total order, the same for the
// same input.
type Plan struct {
	Application string
	// Changes are all keys of the scope about which there is something to say,
	// in the order of execution: creates and updates by wave and dependency,
	// then deletes in reverse, then forgets. Blocked ones stand in their place.
	Changes []Change
	Counts  Counts
	// Gates say why the plan needs an approval; none means that it may go ahead.
	Gates []Gate
	// Unknown says why it is not known whether anything else differs; "" when it is
	// known. Build leaves it empty: a plan is of what it was given. Who shows a plan
	// of what was observed in part, long ago or not at all says so with it.
	Unknown string
}

// Empty reports whether the plan would write or record nothing, nothing is
// blocked, and nothing is unknown: over a full scope this means converged.
func (p *Plan) Empty() bool {
	if p.Unknown != "" {
		return false
	}
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Action != None || c.Record || c.Blocked != "" {
			return false
		}
	}
	return true
}

// GateKind names the guard that asks for an approval.
type GateKind string

// The guards of Build.
const (
	GatePruneCount   GateKind = "PruneCount"   // more deletes than prune.maxCount
	GatePrunePercent GateKind = "PrunePercent" // more than prune.maxPercent of what is owned
	GateEmpty        GateKind = "EmptyRender"  // nothing is desired any more
	GateProtected    GateKind = "Protected"    // a kind or object that is never deleted unasked
)

// Gate is a guard that a plan ran into.
type Gate struct {
	Kind    GateKind `json:"kind"`
	Message string   `json:"message"`
	// Hint is what can be done instead of an approval.
	Hint string `json:"hint,omitempty"`
	// Changes are the gated ones, sorted by key: what an approval covers.
	Changes []GatedChange `json:"changes"`
}

// GatedChange is one change under a gate: what an approval names.
type GatedChange struct {
	Key    Key             `json:"key"`
	Action Action          `json:"action"`
	Want   manifest.Digest `json:"want,omitempty"` // digest of the desired object, "" for a delete
	// Removes is the address of something undeclared that the change of Key
	// removes; "" when the change itself is meant.
	Removes string `json:"removes,omitempty"`
}

// Budget limits how much one plan may delete without an approval, what it removes
// besides (Change.Removes) included. It is taken as it is: 0 asks for an approval
// of every delete, a negative number means no limit. A configuration that says
// nothing means DefaultMaxCount and DefaultMaxPercent; filling them in is its own
// business.
type Budget struct {
	MaxCount   int
	MaxPercent int // of what the application owns
}

// AdoptMode says what to do about an object that is there and that nobody owns.
type AdoptMode string

// The adoption modes.
const (
	AdoptNever     AdoptMode = "never"
	AdoptIdentical AdoptMode = "identical" // default: only when no field differs
	AdoptAlways    AdoptMode = "always"    // the applier keeps what was there
)

// DriftMode says what to do about a live field that moved by itself.
type DriftMode string

// The drift modes.
const (
	DriftHeal   DriftMode = "heal"   // default: write the desired value again
	DriftReport DriftMode = "report" // show it, leave it
	DriftIgnore DriftMode = "ignore" // leave it, do not show it
)

// DriftRule sets the mode for fields. The last rule that matches wins.
type DriftRule struct {
	GroupKind *manifest.GroupKind // nil matches every kind
	Path      manifest.Pointer    // the field or an ancestor of it; "" matches all
	Mode      DriftMode
}

// FieldRef names one field of one object.
type FieldRef struct {
	Key  Key
	Path manifest.Pointer
}

// Options are the rules of one application.
type Options struct {
	Application string
	// Digest makes the keyed digests of Applied (manifest.Sealer.Digest).
	Digest func(v any) manifest.Digest
	Adopt  AdoptMode
	// Prune false keeps what is no longer desired and reports it as blocked.
	Prune  bool
	Budget Budget
	// Undo says how deletes are taken back, in words for a person: "" means
	// "the files can be restored".
	Undo  string
	Drift []DriftRule
	// Contended are fields that somebody else keeps writing: reported, not
	// written, until the fight is over.
	Contended map[FieldRef]bool
	// Handover holds, for keys that are no longer desired, why they may not be
	// deleted yet (AwaitingHandover). Keys that are free to go are not in it.
	Handover map[Key]string
	// Undecided are the keys of Handover that may have to be deleted in the end,
	// because nobody is known to want them: they count toward the budget.
	Undecided map[Key]bool
	// Foreign holds, for desired keys, which other application owns the key or
	// its locator; they are blocked.
	Foreign map[Key]string
	// Protected reports kinds that are never deleted without an approval; nil means none.
	Protected func(manifest.ID) bool
	// Owned is how many objects the application owns, Want how many it desires,
	// both over everything and not only the scope.
	Owned, Want int
	Epoch       uint64
}

// Input is what Build compares. Lookups instead of maps, because the full state
// is large and the scope is small; all must be free of side effects.
type Input struct {
	Desired   func(Key) (Desired, bool)
	Inventory func(Key) (Entry, bool)
	Observed  func(Key) Observed // an unanswered key has PresenceUnknown
	// ByLocator returns the key of the inventory entry that holds a locator on a
	// target. Nil looks at the scope alone.
	ByLocator func(target, locator string) (Key, bool)
	// DesiredAt returns all desired keys with a locator on a target, in any
	// order. Nil looks at the scope alone.
	DesiredAt func(target, locator string) []Key
}
