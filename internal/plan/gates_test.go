package plan

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// pruned returns a plan that deletes n of total objects.
func pruned(t *testing.T, n, total int, set func(*world)) *Plan {
	t.Helper()
	w := newWorld()
	for i := range total {
		w.want(fmt.Sprintf("o%03d", i), specN(0))
	}
	w.applied()
	for i := range n {
		w.drop(fmt.Sprintf("o%03d", i))
	}
	if set != nil {
		set(w)
	}
	return w.build(t)
}

// TestGates goes along the edges of the budget (row D-61: an emptied
// path, more than 20 %, more than 10).
func TestGates(t *testing.T) {
	budget := func(count, percent int) func(*world) {
		return func(w *world) { w.opts.Budget = Budget{MaxCount: count, MaxPercent: percent} }
	}
	cases := map[string]struct {
		n, total int
		set      func(*world)
		want     string
	}{
		"nothing":              {0, 5, nil, ""},
		"one of two":           {1, 2, nil, ""},
		"two of ten":           {2, 10, nil, ""},
		"two of nine":          {2, 9, nil, "PrunePercent:2"},
		"ten of 100":           {10, 100, nil, ""},
		"eleven of 100":        {11, 100, nil, "PruneCount:11"},
		"thirty of 100":        {30, 100, nil, "PruneCount:30 PrunePercent:30"},
		"the last one":         {1, 1, nil, "EmptyRender:1"},
		"all of three":         {3, 3, nil, "EmptyRender:3 PrunePercent:3"},
		"all, no limits":       {30, 30, budget(-1, -1), "EmptyRender:30"},
		"thirty, no limits":    {30, 100, budget(-1, -1), ""},
		"thirty, own limits":   {30, 100, budget(30, 30), ""},
		"three, limit of two":  {3, 100, budget(2, -1), "PruneCount:3"},
		"one, limit of zero":   {1, 100, budget(0, -1), "PruneCount:1"},
		"one, zero percent":    {1, 100, budget(-1, 0), "PrunePercent:1"},
		"none, limits of zero": {0, 100, budget(0, 0), ""},
		"eleven, nine unread":  {11, 100, unread(9), "PruneCount:11"},
		"eleven, all unread":   {11, 100, unread(11), "PruneCount:11"},
		"eleven, one handed over": {11, 100, func(w *world) {
			w.opts.Handover = map[Key]string{file("o000"): "awaiting hand-over"}
		}, ""},
		"eleven, one perhaps handed over": {11, 100, func(w *world) {
			w.opts.Handover = map[Key]string{file("o000"): "awaiting hand-over"}
			w.opts.Undecided = map[Key]bool{file("o000"): true}
		}, "PruneCount:11"},
		"protected, perhaps handed over": {1, 100, func(w *world) {
			w.opts.Protected = func(manifest.ID) bool { return true }
			w.opts.Handover = map[Key]string{file("o000"): "awaiting hand-over"}
			w.opts.Undecided = map[Key]bool{file("o000"): true}
		}, "Protected:1"},
		"eleven, a dependent is unread": {11, 100, func(w *world) {
			w.entry("o000", func(e *Entry) { e.DependsOn = []Key{file("o001"), file("o002")} })
			w.unknown[file("o000")] = "no route"
		}, "PruneCount:11"},
		"all, prune off":       {3, 3, func(w *world) { w.opts.Prune = false }, ""},
		"all gone by hand":     {3, 3, func(w *world) { clear(w.live) }, ""},
		"all handed over":      {30, 30, handedOver, ""},
		"all unknown":          {3, 3, allUnknown, "EmptyRender:3 PrunePercent:3"},
		"renamed":              {30, 31, renamed, ""},
		"protected":            {2, 100, func(w *world) { w.opts.Protected = func(id manifest.ID) bool { return id.Name == "o001" } }, "Protected:1"},
		"owned is not counted": {2, 100, func(w *world) { w.entries = only(w.entries, "o000", "o001") }, "PrunePercent:2"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := pruned(t, c.n, c.total, c.set)
			var got []string
			for _, g := range p.Gates {
				got = append(got, fmt.Sprintf("%s:%d", g.Kind, len(g.Changes)))
				if !slices.IsSortedFunc(g.Changes, GatedChange.compare) {
					t.Errorf("%s is not sorted: %v", g.Kind, g.Changes)
				}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("gates %q, want %q", s, c.want)
			}
		})
	}
}

