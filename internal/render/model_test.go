package render_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/render"
	"github.com/gitopsd/gitopsd/sources"
)

// edit makes one random change to the files.
func edit(t *rapid.T, f files) {
	dirs := []string{"", "app/", "app/x/", "app/x/y/", "app/z/", "conf/", "conf/d/", "other/"}
	at := func(names ...string) string {
		return rapid.SampledFrom(dirs).Draw(t, "dir") + rapid.SampledFrom(names).Draw(t, "name")
	}
	manifestName := func() string { return at("a.yaml", "b.YML", "c.json.yaml", "A.yaml") }
	switch rapid.IntRange(0, 9).Draw(t, "edit") {
	case 0, 1, 2:
		var docs []string
		for range rapid.IntRange(0, 3).Draw(t, "documents") {
			name := fmt.Sprintf("o%d", rapid.IntRange(0, 15).Draw(t, "object"))
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				docs = append(docs, hostFile(name, "contentFrom: {file: "+ref(t)+"}"))
			case 1:
				docs = append(docs, hostFile(name, "contentFrom: {template: "+ref(t)+"}"))
			default:
				docs = append(docs, object(name, fmt.Sprintf("spec: {v: %d}\n", rapid.IntRange(0, 2).Draw(t, "v"))))
			}
		}
		f[manifestName()] = blob{data: strings.Join(docs, "---\n")}
	case 3, 4:
		f[at("1.txt", "2.txt")] = blob{data: rapid.SampledFrom([]string{"one", "{{.v}}", "two {{.v}}", "\xff", "{{.none}}"}).Draw(t, "text")}
	case 5:
		f[at(".gitopsdignore")] = blob{data: rapid.SampledFrom([]string{"", "x\n", "a.yaml\n", "/b.YML\ny/\n", "*.yaml\n!a.yaml\n", "z\n!z\n"}).Draw(t, "patterns")}
	case 6, 7, 8:
		if len(f) == 0 {
			return
		}
		from := rapid.SampledFrom(slices.Sorted(maps.Keys(f))).Draw(t, "from")
		b := f[from]
		delete(f, from)
		if rapid.Bool().Draw(t, "rename") {
			to := manifestName()
			if strings.HasSuffix(from, ".txt") {
				to = at("1.txt", "2.txt")
			}
			f[to] = b
		}
	case 9:
		f[at("link", "a.yaml", "1.txt")] = blob{mode: sources.ModeSymlink, data: rapid.SampledFrom([]string{"one", "x"}).Draw(t, "target")}
	}
}

func ref(t *rapid.T) string {
	return rapid.SampledFrom([]string{"1.txt", "2.txt", "../1.txt", "../conf/1.txt", "../conf/d/2.txt", "../../conf/d/2.txt", "x/1.txt"}).Draw(t, "ref")
}

// full describes a state, without the revisions at which unchanged files were
// read first.
func full(s *render.State) string {
	var b strings.Builder
	fmt.Fprintln(&b, "input", s.InputDigest(), s.Len())
	for o := range s.All() {
		fmt.Fprintln(&b, o, o.Hash())
	}
	for _, f := range s.FilesRead() {
		fmt.Fprintln(&b, f.Path, f.Hash)
	}
	return b.String()
}

// Whatever happens to the files, rendering on top of the last good state gives
// what rendering from nothing gives, and the delta is the difference.
func TestRenderIncrementalIsRenderFromScratch(t *testing.T) {
	ctx := context.Background()
	good, bad := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		spec := render.Spec{Path: rapid.SampledFrom([]string{"app", "", "app/x", "app/a.yaml"}).Draw(t, "path"), Variables: map[string]any{"v": 1}}
		f := texts("app/a.yaml", object("o0", ""), "app/x/b.YML", object("o1", ""), "app/x/y/a.yaml", hostFile("o2", "contentFrom: {template: ../../../conf/d/2.txt}"),
			"conf/1.txt", "one", "conf/d/2.txt", "{{.v}}")
		var prev *render.State
		for i := range rapid.IntRange(1, 12).Draw(t, "commits") {
			for range rapid.IntRange(0, 2).Draw(t, "edits") {
				edit(t, f)
			}
			for p := range f { // a file in the place of a directory, as a name may become either
				for q := range f {
					if strings.HasPrefix(q, p+"/") {
						delete(f, p)
					}
				}
			}
			if rapid.IntRange(0, 9).Draw(t, "variables") == 0 {
				spec.Variables = map[string]any{"v": rapid.IntRange(1, 3).Draw(t, "v")}
			}
			tr := tree(fmt.Sprint("r", i), maps.Clone(f))
			r := render.Renderer{Parallel: rapid.IntRange(1, 2).Draw(t, "parallel")}
			next, d, err := r.Render(ctx, tr, spec, prev)
			scratch, _, scratchErr := r.Render(ctx, tr, spec, nil)
			if fmt.Sprint(err) != fmt.Sprint(scratchErr) {
				t.Fatalf("on top: %v\nfrom scratch: %v", err, scratchErr)
			}
			if err != nil {
				bad++
				continue
			}
			good++
			if diff := cmp.Diff(full(scratch), full(next)); diff != "" {
				t.Fatalf("scratch - on top +: %s", diff)
			}
			checkDelta(t, prev, next, d)
			prev = next
		}
	})
	t.Logf("%d renders accepted, %d refused", good, bad)
	if good < 100 || bad < 100 {
		t.Errorf("the edits are too one-sided: %d accepted, %d refused", good, bad)
	}
}

func checkDelta(t *rapid.T, prev, next *render.State, d *render.Delta) {
	var want render.Delta
	for o := range next.All() {
		var was *manifest.Object
		if prev != nil {
			was, _ = prev.Get(o.ID())
		}
		switch {
		case was == nil || was.Hash() != o.Hash():
			want.Upserted = append(want.Upserted, o.ID())
		case was.Origin().String() != o.Origin().String():
			want.Moved = append(want.Moved, o.ID())
		}
	}
	if prev != nil {
		for o := range prev.All() {
			if _, ok := next.Get(o.ID()); !ok {
				want.Removed = append(want.Removed, o.ID())
			}
		}
	}
	want.Stats = d.Stats
	if diff := cmp.Diff(&want, d); diff != "" {
		t.Fatalf("delta: %s", diff)
	}
}

func BenchmarkRenderFull(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		tr := tree("r", many(n))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustRender(b, tr, render.Spec{Path: "apps"}, nil)
			}
		})
	}
}

func BenchmarkRenderOneFile(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		f := many(n)
		prev, _ := mustRender(b, tree("r", f), render.Spec{Path: "apps"}, nil)
		tr := tree("r2", f.with("apps/d07/f00007.yaml", object("o7", "spec: {a: 2}\n")))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				mustRender(b, tr, render.Spec{Path: "apps"}, prev)
			}
		})
	}
}
