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
	MaxOps   = 100       // compares, and operations, each
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

// Op is one write of a commit. A nil Value deletes; deleting the absent is
// success. A commit writes each key at most once.
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
	// store-wide revision, which grows by one with every commit, also with one
	// that has no ops. When the error is nil, the ops survive a power cut; after
	// an error other than ErrConflict, ErrFenced and ErrTooLarge they may have
	// happened, and the caller has to read before it decides again. A newer epoch
	// is remembered for good, also across Close.
	Commit(ctx context.Context, epoch uint64, compares []Compare, ops []Op) (uint64, error)
	// Watch sends the events of commits made after the call, in order, to the
	// channel until ctx ends, then closes it. A reader that falls behind gets the
	// channel closed early and must List again: no event is ever skipped in silence.
	Watch(ctx context.Context, prefix string) (<-chan Event, error)
	// Close releases the store. Later calls return ErrClosed.
	Close() error
}

// CheckCommit is the check that every backend makes first. It reports
// ErrTooLarge, a malformed key, or a key that is written twice: which of two
// writes wins differs between backends.
func CheckCommit(compares []Compare, ops []Op) error {
	for _, c := range compares {
		if err := CheckKey(c.Key); err != nil {
			return err
		}
	}
	size := 0
	written := make(map[string]struct{}, len(ops))
	for _, op := range ops {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
		if _, twice := written[op.Key]; twice {
			return fmt.Errorf("store key %q: written twice in one commit", op.Key)
		}
		written[op.Key] = struct{}{}
		size += len(op.Key) + len(op.Value)
	}
	if len(ops) > MaxOps || len(compares) > MaxOps || size > MaxBytes {
		return fmt.Errorf("%w: %d compares, %d operations, %d bytes (at most %d, %d and %d)",
			ErrTooLarge, len(compares), len(ops), size, MaxOps, MaxOps, MaxBytes)
	}
	return nil
}

// Transactions cuts ops, in their order, into as few commits as the limits
// allow. An operation that exceeds MaxBytes stands alone, and its commit fails.
func Transactions(ops []Op) [][]Op {
	var out [][]Op
	size, first := 0, 0
	for i, op := range ops {
		n := len(op.Key) + len(op.Value)
		if i > first && (i-first == MaxOps || size+n > MaxBytes) {
			out = append(out, ops[first:i])
			size, first = 0, i
		}
		size += n
	}
	if first < len(ops) {
		out = append(out, ops[first:])
	}
	return out
}
