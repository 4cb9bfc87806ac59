package plan

import (
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// TestHandedOverMark follows an object that came from application "old": its
// mark is accepted, replaced by ours with one adopt, and then counts no more
// (row D-55: handed over, not deleted and created).
func TestHandedOverMark(t *testing.T) {
	obj, err := manifest.New(map[string]any{
		"apiVersion": "test.example/v1", "kind": "Thing", "metadata": map[string]any{"name": "a"}, "spec": map[string]any{"value": int64(1)},
	}, manifest.Origin{Path: "a.yaml", Line: 1})
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := manifest.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	k := Key{Target: "one", ID: obj.ID()}
	entry := Entry{
		Key: k, Owner: "new", MovedFrom: "old", Locator: "at a", State: EntryOwned,
		Applied: Digests(obj, sealer.Digest), APIVersion: "test.example/v1",
	}
	build := func(e Entry, mark string) *Plan {
		p, err := Build(Input{
			Desired:   func(Key) (Desired, bool) { return Desired{Object: obj, Locator: "at a"}, true },
			Inventory: func(Key) (Entry, bool) { return e, true },
			Observed:  func(Key) Observed { return Observed{Presence: Present, Object: obj, Owner: mark} },
		}, []Key{k}, Options{Application: "new", Digest: sealer.Digest, Adopt: AdoptIdentical, Prune: true, Owned: 1, Want: 1})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := build(entry, "old")
	if len(p.Changes) != 1 || p.Changes[0].Action != Adopt || p.Changes[0].Blocked != "" || p.Changes[0].Entry.MovedFrom != "old" {
		t.Fatalf("an object with the mark of its former owner: %+v", p.Changes)
	}
	done := p.Changes[0].Done()
	if done.MovedFrom != "" || done.Owner != "new" {
		t.Fatalf("after the adopt: %+v", done)
	}
	if p := build(done, "new"); !p.Empty() {
		t.Errorf("once marked there is nothing to do: %+v", p.Changes)
	}
	if p := build(done, "old"); len(p.Changes) != 1 || p.Changes[0].Blocked == "" {
		t.Errorf("the old mark, back again, must block: %+v", p.Changes)
	}
	left := entry
	left.Owner, left.MovedFrom, left.State = "old", "", EntryOrphaned
	if p := build(left, "old"); len(p.Changes) != 1 || p.Changes[0].Action != Adopt || p.Changes[0].Entry.MovedFrom != "old" {
		t.Errorf("an object that was left behind: %+v", p.Changes)
	}
}
