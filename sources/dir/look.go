package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/gitopsd/gitopsd/sources"
)

// snapshot is a folder as it was read at one time.
type snapshot struct {
	scan *entry
	root *node
	// recheck: something changed so shortly before it was read that another
	// change could have left the same times.
	recheck bool
}

func (s *snapshot) revision() string { return string(s.root.hash) }

// look returns the folder as it is now: the last snapshot when nothing changed.
func (r *Repository) look(ctx context.Context) (*snapshot, error) {
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	select {
	case r.looking <- struct{}{}:
		defer func() { <-r.looking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s, err := r.settle(ctx)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", r.o.Path, err)
	}
	r.last = s
	r.hold(s)
	return s, nil
}

// settle looks again and again until the folder is at rest, and reads it.
func (r *Repository) settle(ctx context.Context) (*snapshot, error) {
	wait := time.NewTimer(r.o.Settle)
	defer wait.Stop()
	deadline := time.NewTimer(r.o.Deadline)
	defer deadline.Stop()
	var before *entry
	for {
		s, now, err := r.try(ctx, before)
		if s != nil {
			return s, nil
		}
		var changed changedError
		if err != nil && !errors.As(err, &changed) {
			return nil, err
		}
		before = now
		wait.Reset(r.o.Settle)
		select {
		case <-wait.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			if changed == "" {
				changed = "something in it"
			}
			return nil, fmt.Errorf("%w: %w; it must be quiet for %v before it is read", sources.ErrUnavailable, changed, r.o.Settle)
		}
	}
}

// try looks once. It returns a snapshot; or how the folder is now, when it may
// not be at rest yet, with an error that names what has changed; or an error.
func (r *Repository) try(ctx context.Context, before *entry) (*snapshot, *entry, error) {
	root, err := openRoot(r.o.Path)
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	now, err := scan(ctx, root, r.o.Limits)
	if err != nil {
		return nil, nil, err
	}
	if r.last != nil && !r.last.recheck {
		if _, unchanged := same(r.last.scan, now, "."); unchanged {
			return r.last, nil, nil
		}
	}
	// At rest is what has not changed for a while by its own times, or, should
	// those be of another clock, by ours.
	if time.Unix(0, now.newest()).Add(r.o.Settle).After(r.o.Now()) {
		if before == nil {
			return nil, now, nil
		}
		if where, unchanged := same(before, now, "."); !unchanged {
			return nil, now, changedError(where)
		}
	}
	s, err := r.read(ctx, root, now)
	if err != nil {
		return nil, nil, err
	}
	after, err := scan(ctx, root, r.o.Limits)
	if err != nil {
		return nil, nil, err
	}
	if where, unchanged := same(now, after, "."); !unchanged {
		return nil, after, changedError(where)
	}
	return s, nil, nil
}

// openRoot opens the folder. Missing is never the same as empty.
func openRoot(path string) (*os.Root, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: it does not exist; nothing is changed until it is back", sources.ErrUnavailable)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", sources.ErrUnavailable, cause(err))
	case !info.IsDir():
		return nil, fmt.Errorf("%w: it is not a directory", sources.ErrUnavailable)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sources.ErrUnavailable, cause(err))
	}
	return root, nil
}
