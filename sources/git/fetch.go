package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/sources"
)

// Fetch implements sources.Repository. After an ErrDamaged it drops the mirror
// and clones anew.
func (r *Repository) Fetch(ctx context.Context, ref, revision string) error {
	return r.fail("fetch "+serverText(revision), r.fetch(ctx, ref, revision))
}

func (r *Repository) fetch(ctx context.Context, ref, revision string) error {
	hash, err := parseRevision(revision)
	if err == nil && ref != "" {
		err = ValidRef(ref)
	}
	if err == nil {
		err = r.alive(ctx)
	}
	if err != nil {
		return err
	}
	if there, err := r.present(ctx, hash); there || err != nil {
		return err
	}
	select {
	case r.fetching <- struct{}{}:
		defer func() { <-r.fetching }()
	case <-ctx.Done():
		return fmt.Errorf("%w: another fetch is under way: %w", sources.ErrUnavailable, ctx.Err())
	}
	if there, err := r.present(ctx, hash); there || err != nil {
		return err
	}
	err = r.options.Seam(effect.MirrorFetch, r.location.String()+" "+revision, func() error {
		if len(r.options.Child) > 0 {
			return r.fetchInChild(ctx, ref, hash)
		}
		return r.fetchHere(ctx, ref, hash)
	})
	r.count(func(s *Stats) {
		s.Fetches++
		if err != nil {
			s.FetchesFailed++
		}
	})
	return err
}

// present reports whether a revision is in the mirror, whole. Damage is not an
// error here: it is what Fetch repairs.
func (r *Repository) present(ctx context.Context, hash plumbing.Hash) (bool, error) {
	r.mu.Lock()
	damaged := r.damaged
	r.mu.Unlock()
	if damaged {
		return false, nil
	}
	err := r.closure.verify(ctx, r.mirror.store, hash)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, errIncomplete):
		r.noteDamage(fmt.Errorf("%w: %w", sources.ErrDamaged, err))
	case errors.Is(err, sources.ErrDamaged):
		r.noteDamage(err)
	case !errors.Is(err, errMissing):
		return false, err
	}
	return false, nil
}

// fetchHere fetches in this process.
func (r *Repository) fetchHere(ctx context.Context, ref string, hash plumbing.Hash) error {
	unlock, err := r.mirror.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	r.mu.Lock()
	damaged := r.damaged
	r.mu.Unlock()
	if damaged {
		return r.reclone(ctx, ref, hash)
	}
	if err := r.download(ctx, r.mirror, ref, hash); err != nil {
		return err
	}
	err = r.closure.verify(ctx, r.mirror.store, hash)
	if errors.Is(err, errIncomplete) || errors.Is(err, sources.ErrDamaged) {
		// The mirror claimed to have what it has not: start over.
		r.noteDamage(sources.ErrDamaged)
		return r.reclone(ctx, ref, hash)
	}
	if err != nil {
		return unreachable(err)
	}
	if err := r.mirror.setRef(tipRef(ref), hash); err != nil {
		return err
	}
	did, err := r.mirror.compact(ctx, r.options.CompactPacks)
	if did {
		r.count(func(s *Stats) { s.Compactions++ })
	}
	if errors.Is(err, sources.ErrDamaged) {
		r.noteDamage(err)
		return r.reclone(ctx, ref, hash)
	}
	return err
}

// unreachable words the case that the transfer was fine and the revision is not
// in it.
func unreachable(err error) error {
	if errors.Is(err, errMissing) || errors.Is(err, errIncomplete) {
		return fmt.Errorf("%w: the server did not send it (was the ref replaced meanwhile? the next poll sees the new one): %w", sources.ErrUnavailable, err)
	}
	return err
}

// reclone makes a fresh mirror beside the damaged one, saves from the old what
// is kept and still sound, and puts it in place. Until then the old one stays.
func (r *Repository) reclone(ctx context.Context, ref string, hash plumbing.Hash) error {
	fresh := newMirror(r.mirror.dir + ".new")
	old := r.mirror.dir + ".damaged"
	for _, dir := range []string{fresh.dir, old} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := fresh.create(); err != nil {
		return err
	}
	defer os.RemoveAll(fresh.dir)
	defer fresh.store.reload()
	if err := r.download(ctx, fresh, ref, hash); err != nil {
		return err
	}
	var check closure
	check.forget()
	if err := check.verify(ctx, fresh.store, hash); err != nil {
		return unreachable(err)
	}
	if err := fresh.setRef(tipRef(ref), hash); err != nil {
		return err
	}
	kept, err := r.mirror.refs(keepRefs)
	if err != nil {
		return err
	}
	for name, keep := range kept {
		if err := r.salvage(ctx, fresh, &check, keep); err != nil {
			continue // it was damaged itself: there is nothing to hold any more
		}
		if err := fresh.setRef(keepRefs+name, keep); err != nil {
			return err
		}
	}
	if err := os.Rename(r.mirror.dir, old); err != nil {
		return err
	}
	if err := os.Rename(fresh.dir, r.mirror.dir); err != nil {
		return err
	}
	if err := r.mirror.store.reload(); err != nil {
		return err
	}
	r.closure.forget()
	r.trees.forget()
	r.mu.Lock()
	r.damaged = false
	r.stats.Reclones++
	r.mu.Unlock()
	return os.RemoveAll(old)
}

