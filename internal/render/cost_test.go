package render_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/render"
)

func many(n int) files {
	f := files{}
	for i := range n {
		f[fmt.Sprintf("apps/d%02d/f%05d.yaml", i%100, i)] = blob{data: object(fmt.Sprintf("o%d", i), "spec: {a: 1}\n")}
	}
	return f
}

// The cost follows the change: one file among 10,000 is one decode.
func TestRenderCostFollowsTheChange(t *testing.T) {
	f := many(10_000).with("docs/README.md", "x")
	spec := render.Spec{Path: "apps"}
	s, d := mustRender(t, tree("r1", f), spec, nil)
	if want := (render.Stats{DirsRead: 101, FilesRead: 10_000, FilesDecoded: 10_000}); d.Stats != want || len(d.Upserted) != 10_000 {
		t.Errorf("first: %+v", d.Stats)
	}
	outside := tree("r2", f.with("docs/README.md", "y"))
	same, d := mustRender(t, outside, spec, s)
	if d.Stats != (render.Stats{}) || !d.Empty() || same.InputDigest() != s.InputDigest() || same.Revision() != "r2" {
		t.Errorf("no change: %+v, %s", d.Stats, deltaText(d))
	}
	if n := outside.reads.Load() + outside.lists.Load(); n != 0 || outside.stats.Load() > 10 {
		t.Errorf("no change: %d reads, %d stats", n, outside.stats.Load())
	}
	one := tree("r3", f.with("apps/d07/f00007.yaml", object("o7", "spec: {a: 2}\n")))
	next, d := mustRender(t, one, spec, same)
	if want := (render.Stats{DirsRead: 2, FilesRead: 1, FilesDecoded: 1}); d.Stats != want || deltaText(d) != "upserted [o7] removed [] moved []" {
		t.Errorf("one file: %+v, %s", d.Stats, deltaText(d))
	}
	if one.reads.Load() != 1 || one.stats.Load() > 10 {
		t.Errorf("one file: %d reads, %d stats", one.reads.Load(), one.stats.Load())
	}
	if next.InputDigest() == s.InputDigest() {
		t.Error("a change of a manifest does not change the input digest")
	}
	if o, _ := s.Get(manifest.ID{Kind: "A", Name: "o7"}); !manifest.Equal(o.Spec()["a"], int64(1)) {
		t.Error("the state before was changed")
	}
	noise, d := mustRender(t, tree("r4", f.with("apps/d07/notes.txt", "x", "apps/new/README", "x")), spec, s)
	if noise.InputDigest() != s.InputDigest() || d.Stats.FilesRead != 0 {
		t.Errorf("a file that is not read: %+v", d.Stats)
	}
	back, d := mustRender(t, tree("r1", f), spec, next)
	if back.InputDigest() != s.InputDigest() || deltaText(d) != "upserted [o7] removed [] moved []" {
		t.Error("going back is not the same input")
	}
	if len(back.FilesRead()) != 10_000 || !slices.IsSortedFunc(back.FilesRead(), func(a, b render.FileRead) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("files read")
	}
}

// References far from the rendered path cost a look at each directory that changed.
func TestRenderCostOfReferences(t *testing.T) {
	f := files{}
	for i := range 1000 {
		f[fmt.Sprintf("apps/f%04d.yaml", i)] = blob{data: hostFile(fmt.Sprintf("f%d", i), fmt.Sprintf("contentFrom: {file: ../conf/%d/%d.txt}", i%10, i))}
		f[fmt.Sprintf("conf/%d/%d.txt", i%10, i)] = blob{data: "text"}
	}
	f["apps/t1.yaml"] = blob{data: hostFile("t1", "contentFrom: {template: ../conf/t.tmpl}")}
	f["apps/t2.yaml"] = blob{data: hostFile("t2", "contentFrom: {template: ../conf/t.tmpl}") + "---\n" + hostFile("t3", "content: x")}
	f["conf/t.tmpl"] = blob{data: "port {{.port}}"}
	spec := render.Spec{Path: "apps", Variables: map[string]any{"port": 80}}
	s, d := mustRender(t, tree("r1", f), spec, nil)
	if want := (render.Stats{DirsRead: 1, FilesRead: 1002 + 1001, FilesDecoded: 1002, ObjectsExpanded: 1002}); d.Stats != want {
		t.Errorf("first: %+v", d.Stats)
	}
	one := tree("r2", f.with("conf/3/3.txt", "other"))
	s2, d := mustRender(t, one, spec, s)
	if want := (render.Stats{FilesRead: 1, ObjectsExpanded: 1}); d.Stats != want || deltaText(d) != "upserted [f3] removed [] moved []" {
		t.Errorf("one referenced file: %+v %s", d.Stats, deltaText(d))
	}
	if n := one.stats.Load(); n > 160 {
		t.Errorf("one referenced file: %d stats", n)
	}
	// A neighbour of a referenced file is looked past, once.
	noise := f.with("conf/3/3.txt", "other", "conf/3/README", "x")
	s3, d := mustRender(t, tree("r2b", noise), spec, s2)
	if d.Stats != (render.Stats{}) || s3.InputDigest() != s2.InputDigest() {
		t.Errorf("a neighbour: %+v", d.Stats)
	}
	again := tree("r2c", noise)
	if mustRender(t, again, spec, s3); again.stats.Load() > 10 {
		t.Errorf("the same again: %d stats", again.stats.Load())
	}
	if s2.InputDigest() == s.InputDigest() {
		t.Error("a referenced file is part of the input")
	}
	_, d = mustRender(t, tree("r3", f.with("conf/t.tmpl", "PORT {{.port}}")), spec, s2)
	if want := (render.Stats{FilesRead: 2, ObjectsExpanded: 3}); d.Stats != want || deltaText(d) != "upserted [f3 t1 t2] removed [] moved []" {
		t.Errorf("a template of two: %+v %s", d.Stats, deltaText(d))
	}
	got := renderErr(t, tree("r4", f.with("conf/3/3.txt", "-")), spec, s)
	if got != "apps/f0003.yaml:6: the file it refers to, conf/3/3.txt, does not exist at revision r4; check the path; it is relative to the directory of the manifest" {
		t.Error(got)
	}
	other := spec
	other.Variables = map[string]any{"port": 81}
	s5, d := mustRender(t, tree("r1", f), other, s)
	if deltaText(d) != "upserted [t1 t2] removed [] moved []" || s5.InputDigest() == s.InputDigest() || other.Digest() == spec.Digest() {
		t.Error("variables:", deltaText(d))
	}
	wider := spec
	wider.Limits.Files = 5000
	s6, _ := mustRender(t, tree("r1", f), wider, s)
	if s6.InputDigest() != s.InputDigest() {
		t.Error("limits are no part of the input")
	}
}
