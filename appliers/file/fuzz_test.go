package file

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// FuzzLedger: of a ledger in any state only lines with their checksum count, each
// line is known, damaged or torn, and what was understood is written and read
// again as it was.
func FuzzLedger(f *testing.F) {
	id := manifest.ID{Group: Group, Kind: kindFile, Name: "a"}
	one := (&record{Path: "/etc/a", ID: id, Application: "web", Epoch: 3, Known: true}).line()
	two := (&record{Path: "/etc/b", ID: id, Application: "web", Epoch: 4, Pending: true, OnPrune: pruneRestore}).line()
	gone := (&record{Path: "/etc/a", Epoch: 5, Gone: true}).line()
	all := slices.Concat(one, two, gone)
	f.Add(all, 0)
	f.Add(all, len(one)+3)
	f.Add(bytes.Repeat([]byte("\n"), 3), 1)
	f.Add([]byte("00000000 {}\n"), 0)
	f.Add([]byte(checksum([]byte("null"))+" null\n"), 0)
	f.Add([]byte(checksum([]byte(`{"path":"/x"}`))+` {"path":"/x"}`), 0)
	f.Fuzz(func(t *testing.T, content []byte, cut int) {
		l := ledger{byPath: map[string]*record{}}
		l.parse(content)
		full := 0
		for line := range bytes.Lines(content) {
			if len(bytes.TrimSuffix(line, []byte("\n"))) > 0 {
				full++
			}
		}
		tornOff := 0
		if last := content[bytes.LastIndexByte(content, '\n')+1:]; len(last) > 0 {
			if _, ok := parseLine(last); !ok {
				tornOff = 1
			}
			if !l.torn {
				t.Fatalf("%q does not end with a whole line", content)
			}
		}
		if l.lines+l.damaged+tornOff != full {
			t.Fatalf("%d lines, %d damaged, %d torn of %d: %q", l.lines, l.damaged, tornOff, full, content)
		}
		var written []byte
		for _, p := range slices.Sorted(maps.Keys(l.byPath)) {
			rec := l.byPath[p]
			if rec.Path != p || rec.Gone || rec.Epoch > l.epoch {
				t.Fatalf("%s is on record as %+v, epoch %d", p, rec, l.epoch)
			}
			written = append(written, rec.line()...)
		}
		again := ledger{byPath: map[string]*record{}}
		again.parse(written)
		if again.torn || again.damaged > 0 || !reflect.DeepEqual(again.byPath, l.byPath) {
			t.Fatalf("%q reads back as %+v", written, again)
		}
		if len(written) > 0 { // one byte of it is not as it was written
			written[max(cut, 0)%len(written)] ^= 1
			changed := ledger{byPath: map[string]*record{}}
			changed.parse(written)
			for p, rec := range changed.byPath {
				if !reflect.DeepEqual(rec, l.byPath[p]) {
					t.Fatalf("%s: %+v of a changed ledger, %+v was written", p, rec, l.byPath[p])
				}
			}
			if len(changed.byPath) == len(l.byPath) && !changed.torn {
				t.Fatalf("nothing is missing from %q", written)
			}
			written[max(cut, 0)%len(written)] ^= 1
		}
		// A write that was cut off leaves what stood before it.
		short := ledger{byPath: map[string]*record{}}
		short.parse(written[:min(max(cut, 0), len(written))])
		if short.damaged > 0 {
			t.Fatalf("a torn ledger looks damaged: %q", written[:cut])
		}
		for p, rec := range short.byPath {
			if !reflect.DeepEqual(rec, l.byPath[p]) {
				t.Fatalf("%s: %+v of a torn ledger, %+v of the whole", p, rec, l.byPath[p])
			}
		}
	})
}

// FuzzPath: a path that is accepted is the one path it is written as, below the
// root, and neither protected nor gitopsd's own (row D2-62).
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/a", "", "/", "/../../etc/shadow", "//a", "/./a", "x/a", "/keys/a", "/keys", "/keysx", "/.gitopsd/ledger", "/a\x00b", "/a\n", "/.gitopsd-tmp-0123456789abcdef",
		"/ü", "/a/", "/-rf", "/a/b/c", "/a/..", "/...",
	} {
		f.Add(s, true)
	}
	f.Add("/proc/self/root/etc/x", false)
	f.Add("etc/passwd", false)
	root := realDir(f)
	h := hostAt(f, root, fmt.Sprintf(`, "protected": [%q]`, root+"/keys"))
	f.Fuzz(func(t *testing.T, path string, below bool) {
		if below {
			path = root + path
		}
		o, err := manifest.New(map[string]any{
			"apiVersion": Group + "/v1alpha1", "kind": kindFile, "metadata": map[string]any{"name": "x"},
			"spec": map[string]any{"path": path, "content": ""},
		}, manifest.Origin{})
		if err != nil {
			return // not UTF-8, or too long
		}
		resolved, err := h.Resolve(o)
		if err != nil {
			return
		}
		rest, ok := strings.CutPrefix(path, root+"/")
		if !ok || resolved.Locator != path {
			t.Fatalf("%q is taken for %q", path, resolved.Locator)
		}
		for _, step := range strings.Split(rest, "/") {
			if step == "" || step == "." || step == ".." || step == ".gitopsd" || tempRE.MatchString(step) || strings.ContainsAny(step, "\x00\n\r") {
				t.Fatalf("%q is accepted", path)
			}
		}
		if rest == "keys" || strings.HasPrefix(rest, "keys/") {
			t.Fatalf("%q is protected and accepted", path)
		}
	})
}
