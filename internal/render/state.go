package render

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/sources"
)

// State is the result of one Render: all objects of one path at one revision,
// and what they were made of. It is immutable, safe for concurrent use, and
// shares with the State before it whatever did not change.
type State struct {
	revision string
	spec     string // digest
	limits   Limits
	above    *rules // from the root of the tree down to the rendered path
	root     *dir
	objects  *iradix.Tree[*manifest.Object]
	watch    watch
	input    string
}

// FileRead is one file that the result depends on.
type FileRead struct {
	Path string
	Hash sources.Hash
}

// Revision returns the revision of the tree.
func (s *State) Revision() string { return s.revision }

// Get returns the object of an identity.
func (s *State) Get(id manifest.ID) (*manifest.Object, bool) { return s.objects.Get(objectKey(id)) }

// Len returns the number of objects. 0 means that the path is there and holds
// none: that is a fact about the path, not a failure to read it.
func (s *State) Len() int { return s.objects.Len() }

// All returns the objects in the order of their identities.
func (s *State) All() iter.Seq[*manifest.Object] {
	return func(yield func(*manifest.Object) bool) {
		it := s.objects.Root().Iterator()
		for _, o, ok := it.Next(); ok; _, o, ok = it.Next() {
			if !yield(o) {
				return
			}
		}
	}
}

// InputDigest identifies everything that the result depends on: the paths and
// hashes of the files read, the parameters and the version of the renderer. Two
// states with the same digest have the same objects, whatever their revisions.
func (s *State) InputDigest() string { return s.input }

// FilesRead returns every file that the result depends on, sorted by path:
// manifests, ignore files, and files and templates that objects refer to. It
// takes time in proportion to their number.
func (s *State) FilesRead() []FileRead {
	var files []FileRead
	for r := s.above; r != nil; r = r.outer {
		files = append(files, r.read)
	}
	var walk func(*dir)
	walk = func(d *dir) {
		if d.ignore.Path != "" {
			files = append(files, d.ignore)
		}
		for _, f := range d.files {
			files = append(files, FileRead{Path: f.path, Hash: f.hash})
			for _, u := range f.units {
				if u.read.Path != "" {
					files = append(files, u.read)
				}
			}
		}
		for _, sub := range d.dirs {
			walk(sub)
		}
	}
	walk(s.root)
	slices.SortFunc(files, func(a, b FileRead) int { return cmp.Compare(a.Path, b.Path) })
	return slices.Compact(files)
}

// objectKey orders identities as ID.Compare does: no part holds a NUL.
func objectKey(id manifest.ID) []byte {
	return []byte(strings.Join([]string{id.Group, id.Kind, id.Namespace, id.Name}, "\x00"))
}

// Delta is the difference between two States, each list sorted by identity.
type Delta struct {
	// Upserted are objects that are new or have other content.
	Upserted []manifest.ID
	// Removed are objects that are no longer there.
	Removed []manifest.ID
	// Moved are objects with the same content at another path or line. There is
	// nothing to apply for them; State.Get gives them with the new Origin. An
	// object whose path and line did not change keeps the Origin it had, with the
	// revision at which that was read first.
	Moved []manifest.ID
	// Stats are what this Render cost.
	Stats Stats
}

// Empty reports whether no object changed.
func (d *Delta) Empty() bool { return len(d.Upserted)+len(d.Removed) == 0 }

// Stats counts work.
type Stats struct {
	DirsRead        int // directories listed
	FilesRead       int // files whose content was read
	FilesDecoded    int // manifests decoded
	ObjectsExpanded int // objects whose content was made from a file or a template
}

// delta applies the files that went and came to the objects of the state before,
// and says what that changes.
func delta(before *iradix.Tree[*manifest.Object], gone, came []*file) (*iradix.Tree[*manifest.Object], *Delta, []*manifest.Error) {
	txn := before.Txn()
	old := map[manifest.ID]*manifest.Object{}
	for _, f := range gone {
		for _, u := range f.units {
			if o, ok := txn.Delete(objectKey(u.out.ID())); ok {
				old[o.ID()] = o
			}
		}
	}
	claims := map[manifest.ID][]*manifest.Object{}
	d := &Delta{}
	for _, f := range came {
		for _, u := range f.units {
			o := u.out
			id := o.ID()
			was, existed := old[id]
			if existed && was.Hash() == o.Hash() && sameSpot(was.Origin(), o.Origin()) {
				o = was
			}
			if first, taken := txn.Insert(objectKey(id), o); taken {
				if claims[id] == nil {
					claims[id] = []*manifest.Object{first}
				}
				claims[id] = append(claims[id], o)
				continue
			}
			switch {
			case !existed || was.Hash() != o.Hash():
				d.Upserted = append(d.Upserted, id)
			case was != o:
				d.Moved = append(d.Moved, id)
			}
		}
	}
	for id := range old {
		if _, ok := txn.Get(objectKey(id)); !ok {
			d.Removed = append(d.Removed, id)
		}
	}
	for _, ids := range [][]manifest.ID{d.Upserted, d.Removed, d.Moved} {
		slices.SortFunc(ids, manifest.ID.Compare)
	}
	return txn.Commit(), d, duplicates(claims)
}

func sameSpot(a, b manifest.Origin) bool { return a.Path == b.Path && a.Line == b.Line }

// duplicates reports each object whose identity is taken, against the one that
// comes first by path and line, so that the report does not depend on what was
// read when.
func duplicates(claims map[manifest.ID][]*manifest.Object) []*manifest.Error {
	var problems []*manifest.Error
	for _, claim := range claims {
		slices.SortFunc(claim, func(a, b *manifest.Object) int {
			return cmp.Or(cmp.Compare(a.Origin().Path, b.Origin().Path), cmp.Compare(a.Origin().Line, b.Origin().Line))
		})
		for _, second := range claim[1:] {
			problems = append(problems, manifest.Duplicate(claim[0], second))
		}
	}
	return problems
}
