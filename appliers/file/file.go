// Package file keeps files, directories and symbolic links of a Linux host as
// they are declared: group host.gitopsd.io, kinds File, Directory and Symlink.
//
// Everything it touches lies below roots that the configuration lists, and it
// follows no symbolic link on the way there. A reader of a file sees the old
// content or the new, whole. What it wrote is on record in a ledger under each
// root (<root>/.gitopsd), apart from the store, next to what adoption replaced.
package file

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Group is the group of the kinds of this target.
const Group = "host.gitopsd.io"

// Applier acts on the files of this host. It is safe for concurrent use; writes
// of one applier happen one Apply after the other.
type Applier struct {
	env    appliers.Env
	config config
	roots  []*root // longest path first
	looks  *looks
	watch  *watched
	// writing has one place: whoever holds it may write.
	writing chan struct{}

	locks *Locks

	mu     sync.Mutex
	stats  Stats
	closed bool
}

// Stats count what was done since the applier was made.
type Stats struct {
	FilesHashed      int // contents read because their stat could not vouch for them
	FilesWritten     int // contents replaced or created
	CommandsRun      int
	StrangersRemoved int // entries removed from exclusive directories
	TempFilesRemoved int // left behind by a process that was killed
}

// Factory returns the factory of this kind of target. All targets of a process
// share its locks; nil says that it will write through none of them. The protected
// paths, and everything below them, are refused whatever the configuration says:
// the daemon's own configuration, state, socket and unit.
func Factory(locks *Locks, protected ...string) appliers.Factory {
	if locks == nil {
		locks = NewLocks()
	}
	return func(env appliers.Env) (appliers.Applier, error) {
		c, err := decodeConfig(env.Config)
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", env.Target, err)
		}
		for _, p := range protected {
			c.Protected = append(c.Protected, path.Clean(p))
		}
		a := newApplier(env, c)
		a.locks = locks
		return a, nil
	}
}

func newApplier(env appliers.Env, c config) *Applier {
	a := &Applier{env: env, config: c, locks: NewLocks(), looks: newLooks(), watch: newWatched(), writing: make(chan struct{}, 1)}
	walk := !hasOpenat2()
	for _, p := range c.Roots {
		a.roots = append(a.roots, &root{path: p, cross: c.CrossMounts, walk: walk})
	}
	slices.SortFunc(a.roots, func(x, y *root) int { return len(y.path) - len(x.path) })
	return a
}

// Stats returns a copy of the counters.
func (a *Applier) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

func (a *Applier) count(add func(*Stats)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	add(&a.stats)
}

// Takes implements appliers.Applier.
func (a *Applier) Takes(gk manifest.GroupKind) (appliers.Answer, error) {
	if gk.Group == Group && kinds[gk.Kind] != nil {
		return appliers.Yes, nil
	}
	return appliers.No, nil
}

// Resolve implements appliers.Applier.
func (a *Applier) Resolve(obj *manifest.Object) (appliers.Resolved, error) {
	s, err := a.decodeSpec(obj)
	if err != nil {
		return appliers.Resolved{}, err
	}
	resolved, err := s.object(obj, a.env.Sealer)
	return appliers.Resolved{Object: resolved, Locator: s.path}, err
}

// Check reports the roots that cannot be used as things are now. It writes
// nothing, and does not tell whether a root is the one that was written to
// before.
func (a *Applier) Check() error {
	var errs []error
	for _, r := range a.roots {
		fd, err := r.openDir()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		unix.Close(fd)
	}
	return errors.Join(errs...)
}

// lock takes the right to write, or gives up when ctx ends.
func (a *Applier) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case a.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Applier) unlock() {
	<-a.writing
	if a.isClosed() {
		a.letGo()
	}
}

// Marked implements appliers.Marker: it lists the ledgers of all roots. A write
// that was begun and not confirmed counts if its content is there.
func (a *Applier) Marked(ctx context.Context) ([]appliers.Mark, error) {
	var marks []appliers.Mark
	for _, r := range a.roots {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		found, err := a.markedIn(ctx, r)
		if err != nil {
			return nil, err
		}
		marks = append(marks, found...)
	}
	slices.SortFunc(marks, func(x, y appliers.Mark) int { return x.Key.Compare(y.Key) })
	return marks, nil
}

func (a *Applier) markedIn(ctx context.Context, r *root) ([]appliers.Mark, error) {
	t, err := a.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer t.close()
	if err := t.fresh(); err != nil {
		return nil, err
	}
	var marks []appliers.Mark
	for _, rec := range t.records() {
		if !rec.ours() {
			if l, err := t.look(rec.Path); err != nil || t.a.digest(l) != rec.Digest {
				continue
			}
		}
		marks = append(marks, appliers.Mark{
			Key: rec.key(a.env.Target), Locator: rec.Path, Application: rec.Application, Epoch: rec.Epoch,
		})
	}
	return marks, nil
}

// allowed returns the root that a path lies in, or why it must not be touched.
func (a *Applier) allowed(p string) (*root, error) {
	if err := checkPath(p); err != nil {
		return nil, err
	}
	for _, forbidden := range append([]string{"/proc", "/sys", "/dev"}, a.config.Protected...) {
		if p == forbidden || strings.HasPrefix(p, forbidden+"/") {
			return nil, fmt.Errorf("%w: %s is or lies in %s", ErrProtected, p, forbidden)
		}
	}
	for _, r := range a.roots {
		rel, below := strings.CutPrefix(p, strings.TrimSuffix(r.path, "/")+"/")
		if !below {
			continue
		}
		if first, _, _ := strings.Cut(rel, "/"); first == stateDir {
			return nil, fmt.Errorf("%w: %s is the ledger's place", ErrProtected, p)
		}
		if tempName(path.Base(p)) {
			return nil, fmt.Errorf("%w: %s has the form of a temporary file's name", ErrProtected, p)
		}
		return r, nil
	}
	return nil, fmt.Errorf("%w: %s lies in none of them (%s); add its directory to the target's roots", ErrOutside, p, strings.Join(a.config.Roots, ", "))
}
