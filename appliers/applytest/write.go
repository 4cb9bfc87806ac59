package applytest

import (
	"context"
	"fmt"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func write(t *testing.T, h Harness) {
	t.Run("create, update, delete", func(t *testing.T) {
		w := open(t, h)
		one, two := w.thing(t, "x", 1), w.thing(t, "x", 2)
		w.create(t, one)
		w.do(t, two.operation(plan.Update, w.see(t, two.query())))
		seen := w.catchUp(t, two.query(), two.asDesired)
		w.do(t, two.operation(plan.Delete, seen))
		w.catchUp(t, two.query(), absent)
	})
	t.Run("a second apply writes nothing (row D-56)", func(t *testing.T) {
		w := open(t, h)
		one, two := w.thing(t, "x", 1), w.thing(t, "x", 2)
		w.create(t, one)
		update := two.operation(plan.Update, w.see(t, two.query()))
		for _, op := range []appliers.Operation{one.operation(plan.Create, plan.Observed{}), update} {
			w.do(t, op)
			w.catchUp(t, appliers.Query{Key: one.key, Locator: one.resolved.Locator, Desired: op.Change.Desired, Fields: two.query().Fields},
				thing{one.key, appliers.Resolved{Object: op.Change.Desired}}.asDesired)
			writes := w.Writes()
			if r := w.do(t, op)[0]; r.Outcome == appliers.Pending {
				t.Errorf("%s of what is as desired is pending", op.Change.Action)
			}
			if got := w.Writes(); got != writes {
				t.Errorf("%s of what is as desired wrote %d times", op.Change.Action, got-writes)
			}
		}
	})
	t.Run("deleting the absent is done", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "x", 1)
		if r := w.do(t, th.operation(plan.Delete, plan.Observed{}))[0]; r.Outcome == appliers.Pending {
			t.Errorf("outcome %v", r.Outcome)
		}
		if w.Writes() != 0 {
			t.Errorf("deleting the absent wrote %d times", w.Writes())
		}
	})
	t.Run("drift is healed", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "x", 1)
		w.create(t, th)
		w.Put(t, h.Object(t, "x", 2))
		seen := w.catchUp(t, th.query(), func(o plan.Observed) bool { return o.Presence == plan.Present && !th.asDesired(o) })
		op := th.operation(plan.Update, seen)
		if w.Foreign {
			r := w.Applier.Apply(ctx(t), []appliers.Operation{op})[0]
			if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Stop {
				t.Errorf("a field of another writer: %v %v, want refused and stop", r.Outcome, r.Err)
			}
			return
		}
		w.do(t, op)
		w.catchUp(t, th.query(), th.asDesired)
	})
	t.Run("a stale update does not run over a newer change", func(t *testing.T) {
		w := open(t, h)
		th, two := w.thing(t, "x", 1), w.thing(t, "x", 2)
		w.create(t, th)
		seen := w.see(t, two.query())
		if seen.Version == "" {
			return // the target has no versions and promises nothing here
		}
		w.Put(t, h.Object(t, "x", 3))
		r := w.Applier.Apply(ctx(t), []appliers.Operation{two.operation(plan.Update, seen)})[0]
		if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Retry {
			t.Errorf("a conditional write on an older version: %v %v, want refused and retry", r.Outcome, r.Err)
		}
	})
}