// TestApprovalNamesRemovals: what goes besides is approved by its address, and
// what has appeared since is not.
func TestApprovalNamesRemovals(t *testing.T) {
	with := func(addresses ...string) *Plan {
		w := newWorld().want("d", exclusive("0755")).applied().beside("d", addresses...)
		w.opts.Budget = Budget{MaxCount: 0, MaxPercent: -1}
		return w.build(t)
	}
	two, three, other := with("/d/a", "/d/b"), with("/d/a", "/d/b", "/d/c"), with("/d/a", "/d/x")
	if !CoveredBy(with("/d/b").Gates, two.Gated()) {
		t.Error("a set that shrank must stay approved")
	}
	if CoveredBy(three.Gates, two.Gated()) || CoveredBy(other.Gates, two.Gated()) {
		t.Error("what nobody looked at is approved")
	}
	if two.GatedDigest() == other.GatedDigest() {
		t.Error("the digest must name the addresses")
	}
	raw, err := json.Marshal(two.Gated())
	var back []GatedChange
	if err == nil {
		err = json.Unmarshal(raw, &back)
	}
	if err != nil || !CoveredBy(two.Gates, back) {
		t.Errorf("a stored approval covers no more what it covered: %v %s", err, raw)
	}
}

func handedOver(w *world) {
	w.opts.Handover = map[Key]string{}
	for k := range w.entries {
		w.opts.Handover[k] = "awaiting hand-over"
	}
}

func allUnknown(w *world) {
	for k := range w.entries {
		w.unknown[k] = "no route"
	}
}

func unread(n int) func(*world) {
	return func(w *world) {
		for i := range n {
			w.unknown[file(fmt.Sprintf("o%03d", i))] = "no route"
		}
	}
}

func renamed(w *world) {
	for i := range 30 {
		old := fmt.Sprintf("o%03d", i)
		w.wantAt("n"+old, path(old), specN(0))
	}
}

func only(entries map[Key]Entry, names ...string) map[Key]Entry {
	out := map[Key]Entry{}
	for _, n := range names {
		out[file(n)] = entries[file(n)]
	}
	return out
}

// TestHealingIsNeverGated: drift on everything at once needs no approval.
func TestHealingIsNeverGated(t *testing.T) {
	p := pruned(t, 0, 100, func(w *world) { clear(w.live) })
	if p.Counts.Create != 100 || p.Counts.Drifted != 100 || len(p.Gates) > 0 {
		t.Errorf("counts %+v, gates %v", p.Counts, p.Gates)
	}
}

func TestApprovalCovers(t *testing.T) {
	small, large := pruned(t, 11, 100, nil), pruned(t, 12, 100, nil)
	if !CoveredBy(small.Gates, large.Gated()) {
		t.Error("a set that shrank must stay approved")
	}
	if CoveredBy(large.Gates, small.Gated()) {
		t.Error("a set that grew must be approved again")
	}
	if !CoveredBy(nil, nil) {
		t.Error("no gate needs no approval")
	}
	changed := slices.Clone(small.Gated())
	changed[0].Want = "other"
	if CoveredBy(small.Gates, changed) {
		t.Error("an approval of another content must not count")
	}
	if small.GatedDigest() == large.GatedDigest() || small.GatedDigest() != pruned(t, 11, 100, nil).GatedDigest() {
		t.Error("the digest must name the set")
	}
	other := *small
	other.Application = "shop"
	if other.GatedDigest() == small.GatedDigest() {
		t.Error("the digest must name the application")
	}
	if d := pruned(t, 1, 100, nil).GatedDigest(); d != "" {
		t.Errorf("nothing is gated, the digest is %q", d)
	}
	// Observed values are not part of it (an edit on the target asks nobody again).
	edited := pruned(t, 11, 100, func(w *world) { w.there("o001", specN(9)) })
	if edited.GatedDigest() != small.GatedDigest() {
		t.Error("the digest must not follow the live state")
	}
}

func TestWant(t *testing.T) {
	p := newWorld().want("a", specN(1)).build(t)
	digest := testSealer().Digest
	g := p.Changes[0].Want(digest)
	if g.Key != file("a") || g.Action != Create || g.Want != digest(p.Changes[0].Desired.Content()) {
		t.Errorf("got %+v", g)
	}
}

// TestApprovalCoversTheUnread: what an approval names does not change when a
// target that could not be read answers again.
func TestApprovalCoversTheUnread(t *testing.T) {
	before, after := pruned(t, 11, 100, unread(9)), pruned(t, 11, 100, nil)
	if !CoveredBy(after.Gates, before.Gated()) || before.GatedDigest() != after.GatedDigest() {
		t.Errorf("approved %v, then gated %v", before.Gated(), after.Gated())
	}
}
