package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/gitopsd/gitopsd/internal/effect"
)

// Options of Open. The zero value is good.
type Options struct {
	// LockTimeout is how long to wait for another process to let go of the file.
	// Default 2 s, so that a second daemon ends well within 5 s.
	LockTimeout time.Duration
	// Effect is the seam that commits, and the making of a new file, pass. Default effect.Direct.
	Effect effect.Seam
}

// Open opens the store at path, or makes a new one, with mode 0600, in a
// directory that is made with mode 0700 if it is missing. Before its content is
// written to the whole file is verified as Check does it, which takes the time of
// reading it once.
//
// Errors: ErrLocked when another process has the file open, ErrSchema when a
// newer program wrote it, store.ErrCorrupt when it is damaged. The content is
// then unchanged, and moving it aside is the caller's decision.
func Open(path string, o Options) (*Store, error) {
	if o.Effect == nil {
		o.Effect = effect.Direct
	}
	s := &Store{path: path, effect: o.Effect, writer: make(chan struct{}, 1)}
	if err := prepare(path, o.Effect); err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	f, err := lock(path, os.O_RDWR, o.LockTimeout)
	if err != nil {
		return nil, err
	}
	if _, err := checkFile(f); err != nil {
		return nil, fmt.Errorf("store %s: %w", path, errors.Join(err, f.Close()))
	}
	if s.file, err = openFile(path, f); err != nil {
		return nil, fmt.Errorf("store %s: %w", path, err)
	}
	removeLeftovers(path)
	return s, nil
}

// prepare makes sure that there is a private file at path. A new one is laid out
// under another name and linked into place complete, so that no crash leaves
// half a store behind that would later count as damaged.
func prepare(path string, do effect.Seam) error {
	dir := filepath.Dir(path)
	if err := privateDir(dir, do); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path, do)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("is a %s, not a regular file; move it away", info.Mode().Type())
	}
	if info.Mode().Perm()&0o077 != 0 {
		return do(effect.FileChmod, path, func() error { return os.Chmod(path, 0o600) })
	}
	return nil
}

// privateDir makes the directory, or refuses one in which others could replace the file.
func privateDir(dir string, do effect.Seam) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return do(effect.FileMkdir, dir, func() error { return os.MkdirAll(dir, 0o700) })
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", dir)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("directory %s has mode %#o: others could replace the store; chmod go-w it", dir, info.Mode().Perm())
	}
	return nil
}

func create(path string, do effect.Seam) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, filepath.Base(path)+leftover+"*") // mode 0600
	if err != nil {
		return err
	}
	name := temp.Name()
	defer os.Remove(name) // a second name of the store once it is linked
	err = do(effect.FileWrite, path, func() error {
		f, err := openFile(name, temp)
		if err != nil {
			return err
		}
		return errors.Join(f.update(initialise), f.close())
	})
	if err != nil {
		_ = temp.Close() // closed already unless the effect did not run
		return err
	}
	err = do(effect.FileRename, path, func() error { return os.Link(name, path) })
	if err != nil {
		if _, there := os.Lstat(path); there == nil {
			return nil // another process was faster; its lock decides
		}
		return err
	}
	return do(effect.FileSyncDir, dir, func() error { return syncDir(dir) })
}

// leftover is the part of a temporary file's name that follows the store's.
const leftover = ".new-"

// removeLeftovers deletes what creations left behind that were killed. It runs
// under the lock; a creation that is under way elsewhere then finds the store made.
func removeLeftovers(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+leftover) {
			_ = os.Remove(filepath.Join(filepath.Dir(path), e.Name())) // litter at worst
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lock opens the file and waits until no other process has it open: for reading
// alone when flag is O_RDONLY. It does not make a file that is not there.
func lock(path string, flag int, timeout time.Duration) (*os.File, error) {
	if timeout == 0 {
		timeout = 2 * time.Second
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	how := syscall.LOCK_EX
	if flag == os.O_RDONLY {
		how = syscall.LOCK_SH
	}
	for deadline := time.Now().Add(timeout); ; time.Sleep(lockRetry) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return f, nil
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, errors.Join(fmt.Errorf("store %s: lock: %w", path, err), f.Close())
		case time.Now().After(deadline):
			_ = f.Close() // nothing was done with it
			return nil, fmt.Errorf("store %s: %w%s; stop that process, or give this one another state directory", path, ErrLocked, holder(path))
		}
	}
}

const lockRetry = 20 * time.Millisecond

// openFile has bbolt open a file that is locked by f, which it takes over.
//
// The options that bbolt offers to save work stay off. NoSync and NoGrowSync
// give up durability. NoFreelistSync would have the list of free pages rebuilt at
// every start, in a goroutine of bbolt's own, where a damaged page ends the
// process instead of becoming an error.
func openFile(path string, f *os.File) (*file, error) {
	out := &file{os: f}
	err := out.guard(func() (err error) {
		out.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			NoStatistics: true,
			// bbolt locks what this returns: the same open file, so the lock is
			// ours from before the check to the end.
			OpenFile: func(string, int, os.FileMode) (*os.File, error) { return f, nil },
		})
		return err
	})
	if err != nil {
		if out.broken.Load() != nil {
			_ = out.close() // the damage is what to report
		}
		return nil, err
	}
	return out, nil
}
