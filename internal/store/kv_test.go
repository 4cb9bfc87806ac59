package store_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/memory"
)

func TestNamespace(t *testing.T) {
	ctx := t.Context()
	s := memory.New()
	epoch := uint64(3)
	now := func() uint64 { return epoch }
	a, b := store.Namespace(s, "kv/a", now), store.Namespace(s, "kv/ab", now)
	for key, value := range map[string]string{"x/1": "one", "x/2": "", "y": "why"} {
		if err := a.Put(ctx, key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if v, found, err := a.Get(ctx, "x/2"); v == nil || len(v) != 0 || !found || err != nil {
		t.Errorf("empty value: %v, %v, %v", v, found, err)
	}
	if v, found, err := b.Get(ctx, "y"); v != nil || found || err != nil {
		t.Errorf("the key of another namespace: %q, %v, %v", v, found, err)
	}
	if all, err := b.List(ctx, ""); len(all) != 0 || err != nil {
		t.Errorf("another namespace: %q, %v", all, err)
	}
	if some, err := a.List(ctx, "x/"); len(some) != 2 || string(some["x/1"]) != "one" || err != nil {
		t.Errorf("list: %q, %v", some, err)
	}
	if _, err := s.Get(ctx, "kv/a/y"); err != nil {
		t.Errorf("the key in the store: %v", err)
	}
	if err := errors.Join(a.Put(ctx, "y", nil), a.Put(ctx, "y", nil)); err != nil {
		t.Error(err)
	}
	if _, found, _ := a.Get(ctx, "y"); found {
		t.Error("deleted and still there")
	}
	if err := a.Put(ctx, "big", bytes.Repeat([]byte("x"), store.MaxKVValue+1)); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("too large a value: %v", err)
	}
	if err := a.Put(ctx, "", nil); err == nil {
		t.Error("an empty key was taken")
	}
	// Row D-54: an epoch that is over cannot write through a namespace either.
	epoch = 2
	if err := a.Put(ctx, "x/1", nil); !errors.Is(err, store.ErrFenced) {
		t.Errorf("old epoch: %v", err)
	}
	_ = s.Close()
	if _, _, err := a.Get(ctx, "x/1"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := a.List(ctx, ""); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
