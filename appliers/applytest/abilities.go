package applytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func hasMarks(a appliers.Applier) bool {
	_, ok := appliers.Ability[appliers.Marker](a)
	return ok
}

// release: a delete that leaves something there says so, and one that comes again
// does no more than the first.
func release(t *testing.T, h Harness) {
	if h.Kept != nil {
		t.Run("what a delete leaves there is released, also the second time", func(t *testing.T) {
			w := open(t, h)
			th := w.resolve(t, h.Kept(t, "kept"))
			w.create(t, th)
			for _, a := range []appliers.Applier{w.Applier, w.Applier, w.Reopen(t)} {
				w.released(t, a, th)
			}
			if hasMarks(w.Applier) {
				listed(t, w.Applier)
			}
		})
	}
	if !open(t, h).Records {
		return // nothing is promised
	}
	t.Run("what is not ours is released", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "stranger", 1)
		w.Put(t, h.Object(t, "stranger", 1))
		writes := w.Writes()
		w.released(t, w.Applier, th)
		if got := w.Writes() - writes; got != 0 {
			t.Errorf("a delete of what is not ours wrote %d times", got)
		}
	})
	t.Run("another application's is released", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "other", 1)
		op := th.operation(plan.Create, plan.Observed{})
		op.Application = "other"
		w.do(t, op)
		w.catchUp(t, th.query(), th.asDesired)
		w.released(t, w.Applier, th)
		if o := w.see(t, th.query()); o.Owner != "other" {
			t.Errorf("owner %q after a delete by another application", o.Owner)
		}
		op = th.operation(plan.Delete, w.see(t, th.unwanted()))
		op.Change.Entry.MovedFrom = "other"
		w.do(t, op)
		w.catchUp(t, th.query(), absent)
	})
}

// released deletes th and wants it released and still there.
func (w *world) released(t *testing.T, a appliers.Applier, th thing) {
	t.Helper()
	r := a.Apply(ctx(t), []appliers.Operation{th.operation(plan.Delete, w.see(t, th.unwanted()))})[0]
	if r.Outcome != appliers.Released || r.Err != nil {
		t.Errorf("delete: %v %v, want released", r.Outcome, r.Err)
	}
	if o := w.see(t, th.unwanted()); o.Presence != plan.Present {
		t.Errorf("after the delete: %s", describe(o))
	}
}

func marks(t *testing.T, h Harness) {
	w := open(t, h)
	if !hasMarks(w.Applier) {
		return // nothing is promised
	}
	t.Run("list what was written, also after a restart", func(t *testing.T) {
		w := open(t, h)
		a, b, c := w.thing(t, "a", 1), w.thing(t, "b", 1), w.thing(t, "c", 1)
		w.create(t, a, b, c)
		w.Put(t, h.Object(t, "stranger", 1))
		w.do(t, b.operation(plan.Delete, w.see(t, b.query())))
		w.catchUp(t, b.query(), absent)
		listed(t, w.Applier, a, c)
		if o := w.see(t, a.query()); o.Owner != application {
			t.Errorf("owner %q, want %q", o.Owner, application)
		}
		listed(t, w.Reopen(t), a, c)
	})
	t.Run("an older epoch is refused", func(t *testing.T) {
		w := open(t, h)
		th, two := w.thing(t, "x", 1), w.thing(t, "x", 2)
		op := th.operation(plan.Create, plan.Observed{})
		op.Epoch, op.Change.Entry.Epoch = 7, 7
		w.do(t, op)
		seen := w.catchUp(t, th.query(), th.asDesired)
		for _, a := range []appliers.Applier{w.Applier, w.Reopen(t)} {
			for _, action := range []plan.Action{plan.Update, plan.Delete} {
				old := two.operation(action, seen)
				old.Epoch = 6
				r := a.Apply(ctx(t), []appliers.Operation{old})[0]
				if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Stop {
					t.Errorf("%s by an older epoch: %v %v, want refused and stop", action, r.Outcome, r.Err)
				}
			}
		}
		w.catchUp(t, th.query(), th.asDesired)
	})
}

func listed(t *testing.T, a appliers.Applier, want ...thing) {
	t.Helper()
	m, _ := appliers.Ability[appliers.Marker](a)
	got, err := m.Marked(ctx(t))
	if err != nil {
		t.Fatalf("Marked: %v", err)
	}
	slices.SortFunc(got, func(a, b appliers.Mark) int { return a.Key.Compare(b.Key) })
	var wanted []appliers.Mark
	for _, th := range want {
		wanted = append(wanted, appliers.Mark{Key: th.key, Locator: th.resolved.Locator, Application: application, Epoch: 1})
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("marks\n%v\nwant\n%v", got, wanted)
	}
}

