package memory

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/sources"
)

// node is one immutable file or directory. Commits share the nodes that they
// did not change, so that a commit costs its own paths and not the repository.
type node struct {
	mode sources.Mode
	hash sources.Hash
	data string
	// kids of a directory, sorted by name.
	kids []kid
}

type kid struct {
	name string
	node *node
}

func newFile(data string, mode sources.Mode) *node {
	sum := sha256.Sum256([]byte(data))
	return &node{mode: mode, data: data, hash: sources.Hash(hex.EncodeToString(sum[:20]))}
}

func newDir(kids []kid) *node {
	h := sha256.New()
	h.Write([]byte("dir\x00"))
	for _, k := range kids {
		h.Write([]byte{byte(k.node.mode)})
		h.Write([]byte(k.name))
		h.Write([]byte{0})
		h.Write([]byte(k.node.hash))
		h.Write([]byte{0})
	}
	return &node{mode: sources.ModeDir, kids: kids, hash: sources.Hash(hex.EncodeToString(h.Sum(nil)[:20]))}
}

func (n *node) find(name string) (int, bool) {
	return slices.BinarySearchFunc(n.kids, name, func(k kid, name string) int { return strings.Compare(k.name, name) })
}

func (n *node) child(name string) *node {
	if i, ok := n.find(name); ok {
		return n.kids[i].node
	}
	return nil
}

// edits is a tree of changes: what becomes of a name, or of the names below it.
type edits struct {
	leaf    *node // the new file
	removed bool
	below   map[string]*edits
}

func (e *edits) at(path string) *edits {
	for _, name := range strings.Split(path, "/") {
		if e.below == nil {
			e.below = map[string]*edits{}
		}
		next := e.below[name]
		if next == nil {
			next = &edits{}
			e.below[name] = next
		}
		e = next
	}
	return e
}

// apply returns n with the edits made, nil when nothing is left of it. Each
// directory on the way is built and hashed once, however many edits lie in it.
func (e *edits) apply(n *node) *node {
	if e.leaf != nil {
		return e.leaf
	}
	if e.removed {
		n = nil // what is written below it starts anew
	}
	var kids []kid
	if n != nil && n.mode == sources.ModeDir {
		kids = slices.Clone(n.kids)
	}
	dir := &node{kids: kids}
	var added []kid
	gone := false
	for name, below := range e.below {
		i, ok := dir.find(name)
		var old *node
		if ok {
			old = kids[i].node
		}
		now := below.apply(old)
		switch {
		case ok:
			kids[i].node = now
			gone = gone || now == nil
		case now != nil:
			added = append(added, kid{name, now})
		}
	}
	if gone {
		kids = slices.DeleteFunc(kids, func(k kid) bool { return k.node == nil })
	}
	if len(added) > 0 {
		kids = append(kids, added...)
		slices.SortFunc(kids, func(a, b kid) int { return strings.Compare(a.name, b.name) })
	}
	if len(kids) == 0 {
		return nil
	}
	return newDir(kids)
}
