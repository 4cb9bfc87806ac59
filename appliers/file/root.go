package file

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
)

// stateDir is where a root keeps its identity, its ledger and its backups.
const stateDir = ".gitopsd"

// Errors that name what stands in the way. Test with errors.Is.
var (
	// ErrOutside: the path lies in none of the roots.
	ErrOutside = errors.New("path is outside the target's roots")
	// ErrProtected: the path belongs to the kernel or to gitopsd itself.
	ErrProtected = errors.New("path is protected")
	// ErrSymlink: a directory on the way is a symbolic link.
	ErrSymlink = errors.New("path goes through a symbolic link")
	// ErrMount: the path crosses a mount point below the root.
	ErrMount = errors.New("path crosses a mount point")
	// ErrOddType: what is there is of another type than what is declared.
	ErrOddType = errors.New("something of another type is there")
	// ErrHardLinks: the file has other names, which a replacement would leave behind.
	ErrHardLinks = errors.New("file has several hard links")
	// ErrRoot: the root is missing, or is not the one that was written to before.
	ErrRoot = errors.New("root is not available")
)

// root is one directory that may be changed below.
type root struct {
	path  string
	cross bool // mount points below may be crossed
	walk  bool // no openat2: step down one directory at a time

	cleared bool // what an earlier process left in the state directory is gone; owned by who may write

	mu     sync.Mutex
	lock   fileID // of the lock that is held, if locked
	locked bool
	id     string // as the durable map knows it; "" not yet looked up or never written
	looked bool
	led    ledger
}

// tree is an open root with the last directory that was asked for. It is not
// for concurrent use.
type tree struct {
	a    *Applier
	root *root
	fd   int

	lastDir string
	lastFD  int // -1 when none
}

