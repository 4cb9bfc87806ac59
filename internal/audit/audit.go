// Package audit keeps the record of who did what, when and why: an append-only
// chain of records in a store, in which each record carries the hash of the one
// before it. A changed, missing or added record breaks the chain, and Verify says
// where. The hashes have no key: they show accidents and careless edits, while
// somebody who can write the whole store can also write a whole new chain, which
// only a head kept elsewhere (Head) gives away.
//
// Values must come masked: what is a manifest.Sensitive in Data is stored as its
// mask, and Message is stored as it is given.
package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/internal/store"
)

// ErrBroken is wrapped by every error that says that the chain does not hold.
var ErrBroken = errors.New("audit chain is broken")

// Break says where the chain breaks first. It wraps ErrBroken.
type Break struct {
	Writer string
	Seq    uint64 // of the first record that does not fit
	Reason string
}

// Error implements error.
func (b *Break) Error() string {
	return fmt.Sprintf("%v at record %d of writer %s: %s; keep a copy of the store for those who look into it", ErrBroken, b.Seq, b.Writer, b.Reason)
}

// Unwrap returns ErrBroken.
func (b *Break) Unwrap() error { return ErrBroken }

// Entry is what happened, as the caller says it.
type Entry struct {
	At          time.Time // when it happened; zero means now
	Kind        string    // what sort of thing, as in "sync", "approve", "applied"
	Application string    // empty when it concerns none
	Principal   string    // who: "uid:1000", "gitopsd"
	Message     string    // one sentence; cut at 4 KiB
	// Data are details, stored as JSON with secrets masked. More than 16 KiB are
	// left out, and the record says so: a state change is never held up by the
	// size of its audit record.
	Data map[string]any
}

