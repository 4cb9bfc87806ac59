// Package dir is a source that is a plain folder: no history, no refs but
// sources.DirRef, whose revision is a digest of all names, modes and contents.
// What was read is held in memory, so that a tree stays what it was while the
// folder moves on. What is too much to be held is no obstacle: it is read again when
// it is asked for, and must then be what it was.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/sources"
)

// Limits bound what is read from a folder.
type Limits struct {
	// Entries are files, directories and links, default 100,000, and Depth is of
	// directories below the root, default 100. A folder beyond one of them is refused
	// as a whole, with an error that names the limit and the entry.
	Entries int
	Depth   int
	// FileBytes are those of one file, default 10 MiB. A larger one is listed and never
	// read: reading it is a sources.TooLargeError, and its hash is of its size and times.
	FileBytes int64
	// TotalBytes are those held in memory, default 64 MiB: of the smallest files, as many
	// as fit. The others are read again when they are asked for; one that is not what it
	// was any more is ErrUnavailable, and is looked at again.
	TotalBytes int64
}

// Options of Open. Path must be set.
type Options struct {
	Path   string
	Limits Limits
	// Settle is how long the folder must have been quiet before it is read, so
	// that a copy under way is not taken for its result. Default 300 ms.
	Settle time.Duration
	// Deadline is how long to wait for a quiet moment. Default 10 s.
	Deadline time.Duration
	// Interval is how often Watch looks at what it cannot be told of. Default 30 s.
	Interval time.Duration
	Log      *slog.Logger     // default: discard
	Now      func() time.Time // compared with the times of files; default time.Now
}

func (o *Options) setDefaults() {
	setDefault(&o.Limits.Entries, 100_000)
	setDefault(&o.Limits.Depth, 100)
	setDefault(&o.Limits.FileBytes, 10<<20)
	setDefault(&o.Limits.TotalBytes, 64<<20)
	setDefault(&o.Settle, 300*time.Millisecond)
	setDefault(&o.Deadline, 10*time.Second)
	setDefault(&o.Interval, 30*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

func setDefault[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// recent is how many of the newest revisions can still be opened without being
// kept: one may be asked for just after the next was seen.
const recent = 4

// Repository is a folder. Make one with Open. It implements sources.Repository,
// sources.Watcher and sources.Keeper. A kept revision is kept for the life of the
// Repository: a folder has no place to keep it in.
type Repository struct {
	o        Options
	notifier func() (*notifier, error)
	looking  chan struct{} // holds one element while the folder is read
	closing  chan struct{} // closed by Close

	mu     sync.Mutex // guards what follows
	closed bool
	recent []*snapshot // newest last
	kept   map[string]*snapshot

	last  *snapshot // guarded by looking: the newest
	reads int       // guarded by looking: files whose content was read
}

var _ interface {
	sources.Repository
	sources.Watcher
	sources.Keeper
} = (*Repository)(nil)

// Open returns the folder as a Repository. The folder is not looked at yet; it
// need not exist.
func Open(o Options) (*Repository, error) {
	if o.Path == "" {
		return nil, errors.New("folder source: path is empty")
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", o.Path, err)
	}
	o.Path = path
	o.setDefaults()
	return &Repository{
		o:        o,
		notifier: inotify,
		looking:  make(chan struct{}, 1),
		closing:  make(chan struct{}),
		kept:     map[string]*snapshot{},
	}, nil
}

// Refs looks at the folder and returns its digest under sources.DirRef, when a
// pattern asks for that. Only files whose size, times, inode or mode changed
// since the last look are read. A folder that is missing, cannot be read in
// full, or does not come to rest is ErrUnavailable, and never an empty tree; one
// beyond the limits is ErrRefused.
func (r *Repository) Refs(ctx context.Context, patterns ...string) (map[string]string, error) {
	s, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	refs := map[string]string{}
	for _, p := range patterns {
		if p == sources.DirRef {
			refs[p] = s.revision()
		}
	}
	return refs, nil
}

// Fetch makes sure that a revision can be opened: one seen before, or the one
// that the folder holds now. Any other cannot be had, because a folder has no
// history, and is ErrUnavailable.
func (r *Repository) Fetch(ctx context.Context, _, revision string) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	if r.held(revision) != nil {
		return nil
	}
	if _, err := r.look(ctx); err != nil {
		return err
	}
	if r.held(revision) == nil {
		return r.gone(revision)
	}
	return nil
}

// Open returns the tree of a revision seen before.
func (r *Repository) Open(ctx context.Context, revision string) (sources.Tree, error) {
	if err := r.check(ctx); err != nil {
		return nil, err
	}
	s := r.held(revision)
	if s == nil {
		return nil, r.gone(revision)
	}
	return &tree{source: r.o.Path, limit: r.o.Limits.FileBytes, root: s.root}, nil
}

// Keep implements sources.Keeper.
func (r *Repository) Keep(ctx context.Context, name, revision string) error {
	if err := r.check(ctx); err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("folder %s: a kept revision needs a name", r.o.Path)
	}
	if revision == "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.kept, name)
		return nil
	}
	s := r.held(revision)
	if s == nil {
		return r.gone(revision)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[name] = s
	return nil
}

// Close ends Watch and lets go of what is held. Trees that were opened stay
// readable. Closing twice is success.
func (r *Repository) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		close(r.closing)
		r.recent, r.kept = nil, nil
	}
	return nil
}

func (r *Repository) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("folder %s: %w: %w", r.o.Path, sources.ErrUnavailable, fs.ErrClosed)
	}
	return nil
}

// held returns the snapshot of a revision, or nil.
func (r *Repository) held(revision string) *snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.recent {
		if s.revision() == revision {
			return s
		}
	}
	for _, s := range r.kept {
		if s.revision() == revision {
			return s
		}
	}
	return nil
}

// hold makes a snapshot the newest.
func (r *Repository) hold(s *snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	for i, old := range r.recent {
		if old.revision() == s.revision() {
			r.recent = append(r.recent[:i:i], r.recent[i+1:]...)
			break
		}
	}
	r.recent = append(r.recent, s)
	if n := len(r.recent); n > recent {
		r.recent = append([]*snapshot(nil), r.recent[n-recent:]...)
	}
}

func (r *Repository) gone(revision string) error {
	return fmt.Errorf("folder %s: %w: it no longer holds revision %.12s and a folder has no history; nothing is changed until it is looked at again",
		r.o.Path, sources.ErrUnavailable, revision)
}
