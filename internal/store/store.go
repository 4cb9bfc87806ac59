// Package store keeps durable state and knows nothing of its meaning: records
// by key, changed in small atomic transactions. What it holds is a cache of the
// truth in Git and on the targets; losing it costs time, never objects.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Limits of one Commit, small enough for every backend that may stand behind
// the interface (etcd allows 128 operations and 1.5 MiB by default).
const (
	MaxOps   = 100
	MaxBytes = 512 << 10 // keys and values of all operations together
)

// Errors of a store. Test with errors.Is.
var (
	ErrNotFound = errors.New("record not found")
	// ErrConflict: a Compare did not hold. Read again and decide again.
	ErrConflict = errors.New("record changed meanwhile")
	// ErrFenced: the epoch of the caller is older than the newest one seen.
	ErrFenced = errors.New("a newer leader has taken over")
	// ErrTooLarge: the commit exceeds MaxOps or MaxBytes.
	ErrTooLarge = errors.New("commit exceeds the limits of a transaction")
	// ErrCorrupt: a record failed its checksum. Its content must not be used.
	ErrCorrupt = errors.New("record is damaged")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("store is closed")
)

// Record is one stored value.
type Record struct {
	Key   string
	Value []byte
	// Version is the store-wide revision of the commit that wrote the record.
	Version uint64
}

// Compare is a condition of a commit: the record's version must be Version, and
// zero means that the record must not exist.
type Compare struct {
	Key     string
	Version uint64
}

// Op is one write of a commit. A nil Value deletes; deleting the absent is success.
type Op struct {
	Key   string
	Value []byte
}

// Event reports that a record was written, or deleted when Value is nil.
type Event struct {
	Key     string
	Value   []byte
	Version uint64
}

// Store is a durable, ordered map. Keys are non-empty UTF-8 without NUL, at
// most 1 KiB, by convention "kind/name/...". All methods are safe for
// concurrent use. Values handed in and out are not shared with the store.
type Store interface {
	// Get returns one record, ErrNotFound or ErrCorrupt.
	Get(ctx context.Context, key string) (Record, error)
	// List returns all records whose key starts with prefix, sorted by key. One
	// damaged record fails the whole call with an error that wraps ErrCorrupt
	// and names it: a partial list could be taken for a complete one.
	List(ctx context.Context, prefix string) ([]Record, error)
	// Commit checks that epoch is not older than any seen, that every compare
	// holds, and then makes all ops durable at once, or none. It returns the new
	// store-wide revision. When it returns nil, the ops survive a power cut.
	Commit(ctx context.Context, epoch uint64, compares []Compare, ops []Op) (uint64, error)
	// Watch sends the events of commits made after the call, in order, to the
	// channel until ctx ends, then closes it. A reader that falls behind gets the
	// channel closed early and must List again: no event is ever skipped in silence.
	Watch(ctx context.Context, prefix string) (<-chan Event, error)
	// Close releases the store. Later calls return ErrClosed.
	Close() error
}

// CheckCommit is the check that every backend makes first. It reports
// ErrTooLarge or a malformed key.
func CheckCommit(ops []Op) error {
	size := 0
	for _, op := range ops {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
		size += len(op.Key) + len(op.Value)
	}
	if len(ops) > MaxOps || size > MaxBytes {
		return fmt.Errorf("%w: %d operations, %d bytes (at most %d and %d)", ErrTooLarge, len(ops), size, MaxOps, MaxBytes)
	}
	return nil
}
