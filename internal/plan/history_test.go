package plan

import (
	"fmt"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// TestConverges drives a world through commits, drift and crashes between any
// two steps of a round, then lets it settle: one round of writes, one that
// forgets what was deleted, and nothing after that (rows D-49, D-55, D-56; S4, S11).
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &history{world: newWorld(), strangers: map[string]m{}}
		h.opts.Adopt = AdoptAlways
		h.opts.Drift = []DriftRule{
			{Path: "", Mode: DriftReport}, {Path: "/spec/size", Mode: DriftIgnore}, {Path: "", Mode: DriftHeal},
		}
		t.Repeat(map[string]func(*rapid.T){
			"commit": h.commit, "drop": h.dropOne, "rename": h.rename, "relocate": h.relocate,
			"edit": h.edit, "stranger": h.stranger, "round": h.round, "": h.check,
		})
		h.settle(t)
	})
}

type history struct {
	*world
	strangers map[string]m
}

func (h *history) build(t *rapid.T) *Plan {
	p, err := Build(h.input(), h.keys(), h.options())
	if err != nil {
		t.Fatal(err)
	}
	checkPlan(t, h.world, p)
	return p
}

func (h *history) free(locator string, k Key) bool {
	for o, d := range h.desired {
		if o != k && d.Locator == locator {
			return false
		}
	}
	e, owned := h.entries[k]
	return !owned || e.Locator == locator
}

func (h *history) commit(t *rapid.T) {
	n := rapid.SampledFrom(names).Draw(t, "name")
	if h.free(path(n), file(n)) {
		h.want(n, anySpec().Draw(t, "spec"))
	}
}

func (h *history) dropOne(t *rapid.T) {
	h.drop(rapid.SampledFrom(names).Draw(t, "name"))
}

func (h *history) rename(t *rapid.T) {
	from, to := rapid.SampledFrom(names).Draw(t, "from"), rapid.SampledFrom(names).Draw(t, "to")
	d, ok := h.desired[file(from)]
	_, taken := h.desired[file(to)]
	if _, owned := h.entries[file(to)]; !ok || taken || owned {
		return
	}
	h.drop(from)
	h.wantAt(to, d.Locator, anySpec().Draw(t, "spec"))
}

// relocate gives an object another address under its name, and takes it back
// where that was refused.
func (h *history) relocate(t *rapid.T) {
	n, to := rapid.SampledFrom(names).Draw(t, "name"), rapid.SampledFrom(names).Draw(t, "to")
	e, owned := h.entries[file(n)]
	if _, wanted := h.desired[file(n)]; !wanted || !owned || !e.Unconfirmed() || !h.free(path(to), Key{}) {
		return
	}
	for _, o := range h.entries {
		if o.Locator == path(to) {
			return
		}
	}
	h.wantAt(n, path(to), anySpec().Draw(t, "spec"))
	p := h.build(t)
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Key == file(n) && c.Blocked != "" {
			h.wantAt(n, e.Locator, anySpec().Draw(t, "back"))
		}
	}
}

// edit is a person on the target. First writes in flight are left alone: what
// becomes of them is TestFirstWrite's.
func (h *history) edit(t *rapid.T) {
	n := rapid.SampledFrom(names).Draw(t, "name")
	for _, e := range h.entries {
		if e.Locator == path(n) && e.Applied == nil {
			return
		}
	}
	if _, ok := h.live[path(n)]; !ok || h.strangers[path(n)] != nil {
		return
	}
	if rapid.Bool().Draw(t, "delete") {
		h.gone(n)
	} else {
		h.there(n, anySpec().Draw(t, "edited"))
	}
}

func (h *history) stranger(t *rapid.T) {
	n := rapid.SampledFrom(names).Draw(t, "name")
	at := path(n)
	if _, ok := h.live[at]; ok || !h.free(at, Key{}) {
		return
	}
	for _, e := range h.entries {
		if e.Locator == at {
			return
		}
	}
	h.there(n, m{"mode": "9", "who": "stranger"})
	h.strangers[at] = h.live[at]
}

// round applies a plan, leaves some changes out (they wait, or their target
// cannot be reached), and may die between any two steps.
func (h *history) round(t *rapid.T) {
	p := h.build(t)
	for _, l := range Levels(p) {
		for _, i := range l {
			c := &p.Changes[i]
			if rapid.IntRange(0, 5).Draw(t, "leftOut") == 0 {
				continue
			}
			for _, step := range []func(*Change){h.record, h.overwrite, h.confirm} {
				if rapid.IntRange(0, 9).Draw(t, "crash") == 0 {
					return
				}
				step(c)
			}
		}
	}
}

