// Package storetest holds every backend of store.Store to its contract. A
// backend's test calls Run, and nothing else is needed to trust it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/store"
)

// Harness gives the suite one place to keep records in. Each call of Open opens
// the same place anew, after the store opened before was closed.
type Harness struct {
	Open func() (store.Store, error)
}

// patience is how long a test waits for what has to happen.
const patience = 10 * time.Second

// Run runs the suite. fresh returns an empty place.
func Run(t *testing.T, fresh func(t *testing.T) Harness) {
	tests := []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"get and overwrite", getAndOverwrite},
		{"list is sorted and by prefix", list},
		{"delete", deletes},
		{"compare", compare},
		{"commit is all or nothing", atomic},
		{"fencing by epoch, also after reopening (rows D-54, E-90)", fencing},
		{"limits", limits},
		{"malformed keys", malformed},
		{"values are not shared", notShared},
		{"ended context", endedContext},
		{"close", closes},
		{"reopen keeps everything (row E-86)", reopen},
		{"watch sends events in order", watch},
		{"watch ends with its context", watchContext},
		{"watch cuts off a slow reader (row G-104)", watchSlow},
		{"watch ends with the store", watchClose},
		{"concurrent commits", concurrent},
		{"readers see whole commits", readersSeeWholeCommits},
		{"model", func(t *testing.T, _ Harness) { model(t, fresh) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

func open(t *testing.T, h Harness) store.Store {
	t.Helper()
	s, err := h.Open()
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func reopened(t *testing.T, h Harness, s store.Store) store.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return open(t, h)
}

// put commits key-value pairs and returns the revision.
func put(t *testing.T, s store.Store, pairs ...string) uint64 {
	t.Helper()
	var ops []store.Op
	for i := 0; i < len(pairs); i += 2 {
		ops = append(ops, store.Op{Key: pairs[i], Value: []byte(pairs[i+1])})
	}
	revision, err := s.Commit(t.Context(), 1, nil, ops)
	if err != nil {
		t.Fatalf("commit %q: %v", pairs, err)
	}
	return revision
}

func wantGet(t *testing.T, s store.Store, key, value string, version uint64) {
	t.Helper()
	r, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	if r.Key != key || string(r.Value) != value || r.Version != version {
		t.Fatalf("get %s: got %q=%q at %d, want %q at %d", key, r.Key, r.Value, r.Version, value, version)
	}
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, want %v", what, err, want)
	}
}

// wantList compares the keys below a prefix.
func wantList(t *testing.T, s store.Store, prefix string, want ...string) {
	t.Helper()
	records, err := s.List(t.Context(), prefix)
	if err != nil {
		t.Fatalf("list %q: %v", prefix, err)
	}
	var got []string
	for _, r := range records {
		got = append(got, r.Key+"="+string(r.Value))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("list %q: got %q, want %q", prefix, got, want)
	}
}

func getAndOverwrite(t *testing.T, h Harness) {
	s := open(t, h)
	_, err := s.Get(t.Context(), "a/1")
	wantError(t, "get of the absent", err, store.ErrNotFound)
	first := put(t, s, "a/1", "one", "a/empty", "")
	wantGet(t, s, "a/1", "one", first)
	wantGet(t, s, "a/empty", "", first)
	if r, _ := s.Get(t.Context(), "a/empty"); r.Value == nil {
		t.Fatal("an empty value came back as nil, which means deleted")
	}
	second := put(t, s, "a/1", "two")
	if second != first+1 {
		t.Fatalf("revision went from %d to %d", first, second)
	}
	wantGet(t, s, "a/1", "two", second)
	wantGet(t, s, "a/empty", "", first)
	third, err := s.Commit(t.Context(), 1, nil, nil)
	if err != nil || third != second+1 {
		t.Fatalf("a commit without ops: revision %d, %v; want %d", third, err, second+1)
	}
}

func list(t *testing.T, h Harness) {
	s := open(t, h)
	wantList(t, s, "")
	put(t, s, "b", "1", "a/2", "2", "a/10", "3", "a", "4", "a0", "5", "ä/ö", "6", "a/2/x", "7")
	wantList(t, s, "", "a=4", "a/10=3", "a/2=2", "a/2/x=7", "a0=5", "b=1", "ä/ö=6")
	wantList(t, s, "a/", "a/10=3", "a/2=2", "a/2/x=7")
	wantList(t, s, "a/2", "a/2=2", "a/2/x=7")
	wantList(t, s, "a/2/x/y")
	wantList(t, s, "\xc3", "ä/ö=6") // a prefix is bytes
	wantList(t, s, "zzz")
	var ops []string
	for i := range store.MaxOps {
		ops = append(ops, fmt.Sprintf("many/%03d", i), strings.Repeat("v", 1+i))
	}
	revision := put(t, s, ops...)
	records, err := s.List(t.Context(), "many/")
	if err != nil || len(records) != store.MaxOps {
		t.Fatalf("list: %d records, %v", len(records), err)
	}
	for i, r := range records {
		if r.Key != ops[2*i] || string(r.Value) != ops[2*i+1] || r.Version != revision {
			t.Fatalf("record %d is %q with %d bytes at %d", i, r.Key, len(r.Value), r.Version)
		}
	}
}

func deletes(t *testing.T, h Harness) {
	s := open(t, h)
	put(t, s, "a", "1", "b", "2")
	before, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: "a"}, {Key: "absent"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Get(t.Context(), "a")
	wantError(t, "get of the deleted", err, store.ErrNotFound)
	wantList(t, s, "", "b=2")
	after := put(t, s, "a", "3")
	if after != before+1 {
		t.Fatalf("revision went from %d to %d", before, after)
	}
	wantGet(t, s, "a", "3", after)
}

func compare(t *testing.T, h Harness) {
	s := open(t, h)
	ctx := t.Context()
	set := func(value string, compares ...store.Compare) error {
		_, err := s.Commit(ctx, 1, compares, []store.Op{{Key: "k", Value: []byte(value)}})
		return err
	}
	wantError(t, "compare with a version that is not there", set("x", store.Compare{Key: "k", Version: 1}), store.ErrConflict)
	if err := set("1", store.Compare{Key: "k"}); err != nil {
		t.Fatalf("create when absent: %v", err)
	}
	wantError(t, "create when present", set("x", store.Compare{Key: "k"}), store.ErrConflict)
	r, _ := s.Get(ctx, "k")
	if err := set("2", store.Compare{Key: "k", Version: r.Version}, store.Compare{Key: "other"}); err != nil {
		t.Fatalf("update with the right version: %v", err)
	}
	wantError(t, "update with an old version", set("x", store.Compare{Key: "k", Version: r.Version}), store.ErrConflict)
	r, _ = s.Get(ctx, "k")
	wantError(t, "one of two compares fails",
		set("x", store.Compare{Key: "k", Version: r.Version}, store.Compare{Key: "other", Version: 7}), store.ErrConflict)
	if err := set("3", store.Compare{Key: "k", Version: r.Version}); err != nil {
		t.Fatal(err)
	}
	wantGet(t, s, "k", "3", r.Version+1) // a commit that conflicts takes no revision
}

func atomic(t *testing.T, h Harness) {
	s := open(t, h)
	put(t, s, "a", "1")
	ops := []store.Op{{Key: "a"}, {Key: "b", Value: []byte("2")}}
	for name, try := range map[string]func() error{
		"conflict":  func() error { _, err := s.Commit(t.Context(), 1, []store.Compare{{Key: "a"}}, ops); return err },
		"fenced":    func() error { _, err := s.Commit(t.Context(), 0, nil, ops); return err },
		"malformed": func() error { _, err := s.Commit(t.Context(), 1, nil, append(ops, store.Op{})); return err },
		"twice":     func() error { _, err := s.Commit(t.Context(), 1, nil, append(ops, ops[0])); return err },
	} {
		if try() == nil {
			t.Fatalf("%s: the commit passed", name)
		}
		wantList(t, s, "", "a=1")
	}
}

func fencing(t *testing.T, h Harness) {
	s := open(t, h)
	ops := []store.Op{{Key: "a", Value: []byte("1")}}
	commit := func(epoch uint64) error { _, err := s.Commit(t.Context(), epoch, nil, ops); return err }
	for _, epoch := range []uint64{1, 1, 5} {
		if err := commit(epoch); err != nil {
			t.Fatalf("epoch %d: %v", epoch, err)
		}
	}
	wantError(t, "epoch 4 after 5", commit(4), store.ErrFenced)
	s = reopened(t, h, s)
	wantError(t, "epoch 4 after 5 and reopening", commit(4), store.ErrFenced)
	if _, err := s.Commit(t.Context(), 6, []store.Compare{{Key: "a"}}, ops); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("a conflict at epoch 6: %v", err)
	}
	if err := commit(5); err != nil {
		t.Fatalf("a commit that did not happen raised the epoch: %v", err)
	}
}

