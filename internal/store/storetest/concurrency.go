package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/gitopsd/gitopsd/internal/store"
)

func concurrent(t *testing.T, h Harness) {
	s := open(t, h)
	const writers, each = 8, 25
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				if err := increment(t.Context(), s, "counter"); err != nil {
					t.Errorf("increment: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	r, err := s.Get(t.Context(), "counter")
	if err != nil || len(r.Value) != writers*each || r.Version != writers*each {
		t.Fatalf("counter is %d at %d (%v), want %d", len(r.Value), r.Version, err, writers*each)
	}
}

// increment adds a byte to a record, again and again until nobody interferes.
func increment(ctx context.Context, s store.Store, key string) error {
	for {
		r, err := s.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		_, err = s.Commit(ctx, 1, []store.Compare{{Key: key, Version: r.Version}}, []store.Op{{Key: key, Value: append(r.Value, '+')}})
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
}

func readersSeeWholeCommits(t *testing.T, h Harness) {
	s := open(t, h)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for ctx.Err() == nil {
				records, err := s.List(t.Context(), "pair/")
				if err != nil {
					t.Errorf("list: %v", err)
					return
				}
				if len(records) == 1 || (len(records) == 2 && !bytes.Equal(records[0].Value, records[1].Value)) {
					t.Errorf("a reader saw half a commit: %v", records)
					return
				}
			}
		})
	}
	for i := range 100 {
		value := []byte(fmt.Sprint(i))
		if i%10 == 9 {
			value = nil
		}
		if _, err := s.Commit(ctx, 1, nil, []store.Op{{Key: "pair/a", Value: value}, {Key: "pair/b", Value: value}}); err != nil {
			t.Error(err)
			break
		}
	}
	stop()
	wg.Wait()
}
