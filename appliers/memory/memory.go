// Package memory is an applier whose target is a map. It is a full applier and
// no mock: it holds to the whole contract, and by its personality it behaves
// like the targets that make the contract hard. Tests and simulations run on it.
package memory

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Writer is the name under which the applier writes fields; other writers are
// named by the tests that play them.
const Writer = "gitopsd"

// Personality is what kind of target the world is. The zero value is a plain
// one: whole objects are replaced, every write is done when Apply returns. All
// fields can be combined.
type Personality struct {
	// FieldOwners makes writes touch only the fields they name and keeps the
	// fields of other writers, as server-side apply does.
	FieldOwners bool
	// Conflicts refuses (Stop) to change a field that another writer set last.
	// It implies FieldOwners.
	Conflicts bool
	// Defaults are added to every written object that lacks them.
	Defaults map[manifest.Pointer]any
	// Normalize is the form in which the target keeps a leaf; nil keeps it as it
	// is. It must be idempotent: Resolve and the target both apply it.
	Normalize func(path manifest.Pointer, v any) any
	// Async makes writes Pending; nil makes them Done.
	Async *Async
	// Batch takes only consistent sets: an object may name others of its group
	// and kind in the list spec.refs, and an Apply after which a name leads
	// nowhere is refused as a whole (Wait).
	Batch bool
	// Marks keeps an owner and an epoch on each object, lists them, and refuses
	// operations of an older epoch.
	Marks bool
	// Releases keeps, on a Delete, what does not carry the mark of the application
	// and what says `spec.onPrune: leave`, and answers Released; of the latter the
	// mark goes. It implies Marks.
	Releases bool
	// Kinds says which kinds the target takes; nil takes all.
	Kinds func(manifest.GroupKind) bool
}

// Async says when a pending write completes: whichever comes first.
type Async struct {
	// Observes completes the write before the n-th observation of the object; 0 never.
	Observes int
	// After completes it when so much time has passed; 0 never.
	After time.Duration
}

// Faults is what goes wrong at present. The zero value is a good day. Functions
// are called without locks and must be safe for concurrent use.
type Faults struct {
	// ReadErr fails every Observe as a whole.
	ReadErr error
	// Unread gives the reason why a key cannot be read; "" reads it.
	Unread func(plan.Key) string
	// Stale answers the first observation after a write with what was there before.
	Stale bool
	// LostReply makes the write and reports Uncertain.
	LostReply func(appliers.Operation) bool
	// Refuse refuses an operation with the returned error; nil lets it pass.
	Refuse func(appliers.Operation) error
	// Rest fails what follows the write of an operation, if it returns an error: the
	// write is made, the answer Uncertain, and the object is observed as unfinished
	// until the same is applied and nothing fails. Writes that are Pending have no rest.
	Rest func(appliers.Operation) error
	// UnknownKind fails discovery of a kind with the returned error; nil lets it
	// pass. Takes then answers Unknown, and Resolve an ErrUndecided.
	UnknownKind func(manifest.GroupKind) error
	// Hang blocks Observe and Apply, whatever their context says, until it is closed.
	Hang <-chan struct{}
	// Latency runs at the start of each call ("observe", "apply", "health").
	Latency func(ctx context.Context, call string)
	// Answered runs after each Observe has read what it answers.
	Answered func()
}

// Applier is an applier on a World. Several may share one, as two daemons share
// a target. It is safe for concurrent use.
type Applier struct {
	env   appliers.Env
	world *World
	is    Personality

	mu      sync.Mutex
	watched map[string]map[plan.Key]string // locators by application
}

// Factory returns a factory of appliers on the world with this personality. The
// configuration section must be empty.
func Factory(world *World, is Personality) appliers.Factory {
	return func(env appliers.Env) (appliers.Applier, error) {
		if c := strings.TrimSpace(string(env.Config)); c != "" && c != "{}" && c != "null" {
			return nil, fmt.Errorf("target %s: a memory target has no configuration; remove %s", env.Target, c)
		}
		return New(env, world, is), nil
	}
}

// New returns an applier on the world. Missing parts of env get working values:
// the real clock, the direct seam and a fixed key for digests.
func New(env appliers.Env, world *World, is Personality) appliers.Applier {
	if env.Now == nil {
		env.Now = time.Now
	}
	if env.Effect == nil {
		env.Effect = effect.Direct
	}
	if env.Sealer == nil {
		env.Sealer, _ = manifest.NewSealer(make([]byte, 32)) // fails only for a short key
	}
	is.FieldOwners, is.Marks = is.FieldOwners || is.Conflicts, is.Marks || is.Releases
	var a appliers.Applier = &Applier{env: env, world: world, is: is, watched: map[string]map[plan.Key]string{}}
	if is.Marks {
		a = marking{a, env.Target, world}
	}
	if is.Batch {
		a = batching{a}
	}
	return a
}

// batching and marking add one ability each, so that an applier has exactly
// those of its personality.
type batching struct{ appliers.Applier }

