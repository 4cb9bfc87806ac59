package memory

import (
	"fmt"
	"io/fs"
	pathpkg "path"
	"strings"

	"github.com/gitopsd/gitopsd/sources"
)

type tree struct {
	repo     *Repository
	revision string
	root     *node
}

func clean(path string) string {
	if path = pathpkg.Clean(path); path == "." || path == "/" {
		return ""
	}
	return path
}

// Revision implements sources.Tree.
func (t *tree) Revision() string { return t.revision }

func (t *tree) lookup(op, path string) (string, *node, error) {
	p := clean(path)
	t.repo.mu.Lock()
	damaged := t.repo.damaged[t.revision][p]
	t.repo.mu.Unlock()
	if damaged {
		return p, nil, fmt.Errorf("%s %s at %s: %w", op, path, t.revision, sources.ErrDamaged)
	}
	n := t.root
	if p != "" {
		for _, name := range strings.Split(p, "/") {
			if n = n.child(name); n == nil {
				return p, nil, fmt.Errorf("%s %s at %s: %w", op, path, t.revision, fs.ErrNotExist)
			}
		}
	}
	return p, n, nil
}

// Stat implements sources.Tree.
func (t *tree) Stat(path string) (sources.Entry, error) {
	p, n, err := t.lookup("stat", path)
	if err != nil {
		return sources.Entry{}, err
	}
	return sources.Entry{Path: p, Mode: n.mode, Hash: n.hash}, nil
}

// ReadDir implements sources.Tree.
func (t *tree) ReadDir(path string) ([]sources.Entry, error) {
	p, n, err := t.lookup("read directory", path)
	if err != nil {
		return nil, err
	}
	if n.mode != sources.ModeDir {
		return nil, fmt.Errorf("read directory %s at %s: %w: it is a %s", path, t.revision, sources.ErrRefused, n.mode)
	}
	t.count(func(s *Stats) { s.DirsRead++ })
	out := make([]sources.Entry, 0, len(n.kids))
	for _, k := range n.kids {
		if err := sources.ValidName(k.name); err != nil {
			return nil, fmt.Errorf("read directory %q at %s: %w: entry %q: %w", path, t.revision, sources.ErrRefused, k.name, err)
		}
		out = append(out, sources.Entry{Path: pathpkg.Join(p, k.name), Mode: k.node.mode, Hash: k.node.hash})
	}
	return out, nil
}

// ReadFile implements sources.Tree.
func (t *tree) ReadFile(path string, limit int64) ([]byte, error) {
	_, n, err := t.lookup("read", path)
	if err != nil {
		return nil, err
	}
	if n.mode != sources.ModeFile && n.mode != sources.ModeExec {
		return nil, fmt.Errorf("read %s at %s: %w: it is a %s", path, t.revision, sources.ErrRefused, n.mode)
	}
	if int64(len(n.data)) > limit {
		return nil, fmt.Errorf("read %s at %s: %w", path, t.revision, &sources.TooLargeError{Size: int64(len(n.data)), Limit: limit})
	}
	t.count(func(s *Stats) { s.FilesRead++ })
	return []byte(n.data), nil
}

func (t *tree) count(f func(*Stats)) {
	t.repo.mu.Lock()
	defer t.repo.mu.Unlock()
	f(&t.repo.stats)
}
