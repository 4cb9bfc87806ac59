package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

var names = []string{"a", "b", "c", "d", "e", "f", "g", "h"}

func anySpec() *rapid.Generator[m] {
	return rapid.Custom(func(t *rapid.T) m {
		s := m{"mode": rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "mode")}
		if rapid.Bool().Draw(t, "full") {
			s["content"] = rapid.SampledFrom([]string{"x", "y\nz\n"}).Draw(t, "content")
			s["size"] = m{"min": int64(rapid.IntRange(0, 1).Draw(t, "min"))}
		}
		return s
	})
}

// anyWorld draws a world in any state, also those that no history leads to.
func anyWorld(t *rapid.T) *world {
	w := newWorld()
	w.opts.Prune = rapid.IntRange(0, 4).Draw(t, "prune") > 0
	w.opts.Adopt = rapid.SampledFrom([]AdoptMode{"", AdoptNever, AdoptIdentical, AdoptAlways}).Draw(t, "adopt")
	w.opts.Drift = heal(rapid.SampledFrom([]DriftMode{DriftHeal, DriftReport, DriftIgnore}).Draw(t, "drift"),
		rapid.SampledFrom([]manifest.Pointer{"", "/spec/mode", "/spec/size"}).Draw(t, "driftPath"))
	w.opts.Handover, w.opts.Foreign, w.opts.Contended = map[Key]string{}, map[Key]string{}, map[FieldRef]bool{}
	for i, n := range names {
		if rapid.IntRange(0, 3).Draw(t, "desired"+n) > 0 {
			var deps []string
			for _, d := range names[:i] {
				if dd, ok := w.desired[file(d)]; ok && dd.Wave == 0 && rapid.IntRange(0, 3).Draw(t, "dep") == 0 {
					deps = append(deps, d)
				}
			}
			w.wantAt(n, locatorFor(t, n), anySpec().Draw(t, "spec"), deps...)
			w.wave(n, rapid.SampledFrom([]int{0, 0, 2}).Draw(t, "wave"))
		}
		if rapid.IntRange(0, 3).Draw(t, "owned"+n) > 0 {
			w.entries[file(n)] = anyEntry(t, w, n)
		}
		if rapid.IntRange(0, 3).Draw(t, "live"+n) > 0 {
			w.there(n, anySpec().Draw(t, "live"))
			if d, ok := w.desired[file(n)]; ok && d.Locator == path(n) && rapid.IntRange(0, 2).Draw(t, "exclusive"+n) == 0 {
				d.Object = object(file(n), manifest.With(d.Object.Spec(), "/strangers", []any{}))
				w.desired[file(n)] = d
				w.beside(n, anyStrangers(t, n)...)
			}
			w.marks[path(n)] = rapid.SampledFrom([]string{"", "", "web", "shop"}).Draw(t, "mark")
		}
		switch rapid.IntRange(0, 15).Draw(t, "odd"+n) {
		case 0:
			w.unknown[file(n)] = "no route"
		case 1:
			w.opts.Handover[file(n)] = "awaiting hand-over"
		case 2:
			w.opts.Foreign[file(n)] = "shop"
		case 3:
			w.opts.Contended[FieldRef{file(n), "/spec/mode"}] = true
		case 4:
			w.owed[file(n)] = "a reload is owed"
		}
	}
	return w
}

func anyStrangers(t *rapid.T, n string) []string {
	list := make([]string, rapid.IntRange(1, 7).Draw(t, "strangers"))
	for i := range list {
		list[i] = fmt.Sprintf("%s/stranger%d", path(n), i)
	}
	return list
}

func locatorFor(t *rapid.T, n string) string {
	if rapid.IntRange(0, 5).Draw(t, "elsewhere") == 0 {
		return path(rapid.SampledFrom(names).Draw(t, "locator"))
	}
	return path(n)
}