// Record is one stored entry.
type Record struct {
	Seq         uint64          `json:"seq"` // from 1 on, without gaps
	At          time.Time       `json:"at"`  // UTC
	Kind        string          `json:"kind"`
	Application string          `json:"application,omitempty"`
	Principal   string          `json:"principal,omitempty"`
	Message     string          `json:"message,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Prev        string          `json:"prev"` // Hash of the record before; empty in the first
	Hash        string          `json:"hash"` // SHA-256 in hexadecimal of the rest, as it is stored
}

// Options of Open. Store, Writer, Now and Epoch must be set.
type Options struct {
	Store store.Store
	// Writer names the chain. Each process that may write at the same time has
	// its own; it holds no slash.
	Writer string
	Now    func() time.Time
	Epoch  func() uint64 // asked at every write
	// Keep is how many records stay; older ones are dropped as new ones come,
	// and the chain then starts from the hash of the last one dropped. Default 10000.
	Keep int
}

// Log is one writer's chain. It is safe for concurrent use.
type Log struct {
	opts   Options
	prefix string

	mu      sync.Mutex // held while records are added
	head    head       // as last seen; a commit that was decided on an older one conflicts
	version uint64     // of the head record; zero when there is none
}

// head is the end of the chain. It is written with every record, so that a chain
// whose newest records were taken away does not pass for a shorter one.
type head struct {
	Seq    uint64 `json:"seq"`
	Hash   string `json:"hash"`
	First  uint64 `json:"first"`  // oldest record kept
	Anchor string `json:"anchor"` // hash of the record before First
}

// Open opens the chain of a writer, or begins one. It fails with ErrBroken when
// there are records and no head.
func Open(ctx context.Context, o Options) (*Log, error) {
	if o.Writer == "" || strings.Contains(o.Writer, "/") {
		return nil, fmt.Errorf("audit writer %q: want a name without a slash", o.Writer)
	}
	if o.Keep <= 0 {
		o.Keep = 10_000
	}
	l := &Log{opts: o, prefix: "audit/" + o.Writer + "/"}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.load(ctx); err != nil {
		return nil, err
	}
	if l.version == 0 {
		if err := l.checkEmpty(ctx); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Append adds entries, in order, in as few transactions as they fit. After an
// error the first of them may have been added, in order.
func (l *Log) Append(ctx context.Context, entries ...Entry) error {
	_, err := l.Commit(ctx, nil, nil, entries...)
	if n := len(entries); n > 1 && errors.Is(err, store.ErrTooLarge) {
		if err := l.Append(ctx, entries[:n/2]...); err != nil {
			return err
		}
		return l.Append(ctx, entries[n/2:]...)
	}
	return err
}

// Commit makes a state change and its audit entries durable in one transaction:
// both or neither. It takes what store.Commit takes and gives what that gives,
// ErrConflict included when one of compares does not hold. n entries cost n+1 of
// the transaction's operations and one of its compares; what room is left goes
// to dropping old records.
func (l *Log) Commit(ctx context.Context, compares []store.Compare, ops []store.Op, entries ...Entry) (uint64, error) {
	if len(entries) == 0 {
		return l.opts.Store.Commit(ctx, l.opts.Epoch(), compares, ops)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		tried := l.version
		revision, err := l.commit(ctx, compares, ops, entries)
		if err == nil {
			return revision, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return 0, err
		}
		// The head moved, because a commit whose answer was lost did happen or
		// somebody else wrote to this chain, or one of the caller's compares failed.
		if err := l.load(ctx); err != nil {
			return 0, err
		}
		if l.version == tried {
			return 0, err
		}
	}
}

func (l *Log) commit(ctx context.Context, compares []store.Compare, ops []store.Op, entries []Entry) (uint64, error) {
	next := l.head
	ops = append([]store.Op(nil), ops...)
	prevs := make(map[uint64]string, len(entries)) // of the records being added
	for _, e := range entries {
		next.Seq++
		prevs[next.Seq] = next.Hash
		at := e.At
		if at.IsZero() {
			at = l.opts.Now()
		}
		hash, value, err := encode(l.opts.Writer, next.Seq, next.Hash, at, e)
		if err != nil {
			return 0, err
		}
		next.Hash = hash
		ops = append(ops, store.Op{Key: l.key(next.Seq), Value: value})
	}
	ops = l.drop(ctx, &next, prevs, ops)
	value, err := json.Marshal(next)
	if err != nil {
		return 0, err
	}
	ops = append(ops, store.Op{Key: l.headKey(), Value: value})
	compares = append(append([]store.Compare(nil), compares...), store.Compare{Key: l.headKey(), Version: l.version})
	revision, err := l.opts.Store.Commit(ctx, l.opts.Epoch(), compares, ops)
	if err != nil {
		return 0, fmt.Errorf("audit record %d of writer %s: %w", next.Seq, l.opts.Writer, err)
	}
	l.head, l.version = next, revision
	return revision, nil
}

// drop adds the deletes of records that are too many, as far as the transaction
// has room. Where the record that would become the oldest cannot be read it
// drops nothing, and appending goes on; a later call steps over it.
func (l *Log) drop(ctx context.Context, next *head, prevs map[uint64]string, ops []store.Op) []store.Op {
	kept := next.Seq - next.First + 1
	room := store.MaxOps - len(ops) - 1
	if kept <= uint64(l.opts.Keep) || room <= 0 {
		return ops
	}
	n := min(kept-uint64(l.opts.Keep), uint64(room), l.head.Seq+1-next.First) // none that is only being added
	first := next.First + n
	anchor, added := prevs[first]
	if !added {
		r, err := l.get(ctx, first)
		if err != nil {
			return ops
		}
		anchor = r.Prev
	}
	for seq := next.First; seq < first; seq++ {
		ops = append(ops, store.Op{Key: l.key(seq)})
	}
	next.First, next.Anchor = first, anchor
	return ops
}

// Head returns the number and hash of the newest record; zero when there is
// none. Kept elsewhere, in a log or a metric, it shows a chain that was replaced.
func (l *Log) Head(ctx context.Context) (seq uint64, hash string, err error) {
	h, _, err := l.readHead(ctx)
	return h.Seq, h.Hash, err
}

func (l *Log) load(ctx context.Context) error {
	h, version, err := l.readHead(ctx)
	if err != nil {
		return err
	}
	l.head, l.version = h, version
	return nil
}

func (l *Log) readHead(ctx context.Context) (head, uint64, error) {
	r, err := l.opts.Store.Get(ctx, l.headKey())
	if errors.Is(err, store.ErrNotFound) {
		return head{First: 1}, 0, nil
	}
	if err != nil {
		return head{}, 0, fmt.Errorf("audit head of writer %s: %w", l.opts.Writer, err)
	}
	var h head
	if err := json.Unmarshal(r.Value, &h); err != nil {
		return head{}, 0, &Break{l.opts.Writer, 0, "its head is unreadable: " + err.Error()}
	}
	return h, r.Version, nil
}

// checkEmpty refuses to begin a chain over the records of one that lost its head.
func (l *Log) checkEmpty(ctx context.Context) error {
	records, err := l.opts.Store.List(ctx, l.prefix+"record/")
	if err != nil {
		return fmt.Errorf("audit records of writer %s: %w", l.opts.Writer, err)
	}
	if len(records) > 0 {
		return &Break{l.opts.Writer, 0, "its head is missing"}
	}
	return nil
}

func (l *Log) headKey() string { return l.prefix + "head" }

func (l *Log) key(seq uint64) string { return fmt.Sprintf("%srecord/%020d", l.prefix, seq) }
