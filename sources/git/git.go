// Package git is a source that follows a Git repository over https, ssh or from
// this host. It keeps a full bare mirror and reads files out of it by walking
// trees: nothing is ever checked out, no git command, hook, filter, submodule or
// configuration of the repository is run or followed, and no setting of go-git
// that is shared by the process is used, so each repository has its own trust,
// proxy and credentials.
package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/sources"
)

// Stats counts what a Repository has done since it was opened.
type Stats struct {
	RefsRequests  int   // requests for refs by Refs, failed ones included
	RefsFailed    int   // of RefsRequests
	Fetches       int   // calls of Fetch that went to the server, failed ones included
	FetchesFailed int   // of Fetches
	BytesFetched  int64 // in packs
	Compactions   int
	Reclones      int // mirrors dropped because they were damaged
	Packs         int // in the mirror now
}

// Repository is one remote repository and its mirror. Methods are safe for
// concurrent use. Several values, also of several processes, may share a mirror.
type Repository struct {
	options   Options
	location  location
	transport transport
	mirror    *mirror
	mask      mask
	closure   closure
	trees     *decoded
	fetching  chan struct{} // holds one token: one fetch at a time

	mu      sync.Mutex
	closed  bool
	damaged bool
	stats   Stats
}

var _ interface {
	sources.Repository
	sources.History
	sources.Keeper
	sources.Meter
} = (*Repository)(nil)

// Open checks the options and prepares the mirror's directory. It contacts
// nothing. An error wraps ErrInvalid when the options are wrong.
func Open(o Options) (*Repository, error) {
	l, err := o.check()
	if err != nil {
		return nil, err
	}
	r := &Repository{options: o, location: l, fetching: make(chan struct{}, 1)}
	r.closure.forget()
	if r.trees, err = newDecoded(); err != nil {
		return nil, err
	}
	dir := filepath.Join(o.Dir, o.identity(l))
	r.mirror = newMirror(dir)
	if err := r.mirror.create(); err != nil {
		return nil, fmt.Errorf("%s: mirror: %w", l, err)
	}
	switch l.scheme {
	case "https", "http":
		r.transport, err = newWeb(r)
	case "ssh":
		r.transport = newShell(r)
	default:
		r.transport = local{path: l.path}
	}
	return r, err
}

// String names the repository in messages: its URL, which holds no secret.
func (r *Repository) String() string { return r.location.String() }

// MirrorDir is the directory of the mirror, a bare repository that git can read.
func (r *Repository) MirrorDir() string { return r.mirror.dir }

// Stats returns the counters.
func (r *Repository) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	if packs, err := r.mirror.packs(); err == nil {
		s.Packs = len(packs)
	}
	return s
}

// Requests implements sources.Meter.
func (r *Repository) Requests() sources.Requests {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sources.Requests{
		Refs: r.stats.RefsRequests, RefsFailed: r.stats.RefsFailed, Fetches: r.stats.Fetches, FetchesFailed: r.stats.FetchesFailed,
	}
}

func (r *Repository) count(f func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.stats)
}

// fail gives an error the repository and the call, and takes secrets out.
func (r *Repository) fail(op string, err error) error {
	if err == nil {
		return nil
	}
	return r.mask.err(fmt.Errorf("%s: %s: %w", r.location, op, err))
}

var errClosed = errors.New("the repository is closed")

func (r *Repository) alive(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", sources.ErrUnavailable, err)
	}
	return nil
}

// Refs implements sources.Repository.
func (r *Repository) Refs(ctx context.Context, patterns ...string) (map[string]string, error) {
	out, err := r.refs(ctx, patterns)
	return out, r.fail("refs", err)
}

func (r *Repository) refs(ctx context.Context, patterns []string) (map[string]string, error) {
	for _, p := range patterns {
		if err := ValidRef(p); err != nil {
			return nil, err
		}
	}
	if err := r.alive(ctx); err != nil {
		return nil, err
	}
	r.count(func(s *Stats) { s.RefsRequests++ })
	session, err := r.connect(ctx)
	if err != nil {
		r.count(func(s *Stats) { s.RefsFailed++ })
		return nil, err
	}
	defer session.close()
	ar := session.advertised()
	out := map[string]string{}
	for name, hash := range ar.References {
		if peeled, ok := ar.Peeled[name]; ok {
			hash = peeled
		}
		if matchesRef(patterns, name) {
			out[name] = hash.String()
		}
	}
	if ar.Head != nil && matchesRef(patterns, "HEAD") {
		out["HEAD"] = ar.Head.String()
	}
	return out, nil
}

