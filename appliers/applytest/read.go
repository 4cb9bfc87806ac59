package applytest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func resolve(t *testing.T, h Harness) {
	t.Run("is a function of the object", func(t *testing.T) {
		w := open(t, h)
		first, again := w.thing(t, "same", 1), w.thing(t, "same", 1)
		if first.resolved.Object.Hash() != again.resolved.Object.Hash() || first.resolved.Locator != again.resolved.Locator {
			t.Errorf("two resolutions of one object differ:\n%s %s\n%s %s", first.resolved.Locator,
				manifest.Canonical(first.resolved.Object.Content()), again.resolved.Locator, manifest.Canonical(again.resolved.Object.Content()))
		}
		if got, want := first.resolved.Object.ID(), first.key.ID; got != want {
			t.Errorf("Resolve changed the identity %s to %s", want, got)
		}
		if first.resolved.Object.Origin() != h.Object(t, "same", 1).Origin() {
			t.Errorf("Resolve lost the origin")
		}
	})
	t.Run("keeps variants apart", func(t *testing.T) {
		w := open(t, h)
		if a, b := w.thing(t, "same", 1), w.thing(t, "same", 2); a.resolved.Object.Hash() == b.resolved.Object.Hash() {
			t.Errorf("two variants resolve to the same object: the harness or Resolve loses a field")
		}
	})
	t.Run("gives each object its own locator", func(t *testing.T) {
		w := open(t, h)
		seen := map[string]string{}
		for i := range 20 {
			name := fmt.Sprintf("object-%d", i)
			th := w.thing(t, name, 1)
			if other, taken := seen[th.resolved.Locator]; taken || th.resolved.Locator == "" {
				t.Errorf("%s has the locator %q of %q", name, th.resolved.Locator, other)
			}
			seen[th.resolved.Locator] = name
		}
		if a, b := w.thing(t, "object-1", 1), w.thing(t, "object-1", 2); a.resolved.Locator != b.resolved.Locator {
			t.Errorf("the locator depends on more than the address: %s, %s", a.resolved.Locator, b.resolved.Locator)
		}
	})
	t.Run("takes the kinds it resolves", func(t *testing.T) {
		w := open(t, h)
		gk := h.Object(t, "same", 1).ID().GroupKind()
		if answer, err := w.Applier.Takes(gk); answer != appliers.Yes || err != nil {
			t.Errorf("Takes(%s) = %v, %v", gk, answer, err)
		}
	})
	for word, obj := range h.Invalid {
		t.Run("refuses "+word, func(t *testing.T) {
			w := open(t, h)
			_, err := w.Applier.Resolve(obj)
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Fatalf("Resolve = %v, want an error that says %q", err, word)
			}
			if w.Writes() != 0 {
				t.Errorf("Resolve wrote to the target")
			}
		})
	}
}

func observe(t *testing.T, h Harness) {
	t.Run("absent, present and not asked", func(t *testing.T) {
		w := open(t, h)
		there, gone, other := w.thing(t, "there", 1), w.thing(t, "gone", 1), w.thing(t, "other", 1)
		w.create(t, there, other)
		answers, err := w.Applier.Observe(ctx(t), []appliers.Query{there.query(), gone.query()})
		if err != nil {
			t.Fatal(err)
		}
		if o := answers[there.key]; !there.asDesired(o) {
			t.Errorf("there: %s", describe(o))
		}
		if o := answers[gone.key]; o.Presence != plan.Absent || o.Object != nil {
			t.Errorf("gone: %s", describe(o))
		}
		if o, answered := answers[other.key]; answered {
			t.Errorf("a key that was not asked was answered: %s", describe(o))
		}
	})
	t.Run("no longer desired", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "there", 1)
		w.create(t, th)
		if o := w.see(t, th.unwanted()); o.Presence != plan.Present || o.Object == nil || o.Object.ID() != th.key.ID {
			t.Errorf("%s", describe(o))
		}
	})
	t.Run("sees what others do", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "there", 1)
		w.create(t, th)
		before := w.see(t, th.query())
		w.Put(t, h.Object(t, "there", 2))
		after := w.catchUp(t, th.query(), func(o plan.Observed) bool { return o.Presence == plan.Present && !th.asDesired(o) })
		if before.Version != "" && before.Version == after.Version {
			t.Errorf("the object changed and its version %q did not", before.Version)
		}
		w.Remove(t, th.resolved.Locator)
		w.catchUp(t, th.query(), absent)
	})
	t.Run("unread is not absent (row D-52)", func(t *testing.T) {
		w := open(t, h)
		th, other := w.thing(t, "there", 1), w.thing(t, "other", 1)
		w.create(t, th, other)
		unblock := w.Block(t, th.resolved.Locator)
		answers, err := w.Applier.Observe(ctx(t), []appliers.Query{th.query(), other.query()})
		if err == nil && answers[th.key].Presence != plan.PresenceUnknown {
			t.Errorf("an object that cannot be read was answered %s", describe(answers[th.key]))
		}
		if _, answered := answers[th.key]; err == nil && answered && answers[th.key].Reason == "" {
			t.Errorf("unknown without a reason")
		}
		unblock()
		w.catchUp(t, th.query(), th.asDesired)
	})
	t.Run("a context that has ended", func(t *testing.T) {
		w := open(t, h)
		th := w.thing(t, "there", 1)
		w.create(t, th)
		ended, cancel := context.WithCancel(ctx(t))
		cancel()
		answers, err := w.Applier.Observe(ended, []appliers.Query{th.query()})
		if o := answers[th.key]; o.Presence == plan.Absent {
			t.Errorf("a read that was cut short was answered as absent")
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Observe = %v, want context.Canceled", err)
		}
	})
}
