package plan

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// anyApplied draws the nil map, the empty one and others, over few paths, so that
// two of them share some.
func anyApplied(t *rapid.T, label string) Applied {
	if rapid.IntRange(0, 4).Draw(t, label+" nil") == 0 {
		return nil
	}
	digest := testSealer().Digest
	a := Applied{}
	for range rapid.IntRange(0, 12).Draw(t, label+" fields") {
		p := rapid.SampledFrom([]manifest.Pointer{"/spec/a", "/spec/b", "/spec/c~1d", "/spec/line\nbreak", "", "/spec/ä", "/spec/list"}).Draw(t, "path")
		a[p] = digest(rapid.Int64Range(0, 2).Draw(t, "value"))
	}
	return a
}

// TestRecordRoundTrip: what is stored is what is read, the difference between
// nothing applied and no fields applied included.
func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Entry{
			Key: file(rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "name")), Owner: "web", Locator: "/srv/a",
			State:   rapid.SampledFrom([]EntryState{EntryPending, EntryOwned, EntryDeleting}).Draw(t, "state"),
			Applied: anyApplied(t, "applied"), Writing: anyApplied(t, "writing"), Token: rapid.String().Draw(t, "token"),
			DependsOn: []Key{file("dep")}, Wave: -3, Adopted: true, Epoch: 7, Origin: manifest.Origin{Path: "a.yaml", Line: 3},
		}
		data, err := e.MarshalRecord()
		if err != nil {
			t.Fatal(err)
		}
		var got Entry
		if err := got.UnmarshalRecord(data); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, got); d != "" {
			t.Fatal(d)
		}
		cut := data[:rapid.IntRange(0, len(data)-1).Draw(t, "cut")]
		var damaged Entry
		if err := damaged.UnmarshalRecord(cut); err == nil {
			t.Fatalf("%d of %d bytes were read as %+v", len(cut), len(data), damaged)
		}
	})
}

// TestRecordOfNoVersion: a record of the first days, plain JSON, still reads.
func TestRecordOfNoVersion(t *testing.T) {
	e := Entry{Key: file("a"), Owner: "web", State: EntryOwned, Applied: Applied{"/spec/a": testSealer().Digest("x")}}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var got Entry
	if err := got.UnmarshalRecord(data); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(e, got, cmpopts.EquateEmpty()); d != "" {
		t.Error(d)
	}
	if err := got.UnmarshalRecord([]byte{recordV1 + 1, 0, 0}); err == nil {
		t.Error("a record of a newer version was read")
	}
}

// TestRecordIsSmall: by size, not by time. A field costs little more than its
// digest, and one that a write leaves as it is is stored once.
func TestRecordIsSmall(t *testing.T) {
	const n = 10_000
	digest := testSealer().Digest
	old, same, other := Applied{}, Applied{}, Applied{}
	for i := range n {
		p := manifest.Pointer(fmt.Sprintf("/spec/settings/field-%05d", i))
		old[p], same[p], other[p] = digest(int64(i)), digest(int64(i)), digest(int64(-i-1))
	}
	same["/spec/settings/field-00000"] = digest("changed")
	for name, c := range map[string]struct {
		writing Applied
		most    int // bytes a field
	}{"at rest": {nil, 21}, "one field changes": {same, 21}, "all change": {other, 37}} {
		e := Entry{Key: file("a"), Owner: "web", State: EntryPending, Applied: old, Writing: c.writing}
		data, err := e.MarshalRecord()
		if err != nil {
			t.Fatal(err)
		}
		if len(data) > n*c.most {
			t.Errorf("%s: %d bytes, want at most %d a field", name, len(data), c.most)
		}
	}
}
