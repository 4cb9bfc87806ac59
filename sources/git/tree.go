package git

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	pathpkg "path"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/hashicorp/golang-lru/v2/simplelru"

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
	if e, ok := t.repo.trees.get(hash); ok {
		return e, nil
	}
	e, err := t.repo.mirror.store.tree(hash)
	if err == nil {
		err = checkNames(e)
	}
	if err != nil {
		return nil, t.repo.gone(err)
	}
	t.repo.trees.add(hash, e)
	return e, nil
}

// decoded keeps the directories that were read last, bounded by their number and
// by the names in them: one directory can have a million (row A-8).
type decoded struct {
	mu    sync.Mutex
	dirs  *simplelru.LRU[plumbing.Hash, []entry]
	names int
}

const (
	decodedDirs  = 2048
	decodedNames = 500_000 // about 100 bytes each
)

func newDecoded() (*decoded, error) {
	d := &decoded{}
	var err error
	d.dirs, err = simplelru.NewLRU(decodedDirs, func(_ plumbing.Hash, e []entry) { d.names -= len(e) })
	return d, err
}

func (d *decoded) get(dir plumbing.Hash) ([]entry, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dirs.Get(dir)
}

func (d *decoded) add(dir plumbing.Hash, e []entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs.Contains(dir) {
		return // somebody else has read it meanwhile
	}
	d.names += len(e)
	d.dirs.Add(dir, e)
	for d.names > decodedNames {
		d.dirs.RemoveOldest()
	}
}

func (d *decoded) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dirs.Purge()
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
