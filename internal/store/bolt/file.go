package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"

	"github.com/gitopsd/gitopsd/internal/store"
)

// file is a bbolt file in which damage is an error. bbolt trusts its pages: on
// a damaged one it panics, reads memory that is not mapped, and may leave its
// locks taken. So every use of it runs under guard, and after the first panic
// bbolt is not called again.
type file struct {
	db     *bbolt.DB
	os     *os.File              // the same open file as db's
	broken atomic.Pointer[error] // set once bbolt has panicked
}

// guard runs fn and turns a panic or a memory fault in it into an error that
// wraps store.ErrCorrupt. It covers only the goroutine it is called in.
func (f *file) guard(fn func() error) (err error) {
	if broken := f.broken.Load(); broken != nil {
		return *broken
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: a page of the file: %v", store.ErrCorrupt, p)
			f.broken.Store(&err)
		}
	}()
	return fn()
}

func (f *file) view(fn func(*bbolt.Tx) error) error {
	return f.guard(func() error { return f.db.View(fn) })
}

func (f *file) update(fn func(*bbolt.Tx) error) error {
	return f.guard(func() error { return f.db.Update(fn) })
}

// close releases the file and its lock. After damage it does so past bbolt,
// whose own Close could wait for ever for a lock; the mapping then stays until
// the process ends.
func (f *file) close() error {
	err := f.guard(f.db.Close)
	if f.broken.Load() == nil {
		return err
	}
	// The mapping keeps the file open in the kernel's eyes, and the lock with it.
	err = syscall.Flock(int(f.os.Fd()), syscall.LOCK_UN)
	return errors.Join(err, f.os.Close())
}
