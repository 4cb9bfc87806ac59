package render

import (
	"errors"
	"io/fs"
	"slices"
	"testing"

	"github.com/gitopsd/gitopsd/sources"
)

func using(manifestPath string, refs ...string) *file {
	f := &file{path: manifestPath}
	for _, r := range refs {
		f.units = append(f.units, unit{read: FileRead{Path: r, Hash: "h"}})
	}
	return f
}

func keys(w watch) []string {
	var out []string
	it := w.hashes.Root().Iterator()
	for k, _, ok := it.Next(); ok; k, _, ok = it.Next() {
		out = append(out, string(k))
	}
	return out
}

// What nobody refers to any more is forgotten, with the directories that hold
// nothing else.
func TestWatchForgets(t *testing.T) {
	lookup := func(string) (seen, error) { return seen{hash: "h"}, nil }
	a, b := using("a.yaml", "c/x", "c/d/y"), using("b.yaml", "c/x", "e")
	both, err := newWatch().update(nil, nil, []*file{a, b}, lookup)
	if err != nil {
		t.Fatal(err)
	}
	if got := keys(both); !slices.Equal(got, []string{"/", "/c/", "/c/d/", "/c/d/y", "/c/x", "/e"}) {
		t.Errorf("both: %q", got)
	}
	one, err := both.update(nil, []*file{a}, nil, lookup)
	if err != nil {
		t.Fatal(err)
	}
	if got := keys(one); !slices.Equal(got, []string{"/", "/c/", "/c/x", "/e"}) || one.users.Len() != 2 {
		t.Errorf("one: %q", got)
	}
	none, err := one.update(nil, []*file{b}, nil, lookup)
	if err != nil || none.hashes.Len() != 0 || none.users.Len() != 0 {
		t.Errorf("none: %q, %v", keys(none), err)
	}
	same, err := both.update(nil, []*file{a}, []*file{a}, lookup)
	if err != nil || !slices.Equal(keys(same), keys(both)) || same.users.Len() != both.users.Len() {
		t.Errorf("replaced by the same: %q, %v", keys(same), err)
	}
	failure := errors.New("damaged")
	if _, err := newWatch().update(nil, nil, []*file{a}, func(string) (seen, error) { return seen{}, failure }); !errors.Is(err, failure) {
		t.Error(err)
	}
}

// hashTree answers Stat from a table and nothing else.
type hashTree struct {
	sources.Tree
	hashes map[string]sources.Hash
	err    error
	asked  []string
}

func (h *hashTree) Stat(p string) (sources.Entry, error) {
	h.asked = append(h.asked, p)
	if hash, ok := h.hashes[p]; ok {
		return sources.Entry{Hash: hash}, nil
	}
	if h.err != nil {
		return sources.Entry{}, h.err
	}
	return sources.Entry{}, fs.ErrNotExist
}

// A directory that is as it was is not looked into.
func TestWatchSkipsWhatIsTheSame(t *testing.T) {
	lookup := func(string) (seen, error) { return seen{hash: "h"}, nil }
	w, err := newWatch().update(nil, nil, []*file{using("m.yaml", "a/b/x", "a/b/y", "a-b/z", "c/x"), using("n.yaml", "c/x")}, lookup)
	if err != nil {
		t.Fatal(err)
	}
	tr := &hashTree{hashes: map[string]sources.Hash{"": "new", "a": "h", "a-b": "h", "c": "new"}}
	changed, manifests, err := w.changes(tr)
	if err != nil || len(changed) != 3 || !manifests["m.yaml"] || !manifests["n.yaml"] {
		t.Errorf("%v %v %v", changed, manifests, err)
	}
	if want := []string{"", "a-b", "a", "c", "c/x"}; !slices.Equal(tr.asked, want) {
		t.Errorf("asked for %q", tr.asked)
	}
	damaged := &hashTree{err: sources.ErrDamaged}
	if _, _, err := w.changes(damaged); !errors.Is(err, sources.ErrDamaged) {
		t.Error(err)
	}
}
