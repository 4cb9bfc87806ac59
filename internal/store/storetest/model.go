package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/store"
)

// model compares a backend with a plain map over random commits, reads and
// reopenings. A watcher has to see exactly the changes of the map.
func model(t *testing.T, fresh func(t *testing.T) Harness) {
	rapid.Check(t, func(rt *rapid.T) {
		h := fresh(t)
		s, err := h.Open()
		if err != nil {
			rt.Fatal(err)
		}
		m := &machine{harness: h, store: s, records: map[string]store.Record{}}
		defer func() { _ = m.store.Close() }()
		m.watch(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"commit": m.commit,
			"get":    m.get,
			"reopen": m.reopen,
			"":       m.check,
		})
	})
}

type machine struct {
	harness  Harness
	store    store.Store
	records  map[string]store.Record
	revision uint64
	epoch    uint64
	events   <-chan store.Event
}

func (m *machine) watch(t *rapid.T) {
	var err error
	if m.events, err = m.store.Watch(context.Background(), "a"); err != nil {
		t.Fatal(err)
	}
}

// genKey draws from few keys, of which some are prefixes of others.
func genKey() *rapid.Generator[string] {
	return rapid.SampledFrom([]string{"a", "a/b", "a/b/c", "a/c", "a0", "b", "b/ä", "c/" + strings.Repeat("x", 900)})
}

func genValue() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			return nil
		}
		// Sizes beyond a page make a backend with pages split and merge them.
		size := rapid.SampledFrom([]int{0, 1, 30, 3000, 9000}).Draw(t, "size")
		return []byte(strings.Repeat(rapid.SampledFrom([]string{"x", "y"}).Draw(t, "byte"), size))
	})
}

func (m *machine) commit(t *rapid.T) {
	epoch := m.epoch + rapid.Uint64Range(0, 2).Draw(t, "epoch") - min(m.epoch, 1)
	var compares []store.Compare
	holds := true
	for _, key := range rapid.SliceOfN(genKey(), 0, 2).Draw(t, "compares") {
		version := m.records[key].Version + uint64(max(0, rapid.IntRange(-6, 1).Draw(t, "off by")))
		holds = holds && version == m.records[key].Version
		compares = append(compares, store.Compare{Key: key, Version: version})
	}
	var ops []store.Op
	for _, key := range rapid.SliceOfNDistinct(genKey(), 0, 6, rapid.ID).Draw(t, "ops") {
		ops = append(ops, store.Op{Key: key, Value: genValue().Draw(t, "value")})
	}
	revision, err := m.store.Commit(context.Background(), epoch, compares, ops)
	switch {
	case epoch < m.epoch:
		if !errors.Is(err, store.ErrFenced) {
			t.Fatalf("epoch %d after %d: %v", epoch, m.epoch, err)
		}
	case !holds:
		if !errors.Is(err, store.ErrConflict) {
			t.Fatalf("compares %v: %v", compares, err)
		}
	case err != nil || revision != m.revision+1:
		t.Fatalf("commit: revision %d after %d, %v", revision, m.revision, err)
	default:
		m.revision, m.epoch = revision, epoch
		m.apply(t, ops)
	}
}

func (m *machine) apply(t *rapid.T, ops []store.Op) {
	for _, op := range ops {
		_, existed := m.records[op.Key]
		if op.Value == nil {
			delete(m.records, op.Key)
		} else {
			m.records[op.Key] = store.Record{Key: op.Key, Value: op.Value, Version: m.revision}
		}
		if !strings.HasPrefix(op.Key, "a") || (op.Value == nil && !existed) {
			continue
		}
		select {
		case e := <-m.events: // Commit has returned, so the event is there
			if e.Key != op.Key || string(e.Value) != string(op.Value) || (e.Value == nil) != (op.Value == nil) || e.Version != m.revision {
				t.Fatalf("event %s at %d for op on %s at %d", e.Key, e.Version, op.Key, m.revision)
			}
		default:
			t.Fatalf("no event for %s", op.Key)
		}
	}
}

func (m *machine) get(t *rapid.T) {
	key := genKey().Draw(t, "key")
	want, there := m.records[key]
	got, err := m.store.Get(context.Background(), key)
	if there && (err != nil || !same(got, want)) || !there && !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get %.20s: %d bytes at %d, %v; want %d bytes at %d", key, len(got.Value), got.Version, err, len(want.Value), want.Version)
	}
}

func (m *machine) reopen(t *rapid.T) {
	if err := m.store.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := m.harness.Open()
	if err != nil {
		t.Fatal(err)
	}
	m.store = s
	m.watch(t)
}

func (m *machine) check(t *rapid.T) {
	for _, prefix := range []string{"", "a/", "b"} {
		got, err := m.store.List(context.Background(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		var want []store.Record
		for _, key := range slices.Sorted(maps.Keys(m.records)) {
			if strings.HasPrefix(key, prefix) {
				want = append(want, m.records[key])
			}
		}
		if !slices.EqualFunc(got, want, same) {
			t.Fatal(fmt.Sprintf("list %q differs: %d records, want %d", prefix, len(got), len(want)))
		}
	}
	select {
	case e, ok := <-m.events:
		t.Fatalf("an event too many: %v, %v", e.Key, ok)
	default:
	}
}

func same(a, b store.Record) bool {
	return a.Key == b.Key && a.Version == b.Version && string(a.Value) == string(b.Value)
}
