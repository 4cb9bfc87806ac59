// Package memory is a store without a file: for tests, for simulation, and for
// commands that need no memory of their own. It keeps every promise of
// store.Store but durability beyond the process.
package memory

import (
	"context"
	"fmt"
	"sync"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/gitopsd/gitopsd/internal/store"
)

// Store is a store in memory. Make one with New.
type Store struct {
	hub  store.Hub
	data *data

	mu     sync.RWMutex // guards closed
	closed bool
}

// data is what outlives Close, as a file would.
type data struct {
	mu       sync.Mutex
	records  *iradix.Tree[store.Record]
	revision uint64
	epoch    uint64
}

// New returns an empty store.
func New() *Store {
	return &Store{data: &data{records: iradix.New[store.Record]()}}
}

// Reopen returns an open store with the content of s, as after a restart of the
// process. s is closed by it.
func (s *Store) Reopen() *Store {
	_ = s.Close() // the memory store's Close does not fail
	return &Store{data: s.data}
}

func (s *Store) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return store.ErrClosed
	}
	return nil
}

func (s *Store) snapshot() *iradix.Tree[store.Record] {
	s.data.mu.Lock()
	defer s.data.mu.Unlock()
	return s.data.records
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	if err := s.check(ctx); err != nil {
		return store.Record{}, err
	}
	r, ok := s.snapshot().Get([]byte(key))
	if !ok {
		return store.Record{}, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	return copied(r), nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix string) ([]store.Record, error) {
	if err := s.check(ctx); err != nil {
		return nil, err
	}
	var records []store.Record
	s.snapshot().Root().WalkPrefix([]byte(prefix), func(_ []byte, r store.Record) bool {
		records = append(records, copied(r))
		return false
	})
	return records, nil
}

// Commit implements store.Store.
func (s *Store) Commit(ctx context.Context, epoch uint64, compares []store.Compare, ops []store.Op) (uint64, error) {
	if err := store.CheckCommit(compares, ops); err != nil {
		return 0, err
	}
	if err := s.check(ctx); err != nil {
		return 0, err
	}
	d := s.data
	d.mu.Lock()
	defer d.mu.Unlock()
	if epoch < d.epoch {
		return 0, fmt.Errorf("%w: epoch %d is older than %d", store.ErrFenced, epoch, d.epoch)
	}
	for _, c := range compares {
		if r, _ := d.records.Get([]byte(c.Key)); r.Version != c.Version {
			return 0, fmt.Errorf("%s: %w: version %d, expected %d", c.Key, store.ErrConflict, r.Version, c.Version)
		}
	}
	revision := d.revision + 1
	txn := d.records.Txn()
	events := make([]store.Event, 0, len(ops))
	for _, op := range ops {
		if op.Value == nil {
			if _, existed := txn.Delete([]byte(op.Key)); !existed {
				continue
			}
		} else {
			txn.Insert([]byte(op.Key), copied(store.Record{Key: op.Key, Value: op.Value, Version: revision}))
		}
		events = append(events, store.Event{Key: op.Key, Value: op.Value, Version: revision})
	}
	d.records, d.revision, d.epoch = txn.Commit(), revision, epoch
	s.hub.Publish(events) // under the lock: watchers see the order of the commits
	return revision, nil
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string) (<-chan store.Event, error) {
	return s.hub.Watch(ctx, prefix)
}

// Close implements store.Store. Closing twice is success.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.hub.Close()
	return nil
}

func copied(r store.Record) store.Record {
	r.Value = append([]byte{}, r.Value...) // never nil: nil means deleted
	return r
}

var _ store.Store = (*Store)(nil)