// hasOpenat2 reports whether the kernel, and the sandbox around this process, let us use it.
func hasOpenat2() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// open opens a root and makes sure that it is the one that was written to
// before: a file system that is not mounted must not look like an empty one.
func (a *Applier) open(ctx context.Context, r *root) (*tree, error) {
	fd, err := r.openDir()
	if err != nil {
		return nil, err
	}
	t := &tree{a: a, root: r, fd: fd, lastFD: -1}
	if err := t.identify(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// openDir opens the directory of a root. The caller closes it.
func (r *root) openDir() (fd int, err error) {
	fd, err = r.step(unix.AT_FDCWD, r.path, unix.O_PATH|unix.O_DIRECTORY, true)
	switch {
	case errors.Is(err, unix.ELOOP):
		return -1, appliers.WithClass(appliers.Wait, fmt.Errorf("%w: %s goes through a symbolic link; list its real path", ErrRoot, r.path))
	case errors.Is(err, unix.ENOENT):
		return -1, withClass(fmt.Errorf("%w: %s: %w; make the directory, or mount what belongs there", ErrRoot, r.path, err))
	case errors.Is(err, unix.ENOTDIR):
		return -1, withClass(fmt.Errorf("%w: %s: %w; correct the target's roots", ErrRoot, r.path, err))
	case err != nil:
		return -1, withClass(fmt.Errorf("%w: %w", ErrRoot, explain(err, r.path)))
	}
	return fd, nil
}

func (t *tree) close() {
	t.forget()
	unix.Close(t.fd)
}

func (t *tree) forget() {
	if t.lastFD >= 0 {
		unix.Close(t.lastFD)
	}
	t.lastDir, t.lastFD = "", -1
}

// step opens a path below a directory without following a symbolic link,
// leaving the directory or, unless cross, entering another mount. Flags are
// those of openat; O_CLOEXEC is added.
func (r *root) step(dirfd int, rel string, flags int, cross bool) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW
	if r.walk {
		return walk(dirfd, rel, flags, cross)
	}
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	if dirfd != unix.AT_FDCWD {
		how.Resolve |= unix.RESOLVE_BENEATH
	}
	if !cross {
		how.Resolve |= unix.RESOLVE_NO_XDEV
	}
	// EAGAIN: the tree was being renamed while the kernel walked it.
	for tries := 0; ; tries++ {
		fd, err := unix.Openat2(dirfd, rel, &how)
		if (err == unix.EAGAIN || err == unix.EINTR) && tries < 100 {
			continue
		}
		return fd, err
	}
}

// walk is step for kernels without openat2.
func walk(dirfd int, rel string, flags int, cross bool) (int, error) {
	start, parts := ".", strings.Split(strings.Trim(rel, "/"), "/")
	if strings.HasPrefix(rel, "/") {
		start = "/"
	}
	at, err := unix.Openat(dirfd, start, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	first, err := mountOf(at)
	if err != nil {
		unix.Close(at)
		return -1, err
	}
	for i, part := range parts {
		if part == "" || part == "." {
			part = "."
		}
		f := unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if i == len(parts)-1 {
			f = flags
		}
		next, err := unix.Openat(at, part, f, 0)
		if err == unix.ENOTDIR && symlinkAt(at, part) {
			err = unix.ELOOP
		}
		unix.Close(at)
		if err != nil {
			return -1, err
		}
		mount, err := mountOf(next)
		if err == nil && !cross && mount != first {
			err = unix.EXDEV
		}
		if err != nil {
			unix.Close(next)
			return -1, err
		}
		at = next
	}
	return at, nil
}

// mountOf tells mounts apart. Kernels before 5.8 have no number for them; the
// device stands in, which does not see a bind mount of the same file system.
func mountOf(fd int) (id [3]uint64, err error) {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return id, err
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		return [3]uint64{st.Mnt_id}, nil
	}
	return [3]uint64{0, uint64(st.Dev_major), uint64(st.Dev_minor)}, nil
}

func symlinkAt(dirfd int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// rel is a path relative to the root.
func (t *tree) rel(p string) string {
	return strings.TrimPrefix(strings.TrimPrefix(p, strings.TrimSuffix(t.root.path, "/")), "/")
}

// parent returns a descriptor of the directory that p is in, valid until the
// next call, and p's name in it.
func (t *tree) parent(p string) (int, string, error) {
	dir, name := path.Dir(p), path.Base(p)
	if t.lastFD >= 0 && t.lastDir == dir {
		return t.lastFD, name, nil
	}
	fd, err := t.dir(dir)
	if err != nil {
		return -1, "", err
	}
	t.forget()
	t.lastDir, t.lastFD = dir, fd
	return fd, name, nil
}

// dir opens a directory for reading; the caller closes it.
func (t *tree) dir(p string) (int, error) {
	rel := t.rel(p)
	if rel == "" {
		rel = "."
	}
	fd, err := t.root.step(t.fd, rel, unix.O_DIRECTORY|unix.O_RDONLY, t.root.cross)
	if err == unix.EACCES { // a directory that may be passed but not listed
		fd, err = t.root.step(t.fd, rel, unix.O_DIRECTORY|unix.O_PATH, t.root.cross)
	}
	if err == unix.ELOOP || err == unix.ENOTDIR {
		return -1, t.noWay(err, rel, p)
	}
	return fd, explain(err, p)
}

// explain names what an errno means on the way to a path.
func explain(err error, p string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %s is one, or a directory above it; declare the real path", ErrSymlink, p)
	case errors.Is(err, unix.EXDEV):
		return fmt.Errorf("%w: %s; list the mounted directory as a root of its own, or set crossMounts", ErrMount, p)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s: something above it is not a directory: %w; remove that by hand, or declare another path", p, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("%s: %w; run gitopsd as root, or give its user access to it and to the directories above", p, err)
	}
	return fmt.Errorf("%s: %w", p, err)
}

// withClass decides what the loop does about an error of the file system. A
// class that was decided where the error arose stays.
func withClass(err error) error {
	if appliers.ClassOf(err) != appliers.Retry {
		return err
	}
	var errno unix.Errno
	if errors.As(err, &errno) && passing[errno] {
		return err
	}
	switch {
	case errors.Is(err, ErrOddType), errors.Is(err, ErrHardLinks), errors.Is(err, ErrProtected), errors.Is(err, ErrOutside):
		return appliers.WithClass(appliers.Stop, err)
	case errors.Is(err, ErrSymlink), errors.Is(err, ErrMount), errors.Is(err, ErrRoot):
		return appliers.WithClass(appliers.Wait, err)
	case errno != 0:
		return appliers.WithClass(appliers.Wait, err)
	}
	return err
}

// passing are the errors of the kernel that go away by themselves or when there
// is room again; all others wait for somebody to change something.
var passing = map[unix.Errno]bool{
	unix.EMFILE: true, unix.ENFILE: true, unix.ENOMEM: true, unix.EIO: true, unix.ENOSPC: true, unix.EDQUOT: true,
	unix.EINTR: true, unix.EAGAIN: true, unix.ETXTBSY: true, unix.ENOBUFS: true, unix.ESTALE: true, unix.EEXIST: true,
}

// identify compares the root's identity with the one on record. A root without
// a record is taken as it is.
func (t *tree) identify(ctx context.Context) error {
	r := t.root
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.looked {
		v, found, err := t.a.env.KV.Get(ctx, r.key())
		if err != nil {
			return fmt.Errorf("identity of root %s: %w", r.path, err)
		}
		if r.looked = true; found {
			r.id = string(v)
		}
	}
	if r.id == "" {
		return nil
	}
	here, err := t.readID()
	if err != nil {
		return withClass(err)
	}
	if here != r.id {
		return appliers.WithClass(appliers.Wait, fmt.Errorf(
			"%w: %s does not hold what was written there before; is its file system mounted? If it is the right one, restore %s/%s/id with the content %s",
			ErrRoot, r.path, strings.TrimSuffix(r.path, "/"), stateDir, r.id))
	}
	return nil
}

func (r *root) key() string {
	sum := sha256.Sum256([]byte(r.path))
	return "root/" + hex.EncodeToString(sum[:16])
}

// state opens the root's state directory; with create it is made if it is missing.
func (t *tree) state(create bool) (int, error) {
	fd, err := t.root.step(t.fd, stateDir, unix.O_DIRECTORY|unix.O_RDONLY, false)
	if err == unix.ENOENT && create {
		if err := unix.Mkdirat(t.fd, stateDir, 0o700); err != nil && err != unix.EEXIST {
			return -1, explain(err, path.Join(t.root.path, stateDir))
		}
		fd, err = t.root.step(t.fd, stateDir, unix.O_DIRECTORY|unix.O_RDONLY, false)
	}
	return fd, explain(err, path.Join(t.root.path, stateDir))
}

// readID returns the identity that stands in the root; "" when none does.
func (t *tree) readID() (string, error) {
	fd, err := t.root.step(t.fd, stateDir+"/id", unix.O_RDONLY, false)
	if err == unix.ENOENT {
		return "", nil
	}
	if err != nil {
		return "", explain(err, path.Join(t.root.path, stateDir, "id"))
	}
	f := os.NewFile(uintptr(fd), "id")
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64))
	return strings.TrimSpace(string(b)), err
}

// settleIn makes the root's identity durable, in the root and on record, before
// the first write below it.
func (t *tree) settleIn(ctx context.Context) error {
	if err := t.hold(true); err != nil {
		return err
	}
	r := t.root
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.id != "" {
		return nil
	}
	id, err := t.readID()
	if err != nil {
		return withClass(err)
	}
	if id == "" {
		id = rand.Text()
		err := t.a.env.Effect(effect.FileLedger, r.path, func() error { return t.writeState("id", []byte(id+"\n")) })
		if err != nil {
			return withClass(fmt.Errorf("mark root %s as ours: %w", r.path, err))
		}
	}
	if err := t.a.env.KV.Put(ctx, r.key(), []byte(id)); err != nil {
		return fmt.Errorf("record the identity of root %s: %w", r.path, err)
	}
	r.id = id
	return nil
}

// writeState replaces a file of the state directory, durably.
func (t *tree) writeState(name string, content []byte) error {
	dir, err := t.state(true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return replaceIn(dir, name, func(f *os.File) error {
		_, err := f.Write(content)
		return err
	})
}
