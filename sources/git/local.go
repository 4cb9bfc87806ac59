package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"github.com/gitopsd/gitopsd/sources"
)

// local reads a repository on this host without running git.
type local struct{ path string }

func (local) close() {}

func (l local) open(ctx context.Context) (session, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", sources.ErrUnavailable, err)
	}
	dir := l.path
	if _, err := os.Stat(filepath.Join(dir, ".git", "objects")); err == nil {
		dir = filepath.Join(dir, ".git")
	}
	if _, err := os.Stat(filepath.Join(dir, "objects")); err != nil {
		return nil, fmt.Errorf("%w: there is no Git repository: %w", sources.ErrUnavailable, err)
	}
	s := &localSession{store: &store{dir: dir}}
	err := guard(func() error { return s.readRefs() })
	if err != nil {
		s.close()
		return nil, classify(err)
	}
	return s, nil
}

type localSession struct {
	store *store
	refs  *packp.AdvRefs
}

func (s *localSession) advertised() *packp.AdvRefs { return s.refs }
func (s *localSession) close()                     { s.store.reload() }

func (s *localSession) readRefs() error {
	objects := filesystem.NewStorage(osfs.New(s.store.dir, osfs.WithBoundOS()), cache.NewObjectLRU(deltaCache))
	defer objects.Close()
	s.refs = packp.NewAdvRefs()
	// Listing a directory may miss a ref that is being replaced by a rename, so it
	// is listed again: a ref that is there is seen in one of the passes.
	for seen, tries := 0, 0; seen < refPasses; tries++ {
		err := s.listRefs(objects)
		if errors.Is(err, dotgit.ErrEmptyRefFile) && tries < refTries {
			continue // the lock file of a ref that is being written
		}
		if err != nil {
			return err
		}
		seen++
	}
	return nil
}

// refPasses is how often the refs of a repository on disk are listed, refTries
// how often a listing may meet a ref that is just being written.
const (
	refPasses = 3
	refTries  = 50
)

// listRefs adds the refs of one listing to what was seen before.
func (s *localSession) listRefs(objects *filesystem.Storage) error {
	iter, err := objects.IterReferences()
	if err != nil {
		return err
	}
	return iter.ForEach(func(r *plumbing.Reference) error {
		name := r.Name().String()
		if strings.HasSuffix(name, ".lock") {
			return nil // git is about to replace the ref beside it
		}
		r, err := storer.ResolveReference(objects, r.Name())
		if err != nil {
			return nil // HEAD of a repository without commits
		}
		if name == "HEAD" {
			h := r.Hash()
			s.refs.Head = &h
			return nil
		}
		if err := refFormat(name); err != nil {
			return fmt.Errorf("%w: the repository has a ref named %q: %w", sources.ErrRefused, serverText(name), err)
		}
		s.refs.References[name] = r.Hash()
		target := r.Hash()
		for range 10 { // tags of tags
			tag, err := object.GetTag(objects, target)
			if err != nil {
				break
			}
			target = tag.Target
		}
		delete(s.refs.Peeled, name)
		if target != r.Hash() {
			s.refs.Peeled[name] = target
		}
		return nil
	})
}

func (s *localSession) pack(ctx context.Context, req packRequest, w io.Writer) error {
	need := &collector{from: s.store, has: req.has, seen: map[plumbing.Hash]bool{}}
	for _, want := range req.wants {
		if err := need.add(ctx, want); err != nil {
			return classify(fmt.Errorf("%s: %w", want, err))
		}
	}
	for _, h := range need.out {
		size, err := s.store.size(h)
		if err == nil {
			err = req.limits.object(size, "object "+h.String())
		}
		if err != nil {
			return classify(err)
		}
	}
	return s.store.encode(w, need.out)
}

// collector lists the objects that lead from a commit or tag to what the mirror
// has. A commit that the mirror has is complete there, so the walk ends at it.
type collector struct {
	from *store
	has  func(plumbing.Hash) bool
	seen map[plumbing.Hash]bool
	out  []plumbing.Hash
}

func (c *collector) take(h plumbing.Hash) bool {
	if c.seen[h] || c.has(h) {
		return false
	}
	c.seen[h] = true
	c.out = append(c.out, h)
	return true
}

func (c *collector) add(ctx context.Context, h plumbing.Hash) error {
	for queue := []plumbing.Hash{h}; len(queue) > 0; queue = queue[1:] {
		h := queue[0]
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", sources.ErrUnavailable, err)
		}
		if tag, ok := c.tag(h); ok {
			c.take(h)
			queue = append(queue, tag)
			continue
		}
		if !c.take(h) {
			continue
		}
		l, err := c.from.links(h)
		if err != nil {
			return err
		}
		if err := c.tree(l.tree); err != nil {
			return err
		}
		queue = append(queue, l.parents...)
	}
	return nil
}

// tag returns what a tag object names. To look for a tag and find a commit would
// read all indexes again.
func (c *collector) tag(h plumbing.Hash) (target plumbing.Hash, ok bool) {
	err := c.from.with(h, func(o *filesystem.Storage) error {
		found, err := o.EncodedObject(plumbing.AnyObject, h)
		if err != nil || found.Type() != plumbing.TagObject {
			return err
		}
		tag, err := object.DecodeTag(o, found)
		if err == nil {
			target, ok = tag.Target, true
		}
		return err
	})
	return target, ok && err == nil
}

func (c *collector) tree(h plumbing.Hash) error {
	if !c.take(h) {
		return nil
	}
	entries, err := c.from.tree(h)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.mode {
		case sources.ModeDir:
			if err := c.tree(e.hash); err != nil {
				return err
			}
		case sources.ModeSubmodule:
		default:
			c.take(e.hash)
		}
	}
	return nil
}