func anyEntry(t *rapid.T, w *world, n string) Entry {
	e := Entry{Key: file(n), Owner: "web", Locator: locatorFor(t, n), Epoch: 1, APIVersion: "host.gitopsd.io/v1alpha1"}
	e.State = rapid.SampledFrom([]EntryState{EntryOwned, EntryOwned, EntryPending, EntryDeleting, EntryOrphaned}).Draw(t, "state")
	e.Adopted = rapid.Bool().Draw(t, "adopted")
	if e.State != EntryPending || rapid.Bool().Draw(t, "wasApplied") {
		e.Applied = Digests(object(file(n), anySpec().Draw(t, "applied")), w.opts.Digest)
	}
	if e.State == EntryPending {
		e.Writing = Digests(object(file(n), anySpec().Draw(t, "writing")), w.opts.Digest)
	}
	for _, d := range names {
		if d != n && rapid.IntRange(0, 7).Draw(t, "entryDep") == 0 {
			e.DependsOn = append(e.DependsOn, file(d))
		}
	}
	return e
}

// checkPlan holds a plan to what must be true of every plan (rows S1, S3, D-52).
func checkPlan(t *rapid.T, w *world, p *Plan) {
	in := w.input()
	seen := map[Key]int{}
	for i := range p.Changes {
		c := &p.Changes[i]
		if _, twice := seen[c.Key]; twice {
			t.Fatalf("%s is in the plan twice", c.Key)
		}
		seen[c.Key] = i
		d, wanted := in.Desired(c.Key)
		e, owned := in.Inventory(c.Key)
		presence := in.Observed(c.Key).Presence
		writes := c.Blocked == "" && c.Action != None && c.Action != Forget
		if presence == PresenceUnknown && (writes || c.Action == Forget && len(in.DesiredAt("host", e.Locator)) == 0) {
			t.Fatalf("%s: %s after an unknown observation", c.Key, c.Action)
		}
		if c.Action == Delete && c.Blocked == "" {
			if wanted || !owned || presence != Present || !w.opts.Prune || e.State == EntryOrphaned || w.opts.Handover[c.Key] != "" {
				t.Fatalf("%s: delete with wanted %t, owned %t, presence %d", c.Key, wanted, owned, presence)
			}
			if len(in.DesiredAt("host", e.Locator)) > 0 {
				t.Fatalf("%s: delete of a locator that is desired", c.Key)
			}
		}
		if c.Action == Forget && (!owned || wanted) {
			t.Fatalf("%s: forget with wanted %t, owned %t", c.Key, wanted, owned)
		}
		if writes && wanted && w.opts.Foreign[c.Key] != "" {
			t.Fatalf("%s: write to what another application owns", c.Key)
		}
		if (c.Action == Create || c.Action == Update) && !wanted {
			t.Fatalf("%s: %s of what is not desired (%v)", c.Key, c.Action, d)
		}
	}
	checkOrder(t, w, p, seen)
	checkRemovals(t, w, p)
	checkOwed(t, w, p, seen)
}

// checkOwed: whatever the rules for drift, an unfinished write of what is desired is
// gone on with, or the plan says why not.
func checkOwed(t *rapid.T, w *world, p *Plan, at map[Key]int) {
	for k := range w.owed {
		if _, wanted := w.desired[k]; !wanted || w.observe(k).Presence != Present {
			continue
		}
		i, listed := at[k]
		if !listed || p.Changes[i].Action == None && p.Changes[i].Blocked == "" {
			t.Fatalf("%s: its write is unfinished, and the plan leaves it so", k)
		}
	}
}

// checkRemovals: what goes besides was observed, its field is written, and over
// the budget each of it needs an approval of its own.
func checkRemovals(t *rapid.T, w *world, p *Plan) {
	gated := p.Gated()
	total := 0
	for i := range p.Changes {
		c := &p.Changes[i]
		total += len(c.Removes)
		if len(c.Removes) == 0 {
			continue
		}
		seen := w.observe(c.Key).Removes
		written := slices.ContainsFunc(c.Fields, func(f FieldChange) bool { return seen.Field.Covers(f.Path) })
		if c.Action != Update || !written || !slices.Equal(c.Removes, seen.Addresses) || w.opts.Foreign[c.Key] != "" || w.unknown[c.Key] != "" {
			t.Fatalf("%s: %s removes %v besides, fields %v", c.Key, c.Action, c.Removes, c.Fields)
		}
	}
	for i := range p.Changes {
		for _, address := range p.Changes[i].Removes {
			if g := (GatedChange{Key: p.Changes[i].Key, Action: Delete, Removes: address}); total > w.opts.Budget.MaxCount && !slices.Contains(gated, g) {
				t.Fatalf("%d removals, and %s is not gated", total, g)
			}
		}
	}
}

