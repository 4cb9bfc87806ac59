package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/gitopsd/gitopsd/internal/store"
)

// sample makes a store with some records, of which "key" is at version 2.
func sample(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store.db")
	s, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, value := range []string{"old", "new"} {
		ops := []store.Op{{Key: "key", Value: []byte(value)}, {Key: "other", Value: []byte(value)}}
		if _, err := s.Commit(t.Context(), 1, nil, ops); err != nil {
			t.Fatal(err)
		}
	}
	if report, err := Check(path, 1); !errors.Is(err, ErrLocked) {
		t.Fatalf("check of an open store: %+v, %v", report, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if report, err := Check(path, 0); err != nil || report.Records != 2 || report.Revision != 2 || report.Epoch != 1 {
		t.Fatalf("check: %+v, %v", report, err)
	}
	return path
}

func wantCorrupt(t *testing.T, path, words string) {
	t.Helper()
	for name, err := range map[string]error{
		"check": func() error { _, err := Check(path, 0); return err }(),
		"open":  func() error { _, err := Open(path, Options{}); return err }(),
	} {
		if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want it to say %q", name, err, words)
		}
	}
}

// Row E-85: each record is good by itself, and yet the set is not the one last
// written, as after a page came back from an older transaction.
func TestSetOfRecords(t *testing.T) {
	for name, test := range map[string]struct {
		change func(records *bbolt.Bucket) error
		words  string
	}{
		"stale": {func(b *bbolt.Bucket) error {
			raw, _ := encode([]byte("key"), 1, []byte("old"))
			return b.Put([]byte("key"), raw)
		}, "not the one last written"},
		"missing": {func(b *bbolt.Bucket) error { return b.Delete([]byte("key")) }, "1 records were found where there should be 2"},
		"added": {func(b *bbolt.Bucket) error {
			raw, _ := encode([]byte("more"), 1, []byte("old"))
			return b.Put([]byte("more"), raw)
		}, "3 records were found where there should be 2"},
		"swapped": {func(b *bbolt.Bucket) error {
			key, other := bytes.Clone(b.Get([]byte("key"))), bytes.Clone(b.Get([]byte("other")))
			return errors.Join(b.Put([]byte("key"), other), b.Put([]byte("other"), key))
		}, `2 of 2 records, first ["key" "other"]`},
		"other version": {func(b *bbolt.Bucket) error {
			raw := bytes.Clone(b.Get([]byte("key")))
			raw[8]++
			return b.Put([]byte("key"), raw)
		}, `1 of 2 records, first ["key"]`},
	} {
		t.Run(name, func(t *testing.T) {
			path := sample(t)
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { return test.change(tx.Bucket(bucketRecords)) })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			wantCorrupt(t, path, test.words)
		})
	}
}

// Row E-85: bbolt overwrites what its list of free pages names, and believes the
// page numbers and keys of its branches.
func TestPageTree(t *testing.T) {
	put64 := func(b []byte, n uint64) { binary.NativeEndian.PutUint64(b, n) }
	for name, test := range map[string]struct {
		change func(p *pages, b []byte)
		words  string
	}{
		"page in use listed as free": {func(p *pages, b []byte) {
			put64(b[p.meta.freelist*p.size+pageHeader:], p.meta.root)
		}, "listed as free, and is in use"},
		"list of free pages too long": {func(p *pages, b []byte) {
			binary.NativeEndian.PutUint16(b[p.meta.freelist*p.size+10:], 600)
		}, "list of free pages is damaged"},
		"free page lost": {func(p *pages, b []byte) {
			at := p.meta.freelist*p.size + 10
			binary.NativeEndian.PutUint16(b[at:], binary.NativeEndian.Uint16(b[at:])-1)
		}, "neither in use nor free"},
		"more overflow than file": {func(p *pages, b []byte) {
			binary.NativeEndian.PutUint32(b[p.meta.root*p.size+12:], 1<<31)
		}, "damaged header"},
		"first key of a leaf changed": {func(p *pages, b []byte) {
			at := bytes.Index(b[p.meta.root*p.size:], bucketRecords)
			b[int(p.meta.root*p.size)+at] = 'a' // "aecords" sorts before "gitopsd"
		}, "keys are out of order"},
	} {
		t.Run(name, func(t *testing.T) {
			path := sample(t)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			p, err := openPages(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			test.change(p, b)
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			wantCorrupt(t, path, test.words)
		})
	}
}
