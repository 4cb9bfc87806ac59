// Package sources is the contract of the places desired state comes from: a
// Repository that can be asked for its refs, fetched from and opened at a
// revision, and a content-addressed Tree that is read in place and never
// checked out. The children of this package implement it; it does no I/O itself.
package sources

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// Errors of a source. Test with errors.Is. Each is wrapped with the name of the
// source, what was asked for, and what to do next. None of them ever means that
// something is absent on purpose, and so none ever leads to a delete.
var (
	// ErrUnavailable: the server could not be reached or gave no usable answer. Retried.
	ErrUnavailable = errors.New("source unavailable")
	// ErrRefNotFound: the server answered and has no such ref.
	ErrRefNotFound = errors.New("ref not found")
	// ErrUnauthorized: credentials are missing or refused. A person has to act.
	ErrUnauthorized = errors.New("not authorized")
	// ErrUntrusted: a certificate or host key is not the expected one. A person has to act.
	ErrUntrusted = errors.New("server identity not trusted")
	// ErrHistoryRewritten: the new revision does not descend from the accepted one.
	ErrHistoryRewritten = errors.New("history rewritten")
	// ErrRefused: the content breaks a rule (hostile names, submodules, limits).
	ErrRefused = errors.New("content refused")
	// ErrDamaged: what was cached locally does not match its hash; it has to be fetched anew.
	ErrDamaged = errors.New("local copy damaged")
)

// TooLargeError says that a file has more bytes than its reader takes. It is an
// ErrRefused.
type TooLargeError struct {
	Size, Limit int64 // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%v: %d bytes are more than the limit of %d", ErrRefused, e.Size, e.Limit)
}

// Unwrap makes it an ErrRefused.
func (e *TooLargeError) Unwrap() error { return ErrRefused }

// Hash names content: equal hashes mean equal bytes, names and modes below it.
// Its form is the implementation's own.
type Hash string

// Mode is the type of a tree entry.
type Mode uint8

// The types of a tree entry.
const (
	ModeFile Mode = iota
	ModeExec
	ModeDir
	ModeSymlink
	ModeSubmodule
)

// String returns the word used in errors.
func (m Mode) String() string {
	return [...]string{"file", "executable file", "directory", "symbolic link", "submodule"}[m]
}

// Entry is one name in a tree.
type Entry struct {
	Path string // slash-separated, relative to the root of the tree, clean
	Mode Mode
	Hash Hash
}

// Tree is the content of one revision. It is immutable and safe for concurrent
// use. Paths are slash-separated and relative to the root; "" or "." is the root.
// A missing path gives an error that wraps fs.ErrNotExist.
type Tree interface {
	// Revision returns the ID this tree was opened at.
	Revision() string
	// Stat returns the entry at a path without reading content: for a directory
	// its Hash covers everything below.
	Stat(path string) (Entry, error)
	// ReadDir returns the direct entries of a directory, sorted by name. It fails
	// with ErrRefused when a name is hostile ("..", ".git" in any spelling,
	// separators, control characters, duplicates).
	ReadDir(path string) ([]Entry, error)
	// ReadFile returns the content of a regular file. It checks the size before
	// it reads and fails with a *TooLargeError when it exceeds limit bytes, and with
	// ErrRefused for anything that is no regular file.
	ReadFile(path string, limit int64) ([]byte, error)
}

// Repository is one remote place and its local mirror. Methods are safe for
// concurrent use; each takes at most the time that ctx allows.
type Repository interface {
	// Refs asks the server for refs, with one request, and returns ID by full
	// ref name (refs/heads/main, refs/tags/v1, HEAD). Patterns are full names,
	// or end in "/*". An annotated tag gives the commit it points to. A ref the
	// server does not have is not in the map; an empty map from a server that
	// answered is possible and means just that.
	Refs(ctx context.Context, patterns ...string) (map[string]string, error)
	// Fetch makes the revision and all it contains available to Open. A revision
	// that is there already costs nothing. ref says where the server advertises it.
	Fetch(ctx context.Context, ref, revision string) error
	// Open returns the tree of a fetched revision.
	Open(ctx context.Context, revision string) (Tree, error)
	// Close ends background work and releases the mirror; it deletes nothing.
	Close() error
}

// Commit describes a revision of a repository that has history.
type Commit struct {
	ID        string    `json:"id"`
	Parents   []string  `json:"parents,omitempty"`
	Author    Person    `json:"author"`
	Committer Person    `json:"committer"`
	When      time.Time `json:"when"` // committer time; never used for ordering
	Message   string    `json:"message"`
}

// Person is a name and address as a commit claims them; nothing verifies them.
type Person struct {
	Name  string `json:"name"`
	Email string `json:"email"`
}