func limits(t *testing.T, h Harness) {
	s := open(t, h)
	var ops []store.Op
	var compares []store.Compare
	for i := range store.MaxOps + 1 {
		key := fmt.Sprintf("k/%d", i)
		ops = append(ops, store.Op{Key: key, Value: []byte("v")})
		compares = append(compares, store.Compare{Key: key})
	}
	_, err := s.Commit(t.Context(), 1, nil, ops)
	wantError(t, "one op too many", err, store.ErrTooLarge)
	_, err = s.Commit(t.Context(), 1, compares, nil)
	wantError(t, "one compare too many", err, store.ErrTooLarge)
	if _, err := s.Commit(t.Context(), 1, compares[:store.MaxOps], ops[:store.MaxOps]); err != nil {
		t.Fatalf("as many ops as allowed: %v", err)
	}
	big := bytes.Repeat([]byte("x"), store.MaxBytes-len("big"))
	_, err = s.Commit(t.Context(), 1, nil, []store.Op{{Key: "big", Value: append(big, 'x')}})
	wantError(t, "one byte too many", err, store.ErrTooLarge)
	if _, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: "big", Value: big}}); err != nil {
		t.Fatalf("as many bytes as allowed: %v", err)
	}
	r, err := s.Get(t.Context(), "big")
	if err != nil || !bytes.Equal(r.Value, big) {
		t.Fatalf("the largest value came back with %d bytes, %v", len(r.Value), err)
	}
}