func watch(t *testing.T, h Harness) {
	w := open(t, h)
	watcher, ok := appliers.Ability[appliers.Watcher](w.Applier)
	if !ok {
		return // nothing is promised
	}
	th := w.thing(t, "x", 1)
	w.create(t, th)
	watcher.SetWatched(application, []appliers.Query{th.query()})
	running, cancel := context.WithCancel(ctx(t))
	type report struct {
		keys []plan.Key
		lost bool
	}
	reports := make(chan report, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- watcher.Watch(running, func(keys []plan.Key, lost bool) { reports <- report{keys, lost} })
	}()
	select {
	case r := <-reports:
		if !r.lost {
			t.Errorf("a Watch of what was watched before it began starts with a report of %v, want a loss", r.keys)
		}
	case <-running.Done():
		t.Fatal("a Watch of what was watched before it began reports no loss")
	}
	reported := false
	for variant := 2; !reported && running.Err() == nil; variant++ {
		w.Put(t, h.Object(t, "x", variant%2+2))
		select {
		case r := <-reports:
			if len(r.keys) == 0 && !r.lost {
				t.Error("a report of no keys and no loss")
			}
			reported = r.lost || slices.Contains(r.keys, th.key)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if !reported {
		t.Errorf("a change by hand was not reported, nor a loss")
	}
	if u, ok := appliers.Ability[appliers.WatchUpdater](w.Applier); ok {
		late := w.thing(t, "late", 1)
		w.create(t, late)
		u.UpdateWatched(application, []appliers.Query{late.query()}, []plan.Key{th.key})
		reported = false
		for variant := 2; !reported && running.Err() == nil; variant++ {
			w.Put(t, h.Object(t, "late", variant%2+2))
			select {
			case r := <-reports:
				reported = r.lost || slices.Contains(r.keys, late.key)
			case <-time.After(20 * time.Millisecond):
			}
		}
		if !reported {
			t.Errorf("a change of what was added to the watch was not reported, nor a loss")
		}
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v after its context ended", err)
	}
}

// place: the place is named, and is the same at every call and after a restart,
// because records of what was written hold it.
func place(t *testing.T, h Harness) {
	w := open(t, h)
	p, ok := appliers.Ability[appliers.Placer](w.Applier)
	if !ok {
		return // nothing is promised
	}
	first := p.Place()
	if first == "" {
		t.Error("the place has no name")
	}
	th := w.thing(t, "x", 1)
	w.create(t, th)
	for when, a := range map[string]appliers.Applier{"after a write": w.Applier, "after a restart": w.Reopen(t)} {
		if got := appliers.PlaceOf(a, ""); got != first {
			t.Errorf("%s the place is %q, and was %q", when, got, first)
		}
	}
}

func concurrency(t *testing.T, h Harness) {
	w := open(t, h)
	things := make([]thing, 8)
	for i := range things {
		things[i] = w.thing(t, fmt.Sprintf("c-%d", i), 1)
	}
	var all sync.WaitGroup
	for _, th := range things {
		all.Go(func() {
			for range 3 {
				for _, r := range w.Applier.Apply(ctx(t), []appliers.Operation{th.operation(plan.Create, plan.Observed{})}) {
					if r.Outcome == appliers.Refused {
						t.Errorf("%s: %v", th.key, r.Err)
					}
				}
				if _, err := w.Applier.Observe(ctx(t), []appliers.Query{th.query()}); err != nil {
					t.Errorf("%s: %v", th.key, err)
				}
			}
		})
	}
	all.Wait()
	for _, th := range things {
		w.catchUp(t, th.query(), th.asDesired)
	}
}

func closing(t *testing.T, h Harness) {
	w := open(t, h)
	th := w.thing(t, "x", 1)
	w.create(t, th)
	writes := w.Writes()
	if c, ok := appliers.Ability[appliers.Closer](w.Applier); ok {
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if got := w.Writes() - writes; got != 0 {
		t.Errorf("Close wrote %d times", got)
	}
	w.Applier = w.Reopen(t)
	w.catchUp(t, th.query(), th.asDesired)
}
