package git

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/gitopsd/gitopsd/sources"
)

// Commit implements sources.History.
func (r *Repository) Commit(ctx context.Context, revision string) (sources.Commit, error) {
	c, err := r.commit(ctx, revision)
	return c, r.fail("commit "+serverText(revision), err)
}

func (r *Repository) commit(ctx context.Context, revision string) (sources.Commit, error) {
	hash, err := parseRevision(revision)
	if err == nil {
		err = r.alive(ctx)
	}
	if err != nil {
		return sources.Commit{}, err
	}
	data, err := r.mirror.store.read(plumbing.CommitObject, hash, maxCommit)
	if err != nil {
		return sources.Commit{}, r.unknown(err)
	}
	l, err := parseLinks(data)
	if err != nil {
		return sources.Commit{}, err
	}
	raw := &plumbing.MemoryObject{}
	raw.SetType(plumbing.CommitObject)
	raw.Write(data)
	var c object.Commit
	if err := guard(func() error { return c.Decode(raw) }); err != nil {
		return sources.Commit{}, fmt.Errorf("%w: %w", sources.ErrRefused, err)
	}
	out := sources.Commit{
		ID:        revision,
		Author:    sources.Person{Name: c.Author.Name, Email: c.Author.Email},
		Committer: sources.Person{Name: c.Committer.Name, Email: c.Committer.Email},
		When:      c.Committer.When,
		Message:   c.Message,
	}
	for _, p := range l.parents {
		out.Parents = append(out.Parents, p.String())
	}
	return out, nil
}

// unknown words that a commit is not in the mirror.
func (r *Repository) unknown(err error) error {
	if errors.Is(err, errMissing) {
		return fmt.Errorf("%w: it has not been fetched: %w", sources.ErrUnavailable, err)
	}
	return r.noteDamage(err)
}

// IsAncestor implements sources.History. It walks from new towards its parents,
// nearest first, and ends as soon as it meets old: a commit or a thousand on top
// of old cost just those. Dates are not looked at (row A-25).
func (r *Repository) IsAncestor(ctx context.Context, old, new string) (bool, error) {
	ok, err := r.isAncestor(ctx, old, new)
	return ok, r.fail("ancestry of "+serverText(new), err)
}

func (r *Repository) isAncestor(ctx context.Context, old, new string) (bool, error) {
	target, err := parseRevision(old)
	if err != nil {
		return false, err
	}
	start, err := parseRevision(new)
	if err == nil {
		err = r.alive(ctx)
	}
	if err != nil {
		return false, err
	}
	_, lost := r.mirror.store.links(target)
	if lost != nil && !errors.Is(lost, errMissing) {
		return false, r.unknown(lost)
	}
	seen := map[plumbing.Hash]bool{start: true}
	for queue := []plumbing.Hash{start}; len(queue) > 0; queue = queue[1:] {
		if err := ctx.Err(); err != nil {
			return false, fmt.Errorf("%w: %w", sources.ErrUnavailable, err)
		}
		l, err := r.mirror.store.links(queue[0])
		switch {
		case err != nil && queue[0] == start:
			return false, r.unknown(err)
		case err != nil: // a fetch brings a commit with all before it
			return false, r.gone(err)
		}
		if queue[0] == target {
			return true, nil
		}
		for _, p := range l.parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	if lost != nil {
		return false, r.unknown(lost)
	}
	return false, nil
}