// History is the ability of a Repository whose revisions are commits.
type History interface {
	// Commit describes a fetched revision.
	Commit(ctx context.Context, revision string) (Commit, error)
	// IsAncestor reports whether old is new or one of its ancestors. Both must
	// have been fetched; an error means that it is not known.
	IsAncestor(ctx context.Context, old, new string) (bool, error)
}

// Keeper is the ability to hold revisions in the mirror although no ref on the
// server leads to them any more.
type Keeper interface {
	// Keep holds revision under a name ("web/accepted"), replacing what the name
	// held before. The empty revision lets go.
	Keep(ctx context.Context, name, revision string) error
}

// Requests counts what a Repository has asked its server since it was opened,
// those that failed included.
type Requests struct {
	Refs, RefsFailed       int // for refs
	Fetches, FetchesFailed int // for content; a revision that is there already makes none
}

// Meter is the ability to count requests. A Repository without one asks no server.
type Meter interface {
	// Requests returns the counters; they never go down.
	Requests() Requests
}

// Watcher is the ability to notice a change without being asked.
type Watcher interface {
	// Watch calls hint, from one goroutine, each time something may have changed,
	// until ctx ends. Hints coalesce and may be false; losing one must be made up
	// for by a later one.
	Watch(ctx context.Context, hint func()) error
}

// Ability returns the repository as an optional interface. It is the one place
// where abilities are probed. A decorator (Unwrap() Repository) that does not
// implement the interface is looked through, unless it has a method
// Ability(target any) bool, which then decides alone: target is a *T; it sets
// what target points to and answers true, or answers false, and nothing below
// is asked. A decorator that guards what passes through it needs that method.
func Ability[T any](r Repository) (T, bool) {
	for {
		if a, ok := r.(T); ok {
			return a, true
		}
		if d, ok := r.(interface{ Ability(target any) bool }); ok {
			var a, zero T
			if d.Ability(&a) {
				return a, true
			}
			return zero, false
		}
		u, ok := r.(interface{ Unwrap() Repository })
		if !ok {
			var zero T
			return zero, false
		}
		r = u.Unwrap()
	}
}

// Ref says which revision of a repository a source follows: exactly one field
// is set. A Source that has no refs (a plain directory) uses the zero Ref.
type Ref struct {
	Branch string `json:"branch,omitempty"`
	Tag    string `json:"tag,omitempty"`
	Commit string `json:"commit,omitempty"` // full 40 hexadecimal digits
}

// Name returns the full ref name to ask the server for; for a pinned commit and
// for the zero Ref it is "".
func (r Ref) Name() string {
	switch {
	case r.Branch != "":
		return "refs/heads/" + r.Branch
	case r.Tag != "":
		return "refs/tags/" + r.Tag
	default:
		return ""
	}
}

// Trust says which moves of the ref a source accepts.
type Trust struct {
	// AllowRewrite accepts a revision that does not descend from the last
	// accepted one. The default refuses it until a person accepts it once.
	AllowRewrite bool
}

// Source is a repository, the ref to follow, and its trust.
type Source struct {
	Name       string
	Repository Repository
	Ref        Ref
	Trust      Trust
	// Interval between polls; jittered by a tenth. Default 30 s.
	Interval time.Duration
	// Timeout of one poll or fetch. Default 60 s.
	Timeout time.Duration
}

// DirRef is the ref name under which a Repository without refs reports its one
// revision.
const DirRef = "HEAD"

// Resolve asks for the revision that the source's ref stands at now: one refs
// request, or none for a pinned commit. A ref the server does not have is
// ErrRefNotFound, whatever else the server has.
func (s *Source) Resolve(ctx context.Context) (ref, revision string, err error) {
	if s.Ref.Commit != "" {
		return "", s.Ref.Commit, nil
	}
	name := s.Ref.Name()
	if name == "" {
		name = DirRef
	}
	refs, err := s.Repository.Refs(ctx, name)
	if err != nil {
		return "", "", fmt.Errorf("source %s: %w", s.Name, err)
	}
	revision, ok := refs[name]
	if !ok {
		return "", "", fmt.Errorf("source %s: %w: %s (was it renamed or deleted? nothing is changed until it is back)", s.Name, ErrRefNotFound, name)
	}
	return name, revision, nil
}

// Walk calls fn for every entry below root in lexical order, directories before
// their content. fn may return fs.SkipDir for a directory.
func Walk(t Tree, root string, fn func(Entry) error) error {
	entries, err := t.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		err := fn(e)
		if errors.Is(err, fs.SkipDir) && e.Mode == ModeDir {
			continue
		}
		if err != nil {
			return err
		}
		if e.Mode == ModeDir {
			if err := Walk(t, e.Path, fn); err != nil {
				return err
			}
		}
	}
	return nil
}
