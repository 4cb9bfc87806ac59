package git

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitopsd/gitopsd/sources"
)

// closure knows which commits and trees have been seen to be complete, so that
// checking a commit costs what it changed.
type closure struct {
	mu       sync.Mutex
	commits  map[plumbing.Hash]plumbing.Hash // to the root tree
	complete map[plumbing.Hash]bool          // trees
}

const maxComplete = 500_000 // trees remembered, about 40 bytes each

func (c *closure) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.commits, c.complete = map[plumbing.Hash]plumbing.Hash{}, map[plumbing.Hash]bool{}
}

func (c *closure) root(commit plumbing.Hash) (plumbing.Hash, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	root, ok := c.commits[commit]
	return root, ok
}

// verify checks that a commit and all that its tree leads to are in the store:
// trees by reading them, files by being there (row A-11). A commit that is not
// there at all gives errMissing; one whose content is not gives errIncomplete.
func (c *closure) verify(ctx context.Context, s *store, commit plumbing.Hash) error {
	if _, ok := c.root(commit); ok {
		return nil
	}
	l, err := s.links(commit)
	if err != nil {
		return err
	}
	seen := map[plumbing.Hash]bool{}
	if err := c.walk(ctx, s, l.tree, seen); err != nil {
		if errors.Is(err, errMissing) {
			return fmt.Errorf("%w: commit %s: %w", errIncomplete, commit, err)
		}
		return fmt.Errorf("commit %s: %w", commit, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.complete)+len(seen) > maxComplete {
		clear(c.complete)
		clear(c.commits)
	}
	for h := range seen {
		c.complete[h] = true
	}
	c.commits[commit] = l.tree
	return nil
}

// errIncomplete: a commit is there and something it leads to is not.
var errIncomplete = errors.New("incomplete")

func (c *closure) walk(ctx context.Context, s *store, root plumbing.Hash, seen map[plumbing.Hash]bool) error {
	for stack := []plumbing.Hash{root}; len(stack) > 0; {
		tree := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		c.mu.Lock()
		done := c.complete[tree] || seen[tree]
		c.mu.Unlock()
		if done {
			continue
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", sources.ErrUnavailable, err)
		}
		entries, err := s.tree(tree)
		if err != nil {
			return err
		}
		seen[tree] = true
		for _, e := range entries {
			switch e.mode {
			case sources.ModeDir:
				stack = append(stack, e.hash)
			case sources.ModeSubmodule: // never fetched (row A-3)
			default:
				if !s.has(e.hash) {
					return fmt.Errorf("%w: %s", errMissing, e.hash)
				}
			}
		}
	}
	return nil
}
