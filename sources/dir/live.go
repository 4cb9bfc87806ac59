package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/sources"
)

// Live is a folder as a sources.Tree of which only that is read which is asked for,
// when it is asked for: what lies in it besides, however much, does not matter. It is
// for who looks once at a working copy, and less than a snapshot:
//
//   - It has no revision; Revision is "".
//   - A Hash names an entry as it was found, and says nothing of what is below a
//     directory. Hashes of two Lives are not compared.
//   - A file that is no more what it was when it was first looked at is
//     ErrUnavailable. Files that were not looked at yet may change meanwhile.
//
// Names, links and odd types are treated as those of a Repository. It is safe for
// concurrent use.
type Live struct {
	path string
	root *os.Root

	mu   sync.Mutex
	seen map[string]stat // of files, by path
}

var _ sources.Tree = (*Live)(nil)

// OpenLive returns the folder at path. Close it. A folder that is missing or is
// something else is ErrUnavailable.
func OpenLive(path string) (*Live, error) {
	asked := path
	path, err := filepath.Abs(asked)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", asked, err)
	}
	root, err := openRoot(path)
	if err != nil {
		return nil, fmt.Errorf("folder %s: %w", path, err)
	}
	return &Live{path: path, root: root, seen: map[string]stat{}}, nil
}

// Close ends all reading.
func (l *Live) Close() error { return l.root.Close() }

// Revision implements sources.Tree: there is none.
func (l *Live) Revision() string { return "" }

// Stat implements sources.Tree.
func (l *Live) Stat(p string) (sources.Entry, error) {
	p, st, err := l.find(p)
	if err != nil {
		return sources.Entry{}, l.error(p, err)
	}
	return liveEntry(p, st), nil
}

// ReadDir implements sources.Tree.
func (l *Live) ReadDir(p string) ([]sources.Entry, error) {
	p, st, err := l.find(p)
	if err != nil {
		return nil, l.error(p, err)
	}
	if st.kind() != unix.S_IFDIR {
		return nil, l.error(p, fmt.Errorf("%w: it is a %s, not a directory", sources.ErrRefused, liveEntry(p, st).Mode))
	}
	limits := Options{}
	limits.setDefaults()
	s := &scanner{root: l.root, limits: limits.Limits}
	dir := &entry{stat: st}
	if err := s.list(dir, rootName(p)); err != nil {
		return nil, l.error("", err)
	}
	entries := make([]sources.Entry, len(dir.entries))
	for i, e := range dir.entries {
		if e.refused != nil {
			return nil, l.error("", e.refused)
		}
		at := path.Join(p, e.name)
		if err := l.same(at, e.stat); err != nil {
			return nil, l.error("", err)
		}
		entries[i] = liveEntry(at, e.stat)
	}
	return entries, nil
}

// ReadFile implements sources.Tree.
func (l *Live) ReadFile(p string, limit int64) ([]byte, error) {
	p, st, err := l.find(p)
	if err != nil {
		return nil, l.error(p, err)
	}
	if st.kind() != unix.S_IFREG {
		return nil, l.error(p, fmt.Errorf("%w: it is a %s, not a file", sources.ErrRefused, liveEntry(p, st).Mode))
	}
	if int64(st.size) > limit {
		return nil, l.error(p, &sources.TooLargeError{Size: int64(st.size), Limit: limit})
	}
	content, err := readAll(context.Background(), l.root, st, p)
	if err != nil {
		return nil, l.error("", err)
	}
	return content, nil
}

// find looks at what stands at a path, by way of directories only, and returns the
// path in clean form.
func (l *Live) find(p string) (string, stat, error) {
	if p == "" || p == "." {
		st, err := l.look(".")
		return "", st, err
	}
	if !fs.ValidPath(p) {
		return p, stat{}, fs.ErrNotExist
	}
	var st stat
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		at := p[:i]
		if at == ".git" || st.mode != 0 && st.kind() != unix.S_IFDIR {
			return p, stat{}, fs.ErrNotExist
		}
		var err error
		if st, err = l.look(at); err != nil {
			return p, stat{}, err
		}
		if name := path.Base(at); sources.ValidName(name) != nil {
			return p, stat{}, fmt.Errorf("%w: name %q: %w", sources.ErrRefused, name, sources.ValidName(name))
		}
	}
	switch st.kind() {
	case unix.S_IFDIR, unix.S_IFLNK, unix.S_IFREG:
		return p, st, l.same(p, st)
	default:
		return p, stat{}, fmt.Errorf("%w: it is a %s; only files, directories and symbolic links can be in a source", sources.ErrRefused, special(st))
	}
}

// look stats what stands at a path.
func (l *Live) look(at string) (stat, error) {
	info, err := l.root.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return stat{}, fs.ErrNotExist
	case err != nil:
		return stat{}, unavailable(at, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stat{}, fmt.Errorf("%w: %s: the system gives no details of it", sources.ErrUnavailable, at)
	}
	return stat{
		dev: uint64(st.Dev), ino: st.Ino, size: uint64(st.Size), mode: st.Mode,
		mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(),
	}, nil
}

// same fails when a file is no more what it was when it was first looked at.
func (l *Live) same(at string, now stat) error {
	if now.kind() != unix.S_IFREG {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if was, ok := l.seen[at]; ok && was != now {
		return changedError(at)
	}
	l.seen[at] = now
	return nil
}

// error names the folder, and the path unless it is "".
func (l *Live) error(p string, err error) error {
	if changed := changedError(""); errors.As(err, &changed) {
		return fmt.Errorf("folder %s: %w: %s changed while it was looked at; try again", l.path, sources.ErrUnavailable, string(changed))
	}
	if p != "" {
		err = fmt.Errorf("%s: %w", p, err)
	}
	return fmt.Errorf("folder %s: %w", l.path, err)
}

func liveEntry(p string, st stat) sources.Entry {
	e := sources.Entry{Path: p, Hash: sources.Hash(strings.ReplaceAll(fmt.Sprint(st), " ", "-"))}
	switch {
	case st.kind() == unix.S_IFDIR:
		e.Mode = sources.ModeDir
	case st.kind() == unix.S_IFLNK:
		e.Mode = sources.ModeSymlink
	case st.mode&0o100 != 0: // the owner's, as Git has it
		e.Mode = sources.ModeExec
	}
	return e
}

// rootName is how a path of a tree is called below an os.Root.
func rootName(p string) string {
	if p == "" {
		return "."
	}
	return p
}
