package manifest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Rows B-28 and B-33: bombs are refused fast and small, by limits of our own.
func TestDecodeBombs(t *testing.T) {
	laughs := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'z'; c++ {
		laughs += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ","))
	}
	tower := "a: &a0 {x: y}\nb:\n"
	for i := 1; i < 200; i++ {
		tower += fmt.Sprintf("- &a%d [*a%d]\n", i, i-1)
	}
	cases := []struct{ name, text, want string }{
		{"B-28 billion laughs", head + laughs, "more than 100000 values"},
		{"B-28 quadratic", head + "a: &a [" + strings.Repeat("x,", 2000) + "]\nb: [" + strings.Repeat("*a,", 2000) + "]\n", "more than 100000 values"},
		{"B-28 quadratic text", head + "a: &a " + strings.Repeat("x", 100_000) + "\nb: [" + strings.Repeat("*a,", 1000) + "]\n", "more than 1048576 bytes"},
		{"B-28 tower of aliases", head + tower, "deeper than 100"},
		{"B-33 depth 9999", head + "a: " + strings.Repeat("[", 9_980) + strings.Repeat("]", 9_980) + "\n", "deeper than 100"},
		{"B-33 depth 9999 in JSON", strings.Repeat(`{"a":`, 9_999) + "1" + strings.Repeat("}", 9_999), "deeper than 100"},
		{"B-33 endless depth in JSON", strings.Repeat("[", 1<<20), "deeper than 100"},
		{"B-33 long line", head + "a: " + strings.Repeat("x", 2<<20) + "\n", "more than the limit of 1048576 for one object"},
		{"B-33 50 MB", head + "a: " + strings.Repeat("x", 50<<20) + "\n", "more than the limit of 10485760"},
		{"B-33 documents", strings.Repeat("---\na: b\n", 100_000), "more than the limit of 10000"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			file, data := "a.yaml", []byte(c.text)
			if strings.Contains(c.name, "JSON") {
				file = "a.json"
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, err := manifest.Decode(file, data, manifest.Limits{})
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %.300v", c.want, err)
			}
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb >= 64 {
				t.Errorf("allocated %d MB", mb)
			}
			// The best of some runs, as other work on the machine is not the decoder's.
			bound, best := 100*time.Millisecond*slowdown, time.Hour
			for i := 0; i < 10 && best > bound; i++ {
				start := time.Now()
				_, _ = manifest.Decode(file, data, manifest.Limits{})
				best = min(best, time.Since(start))
			}
			if best > bound {
				t.Errorf("took %v, more than %v", best, bound)
			}
		})
	}
}

// Row B-33: what is within the limits is taken, exactly.
func TestDecodeAtTheLimits(t *testing.T) {
	limits := manifest.Limits{FileBytes: 1000, ObjectBytes: 400, Documents: 3, Depth: 5, Values: 12}
	doc := func(i int) string { return fmt.Sprintf("apiVersion: v1\nkind: A\nmetadata: {name: x%d}\n", i) }
	for _, c := range []struct {
		name, text string
		ok         bool
	}{
		{"documents", doc(1) + "---\n" + doc(2) + "---\n" + doc(3), true},
		{"one document more", doc(1) + "---\n" + doc(2) + "---\n" + doc(3) + "---\n" + doc(4), false},
		{"depth", doc(1) + "x: [[[[1]]]]\n", true},
		{"one level more", doc(1) + "x: [[[[[]]]]]\n", false},
		{"values", doc(1) + "x: [1,1,1,1,1,1]\n", true},
		{"one value more", doc(1) + "x: [1,1,1,1,1,1,1]\n", false},
		{"values by alias", doc(1) + "x: &x [1,1]\nz: [*x]\n", true},
		{"one value more by alias", doc(1) + "x: &x [1,1]\nz: [*x,1]\n", false},
		{"bytes", doc(1) + "#" + strings.Repeat("x", 400-len(doc(1))-2) + "\n", true},
		{"one byte more", doc(1) + "#" + strings.Repeat("x", 401-len(doc(1))-2) + "\n", false},
	} {
		if _, err := manifest.Decode("a.yaml", []byte(c.text), limits); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
