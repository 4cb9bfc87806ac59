package file

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
)

// ErrHeld: another process writes below the root. Test with errors.Is.
var ErrHeld = errors.New("another gitopsd writes below this root")

// lockName is the file in a root's state directory that one process at a time
// holds a lock (flock) on. It tells the process, which is of use to people only.
const lockName = "lock"

// Locks are the locks on roots that this process holds. Targets of one process
// share them, so that the roots of two may overlap and a changed target may take
// over from the one it replaces. It is safe for concurrent use.
type Locks struct {
	mu   sync.Mutex
	held map[fileID]*heldLock
}

// NewLocks returns the locks of a process that holds none yet.
func NewLocks() *Locks { return &Locks{held: map[fileID]*heldLock{}} }

type fileID struct{ dev, ino uint64 }

func idOf(st *unix.Stat_t) fileID { return fileID{st.Dev, st.Ino} }

type heldLock struct {
	fd    int
	users int
}

// take locks the open file fd, which it closes if it does not keep it, or joins
// those who hold its lock already. EWOULDBLOCK: another process holds it.
func (l *Locks) take(fd int) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return fileID{}, err
	}
	id := idOf(&st)
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.held[id]; have != nil {
		have.users++
		unix.Close(fd)
		return id, nil
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		return fileID{}, err
	}
	l.held[id] = &heldLock{fd: fd, users: 1}
	return id, nil
}

// leave gives up one use; the last one frees the lock.
func (l *Locks) leave(id fileID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.held[id]
	if have == nil {
		return
	}
	if have.users--; have.users == 0 {
		unix.Close(have.fd)
		delete(l.held, id)
	}
}

// hold makes this process the only one that writes below the root, until the
// applier is closed. With begin the state directory is made; without it a root
// that nothing was written below needs no lock yet.
func (t *tree) hold(begin bool) error {
	dir, err := t.state(begin)
	if errors.Is(err, unix.ENOENT) && !begin {
		return nil
	}
	if err != nil {
		return withClass(err)
	}
	defer unix.Close(dir)
	if t.holds(dir) {
		return nil
	}
	fd, err := unix.Openat(dir, lockName, unix.O_RDONLY|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EROFS) {
		fd, err = unix.Openat(dir, lockName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return withClass(fmt.Errorf("lock of root %s: %w", t.root.path, err))
	}
	return t.take(dir, fd)
}

// holdFree takes the lock when nobody has it and somebody had it before, so that
// the daemon that was here first stays. Looking needs no lock.
func (t *tree) holdFree() {
	dir, err := t.state(false)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	if t.a.isClosed() || t.holds(dir) {
		return
	}
	fd, err := unix.Openat(dir, lockName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		_ = t.take(dir, fd) // a write says what is in the way
	}
}

// holds reports whether the lock file that is there is the one that is held.
func (t *tree) holds(dir int) bool {
	t.root.mu.Lock()
	defer t.root.mu.Unlock()
	var st unix.Stat_t
	err := unix.Fstatat(dir, lockName, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && t.root.locked && t.root.lock == idOf(&st)
}

func (t *tree) take(dir, fd int) error {
	r := t.root
	r.mu.Lock()
	defer r.mu.Unlock()
	id, err := t.a.locks.take(fd)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return appliers.WithClass(appliers.Wait, fmt.Errorf("%w: %s%s; stop that process, or give one of the two other roots", ErrHeld, r.path, holder(dir)))
	}
	if err != nil {
		return withClass(fmt.Errorf("lock of root %s: %w", r.path, err))
	}
	if r.locked {
		t.a.locks.leave(r.lock)
	}
	r.lock, r.locked = id, true
	sign(dir)
	return nil
}

// sign writes the number of this process into the lock file. The lock itself is
// held on a descriptor for reading, which does not keep a file system from
// turning read-only.
func sign(dir int) {
	fd, err := unix.Openat(dir, lockName, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), lockName)
	defer f.Close()
	fmt.Fprintln(f, os.Getpid()) // without room for it, the number is not told
}

// holder names the process that holds a lock, as far as it has told.
func holder(dir int) string {
	fd, err := unix.Openat(dir, lockName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	f := os.NewFile(uintptr(fd), lockName)
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 32))
	pid, notNumber := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || notNumber != nil {
		return ""
	}
	return fmt.Sprintf(" (process %d)", pid)
}

// Close implements appliers.Closer: it frees the locks on the roots, once an Apply
// that is under way has ended.
func (a *Applier) Close() error {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.letGo()
	return nil
}

func (a *Applier) isClosed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closed
}

// letGo frees the locks unless somebody writes, who calls it at the end.
func (a *Applier) letGo() {
	select {
	case a.writing <- struct{}{}:
		defer func() { <-a.writing }()
	default:
		return
	}
	for _, r := range a.roots {
		r.mu.Lock()
		if r.locked {
			a.locks.leave(r.lock)
			r.locked = false
		}
		r.mu.Unlock()
	}
}