// connect opens a session.
func (r *Repository) connect(ctx context.Context) (session, error) {
	s, err := r.transport.open(ctx)
	return s, ended(ctx, err)
}

// ended says of an error that the end of the context caused it: a connection
// that was closed or timed out for that reason reports only how it noticed.
func ended(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	cause := ctx.Err()
	if _, bounded := ctx.Deadline(); cause == nil && bounded && errors.Is(err, os.ErrDeadlineExceeded) {
		cause = context.DeadlineExceeded // the connection's deadline is the same and may fire first
	}
	if cause == nil {
		return err
	}
	if !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w: %w", sources.ErrUnavailable, cause, err)
	}
	if cause == context.DeadlineExceeded {
		err = fmt.Errorf("%w (%s)", err, ifSlow)
	}
	return err
}

// ifSlow is what can be done about a deadline.
const ifSlow = "if the server is only slow, give it a longer git.timeout"

// Open implements sources.Repository.
func (r *Repository) Open(ctx context.Context, revision string) (sources.Tree, error) {
	t, err := r.open(ctx, revision)
	if err != nil {
		return nil, r.fail("open "+serverText(revision), err)
	}
	return t, nil
}

func (r *Repository) open(ctx context.Context, revision string) (*tree, error) {
	root, err := r.verified(ctx, revision)
	if err != nil {
		return nil, err
	}
	return &tree{repo: r, revision: revision, root: root}, nil
}

// verified returns the root tree of a revision that is in the mirror with all
// that it leads to.
func (r *Repository) verified(ctx context.Context, revision string) (plumbing.Hash, error) {
	hash, err := parseRevision(revision)
	if err == nil {
		err = r.alive(ctx)
	}
	if err == nil {
		err = r.closure.verify(ctx, r.mirror.store, hash)
	}
	switch {
	case errors.Is(err, errIncomplete):
		return hash, r.noteDamage(fmt.Errorf("%w: %w", sources.ErrDamaged, err))
	case errors.Is(err, errMissing):
		return hash, fmt.Errorf("%w: it has not been fetched", sources.ErrUnavailable)
	case err != nil:
		return hash, r.noteDamage(err)
	}
	root, _ := r.closure.root(hash)
	return root, nil
}

// noteDamage remembers that the mirror has to be made anew, by the next Fetch.
func (r *Repository) noteDamage(err error) error {
	if errors.Is(err, sources.ErrDamaged) {
		r.mu.Lock()
		r.damaged = true
		r.mu.Unlock()
		r.closure.forget()
		r.trees.forget()
	}
	return err
}

// Keep implements sources.Keeper: refs/gitopsd/keep/<name> in the mirror.
func (r *Repository) Keep(ctx context.Context, name, revision string) error {
	return r.fail("keep "+serverText(name), r.keep(ctx, name, revision))
}

func (r *Repository) keep(ctx context.Context, name, revision string) error {
	if err := refFormat(keepRefs + name); err != nil {
		return fmt.Errorf("%w: the name: %w", ErrInvalid, err)
	}
	var hash plumbing.Hash
	if revision != "" {
		if _, err := r.verified(ctx, revision); err != nil {
			return err
		}
		hash = plumbing.NewHash(revision)
	} else if err := r.alive(ctx); err != nil {
		return err
	}
	unlock, err := r.mirror.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return r.options.Seam(effect.MirrorKeep, r.location.String()+" "+name, func() error {
		return r.mirror.setRef(keepRefs+name, hash)
	})
}

// Close implements sources.Repository.
func (r *Repository) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.transport.close()
	return r.mirror.store.reload()
}

// tipRef is the name in the mirror of what a ref of the server stood at.
func tipRef(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return tipRefs + hex.EncodeToString(sum[:16])
}
