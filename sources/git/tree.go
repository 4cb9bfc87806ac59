package git

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	pathpkg "path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitopsd/gitopsd/sources"
)

type tree struct {
	repo     *Repository
	revision string
	root     plumbing.Hash
}

// Revision implements sources.Tree.
func (t *tree) Revision() string { return t.revision }

func (t *tree) fail(op, path string, err error) error {
	return t.repo.fail(fmt.Sprintf("%s %q at %s", op, serverText(path), t.revision), err)
}

// entries returns a directory whose names have been judged, sorted by name.
func (t *tree) entries(hash plumbing.Hash) ([]entry, error) {
	if e, ok := t.repo.trees.Get(hash); ok {
		return e, nil
	}
	e, err := t.repo.mirror.store.tree(hash)
	if err == nil {
		err = checkNames(e)
	}
	if err != nil {
		return nil, t.repo.gone(err)
	}
	t.repo.trees.Add(hash, e)
	return e, nil
}

// gone sorts an error of reading what was there when the tree was opened.
func (r *Repository) gone(err error) error {
	if errors.Is(err, errMissing) {
		err = fmt.Errorf("%w: %w", sources.ErrDamaged, err)
	}
	return r.noteDamage(err)
}

func (t *tree) lookup(path string) (entry, string, error) {
	e := entry{mode: sources.ModeDir, hash: t.root}
	clean := pathpkg.Clean(path)
	if clean == "." || clean == "/" {
		return e, "", nil
	}
	for _, name := range strings.Split(clean, "/") {
		if e.mode != sources.ModeDir {
			return e, clean, fs.ErrNotExist
		}
		entries, err := t.entries(e.hash)
		if err != nil {
			return e, clean, err
		}
		i, ok := slices.BinarySearchFunc(entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
		if !ok {
			return e, clean, fs.ErrNotExist
		}
		e = entries[i]
	}
	return e, clean, nil
}

// Stat implements sources.Tree.
func (t *tree) Stat(path string) (sources.Entry, error) {
	e, clean, err := t.lookup(path)
	if err != nil {
		return sources.Entry{}, t.fail("stat", path, err)
	}
	return sources.Entry{Path: clean, Mode: e.mode, Hash: sources.Hash(e.hash.String())}, nil
}

// ReadDir implements sources.Tree.
func (t *tree) ReadDir(path string) ([]sources.Entry, error) {
	e, clean, err := t.lookup(path)
	if err == nil && e.mode != sources.ModeDir {
		err = fmt.Errorf("%w: it is a %s", sources.ErrRefused, e.mode)
	}
	var entries []entry
	if err == nil {
		entries, err = t.entries(e.hash)
	}
	if err != nil {
		return nil, t.fail("read directory", path, err)
	}
	out := make([]sources.Entry, len(entries))
	for i, e := range entries {
		out[i] = sources.Entry{Path: pathpkg.Join(clean, e.name), Mode: e.mode, Hash: sources.Hash(e.hash.String())}
	}
	return out, nil
}

// lfsPointer is the first line of a file that Git LFS keeps elsewhere.
var lfsPointer = []byte("version https://git-lfs.github.com/spec/")

// ReadFile implements sources.Tree. A pointer of Git LFS is refused: its content
// is not in the repository (row A-24).
func (t *tree) ReadFile(path string, limit int64) ([]byte, error) {
	e, _, err := t.lookup(path)
	if err == nil && e.mode != sources.ModeFile && e.mode != sources.ModeExec {
		err = fmt.Errorf("%w: it is a %s", sources.ErrRefused, e.mode)
	}
	var data []byte
	if err == nil {
		data, err = t.repo.mirror.store.read(plumbing.BlobObject, e.hash, limit)
		err = t.repo.gone(err)
	}
	if err == nil && len(data) < 1024 && bytes.HasPrefix(data, lfsPointer) {
		data, err = nil, fmt.Errorf("%w: it is a pointer of Git LFS, whose content is not in the repository (store the file itself)", sources.ErrRefused)
	}
	if err != nil {
		return nil, t.fail("read", path, err)
	}
	return data, nil
}
