// Package memory is a source that lives in memory: a scriptable server with a
// graph of commits and its local mirror in one value. It keeps every promise of
// the contract, takes part in sources/sourcetest, and uses neither sockets nor
// files, so that it can be used inside testing/synctest.
package memory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/sources"
)

// Stats counts what was asked of a Repository.
type Stats struct {
	RefsRequests  int // calls of Refs, failed ones included
	RefsFailed    int // of RefsRequests
	Fetches       int // calls of Fetch that had to go to the server, failed ones included
	FetchesFailed int // of Fetches
	FilesRead     int // files read from opened trees
	DirsRead      int // directories read from opened trees
}

type commit struct {
	sources.Commit
	root *node
}

// Repository is a server and its mirror. The zero value is not usable; call
// New. All methods are safe for concurrent use.
type Repository struct {
	mu      sync.Mutex
	commits map[string]*commit
	refs    map[string]string
	// mirror
	fetched map[string]bool
	kept    map[string]string
	closed  bool
	// faults
	failRefs, failFetch []error
	down                error
	hidden              map[string]bool
	damaged             map[string]map[string]bool
	latency             time.Duration

	hints map[chan struct{}]bool
	stats Stats
	seq   int
}

var _ interface {
	sources.Repository
	sources.History
	sources.Keeper
	sources.Watcher
	sources.Meter
} = (*Repository)(nil)

// New returns an empty repository.
func New() *Repository {
	return &Repository{
		commits: map[string]*commit{},
		refs:    map[string]string{},
		fetched: map[string]bool{},
		kept:    map[string]string{},
		hidden:  map[string]bool{},
		damaged: map[string]map[string]bool{},
		hints:   map[chan struct{}]bool{},
	}
}

// Stats returns the counters.
func (r *Repository) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Requests implements sources.Meter.
func (r *Repository) Requests() sources.Requests {
	s := r.Stats()
	return sources.Requests{Refs: s.RefsRequests, RefsFailed: s.RefsFailed, Fetches: s.Fetches, FetchesFailed: s.FetchesFailed}
}

// failed counts an error.
func (r *Repository) failed(count *int, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	*count++
	return err
}

// request is the common start of everything that goes to the server.
func (r *Repository) request(ctx context.Context, queue *[]error, count *int) error {
	r.mu.Lock()
	*count++
	latency := r.latency
	r.mu.Unlock()
	if latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", sources.ErrUnavailable, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed
	}
	if r.down != nil {
		return r.down
	}
	if len(*queue) > 0 {
		err := (*queue)[0]
		*queue = (*queue)[1:]
		return err
	}
	return nil
}

var errClosed = errors.New("memory repository is closed")

// Refs implements sources.Repository.
func (r *Repository) Refs(ctx context.Context, patterns ...string) (map[string]string, error) {
	if err := r.request(ctx, &r.failRefs, &r.stats.RefsRequests); err != nil {
		return nil, r.failed(&r.stats.RefsFailed, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]string{}
	for name, id := range r.refs {
		if !r.hidden[name] && matches(patterns, name) {
			out[name] = id
		}
	}
	clear(r.hidden)
	return out, nil
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasSuffix(prefix, "/") {
			return strings.HasPrefix(name, prefix)
		}
		return p == name
	})
}

// Fetch implements sources.Repository. A revision that no ref leads to any more
// cannot be fetched, as on a real server.
func (r *Repository) Fetch(ctx context.Context, ref, revision string) error {
	r.mu.Lock()
	have, closed := r.fetched[revision] && r.damaged[revision] == nil, r.closed
	r.mu.Unlock()
	if closed {
		return errClosed
	}
	if have {
		return ctx.Err()
	}
	if err := r.request(ctx, &r.failFetch, &r.stats.Fetches); err != nil {
		return r.failed(&r.stats.FetchesFailed, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.served(revision) {
		r.stats.FetchesFailed++
		return fmt.Errorf("%w: revision %s: no ref of the server leads to it (was it replaced meanwhile? the next poll sees the new one)", sources.ErrUnavailable, revision)
	}
	for _, id := range r.ancestry(revision) {
		r.fetched[id] = true
	}
	delete(r.damaged, revision)
	return nil
}

// served reports whether some ref leads to the revision.
func (r *Repository) served(revision string) bool {
	for _, tip := range r.refs {
		if slices.Contains(r.ancestry(tip), revision) {
			return true
		}
	}
	return false
}

// ancestry lists a revision and all its ancestors that exist, nearest first.
func (r *Repository) ancestry(revision string) []string {
	var out []string
	seen := map[string]bool{revision: true}
	for queue := []string{revision}; len(queue) > 0; queue = queue[1:] {
		c := r.commits[queue[0]]
		if c == nil {
			continue
		}
		out = append(out, queue[0])
		for _, p := range c.Parents {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	return out
}

// Open implements sources.Repository.
func (r *Repository) Open(ctx context.Context, revision string) (sources.Tree, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.mirrored(revision)
	if err != nil {
		return nil, err
	}
	return &tree{repo: r, revision: revision, root: c.root}, nil
}

func (r *Repository) mirrored(revision string) (*commit, error) {
	if r.closed {
		return nil, errClosed
	}
	c := r.commits[revision]
	if c == nil || !r.fetched[revision] {
		return nil, fmt.Errorf("%w: revision %q has not been fetched", sources.ErrUnavailable, revision)
	}
	return c, nil
}

// Close implements sources.Repository. Trees that are open stay readable.
func (r *Repository) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// Commit implements sources.History.
func (r *Repository) Commit(ctx context.Context, revision string) (sources.Commit, error) {
	if err := ctx.Err(); err != nil {
		return sources.Commit{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.mirrored(revision)
	if err != nil {
		return sources.Commit{}, err
	}
	out := c.Commit
	out.Parents = slices.Clone(out.Parents)
	return out, nil
}

// IsAncestor implements sources.History.
func (r *Repository) IsAncestor(ctx context.Context, old, new string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range []string{old, new} {
		if _, err := r.mirrored(id); err != nil {
			return false, err
		}
	}
	return slices.Contains(r.ancestry(new), old), nil
}

// Keep implements sources.Keeper.
func (r *Repository) Keep(ctx context.Context, name, revision string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "" {
		return errors.New("keep: the name is empty")
	}
	if revision == "" {
		delete(r.kept, name)
		return nil
	}
	if _, err := r.mirrored(revision); err != nil {
		return fmt.Errorf("keep %s: %w", name, err)
	}
	r.kept[name] = revision
	return nil
}

// Kept returns the revision held under a name, or "".
func (r *Repository) Kept(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.kept[name]
}

// Watch implements sources.Watcher: every change of a ref is a hint.
func (r *Repository) Watch(ctx context.Context, hint func()) error {
	ch := make(chan struct{}, 1)
	r.mu.Lock()
	r.hints[ch] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.hints, ch)
		r.mu.Unlock()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ch:
			hint()
		}
	}
}

// moved tells watchers; the caller holds the lock.
func (r *Repository) moved() {
	for ch := range r.hints {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func commitID(root *node, c sources.Commit, seq int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%v\n%v\n%s\n%d", root.hash, c.Parents, c.Author, c.Message, seq))
	return hex.EncodeToString(sum[:20])
}
