package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/sources"
)

// stat is what says, without reading it, that an entry may have changed. A
// writer can set the time of modification back, and not that of the change.
type stat struct {
	dev, ino, size uint64
	mode           uint32
	mtime, ctime   int64 // nanoseconds
}

func statOf(st *unix.Stat_t) stat {
	return stat{
		dev: uint64(st.Dev), ino: st.Ino, size: uint64(st.Size), mode: uint32(st.Mode),
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}
}

func (s stat) kind() uint32 { return s.mode & unix.S_IFMT }

// entry is one name of a scan, with what is below it.
type entry struct {
	name    string
	stat    stat
	refused error // why it is not read: a hostile name, a device...
	entries []*entry
}

// same compares two scans and returns the path of the first difference.
func same(a, b *entry, at string) (string, bool) {
	if a.name != b.name || a.stat != b.stat || len(a.entries) != len(b.entries) {
		return at, false
	}
	for i, x := range a.entries {
		if where, ok := same(x, b.entries[i], path.Join(at, x.name)); !ok {
			return where, false
		}
	}
	return "", true
}

// newest returns the latest time of change of all entries.
func (e *entry) newest() int64 {
	t := e.stat.ctime
	for _, x := range e.entries {
		t = max(t, x.newest())
	}
	return t
}

// largest returns the size up to which the files below an entry fit together into
// some bytes, each of them into most: all that are larger do not.
func (e *entry) largest(most, together int64) int64 {
	var sizes []int64
	var collect func(*entry)
	collect = func(e *entry) {
		if size := int64(e.stat.size); e.refused == nil && e.stat.kind() == unix.S_IFREG && size <= most {
			sizes = append(sizes, size)
		}
		for _, x := range e.entries {
			collect(x)
		}
	}
	collect(e)
	slices.Sort(sizes)
	for _, size := range sizes {
		if together -= size; together < 0 {
			return size - 1
		}
	}
	return most
}

// changedError says that an entry changed while it was looked at: look again.
type changedError string

func (c changedError) Error() string { return fmt.Sprintf("%s keeps changing", string(c)) }

// scanner goes through a folder once and reads no content. It follows no links:
// each name is looked at in its directory, and a directory is entered only when
// what was opened is what was looked at.
type scanner struct {
	ctx    context.Context
	root   *os.Root
	limits Limits
	count  int
}

func scan(ctx context.Context, root *os.Root, limits Limits) (*entry, error) {
	s := &scanner{ctx: ctx, root: root, limits: limits}
	f, err := root.Open(".")
	if err != nil {
		return nil, unavailable(".", err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, unavailable(".", err)
	}
	e := &entry{stat: statOf(&st)}
	return e, s.descend(e, ".", 0)
}

// descend fills in what is below a directory.
func (s *scanner) descend(dir *entry, at string, depth int) error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	if depth > s.limits.Depth {
		return fmt.Errorf("%w: %s is deeper than %d directories", sources.ErrRefused, at, s.limits.Depth)
	}
	if err := s.list(dir, at); err != nil {
		return err
	}
	for _, e := range dir.entries {
		if e.refused == nil && e.stat.kind() == unix.S_IFDIR {
			if err := s.descend(e, path.Join(at, e.name), depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// list reads the names of a directory and looks at each of them.
func (s *scanner) list(dir *entry, at string) error {
	f, err := s.root.OpenFile(at, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return unavailable(at, err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return unavailable(at, err)
	}
	if now := statOf(&st); now.dev != dir.stat.dev || now.ino != dir.stat.ino {
		return changedError(at)
	}
	for {
		names, err := f.Readdirnames(1000)
		for _, name := range names {
			if at == "." && name == ".git" {
				continue // the folder may be a working copy
			}
			e, err := s.look(int(f.Fd()), at, name)
			if err != nil {
				return err
			}
			dir.entries = append(dir.entries, e)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return unavailable(at, err)
		}
	}
	slices.SortFunc(dir.entries, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	return nil
}

// look stats one name in an open directory and counts it against the limits.
func (s *scanner) look(dir int, at, name string) (*entry, error) {
	where := path.Join(at, name)
	if s.count++; s.count > s.limits.Entries {
		return nil, fmt.Errorf("%w: more than %d entries", sources.ErrRefused, s.limits.Entries)
	}
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, unavailable(where, err)
		}
		break
	}
	e := &entry{name: name, stat: statOf(&st)}
	if err := sources.ValidName(name); err != nil {
		e.refused = fmt.Errorf("%w: name %q in %s: %w", sources.ErrRefused, name, at, err)
		return e, nil
	}
	switch e.stat.kind() {
	case unix.S_IFDIR, unix.S_IFLNK, unix.S_IFREG:
	default:
		e.refused = fmt.Errorf("%w: %s is a %s; only files, directories and symbolic links can be in a source", sources.ErrRefused, where, special(e.stat))
	}
	return e, nil
}

func special(s stat) string {
	switch s.kind() {
	case unix.S_IFIFO:
		return "named pipe"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

// unavailable classifies an error of the filesystem. What is not there any more,
// or has become something else, was changed since its name was read.
func unavailable(at string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		return changedError(at)
	}
	return fmt.Errorf("%w: %s cannot be read: %w", sources.ErrUnavailable, at, cause(err))
}

// cause drops the operation and the path that the os package adds.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