// checkOrder: waves ascend, dependencies go first and are in an earlier level,
// deletes come after writes with dependents first.
func checkOrder(t *rapid.T, w *world, p *Plan, at map[Key]int) {
	level := map[int]int{}
	count := 0
	for n, l := range Levels(p) {
		for _, i := range l {
			level[i] = n
			if i < count {
				t.Fatalf("levels %v do not follow the order", Levels(p))
			}
			count = i
		}
	}
	for i := range p.Changes {
		c := &p.Changes[i]
		if i > 0 && inOrder(p.Changes[i-1], *c) >= 0 {
			t.Fatalf("changes %d and %d are not in order", i-1, i)
		}
		if c.phase() != 0 {
			continue
		}
		for _, dep := range w.desired[c.Key].DependsOn {
			j, listed := at[dep]
			if !listed {
				continue
			}
			if j >= i {
				t.Fatalf("%s comes before its dependency %s", c.Key, dep)
			}
			li, ok1 := level[i]
			lj, ok2 := level[j]
			if ok1 && ok2 && lj >= li {
				t.Fatalf("%s shares a level with its dependency %s", c.Key, dep)
			}
			if p.Changes[j].Blocked != "" && c.Blocked == "" && c.Action != None {
				t.Fatalf("%s goes ahead of its blocked dependency %s", c.Key, dep)
			}
		}
	}
}

// TestBuildIsSafe: no state of the world, however odd, gives a plan that breaks
// a safety rule, and the same input gives the same bytes.
func TestBuildIsSafe(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t)
		p, err := Build(w.input(), w.keys(), w.options())
		if err != nil {
			t.Fatal(err)
		}
		checkPlan(t, w, p)
		shuffled := slices.Clone(w.keys())
		rand.New(rand.NewSource(1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		again, err := Build(w.input(), append(shuffled, shuffled...), w.options())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(p, again) || rendered(t, p) != rendered(t, again) {
			t.Fatal("the same input gave two plans")
		}
	})
}

func rendered(t *rapid.T, p *Plan) string {
	var b bytes.Buffer
	if err := p.Text(&b, TextOptions{}); err != nil {
		t.Fatal(err)
	}
	j, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + string(j)
}

// TestScopeIsEnough: a plan over some keys says of them what a plan over
// everything says, as long as the blocked ones are among them.
func TestScopeIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := anyWorld(t)
		all, err := Build(w.input(), w.keys(), w.options())
		if err != nil {
			t.Fatal(err)
		}
		var scope []Key
		whole := map[Key]*Change{}
		for i := range all.Changes {
			c := &all.Changes[i]
			whole[c.Key] = c
			if c.Blocked != "" {
				scope = append(scope, c.Key)
			}
		}
		for _, k := range w.keys() {
			if rapid.Bool().Draw(t, "in") {
				scope = append(scope, k)
			}
		}
		part, err := Build(w.input(), scope, w.options())
		if err != nil {
			t.Fatal(err)
		}
		got := map[Key]*Change{}
		var order []Key
		for i := range part.Changes {
			got[part.Changes[i].Key] = &part.Changes[i]
			order = append(order, part.Changes[i].Key)
		}
		for _, k := range scope {
			if !reflect.DeepEqual(whole[k], got[k]) {
				t.Fatalf("%s:\nall   %+v\nscope %+v", k, whole[k], got[k])
			}
		}
		var same []Key
		for i := range all.Changes {
			if slices.Contains(order, all.Changes[i].Key) {
				same = append(same, all.Changes[i].Key)
			}
		}
		if !slices.Equal(same, order) {
			t.Fatalf("order %v, over everything %v", order, same)
		}
	})
}