func (batching) Batch()                     {}
func (b batching) Unwrap() appliers.Applier { return b.Applier }

type marking struct {
	appliers.Applier
	target string
	world  *World
}

func (m marking) Unwrap() appliers.Applier { return m.Applier }

func (m marking) Marked(ctx context.Context) ([]appliers.Mark, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.world.marks(m.target), nil
}

// Takes implements appliers.Applier.
func (a *Applier) Takes(gk manifest.GroupKind) (appliers.Answer, error) {
	if f := a.world.faultsNow(); f.UnknownKind != nil {
		if err := f.UnknownKind(gk); err != nil {
			return appliers.Unknown, fmt.Errorf("target %s: discovery of %s: %w", a.env.Target, gk, err)
		}
	}
	if a.is.Kinds != nil && !a.is.Kinds(gk) {
		return appliers.No, nil
	}
	return appliers.Yes, nil
}

// Resolve implements appliers.Applier. Strings under spec.secrets become
// Sensitive; annotations of gitopsd itself are steering and are not kept.
func (a *Applier) Resolve(obj *manifest.Object) (appliers.Resolved, error) {
	if answer, err := a.Takes(obj.ID().GroupKind()); answer == appliers.Unknown {
		return appliers.Resolved{}, appliers.WithClass(appliers.Wait, fmt.Errorf("%w: %w", appliers.ErrUndecided, err))
	}
	if a.is.Kinds != nil && !a.is.Kinds(obj.ID().GroupKind()) {
		return appliers.Resolved{}, &manifest.FieldError{At: "/kind", Msg: fmt.Sprintf("kind: target %s does not take %s", a.env.Target, obj.ID().GroupKind())}
	}
	if v, ok := obj.Content()["spec"]; ok && obj.Spec() == nil {
		return appliers.Resolved{}, &manifest.FieldError{At: "/spec", Msg: fmt.Sprintf("spec: want a mapping, have %T", v)}
	}
	if v, ok := obj.Spec()["address"]; ok {
		if s, isString := v.(string); !isString || s == "" {
			return appliers.Resolved{}, &manifest.FieldError{At: "/spec/address", Msg: "spec.address: want a non-empty string"}
		}
	}
	if _, err := refs(obj.Content()); err != nil {
		return appliers.Resolved{}, err
	}
	content := obj.Content()
	for key := range obj.Annotations() {
		if strings.HasPrefix(key, "gitopsd.io/") {
			content = manifest.Without(content, manifest.Pointer("/metadata/annotations").Child(key))
		}
	}
	if v, ok := manifest.Lookup(content, "/metadata/annotations"); ok && manifest.Equal(v, map[string]any{}) {
		content = manifest.Without(content, "/metadata/annotations")
	}
	clone, _ := a.seal("", a.is.normalize(content)).(map[string]any)
	resolved, err := manifest.New(clone, obj.Origin())
	if err != nil {
		return appliers.Resolved{}, err
	}
	return appliers.Resolved{Object: resolved, Locator: Locate(obj)}, nil
}

// Locate returns the locator of an object: spec.address where it has one, so
// that two names can mean one thing, else its identity.
func Locate(obj *manifest.Object) string {
	if s, ok := obj.Spec()["address"].(string); ok {
		return "memory:" + s
	}
	return "memory:" + obj.ID().String()
}

// normalize returns a deep copy of content with every leaf in the target's form.
func (p Personality) normalize(content map[string]any) map[string]any {
	c, _ := manifest.Clone(content).(map[string]any)
	if p.Normalize == nil {
		return c
	}
	for _, f := range manifest.Fields(content) {
		if _, secret := f.Value.(manifest.Sensitive); !secret {
			c = manifest.With(c, f.Path, p.Normalize(f.Path, f.Value))
		}
	}
	return c
}

const secrets manifest.Pointer = "/spec/secrets"

// seal returns a deep copy of v, the value at path, with the strings below
// spec.secrets as Sensitive.
func (a *Applier) seal(path manifest.Pointer, v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = a.seal(path.Child(k), e)
		}
		return c
	case string:
		if secrets.Covers(path) {
			return a.env.Sealer.Seal(v)
		}
	}
	return manifest.Clone(v)
}

// reveal returns a deep copy of v with plain strings in place of Sensitive ones:
// what the target holds.
func reveal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = reveal(e)
		}
		return c
	case manifest.Sensitive:
		return v.Reveal()
	default:
		return manifest.Clone(v)
	}
}

// refs returns spec.refs.
func refs(content map[string]any) ([]string, error) {
	v, ok := manifest.Lookup(content, "/spec/refs")
	if !ok {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("spec.refs: want a list of names, have %T", v)
	}
	names := make([]string, len(list))
	for i, e := range list {
		if names[i], ok = e.(string); !ok {
			return nil, fmt.Errorf("spec.refs[%d]: want a name, have %T", i, e)
		}
	}
	return names, nil
}