func malformed(t *testing.T, h Harness) {
	s := open(t, h)
	for _, key := range []string{"", "a\x00b", "\xff", strings.Repeat("k", store.MaxKey+1)} {
		if _, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: key, Value: []byte("v")}}); err == nil {
			t.Errorf("key %.20q was stored", key)
		}
		if _, err := s.Commit(t.Context(), 1, []store.Compare{{Key: key}}, nil); err == nil {
			t.Errorf("key %.20q was compared", key)
		}
	}
	put(t, s, strings.Repeat("k", store.MaxKey), "v")
}

func notShared(t *testing.T, h Harness) {
	s := open(t, h)
	events, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	value := []byte("abc")
	revision, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: "k", Value: value}})
	if err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	(<-events).Value[1] = 'X'
	r, _ := s.Get(t.Context(), "k")
	r.Value[2] = 'X'
	l, _ := s.List(t.Context(), "k")
	l[0].Value[0] = 'X'
	wantGet(t, s, "k", "abc", revision)
}

func endedContext(t *testing.T, h Harness) {
	s := open(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Get(ctx, "k")
	wantError(t, "get", err, context.Canceled)
	_, err = s.List(ctx, "")
	wantError(t, "list", err, context.Canceled)
	_, err = s.Commit(ctx, 1, nil, []store.Op{{Key: "k", Value: []byte("v")}})
	wantError(t, "commit", err, context.Canceled)
	_, err = s.Watch(ctx, "")
	wantError(t, "watch", err, context.Canceled)
	wantList(t, s, "")
}

func closes(t *testing.T, h Harness) {
	s := open(t, h)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	_, err := s.Get(t.Context(), "k")
	wantError(t, "get", err, store.ErrClosed)
	_, err = s.List(t.Context(), "")
	wantError(t, "list", err, store.ErrClosed)
	_, err = s.Commit(t.Context(), 1, nil, []store.Op{{Key: "k", Value: []byte("v")}})
	wantError(t, "commit", err, store.ErrClosed)
	_, err = s.Watch(t.Context(), "")
	wantError(t, "watch", err, store.ErrClosed)
}

func reopen(t *testing.T, h Harness) {
	s := open(t, h)
	first := put(t, s, "a", "1", "b", "2")
	second := put(t, s, "c", "3")
	s = reopened(t, h, s)
	wantGet(t, s, "a", "1", first)
	wantGet(t, s, "c", "3", second)
	if third := put(t, s, "d", "4"); third != second+1 {
		t.Fatalf("the revision went from %d to %d", second, third)
	}
	wantList(t, s, "", "a=1", "b=2", "c=3", "d=4")
}
