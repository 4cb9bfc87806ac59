package reconciler

import (
	"context"
	"errors"
	"fmt"

	"github.com/gitopsd/gitopsd/sources"
)

// open returns the tree of an accepted revision from the mirror, fetching it
// again when the mirror lost or damaged it.
func (m *Manager) open(ctx context.Context, name, revision string) (sources.Tree, error) {
	s := m.source(name)
	if s == nil {
		return nil, fmt.Errorf("source %s is not configured", name)
	}
	tree, err := s.Repository.Open(ctx, revision)
	if err == nil {
		return tree, nil
	}
	if ferr := m.repair(ctx, name, revision); ferr != nil {
		return nil, errors.Join(err, ferr)
	}
	return s.Repository.Open(ctx, revision)
}

// repair fetches a revision that should have been in the mirror, within the
// limits of a poll.
func (m *Manager) repair(ctx context.Context, name, revision string) error {
	s := m.source(name)
	if s == nil {
		return fmt.Errorf("source %s is not configured", name)
	}
	ref := s.Ref.Name()
	if ref == "" && s.Ref.Commit == "" {
		ref = sources.DirRef
	}
	return s.bounded(ctx, func(ctx context.Context) error {
		free, err := s.request(ctx)
		if err != nil {
			return err
		}
		defer free()
		return s.Repository.Fetch(ctx, ref, revision)
	})
}

// mend fetches a revision anew when it could not be read because the local copy
// is damaged.
func (m *Manager) mend(ctx context.Context, source, revision string, cause error) error {
	if !errors.Is(cause, sources.ErrDamaged) {
		return nil
	}
	return m.repair(ctx, source, revision)
}

// keep holds a revision in the mirror, so that it can be healed to even when
// no ref leads to it any more.
func (m *Manager) keep(ctx context.Context, name, as, revision string) error {
	k, ok := sources.Ability[sources.Keeper](m.source(name).Repository)
	if !ok {
		return nil
	}
	return k.Keep(ctx, as, revision)
}
