package audit

import (
	"context"
	"errors"
	"time"

	"github.com/gitopsd/gitopsd/internal/store"
)

// Filter chooses records. A zero field does not choose.
type Filter struct {
	Kind        string
	Application string
	Principal   string
	Since       time.Time // at or after
	Until       time.Time // before
	// Before chooses records with a lower number: the Seq of the last record of
	// one page gives the next.
	Before uint64
}

func (f Filter) matches(r Record) bool {
	return (f.Kind == "" || f.Kind == r.Kind) &&
		(f.Application == "" || f.Application == r.Application) &&
		(f.Principal == "" || f.Principal == r.Principal) &&
		(f.Since.IsZero() || !r.At.Before(f.Since)) &&
		(f.Until.IsZero() || r.At.Before(f.Until))
}

// Query returns up to limit records that match, newest first; a limit of zero
// means 100. It fails with a *Break at a record that does not hold by itself;
// only Verify looks at the chain.
func (l *Log) Query(ctx context.Context, f Filter, limit int) ([]Record, error) {
	if limit <= 0 {
		limit = 100
	}
	h, _, err := l.readHead(ctx)
	if err != nil {
		return nil, err
	}
	seq := h.Seq
	if f.Before > 0 {
		seq = min(seq, f.Before-1)
	}
	var found []Record
	for ; seq >= h.First && len(found) < limit; seq-- {
		r, err := l.get(ctx, seq)
		if err != nil {
			if l.dropped(ctx, seq) {
				break
			}
			return nil, err
		}
		if f.matches(r) {
			found = append(found, r)
		}
	}
	return found, nil
}

// dropped reports whether a record left by retention while it was looked for.
func (l *Log) dropped(ctx context.Context, seq uint64) bool {
	h, _, err := l.readHead(ctx)
	return err == nil && seq < h.First
}

// Verify walks the whole chain, from the oldest record kept, and returns how
// many records hold. The error is a *Break that names the first record at which
// the chain breaks. Appending waits meanwhile.
func (l *Log) Verify(ctx context.Context) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, version, err := l.readHead(ctx)
	if err != nil {
		return 0, err
	}
	if version == 0 {
		return 0, l.checkEmpty(ctx)
	}
	n, prev := 0, h.Anchor
	for seq := h.First; seq <= h.Seq; seq++ {
		r, err := l.get(ctx, seq)
		if err != nil {
			return n, err
		}
		if r.Prev != prev {
			return n, &Break{l.opts.Writer, seq, "it does not follow the record before it"}
		}
		n, prev = n+1, r.Hash
	}
	if prev != h.Hash {
		return n, &Break{l.opts.Writer, h.Seq, "it is not the record that the head names"}
	}
	_, err = l.opts.Store.Get(ctx, l.key(h.Seq+1))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return n, nil
	case err == nil:
		return n, &Break{l.opts.Writer, h.Seq + 1, "it stands behind the end that the head names"}
	}
	return n, err
}
