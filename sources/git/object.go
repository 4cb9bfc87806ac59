package git

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/gitopsd/gitopsd/sources"
)

const (
	maxTree   = 64 << 20 // bytes of one tree object: about a million entries
	maxCommit = 4 << 20
)

// entry is one name of a decoded tree.
type entry struct {
	name string
	mode sources.Mode
	hash plumbing.Hash
}

// parseTree decodes the raw bytes of a tree without judging its names.
func parseTree(data []byte) ([]entry, error) {
	var out []entry
	for len(data) > 0 {
		mode, rest, ok1 := bytes.Cut(data, []byte{' '})
		name, rest, ok2 := bytes.Cut(rest, []byte{0})
		if !ok1 || !ok2 || len(rest) < 20 {
			return nil, fmt.Errorf("%w: malformed tree", sources.ErrRefused)
		}
		e := entry{name: string(name)}
		switch string(mode) {
		case "100644", "100664":
			e.mode = sources.ModeFile
		case "100755":
			e.mode = sources.ModeExec
		case "40000":
			e.mode = sources.ModeDir
		case "120000":
			e.mode = sources.ModeSymlink
		case "160000":
			e.mode = sources.ModeSubmodule
		default:
			return nil, fmt.Errorf("%w: entry %q has the unknown mode %q", sources.ErrRefused, name, mode)
		}
		copy(e.hash[:], rest)
		out = append(out, e)
		data = rest[20:]
	}
	return out, nil
}

// checkNames refuses a directory that some filesystem would read otherwise:
// hostile names (row A-2), and names that are one name where case or the form of
// accents does not count (row A-24). It sorts by name.
func checkNames(entries []entry) error {
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	folded := make(map[string]string, len(entries))
	fold := cases.Fold()
	for _, e := range entries {
		if err := sources.ValidName(e.name); err != nil {
			return fmt.Errorf("%w: entry %q: %w", sources.ErrRefused, e.name, err)
		}
		key := fold.String(norm.NFC.String(e.name))
		if other, taken := folded[key]; taken {
			return fmt.Errorf("%w: entries %q and %q are one name (rename one of them)", sources.ErrRefused, other, e.name)
		}
		folded[key] = e.name
	}
	return nil
}

// links are what a commit leads to.
type links struct {
	tree    plumbing.Hash
	parents []plumbing.Hash
}

// parseLinks reads the header of a commit strictly: one tree, then the parents,
// then the author. Anything else is not what git writes and is refused, because
// readers disagree about it (the beginning of row A-18).
func parseLinks(data []byte) (links, error) {
	header, _, ok := strings.Cut(string(data), "\n\n")
	if !ok {
		header = string(data)
	}
	var l links
	state := 0
	for i, line := range strings.Split(header, "\n") {
		key, value, _ := strings.Cut(line, " ")
		switch {
		case key == "tree" && i == 0:
		case key == "parent" && i > 0 && state == 0:
		case key == "author" && i > 0 && state == 0:
			state = 1
			continue
		case key == "tree" || key == "parent" || state == 0:
			return links{}, fmt.Errorf("%w: the commit's header is malformed at line %d", sources.ErrRefused, i+1)
		default:
			continue
		}
		if raw, err := hex.DecodeString(value); err != nil || len(raw) != 20 {
			return links{}, fmt.Errorf("%w: the commit's header is malformed at line %d", sources.ErrRefused, i+1)
		}
		if h := plumbing.NewHash(value); key == "tree" {
			l.tree = h
		} else {
			l.parents = append(l.parents, h)
		}
	}
	if state == 0 {
		return links{}, fmt.Errorf("%w: the commit has no author", sources.ErrRefused)
	}
	return l, nil
}

func (s *store) links(commit plumbing.Hash) (links, error) {
	data, err := s.read(plumbing.CommitObject, commit, maxCommit)
	if err != nil {
		return links{}, err
	}
	return parseLinks(data)
}

func (s *store) tree(hash plumbing.Hash) ([]entry, error) {
	data, err := s.read(plumbing.TreeObject, hash, maxTree)
	if err != nil {
		return nil, err
	}
	return parseTree(data)
}
