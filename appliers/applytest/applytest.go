// Package applytest is the conformance suite of the applier contract. Every
// applier runs it on a real target of its kind; what a target cannot do (marks,
// watching) is left out by the suite asking for the ability, never by a switch.
package applytest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Harness tells the suite how to come by an applier and its target.
type Harness struct {
	// Target is the name that keys carry.
	Target string
	// Open makes an applier on a target of its own on which none of the
	// harness's objects exist. It registers its own cleanup.
	Open func(t *testing.T) *Fixture
	// Object returns a valid desired object. Distinct names have distinct
	// locators; distinct variants of a name differ in at least one field's value.
	Object func(t *testing.T, name string, variant int) *manifest.Object
	// Invalid are objects that Resolve refuses, by the word that its error must hold.
	Invalid map[string]*manifest.Object
	// Kept returns an object whose delete leaves something there (it is left, or
	// what was before it comes back). Nil says that the target has no such objects.
	Kept func(t *testing.T, name string) *manifest.Object
}

// Fixture is one applier on one target. Functions that are nil say that the
// target has no such thing.
type Fixture struct {
	Applier appliers.Applier
	// Reopen makes another applier on the same target and durable map, as a
	// restart of the daemon does.
	Reopen func(t *testing.T) appliers.Applier
	// Writes counts what has been changed on the target through appliers so far.
	Writes func() int
	// Put brings an object to the target by somebody else's hand.
	Put func(t *testing.T, obj *manifest.Object)
	// Remove takes an object away by somebody else's hand.
	Remove func(t *testing.T, locator string)
	// Block makes the object at a locator unreadable until the returned function is called.
	Block func(t *testing.T, locator string) (unblock func())
	// Settle lets the target's own time pass, so that pending writes complete.
	Settle func()
	// Records says that the target knows by marks or a ledger what it wrote, and
	// releases what these do not show as the application's instead of deleting it.
	Records bool
	// Owe makes something fail that has to follow the write of the object it returns,
	// until mend is called. Nil says that nothing follows a write.
	Owe func(t *testing.T) (obj *manifest.Object, mend func())
	// Foreign says that fields of other writers are refused rather than taken over.
	Foreign bool
}

// Run runs the whole suite.
func Run(t *testing.T, h Harness) {
	groups := []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Resolve", resolve}, {"Observe", observe}, {"Write", write}, {"Results", results}, {"Unfinished", unfinished},
		{"Adopt", adopt}, {"Release", release}, {"Marks", marks}, {"Watch", watch}, {"Place", place}, {"Concurrency", concurrency}, {"Close", closing},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) { g.run(t, h) })
	}
}

// application is the owner that the suite writes for.
const application = "suite"

// world is a fixture with the helpers that read like the contract.
type world struct {
	*Fixture
	h Harness
}

func open(t *testing.T, h Harness) *world {
	t.Helper()
	return &world{Fixture: h.Open(t), h: h}
}

// thing is one object as the loop carries it: key, query and resolved form.
type thing struct {
	key      plan.Key
	resolved appliers.Resolved
}

func (w *world) thing(t *testing.T, name string, variant int) thing {
	t.Helper()
	return w.resolve(t, w.h.Object(t, name, variant))
}

func (w *world) resolve(t *testing.T, obj *manifest.Object) thing {
	t.Helper()
	r, err := w.Applier.Resolve(obj)
	if err != nil {
		t.Fatalf("Resolve(%s): %v", obj.ID(), err)
	}
	return thing{key: plan.Key{Target: w.h.Target, ID: obj.ID()}, resolved: r}
}

func (th thing) query() appliers.Query {
	q := appliers.Query{Key: th.key, Locator: th.resolved.Locator, Desired: th.resolved.Object}
	for _, f := range manifest.Fields(th.resolved.Object.Content()) {
		q.Fields = append(q.Fields, f.Path)
	}
	return q
}

// unwanted is the query about an object that is no longer desired.
func (th thing) unwanted() appliers.Query {
	q := th.query()
	q.Desired = nil
	return q
}

