// Package bolt is the durable store: one bbolt file in which every record
// carries a checksum, and in which damage is found and said, never used.
package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/store"
)

// Errors of this backend beside those of package store. Test with errors.Is.
var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("already in use")
	// ErrSchema: a newer program wrote the store. Nothing was changed.
	ErrSchema = errors.New("written by a newer version of gitopsd")
)

// Store is an open store. Make one with Open.
type Store struct {
	path   string
	file   *file
	effect effect.Seam
	hub    store.Hub
	writer chan struct{} // holds one element while a commit runs
	// failed is set when a commit failed after it had become visible: what is
	// read may then not be on the disk, and no commit may build on it.
	failed atomic.Pointer[error]

	mu     sync.RWMutex // held for reading by every use of file; guards closed
	closed bool
}

// enter keeps the store open until the returned function is called.
func (s *Store) enter(ctx context.Context) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, store.ErrClosed
	}
	return s.mu.RUnlock, nil
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return store.Record{}, err
	}
	defer leave()
	var out store.Record
	err = s.file.view(func(tx *bbolt.Tx) error {
		raw := tx.Bucket(bucketRecords).Get([]byte(key))
		if raw == nil {
			return store.ErrNotFound
		}
		out, err = export([]byte(key), raw)
		return err
	})
	if err != nil {
		return store.Record{}, fmt.Errorf("%s: %w", key, err)
	}
	return out, nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Record, error) {
	leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	var out []store.Record
	err = s.file.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketRecords).Cursor()
		for k, raw := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, raw = c.Next() {
			r, err := export(k, raw)
			if err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			out = append(out, r)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("list %q: %w", prefix, err)
	}
	return out, nil
}

// export checks a stored record and copies it out of the mapped file.
func export(key, raw []byte) (store.Record, error) {
	r, err := decode(key, raw)
	if err != nil {
		return store.Record{}, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return store.Record{Key: string(key), Value: append([]byte{}, r.value...), Version: r.version}, nil
}

// Commit implements store.Store. A damaged record is neither compared nor
// overwritten: the commit fails with ErrCorrupt, because what the record said
// is not known.
func (s *Store) Commit(ctx context.Context, epoch uint64, compares []store.Compare, ops []store.Op) (uint64, error) {
	if err := store.CheckCommit(compares, ops); err != nil {
		return 0, err
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	select {
	case s.writer <- struct{}{}:
		defer func() { <-s.writer }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	name := s.path
	if len(ops) > 0 {
		name = ops[0].Key
	}
	var revision uint64
	err = s.effect(effect.StoreCommit, name, func() (err error) {
		revision, err = s.commit(epoch, compares, ops)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("store %s: %w", s.path, err)
	}
	return revision, nil
}

// commit runs one transaction and tells the watchers. One runs at a time.
func (s *Store) commit(epoch uint64, compares []store.Compare, ops []store.Op) (uint64, error) {
	if failed := s.failed.Load(); failed != nil {
		return 0, *failed
	}
	var before, after state
	var events []store.Event
	decided := false // everything was checked and written; what is left is bbolt's commit
	err := s.file.update(func(tx *bbolt.Tx) (err error) {
		if before, err = loadState(tx); err != nil {
			return err
		}
		if err := check(tx, before, epoch, compares); err != nil {
			return err
		}
		if after, events, err = apply(tx, before, epoch, ops); err != nil {
			return err
		}
		decided = true
		return nil
	})
	if err != nil {
		if decided {
			s.afterFailure(before, err)
		}
		return 0, err
	}
	s.hub.Publish(events)
	return after.revision, nil
}

// afterFailure finds out whether a failed commit can be seen all the same: the
// page that makes it visible was written, and syncing it failed. The disk may
// then hold the old page, and asking the kernel to sync again may say yes
// without having done it; so nothing is written any more until the file has been
// opened anew.
func (s *Store) afterFailure(before state, cause error) {
	var now state
	err := s.file.view(func(tx *bbolt.Tx) (err error) {
		now, err = loadState(tx)
		return err
	})
	if err == nil && now.revision == before.revision {
		return
	}
	failed := fmt.Errorf("an earlier commit may not have reached the disk (%w); restart gitopsd once the disk is well", cause)
	s.failed.Store(&failed)
	s.hub.Cut()
}

func check(tx *bbolt.Tx, now state, epoch uint64, compares []store.Compare) error {
	if epoch < now.epoch {
		return fmt.Errorf("%w: epoch %d is older than %d", store.ErrFenced, epoch, now.epoch)
	}
	records := tx.Bucket(bucketRecords)
	for _, c := range compares {
		var version uint64
		if raw := records.Get([]byte(c.Key)); raw != nil {
			r, err := decode([]byte(c.Key), raw)
			if err != nil {
				return fmt.Errorf("%s: %w: %w", c.Key, store.ErrCorrupt, err)
			}
			version = r.version
		}
		if version != c.Version {
			return fmt.Errorf("%s: %w: version %d, expected %d", c.Key, store.ErrConflict, version, c.Version)
		}
	}
	return nil
}

func apply(tx *bbolt.Tx, before state, epoch uint64, ops []store.Op) (after state, events []store.Event, err error) {
	after = before
	after.revision++
	after.epoch = epoch
	records := tx.Bucket(bucketRecords)
	for _, op := range ops {
		key := []byte(op.Key)
		raw := records.Get(key)
		if raw != nil {
			old, err := decode(key, raw)
			if err != nil {
				return after, nil, fmt.Errorf("%s: %w: %w", op.Key, store.ErrCorrupt, err)
			}
			after.sum.xor(old.sum)
			after.count--
		}
		switch {
		case op.Value != nil:
			raw, sum := encode(key, after.revision, op.Value)
			after.sum.xor(sum)
			after.count++
			err = records.Put(key, raw)
		case raw != nil:
			err = records.Delete(key)
		default:
			continue // deleting the absent is no event
		}
		if err != nil {
			return after, nil, fmt.Errorf("%s: %w", op.Key, err)
		}
		events = append(events, store.Event{Key: op.Key, Value: op.Value, Version: after.revision})
	}
	return after, events, after.put(tx)
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string) (<-chan store.Event, error) {
	return s.hub.Watch(ctx, prefix)
}

// Close implements store.Store. It waits for calls under way. Closing twice is success.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.hub.Close()
	return s.file.close()
}

var _ store.Store = (*Store)(nil)
