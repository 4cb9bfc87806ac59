package dir

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/gitopsd/gitopsd/sources"
)

// node is one entry of a snapshot. It is never changed once it was made.
type node struct {
	name     string
	mode     sources.Mode
	hash     sources.Hash
	stat     stat      // of files and links
	young    bool      // stat cannot be trusted to tell the next change
	content  []byte    // of files; nil when it is not held
	children []*node   // sorted by name
	refused  []refusal // what else is in the directory
}

// refusal is an entry that no tree hands out.
type refusal struct {
	name   string
	reason error
}

// child returns an entry of a directory, or nil; nil has none.
func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	i, found := slices.BinarySearchFunc(n.children, name, func(c *node, name string) int { return strings.Compare(c.name, name) })
	if !found {
		return nil
	}
	return n.children[i]
}

// tree is a snapshot as a sources.Tree.
type tree struct {
	source string // path of the folder
	limit  int64  // of the bytes of one file
	root   *node
}

// Revision implements sources.Tree.
func (t *tree) Revision() string { return string(t.root.hash) }

// find returns the node at a path, and the path in clean form.
func (t *tree) find(p string) (*node, string, error) {
	if p == "" || p == "." {
		return t.root, "", nil
	}
	n := t.root
	if !fs.ValidPath(p) {
		return nil, "", t.error(p, fs.ErrNotExist)
	}
	for name := range strings.SplitSeq(p, "/") {
		for _, r := range n.refused {
			if r.name == name {
				return nil, "", fmt.Errorf("folder %s: %w", t.source, r.reason)
			}
		}
		if n = n.child(name); n == nil {
			return nil, "", t.error(p, fs.ErrNotExist)
		}
	}
	return n, p, nil
}

func (t *tree) error(p string, err error) error {
	return fmt.Errorf("folder %s: %s: %w", t.source, p, err)
}

// Stat implements sources.Tree. A device, pipe or socket is ErrRefused.
func (t *tree) Stat(p string) (sources.Entry, error) {
	n, p, err := t.find(p)
	if err != nil {
		return sources.Entry{}, err
	}
	return sources.Entry{Path: p, Mode: n.mode, Hash: n.hash}, nil
}

// ReadDir implements sources.Tree. A directory that holds a hostile name, or a
// device, pipe or socket, is ErrRefused as a whole.
func (t *tree) ReadDir(p string) ([]sources.Entry, error) {
	n, p, err := t.find(p)
	if err != nil {
		return nil, err
	}
	if n.mode != sources.ModeDir {
		return nil, t.error(p, fmt.Errorf("%w: it is a %s, not a directory", sources.ErrRefused, n.mode))
	}
	if len(n.refused) > 0 {
		return nil, fmt.Errorf("folder %s: %w", t.source, n.refused[0].reason)
	}
	entries := make([]sources.Entry, len(n.children))
	for i, c := range n.children {
		entries[i] = sources.Entry{Path: path.Join(p, c.name), Mode: c.mode, Hash: c.hash}
	}
	return entries, nil
}

// ReadFile implements sources.Tree.
func (t *tree) ReadFile(p string, limit int64) ([]byte, error) {
	n, p, err := t.find(p)
	if err != nil {
		return nil, err
	}
	if n.mode != sources.ModeFile && n.mode != sources.ModeExec {
		return nil, t.error(p, fmt.Errorf("%w: it is a %s, not a file", sources.ErrRefused, n.mode))
	}
	limit = min(limit, t.limit)
	if size := int64(n.stat.size); size > limit {
		return nil, t.error(p, &sources.TooLargeError{Size: size, Limit: limit})
	}
	if n.content == nil {
		return t.again(n, p)
	}
	return bytes.Clone(n.content), nil
}

// again reads a file that is not held, and refuses to give anything else than what
// the snapshot was made of.
func (t *tree) again(n *node, p string) ([]byte, error) {
	root, err := openRoot(t.source)
	if err != nil {
		return nil, t.error(p, err)
	}
	defer root.Close()
	f, err := root.OpenFile(p, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe put in its place would block
	if err != nil {
		return nil, t.changed(p, unavailable(p, err))
	}
	defer f.Close()
	content := make([]byte, n.stat.size)
	if _, err := io.ReadFull(f, content); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, t.changed(p, unavailable(p, err))
	}
	if more, _ := f.Read(make([]byte, 1)); more > 0 || hash("file", content) != n.hash {
		return nil, t.changed(p, changedError(p))
	}
	return content, nil
}

// changed says what became of a file that is not held.
func (t *tree) changed(p string, err error) error {
	if changed := changedError(""); errors.As(err, &changed) {
		err = fmt.Errorf("%w: it has changed since revision %.12s was looked at, and with so many bytes in the folder it is not kept; it is looked at again",
			sources.ErrUnavailable, t.Revision())
	}
	return t.error(p, err)
}
