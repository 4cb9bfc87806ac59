package plan

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// FuzzBuild lets the fuzzer choose the world: no plan may break a safety rule,
// and each must print.
func FuzzBuild(f *testing.F) {
	for seed := range byte(4) { // a world takes some kilobytes; what is too short is skipped
		stream := make([]byte, 32<<10)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(stream) // never fails
		f.Add(stream)
	}
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

// FuzzKey: a key is read from what it is printed as and from nothing else.
func FuzzKey(f *testing.F) {
	for _, s := range []string{"host:host.gitopsd.io/File/motd", ":A/b", "a:b:c/D/e", "host:", "", "host:apps/Deployment/shop/web"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if k, err := ParseKey(s); err == nil && k.String() != s {
			t.Fatalf("%q is printed as %q", s, k)
		}
	})
}

// FuzzLineDiff: the difference of two texts, applied to the first, gives the
// second; the numbers in its headings are those of its lines.
func FuzzLineDiff(f *testing.F) {
	f.Add("a\nb\nc\n", "a\nx\nc\n")
	f.Add("", "a")
	f.Add("a\n", "a")
	f.Add(strings.Repeat("same\n", 20)+"b\n"+strings.Repeat("same\n", 20), strings.Repeat("same\n", 20)+strings.Repeat("same\n", 20)+"b")
	f.Add("@@ -1,1 +1,1 @@\n-a\n", "+b\n\\ no newline at the end\n")
	f.Fuzz(func(t *testing.T, before, after string) {
		old, at := lines(before), 0
		var made []string
		diff := lineDiff(before, after)
		for i := 0; i < len(diff); {
			var oldLine, olds, newLine, news int
			if _, err := fmt.Sscanf(diff[i], "@@ -%d,%d +%d,%d @@", &oldLine, &olds, &newLine, &news); err != nil {
				t.Fatalf("%q is no heading: %v", diff[i], err)
			}
			i++
			made = append(made, old[at:oldLine-1]...)
			at = oldLine - 1
			if len(made) != newLine-1 {
				t.Fatalf("a part starts at line %d, and its heading says %d:\n%s", len(made)+1, newLine, strings.Join(diff, "\n"))
			}
			for ; olds > 0 || news > 0; i++ {
				op, line := diff[i][0], diff[i][1:]
				if op != '+' {
					if old[at] != line {
						t.Fatalf("line %d is %q, and the difference says %q", at+1, old[at], line)
					}
					at, olds = at+1, olds-1
				}
				if op != '-' {
					made, news = append(made, line), news-1
				}
			}
		}
		if made = append(made, old[at:]...); !slices.Equal(made, lines(after)) {
			t.Fatalf("%q becomes %q, want %q", before, made, lines(after))
		}
	})
}
