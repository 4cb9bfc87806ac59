package plan

import (
	"bytes"
	"encoding/json"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// FuzzBuild lets the fuzzer choose the world: no plan may break a safety rule,
// and each must print.
func FuzzBuild(f *testing.F) {
	f.Add([]byte{0})
	f.Add(bytes.Repeat([]byte{0xff, 0x01, 0x80}, 200))
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) {
		w := anyWorld(t)
		p, err := Build(w.input(), w.keys(), w.options())
		if err != nil {
			t.Fatal(err)
		}
		checkPlan(t, w, p)
		if raw, err := json.Marshal(p); err != nil || !json.Valid(raw) {
			t.Fatalf("the JSON form: %v", err)
		}
	}))
}

// FuzzClean holds the escaping of foreign text to one printable line (row F-101).
func FuzzClean(f *testing.F) {
	f.Add("a\x1b[31m\xff\u202e\ufffd")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range clean(s) {
			if !strconv.IsPrint(r) {
				t.Fatalf("%q becomes %q, which still holds %q", s, clean(s), r)
			}
		}
	})
}
