package render_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/sources"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blob is a file of a test tree; a link or submodule holds its target.
type blob struct {
	mode sources.Mode
	data string
}

type files map[string]blob

// texts makes regular files.
func texts(pairs ...string) files {
	f := files{}
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = blob{data: pairs[i+1]}
	}
	return f
}

// with returns a copy with other texts; "-" as text removes.
func (f files) with(pairs ...string) files {
	c := maps.Clone(f)
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "-" {
			delete(c, pairs[i])
			continue
		}
		c[pairs[i]] = blob{data: pairs[i+1]}
	}
	return c
}

func (f files) link(p string, mode sources.Mode, target string) files {
	c := maps.Clone(f)
	c[p] = blob{mode, target}
	return c
}

// memTree is a content-addressed tree in memory that counts what is asked of it.
type memTree struct {
	revision string
	entries  map[string]sources.Entry
	blobs    files
	children map[string][]sources.Entry
	fail     map[string]error // by path, from ReadFile and ReadDir
	reads    atomic.Int64
	lists    atomic.Int64
	stats    atomic.Int64
}

func tree(revision string, f files) *memTree {
	t := &memTree{revision: revision, blobs: f, entries: map[string]sources.Entry{}, children: map[string][]sources.Entry{}, fail: map[string]error{}}
	names := map[string]map[string]bool{"": {}}
	for p := range f {
		for p != "" {
			dir := path.Dir(p)
			if dir == "." {
				dir = ""
			}
			if names[dir] == nil {
				names[dir] = map[string]bool{}
			}
			names[dir][path.Base(p)] = true
			p = dir
		}
	}
	var add func(p string) sources.Entry
	add = func(p string) sources.Entry {
		e := sources.Entry{Path: p, Mode: sources.ModeDir}
		h := sha256.New()
		if b, ok := f[p]; ok {
			e.Mode = b.mode
			fmt.Fprintf(h, "%s", b.data) // as in Git, the mode is no part of it
		} else {
			for _, name := range slices.Sorted(maps.Keys(names[p])) {
				sub := add(path.Join(p, name))
				t.children[p] = append(t.children[p], sub)
				fmt.Fprintf(h, "%q %d %s\n", name, sub.Mode, sub.Hash)
			}
		}
		e.Hash = sources.Hash(hex.EncodeToString(h.Sum(nil)))
		t.entries[p] = e
		return e
	}
	add("")
	return t
}

func (t *memTree) Revision() string { return t.revision }

func (t *memTree) Stat(p string) (sources.Entry, error) {
	t.stats.Add(1)
	if p == "." {
		p = ""
	}
	e, ok := t.entries[p]
	if !ok {
		return e, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	}
	return e, nil
}

func (t *memTree) ReadDir(p string) ([]sources.Entry, error) {
	t.lists.Add(1)
	if err := t.fail[p]; err != nil {
		return nil, err
	}
	if e, err := t.Stat(p); err != nil || e.Mode != sources.ModeDir {
		return nil, fmt.Errorf("%s: not a directory (%w)", p, fs.ErrNotExist)
	}
	return t.children[p], nil
}

func (t *memTree) ReadFile(p string, limit int64) ([]byte, error) {
	t.reads.Add(1)
	if err := t.fail[p]; err != nil {
		return nil, err
	}
	b, ok := t.blobs[p]
	switch {
	case !ok:
		return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
	case b.mode == sources.ModeSymlink || b.mode == sources.ModeSubmodule:
		panic("the target of a link was read: " + p)
	case int64(len(b.data)) > limit:
		return nil, fmt.Errorf("%s: %w", p, &sources.TooLargeError{Size: int64(len(b.data)), Limit: limit})
	}
	return []byte(b.data), nil
}

// object writes a manifest of some kind.
func object(name, extra string) string {
	return "apiVersion: v1\nkind: A\nmetadata: {name: " + name + "}\n" + extra
}

// hostFile writes a File with a spec, indented by two.
func hostFile(name string, spec ...string) string {
	return "apiVersion: host.gitopsd.io/v1alpha1\nkind: File\nmetadata: {name: " + name + "}\nspec:\n  path: /etc/" + name + "\n  " + strings.Join(spec, "\n  ") + "\n"
}
