package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/store"
)

// next returns the next event, or false when the channel is closed.
func next(t *testing.T, events <-chan store.Event) (store.Event, bool) {
	t.Helper()
	select {
	case e, ok := <-events:
		return e, ok
	case <-time.After(patience):
		t.Fatal("no event came and the channel stayed open")
		return store.Event{}, false
	}
}

func wantEvent(t *testing.T, events <-chan store.Event, key, value string, version uint64) {
	t.Helper()
	e, ok := next(t, events)
	if !ok {
		t.Fatalf("the channel was closed instead of an event for %s", key)
	}
	if e.Key != key || string(e.Value) != value || e.Version != version {
		t.Fatalf("got event %s=%q at %d, want %s=%q at %d", e.Key, e.Value, e.Version, key, value, version)
	}
}

func wantClosed(t *testing.T, events <-chan store.Event) {
	t.Helper()
	if e, ok := next(t, events); ok {
		t.Fatalf("got event for %s from a channel that should be closed", e.Key)
	}
}

func watch(t *testing.T, h Harness) {
	s := open(t, h)
	put(t, s, "a/before", "0")
	all, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	some, err := s.Watch(t.Context(), "a/")
	if err != nil {
		t.Fatal(err)
	}
	first := put(t, s, "a/1", "x", "b/1", "y", "a/2", "")
	ops := []store.Op{{Key: "a/1"}, {Key: "a/absent"}}
	if _, err := s.Commit(t.Context(), 1, []store.Compare{{Key: "a/1"}}, ops); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("want a conflict, got %v", err)
	}
	second, err := s.Commit(t.Context(), 1, nil, ops)
	if err != nil {
		t.Fatal(err)
	}
	last := put(t, s, "b/2", "end", "a/3", "end")

	wantEvent(t, all, "a/1", "x", first)
	wantEvent(t, all, "b/1", "y", first)
	wantEvent(t, some, "a/1", "x", first)
	if e, _ := next(t, some); e.Key != "a/2" || e.Value == nil || len(e.Value) != 0 {
		t.Fatalf("got event %+v for an empty value", e)
	}
	wantEvent(t, all, "a/2", "", first)
	if e, _ := next(t, some); e.Key != "a/1" || e.Value != nil || e.Version != second {
		t.Fatalf("got event %+v for a delete", e)
	}
	wantEvent(t, all, "a/1", "", second)
	wantEvent(t, all, "b/2", "end", last) // none for the conflict, none for deleting the absent
	wantEvent(t, some, "a/3", "end", last)
}

func watchContext(t *testing.T, h Harness) {
	s := open(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	wantClosed(t, events)
	wantEvent(t, other, "k", "v", put(t, s, "k", "v"))
}

func watchSlow(t *testing.T, h Harness) {
	s := open(t, h)
	slow, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := s.Watch(t.Context(), "k/")
	if err != nil {
		t.Fatal(err)
	}
	const commits = store.WatchBuffer/store.MaxOps + 2
	var sent []string
	for i := range commits {
		var pairs []string
		for j := range store.MaxOps {
			pairs = append(pairs, fmt.Sprintf("k/%d/%d", i, j), "v")
			sent = append(sent, pairs[2*j])
		}
		revision := put(t, s, pairs...)
		for j := range store.MaxOps {
			wantEvent(t, reader, pairs[2*j], "v", revision)
		}
	}
	// What the slow reader gets has no gap, and then the channel ends.
	n := 0
	for {
		e, ok := next(t, slow)
		if !ok {
			break
		}
		if e.Key != sent[n] {
			t.Fatalf("event %d is for %s, want %s", n, e.Key, sent[n])
		}
		n++
	}
	if n == 0 || n == len(sent) {
		t.Fatalf("the slow reader got %d of %d events", n, len(sent))
	}
	again, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatalf("watching again: %v", err)
	}
	wantEvent(t, again, "again", "v", put(t, s, "again", "v"))
}

func watchClose(t *testing.T, h Harness) {
	s := open(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, events)
	cancel() // after the channel was closed: must not close it twice
}