// overwrite writes. What a change takes over is no stranger's from here on.
func (h *history) overwrite(c *Change) {
	if c.Adopting || c.Action == Adopt {
		delete(h.strangers, c.Entry.Locator)
	}
	h.write(c)
}

func (h *history) check(t *rapid.T) {
	for at, content := range h.strangers {
		if !reflect.DeepEqual(h.live[at], content) {
			t.Fatalf("%s is a stranger's and was touched", at)
		}
	}
	h.tracked(t)
}

// tracked: what is there is a stranger's or on record, at every moment.
func (h *history) tracked(t *rapid.T) {
	tracked := map[string]bool{}
	for _, e := range h.entries {
		tracked[e.Locator] = true
	}
	for at := range h.live {
		if !tracked[at] && h.strangers[at] == nil {
			t.Fatalf("%s was left behind", at)
		}
	}
}

func (h *history) settle(t *rapid.T) {
	p := h.build(t)
	for i := range p.Changes {
		h.overwrite(&p.Changes[i])
	}
	h.apply(p)
	for _, c := range h.build(t).Changes {
		if c.Action != Forget || c.Blocked != "" {
			t.Fatalf("second round: %s %s %s", c.Action, c.Key, c.Blocked)
		}
	}
	h.apply(h.build(t))
	if p := h.build(t); !p.Empty() || len(p.Changes) > 0 {
		t.Fatalf("not converged: %s", rendered(t, p))
	}
	h.check(t)
	for k, d := range h.desired {
		for _, f := range manifest.Fields(d.Object.Content()) {
			v, _ := manifest.Lookup(h.live[d.Locator], f.Path)
			if !identity(f.Path) && !manifest.Equal(v, f.Value) {
				t.Fatalf("%s %s is %v, want %v", k, f.Path, v, f.Value)
			}
		}
	}
}

// TestRenameCounts: a move within an application neither creates nor deletes
// (row D-55), and a second build after it has nothing to do (row D-56).
func TestRenameCounts(t *testing.T) {
	w := newWorld()
	for i := range 20 {
		w.want(fmt.Sprintf("old%d", i), specN(i))
	}
	w.applied()
	for i := range 20 {
		w.drop(fmt.Sprintf("old%d", i)).wantAt(fmt.Sprintf("new%d", i), path(fmt.Sprintf("old%d", i)), specN(i+i%2))
	}
	p := w.build(t)
	if want := (Counts{Update: 10}); p.Counts != want || len(p.Gates) > 0 {
		t.Errorf("counts %+v, want %+v; gates %v", p.Counts, want, p.Gates)
	}
	w.apply(p)
	if p := w.build(t); len(p.Changes) > 0 {
		t.Errorf("second build:\n%s", story(t, p))
	}
}

// TestRenameKeepsTheRecord: while the new key of a rename cannot be written, the
// record of the old one stays; it goes with the write and never before (row D-55).
func TestRenameKeepsTheRecord(t *testing.T) {
	cases := map[string]func(*world){
		"a dependency is blocked": func(w *world) {
			w.want("dep", specN(1)).wantAt("new", path("old"), specN(1), "dep")
			w.unknown[file("dep")] = "no route"
		},
		"another application's": func(w *world) { w.opts.Foreign = map[Key]string{file("new"): "shop"} },
		"unread":                func(w *world) { w.unknown[file("new")] = "no route" },
		"two with one locator":  func(w *world) { w.wantAt("other", path("old"), specN(1)) },
	}
	for name, block := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld().want("old", specN(0)).applied().drop("old").wantAt("new", path("old"), specN(1))
			block(w)
			p := w.build(t)
			listed := false
			for i := range p.Changes {
				if c := &p.Changes[i]; c.Key == file("old") {
					listed = c.Blocked == "handed over to "+file("new").String()+" once that can be written"
				}
			}
			w.apply(p)
			if _, ok := w.entries[file("old")]; !ok || !listed {
				t.Errorf("the old record: kept %t, listed %t in\n%s", ok, listed, story(t, p))
			}
		})
	}
	w := newWorld().want("old", specN(0)).applied().drop("old").wantAt("new", path("old"), specN(1))
	p := w.build(t)
	for _, l := range Levels(p) {
		for _, i := range l {
			if c := &p.Changes[i]; c.Desired == nil {
				w.record(c) // all that is left of the round once the write is refused
			}
		}
	}
	if _, ok := w.entries[file("old")]; !ok {
		t.Errorf("the write failed, and nobody owns the object:\n%s", story(t, p))
	}
}