// operation is what a plan would say about th, given what was observed.
func (th thing) operation(action plan.Action, seen plan.Observed) appliers.Operation {
	c := plan.Change{
		Key: th.key, Action: action, Desired: th.resolved.Object, Live: seen.Object, Version: seen.Version,
		Entry: plan.Entry{Key: th.key, Owner: application, Locator: th.resolved.Locator, State: plan.EntryPending, Epoch: 1},
	}
	if action == plan.Delete {
		c.Desired, c.Entry.State = nil, plan.EntryDeleting
	} else {
		c.Removes = seen.Removes.Addresses
	}
	if seen.Object != nil && c.Desired != nil {
		c.Fields = differences(c.Desired, seen.Object)
	}
	return appliers.Operation{Change: c, Application: application, Epoch: 1}
}

// differences are the field changes from live to desired.
func differences(desired, live *manifest.Object) []plan.FieldChange {
	var changes []plan.FieldChange
	for _, f := range manifest.Fields(desired.Content()) {
		was, ok := manifest.Lookup(live.Content(), f.Path)
		switch {
		case !ok:
			changes = append(changes, plan.FieldChange{Path: f.Path, Op: plan.FieldAdd, After: f.Value})
		case !manifest.Equal(was, f.Value):
			changes = append(changes, plan.FieldChange{Path: f.Path, Op: plan.FieldReplace, Before: was, After: f.Value})
		}
	}
	return changes
}

func ctx(t *testing.T) context.Context {
	t.Helper()
	c, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return c
}

// see observes one query once.
func (w *world) see(t *testing.T, q appliers.Query) plan.Observed {
	t.Helper()
	answers, err := w.Applier.Observe(ctx(t), []appliers.Query{q})
	if err != nil {
		t.Fatalf("Observe(%s): %v", q.Key, err)
	}
	return answers[q.Key]
}

// rounds is how many looks the suite gives a target to catch up.
const rounds = 5

// catchUp observes until the answer is good, as the loop would in later rounds.
func (w *world) catchUp(t *testing.T, q appliers.Query, good func(plan.Observed) bool) plan.Observed {
	t.Helper()
	var seen plan.Observed
	for range rounds {
		if seen = w.see(t, q); good(seen) {
			return seen
		}
		if w.Settle != nil {
			w.Settle()
		}
	}
	t.Fatalf("%s has not come to rest after %d looks: %s", q.Key, rounds, describe(seen))
	return seen
}

func describe(o plan.Observed) string {
	switch o.Presence {
	case plan.Absent:
		return "absent"
	case plan.Present:
		return strings.TrimSpace("present " + string(manifest.Canonical(o.Object.Content())) + " " + o.Unfinished)
	default:
		return "unknown: " + o.Reason
	}
}

func (th thing) asDesired(o plan.Observed) bool {
	return th.inPlace(o) && o.Unfinished == ""
}

// inPlace reports whether no field differs, whatever has still to follow.
func (th thing) inPlace(o plan.Observed) bool {
	return o.Presence == plan.Present && len(differences(th.resolved.Object, o.Object)) == 0
}

func absent(o plan.Observed) bool { return o.Presence == plan.Absent }

// do applies operations; every one must be Done, or Pending or Uncertain on a
// target that is like that, which catchUp then resolves.
func (w *world) do(t *testing.T, ops ...appliers.Operation) []appliers.Result {
	t.Helper()
	got := w.Applier.Apply(ctx(t), ops)
	if len(got) != len(ops) {
		t.Fatalf("Apply of %d operations gave %d results", len(ops), len(got))
	}
	for i, r := range got {
		if r.Outcome == appliers.Refused {
			t.Fatalf("%s %s: refused: %v", ops[i].Change.Action, ops[i].Change.Key, r.Err)
		}
	}
	return got
}

// create brings th into being and waits until it is seen.
func (w *world) create(t *testing.T, things ...thing) {
	t.Helper()
	ops := make([]appliers.Operation, len(things))
	for i, th := range things {
		ops[i] = th.operation(plan.Create, plan.Observed{})
	}
	w.do(t, ops...)
	for _, th := range things {
		w.catchUp(t, th.query(), th.asDesired)
	}
}
