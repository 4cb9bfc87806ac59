package audit

import (
	"bytes"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzRecord: of a stored record only the bytes that were written are taken, for
// the place they were written for, and they say what was recorded.
func FuzzRecord(f *testing.F) {
	f.Add("w", uint64(1), "approve", "prune 3 objects", uint(70), byte(1))
	f.Add("", uint64(0), "", "\x1b[31m\n\xff", uint(0), byte('\n'))
	f.Add("w", uint64(1<<63), "k", string(bytes.Repeat([]byte("ü"), maxMessage)), uint(3), byte(0x80))
	f.Fuzz(func(t *testing.T, writer string, seq uint64, kind, message string, at uint, flip byte) {
		when := time.Unix(1_700_000_000, 5)
		hash, value, err := encode(writer, seq, "before", when, Entry{Kind: kind, Message: message, Data: map[string]any{"a": kind}})
		if err != nil {
			t.Fatal(err)
		}
		r, reason := decode(writer, seq, value)
		if utf8.ValidString(writer) && reason != "" {
			t.Fatalf("not read back: %s", reason)
		}
		if reason == "" {
			if r.Hash != hash || r.Prev != "before" || !r.At.Equal(when) || len(r.Message) > maxMessage && utf8.ValidString(message) {
				t.Fatalf("read back as %+v", r)
			}
			if utf8.ValidString(kind+message) && (r.Kind != kind || r.Message != cut(message)) {
				t.Fatalf("%q %q read back as %+v", kind, message, r)
			}
			if _, reason := decode(writer, seq+1, value); reason == "" {
				t.Fatal("taken for the next record")
			}
			if _, reason := decode(writer+"x", seq, value); reason == "" {
				t.Fatal("taken for a record of another writer")
			}
		}
		if flip == 0 {
			return
		}
		value[at%uint(len(value))] ^= flip
		if _, reason := decode(writer, seq, value); reason == "" {
			t.Fatalf("taken after byte %d was changed: %q", at%uint(len(value)), value)
		}
	})
}

// FuzzDecode: whatever lies in the store, no record comes of it that its hash
// does not cover.
func FuzzDecode(f *testing.F) {
	_, good, err := encode("w", 1, "", time.Unix(0, 0), Entry{Kind: "k"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:hashLength])
	f.Add([]byte(hashOf([]byte(`{"writer":"w","seq":1}`)) + "\n" + `{"writer":"w","seq":1}`))
	f.Add([]byte(hashOf([]byte("null")) + "\nnull"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, v := range [][]byte{value, append([]byte(hashOf(value)+"\n"), value...)} { // the second has a hash that fits
			r, reason := decode("w", 1, v)
			if reason == "" && (r.Seq != 1 || r.Hash != hashOf(v[hashLength+1:])) || reason != "" && r.Hash != "" {
				t.Fatalf("%q gives %+v, %q", v, r, reason)
			}
		}
	})
}