// salvage brings a kept revision into a fresh mirror. Every object is read and
// its hash checked on the way.
func (r *Repository) salvage(ctx context.Context, fresh *mirror, check *closure, keep plumbing.Hash) error {
	if check.verify(ctx, fresh.store, keep) == nil {
		return nil
	}
	need := &collector{from: r.mirror.store, has: fresh.store.has, seen: map[plumbing.Hash]bool{}}
	if err := need.add(ctx, keep); err != nil {
		return err
	}
	if err := fresh.rewrite(ctx, r.mirror.store, need.out); err != nil {
		return err
	}
	return check.verify(ctx, fresh.store, keep)
}

// download transfers into a mirror what it lacks of a revision.
func (r *Repository) download(ctx context.Context, m *mirror, ref string, hash plumbing.Hash) error {
	session, err := r.connect(ctx)
	if err != nil {
		return err
	}
	defer session.close()
	wants, err := wantsFor(session.advertised(), ref, hash)
	if err != nil {
		return err
	}
	haves, err := m.haves(ctx, ref)
	if err != nil {
		return err
	}
	wants = slices.DeleteFunc(wants, func(h plumbing.Hash) bool { return h != hash && m.store.has(h) })
	if len(wants) == 0 {
		return nil
	}
	limits := r.options.Limits
	limit := &bounded{
		left: limits.PackBytes,
		says: fmt.Errorf("%w: the pack is larger than %d bytes (git.limits.packMiB)", sources.ErrRefused, limits.PackBytes),
	}
	err = m.receive(ctx, limits.index, func(w io.Writer) error {
		limit.w = w
		return session.pack(ctx, packRequest{wants: wants, haves: haves, has: m.store.has, limits: limits}, limit)
	})
	r.count(func(s *Stats) { s.BytesFetched += limits.PackBytes - max(limit.left, 0) })
	return ended(ctx, err)
}

// wantsFor chooses what to ask for: the ref that stands at the revision; if it
// moved on meanwhile, what it stands at now, which usually contains the revision;
// for a pinned commit the commit itself, or all branches and tags if the server
// gives only those.
func wantsFor(ar *packp.AdvRefs, ref string, hash plumbing.Hash) ([]plumbing.Hash, error) {
	names := slices.Sorted(maps.Keys(ar.References))
	if ref != "" && ref != "HEAD" {
		names = append([]string{ref}, names...)
	}
	for _, name := range names {
		if ar.References[name] == hash || ar.Peeled[name] == hash {
			return []plumbing.Hash{ar.References[name]}, nil
		}
	}
	if ar.Head != nil && (*ar.Head == hash || ref == "HEAD") {
		return []plumbing.Hash{*ar.Head}, nil
	}
	if ref != "" {
		tip, ok := ar.References[ref]
		if !ok {
			return nil, fmt.Errorf("%w: %s", sources.ErrRefNotFound, ref)
		}
		return []plumbing.Hash{tip}, nil
	}
	if ar.Capabilities.Supports(capability.AllowReachableSHA1InWant) || ar.Capabilities.Supports(capability.AllowTipSHA1InWant) {
		return []plumbing.Hash{hash}, nil
	}
	var all []plumbing.Hash
	for _, name := range names {
		if matchesRef([]string{"refs/heads/*", "refs/tags/*"}, name) && !slices.Contains(all, ar.References[name]) {
			all = append(all, ar.References[name])
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: the server has no branch or tag", sources.ErrRefNotFound)
	}
	return all, nil
}

// maxHaves bounds the commits that are offered as known, each of which is read for
// its parents. A revision that descends from one fetched before is met by the
// first of them; one that replaced more than these brings its history again.
const maxHaves = 64

// haves lists commits of the mirror, from its refs backwards: first what ref
// stood at when it was last fetched.
func (m *mirror) haves(ctx context.Context, ref string) ([]plumbing.Hash, error) {
	seen := map[plumbing.Hash]bool{}
	var queue, out []plumbing.Hash
	for _, prefix := range []string{tipRefs, keepRefs} {
		refs, err := m.refs(prefix)
		if err != nil {
			return nil, err
		}
		if last, ok := refs[strings.TrimPrefix(tipRef(ref), prefix)]; ok {
			queue = append(queue, last)
		}
		for _, name := range slices.Sorted(maps.Keys(refs)) {
			queue = append(queue, refs[name])
		}
	}
	for ; len(queue) > 0 && len(out) < maxHaves && ctx.Err() == nil; queue = queue[1:] {
		if h := queue[0]; !seen[h] {
			seen[h] = true
			l, err := m.store.links(h)
			if err != nil {
				continue // not offered, so the server sends it
			}
			out = append(out, h)
			queue = append(queue, l.parents...)
		}
	}
	return out, nil
}
