package bolt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/store"
)

// SchemaRecord returns the record that a program of another schema would write.
func SchemaRecord(n uint32) []byte {
	raw, _ := encode(keySchema, 0, binary.BigEndian.AppendUint32(nil, n))
	return raw
}

// FuzzRecord: a decoder of whatever bytes are in the file does not panic, and
// accepts only what encode made for this very key.
func FuzzRecord(f *testing.F) {
	good, _ := encode([]byte("key"), 7, []byte("value"))
	empty, _ := encode([]byte("key"), 1, nil)
	f.Add([]byte("key"), good)
	f.Add([]byte("other"), good)
	f.Add([]byte("key"), empty)
	f.Add([]byte("key"), good[:headerSize-1])
	f.Add([]byte(""), []byte{})
	f.Fuzz(func(t *testing.T, key, raw []byte) {
		r, err := decode(key, raw)
		if err != nil {
			return
		}
		if again, _ := encode(key, r.version, r.value); !bytes.Equal(again, raw) {
			t.Fatalf("%x was accepted and is not what is written for version %d", raw, r.version)
		}
		if _, err := decode(append([]byte("x"), key...), raw); err == nil {
			t.Fatal("accepted under another key as well")
		}
	})
}

// FuzzFile: the checker copes with any file.
func FuzzFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "store.db")
	s, err := Open(path, Options{})
	if err != nil {
		f.Fatal(err)
	}
	for i := range 3 {
		ops := []store.Op{{Key: "key", Value: bytes.Repeat([]byte("v"), 3000*i)}, {Key: string(rune('a' + i)), Value: []byte("x")}}
		if _, err := s.Commit(f.Context(), 1, nil, ops); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{})
	f.Add(uint32(16), []byte{0xff})
	for page := range len(raw) / 4096 {
		for _, at := range []int{0, 8, 10, 12, 16, 20, 24, 28} {
			f.Add(uint32(page*4096+at), []byte{0xff, 0xff})
		}
	}
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		b := bytes.Clone(raw)
		copy(b[int(at)%len(b):], patch)
		c := checker{}
		var err error
		if c.pages, err = openPages(bytes.NewReader(b), int64(len(b))); err == nil {
			err = c.run()
		}
		if err == nil && c.report.Records != 4 && c.report.Revision == 3 {
			t.Fatalf("accepted with %d records", c.report.Records)
		}
	})
}

// Rows D2-66 and E-87: once a commit became visible and failed all the same, the
// disk may hold the older page. Nothing more is written, reading goes on, and
// whoever watches learns to read again.
func TestUncertainCommitStopsWriting(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "store.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ops := []store.Op{{Key: "a", Value: []byte("1")}}
	if _, err := s.Commit(t.Context(), 1, nil, ops); err != nil {
		t.Fatal(err)
	}
	events, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	s.afterFailure(state{revision: 1}, errors.New("no space left")) // nothing became visible
	if _, err := s.Commit(t.Context(), 1, nil, ops); err != nil {
		t.Fatalf("a commit after one that failed clean: %v", err)
	}
	<-events
	s.afterFailure(state{revision: 1}, errors.New("fsync: input/output error"))
	if _, err := s.Commit(t.Context(), 1, nil, ops); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("commit: %v", err)
	}
	if r, err := s.Get(t.Context(), "a"); err != nil || r.Version != 2 {
		t.Errorf("get: %+v, %v", r, err)
	}
	if e, ok := <-events; ok {
		t.Errorf("event %+v from a channel that should be closed", e)
	}
}

func TestHolderLine(t *testing.T) {
	locks := "1: POSIX  ADVISORY  READ 11 fe:00:77 128 128\n" +
		"2: FLOCK  ADVISORY  WRITE 22 fe:00:177 0 EOF\n" +
		"2: -> FLOCK  ADVISORY  WRITE 33 fe:00:77 0 EOF\n" +
		"3: FLOCK  ADVISORY  WRITE 999999999 fe:00:77 0 EOF\n"
	for inode, want := range map[string]string{"77": "process 999999999", "7": "", "1": ""} {
		if got := holderIn(bufio.NewScanner(strings.NewReader(locks)), inode); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("inode %s: got %q, want %q", inode, got, want)
		}
	}
}