func results(t *testing.T, h Harness) {
	t.Run("one for each, in order", func(t *testing.T) {
		w := open(t, h)
		var ops []appliers.Operation
		var things []thing
		for i := range 12 {
			th := w.thing(t, fmt.Sprintf("n-%d", i), 1)
			things = append(things, th)
			ops = append(ops, th.operation(plan.Create, plan.Observed{}))
		}
		// The same object with other content, to be created without being adopted: refused, in its place.
		w.Put(t, h.Object(t, "n-5", 2))
		got := w.Applier.Apply(ctx(t), ops)
		if len(got) != len(ops) {
			t.Fatalf("%d results for %d operations", len(got), len(ops))
		}
		for i, r := range got {
			if refused := r.Outcome == appliers.Refused; refused != (i == 5) {
				t.Errorf("operation %d: %v %v", i, r.Outcome, r.Err)
			}
			if (r.Err != nil) != (r.Outcome == appliers.Refused || r.Outcome == appliers.Uncertain) {
				t.Errorf("operation %d: outcome %v with error %v", i, r.Outcome, r.Err)
			}
			if i != 5 {
				w.catchUp(t, things[i].query(), things[i].asDesired)
			}
		}
		if got := w.Applier.Apply(ctx(t), nil); len(got) != 0 {
			t.Errorf("no operations gave %d results", len(got))
		}
	})
	t.Run("a context that has ended refuses what was not begun", func(t *testing.T) {
		w := open(t, h)
		ended, cancel := context.WithCancel(ctx(t))
		cancel()
		a, b := w.thing(t, "a", 1), w.thing(t, "b", 1)
		got := w.Applier.Apply(ended, []appliers.Operation{a.operation(plan.Create, plan.Observed{}), b.operation(plan.Create, plan.Observed{})})
		if len(got) != 2 {
			t.Fatalf("%d results for 2 operations", len(got))
		}
		for i, r := range got {
			if r.Outcome != appliers.Refused || r.Err == nil || appliers.ClassOf(r.Err) != appliers.Retry {
				t.Errorf("operation %d: %v %v, want refused and retry", i, r.Outcome, r.Err)
			}
		}
		if w.Writes() != 0 {
			t.Errorf("%d writes after the context had ended", w.Writes())
		}
	})
}

// unfinished: what has to follow a write and failed is told as the rest of it and
// as no difference, also after a restart, until an Apply of the same has done it.
func unfinished(t *testing.T, h Harness) {
	w := open(t, h)
	if w.Owe == nil {
		return // nothing follows a write
	}
	obj, mend := w.Owe(t)
	th := w.resolve(t, obj)
	owed := func(o plan.Observed) bool { return th.inPlace(o) && o.Unfinished != "" }
	failed := func(op appliers.Operation) {
		t.Helper()
		if r := w.Applier.Apply(ctx(t), []appliers.Operation{op})[0]; r.Outcome != appliers.Uncertain || r.Err == nil {
			t.Errorf("%s, what follows fails: %v %v, want uncertain", op.Change.Action, r.Outcome, r.Err)
		}
	}
	failed(th.operation(plan.Create, plan.Observed{}))
	w.catchUp(t, th.query(), owed)
	w.Applier = w.Reopen(t)
	seen := w.catchUp(t, th.query(), owed)
	writes := w.Writes()
	failed(th.operation(plan.Update, seen))
	w.catchUp(t, th.query(), owed)
	mend()
	if r := w.do(t, th.operation(plan.Update, seen))[0]; r.Outcome != appliers.Done {
		t.Errorf("once it can be done: %v %v", r.Outcome, r.Err)
	}
	w.catchUp(t, th.query(), th.asDesired)
	if got := w.Writes() - writes; got != 0 {
		t.Errorf("what follows the write wrote the object %d times", got)
	}
}

func adopt(t *testing.T, h Harness) {
	t.Run("identical content is only recorded", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "x", 1)
		w.Put(t, h.Object(t, "x", 1))
		seen := w.catchUp(t, th.query(), th.asDesired)
		writes := w.Writes()
		w.do(t, th.operation(plan.Adopt, seen))
		if got := w.Writes() - writes; got != 0 {
			t.Errorf("adopting what is as desired wrote %d times", got)
		}
		w.catchUp(t, th.query(), func(o plan.Observed) bool {
			return th.asDesired(o) && (o.Owner == application || !hasMarks(w.Applier))
		})
	})
	t.Run("other content is taken over when asked", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "x", 1)
		w.Put(t, h.Object(t, "x", 2))
		op := th.operation(plan.Update, w.see(t, th.query()))
		op.Change.Adopting, op.Change.Entry.Adopted = true, true
		w.do(t, op)
		w.catchUp(t, th.query(), th.asDesired)
	})
	t.Run("what is gone is not adopted", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "x", 1)
		r := w.Applier.Apply(ctx(t), []appliers.Operation{th.operation(plan.Adopt, plan.Observed{})})[0]
		if r.Outcome != appliers.Refused || w.Writes() != 0 {
			t.Errorf("%v with %d writes, want refused", r.Outcome, w.Writes())
		}
	})
}
