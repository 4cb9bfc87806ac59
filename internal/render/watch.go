package render

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/gitopsd/gitopsd/sources"
)

// watch records which files objects refer to, wherever in the tree these are, so
// that a later revision can be asked what became of them without asking for each:
// a directory with the hash it had is skipped with all that is below. It is
// immutable.
type watch struct {
	// hashes has the entry of every file referred to under "/"+path, and of every
	// directory above one under "/"+path+"/" (the root is "/").
	hashes *iradix.Tree[seen]
	// users has a key path+NUL+manifest for every file and manifest that refers to it.
	users *iradix.Tree[struct{}]
}

type seen struct {
	hash sources.Hash
	mode sources.Mode
}

func newWatch() watch {
	return watch{hashes: iradix.New[seen](), users: iradix.New[struct{}]()}
}

func fileKey(p string) []byte { return []byte("/" + p) }

func dirKey(p string) []byte {
	if p == "" {
		return []byte("/")
	}
	return []byte("/" + p + "/")
}

func userKey(p, manifest string) []byte { return []byte(p + "\x00" + manifest) }

// change is what a tree has in the place of something watched.
type change struct {
	key []byte
	now seen // the zero value when it is gone
}

// changes compares the tree with what was seen. It returns the directories and
// files that differ, and the manifests that refer to a differing file.
func (w watch) changes(tree sources.Tree) (changed []change, manifests map[string]bool, err error) {
	manifests = map[string]bool{}
	it := w.hashes.Root().Iterator()
	for key, was, ok := it.Next(); ok; key, was, ok = it.Next() {
		path := strings.Trim(string(key), "/")
		now, err := stat(tree, path)
		if err != nil {
			return nil, nil, err
		}
		isDir := bytes.HasSuffix(key, []byte("/"))
		if now == was {
			if isDir {
				it = w.hashes.Root().Iterator()
				// No path holds this byte, so all that is below is passed over.
				it.SeekLowerBound(append(bytes.Clone(key), 0xff))
			}
			continue
		}
		changed = append(changed, change{bytes.Clone(key), now})
		if !isDir {
			users := w.users.Root().Iterator()
			users.SeekPrefix(userKey(path, ""))
			for user, _, ok := users.Next(); ok; user, _, ok = users.Next() {
				manifests[string(user[len(path)+1:])] = true
			}
		}
	}
	return changed, manifests, nil
}

func stat(tree sources.Tree, path string) (seen, error) {
	e, err := tree.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return seen{}, nil
	}
	return seen{e.Hash, e.Mode}, err
}

// update returns the watch after files went and came. lookup gives the entry of a
// path in the new tree.
func (w watch) update(changed []change, gone, came []*file, lookup func(string) (seen, error)) (watch, error) {
	hashes, users := w.hashes.Txn(), w.users.Txn()
	for _, c := range changed {
		hashes.Insert(c.key, c.now)
	}
	dropped := map[string]bool{}
	for _, f := range gone {
		for _, u := range f.units {
			if u.read.Path != "" {
				users.Delete(userKey(u.read.Path, f.path))
				dropped[u.read.Path] = true
			}
		}
	}
	for _, f := range came {
		for _, u := range f.units {
			if u.read.Path == "" {
				continue
			}
			users.Insert(userKey(u.read.Path, f.path), struct{}{})
			if err := add(hashes, u.read.Path, lookup); err != nil {
				return watch{}, err
			}
		}
	}
	for path := range dropped {
		if !hasPrefix(users, userKey(path, ""), 0) {
			remove(hashes, path)
		}
	}
	return watch{hashes.Commit(), users.Commit()}, nil
}

// add puts in a file and the directories above it.
func add(hashes *iradix.Txn[seen], path string, lookup func(string) (seen, error)) error {
	now, err := lookup(path)
	if err != nil {
		return err
	}
	hashes.Insert(fileKey(path), now)
	for _, d := range ancestors(path) {
		if now, err = lookup(d); err != nil {
			return err
		}
		hashes.Insert(dirKey(d), now)
	}
	return nil
}

// remove takes out a file and the directories above it that hold no other.
func remove(hashes *iradix.Txn[seen], path string) {
	hashes.Delete(fileKey(path))
	dirs := ancestors(path)
	for i := len(dirs) - 1; i >= 0; i-- {
		if key := dirKey(dirs[i]); !hasPrefix(hashes, key, len(key)+1) {
			hashes.Delete(key)
		}
	}
}

// hasPrefix reports whether a key of at least min bytes starts with prefix.
func hasPrefix[T any](txn *iradix.Txn[T], prefix []byte, min int) bool {
	it := txn.Root().Iterator()
	it.SeekPrefix(prefix)
	for key, _, ok := it.Next(); ok; key, _, ok = it.Next() {
		if len(key) >= min {
			return true
		}
	}
	return false
}
