package render_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/render"
	"github.com/gitopsd/gitopsd/sources"
)

func mustRender(t testing.TB, tr sources.Tree, spec render.Spec, prev *render.State) (*render.State, *render.Delta) {
	t.Helper()
	s, d, err := new(render.Renderer).Render(context.Background(), tr, spec, prev)
	if err != nil {
		t.Fatal(err)
	}
	return s, d
}

func renderErr(t testing.TB, tr sources.Tree, spec render.Spec, prev *render.State) string {
	t.Helper()
	s, d, err := new(render.Renderer).Render(context.Background(), tr, spec, prev)
	if err == nil {
		t.Fatalf("accepted: %v", show(s))
	}
	if s != nil || d != nil {
		t.Errorf("row B-34: a state or delta came with the error")
	}
	return err.Error()
}

// show prints every object with its place and content.
func show(s *render.State) string {
	var b strings.Builder
	for o := range s.All() {
		fmt.Fprintf(&b, "%v %s\n", o, manifest.Canonical(o.Spec()))
	}
	return b.String()
}

func names(ids []manifest.ID) string {
	var out []string
	for _, id := range ids {
		out = append(out, id.Name)
	}
	return strings.Join(out, " ")
}

func deltaText(d *render.Delta) string {
	return fmt.Sprintf("upserted [%s] removed [%s] moved [%s]", names(d.Upserted), names(d.Removed), names(d.Moved))
}

func TestRenderReadsManifestsOnly(t *testing.T) {
	tr := tree("r1", texts("README.md", "\xff", "b.YAML", object("b", ""), "a.yml", object("a", ""), "sub/deep/c.json",
		`{"apiVersion":"v1","kind":"A","metadata":{"name":"c"}}`, "sub/x.yaml.tmpl", "{{", "d.Json", "{\"apiVersion\":\"v1\",\n\"kind\":\"A\",\"metadata\":{\"name\":\"d\"}}"))
	s, d := mustRender(t, tr, render.Spec{}, nil)
	// Row B-37: every file that looks like a manifest is one.
	if got := deltaText(d); got != "upserted [a b c d] removed [] moved []" {
		t.Error(got)
	}
	if s.Len() != 4 || s.Revision() != "r1" {
		t.Error(s.Len(), s.Revision())
	}
	c, ok := s.Get(manifest.ID{Kind: "A", Name: "c"})
	if !ok || c.Origin() != (manifest.Origin{Path: "sub/deep/c.json", Line: 1, Revision: "r1"}) {
		t.Error(c)
	}
	if _, ok := s.Get(manifest.ID{Kind: "A", Name: "z"}); ok {
		t.Error("an object that nobody declared")
	}
	want := render.Stats{DirsRead: 3, FilesRead: 4, FilesDecoded: 4}
	if d.Stats != want {
		t.Errorf("%+v", d.Stats)
	}
}

func TestRenderPath(t *testing.T) {
	f := texts("apps/web/a.yaml", object("a", ""), "apps/web/sub/b.yaml", object("b", ""), "apps/db/c.yaml", object("c", ""), "notes.txt", "x", "empty/README", "").
		link("apps/link", sources.ModeSymlink, "web").link("mod", sources.ModeSubmodule, "cafe")
	for path, want := range map[string]string{
		"apps/web": "a b", "apps/web/": "a b", "./apps//web": "a b", "apps/web/sub/b.yaml": "b", "apps/db": "c", "empty": "",
	} {
		_, d := mustRender(t, tree("r", f), render.Spec{Path: path}, nil)
		if got := names(d.Upserted); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	const meanwhile = "correct the path of the Application, or the files; nothing is removed meanwhile"
	for path, want := range map[string]string{
		"apps/none":         "apps/none: the rendered path, apps/none, does not exist at revision r; " + meanwhile,
		"none/web":          "none/web: the rendered path, none/web, does not exist at revision r; " + meanwhile,
		"apps/link":         "apps/link: the rendered path, apps/link, leads through apps/link, which is a symbolic link; " + meanwhile,
		"apps/link/a.yaml":  "apps/link/a.yaml: the rendered path, apps/link/a.yaml, leads through apps/link, which is a symbolic link; " + meanwhile,
		"mod/x":             "mod/x: the rendered path, mod/x, leads through mod, which is a submodule; " + meanwhile,
		"notes.txt":         "notes.txt: is a file and no manifest; name a directory, or a .yaml, .yml or .json file",
		"notes.txt/a":       "notes.txt/a: the rendered path, notes.txt/a, leads through notes.txt, which is a file; " + meanwhile,
		"../x":              `render: path "../x": want a path inside the source, relative to its root`,
		"apps/../../x":      `render: path "apps/../../x": want a path inside the source, relative to its root`,
		"/apps":             `render: path "/apps": want a path inside the source, relative to its root`,
		`apps\web`:          `render: path "apps\\web": want a path inside the source, relative to its root`,
		"apps/web/a.yaml/x": "apps/web/a.yaml/x: the rendered path, apps/web/a.yaml/x, leads through apps/web/a.yaml, which is a file; " + meanwhile,
	} {
		if got := renderErr(t, tree("r", f), render.Spec{Path: path}, nil); got != want {
			t.Errorf("%s:\n got %s\nwant %s", path, got, want)
		}
	}
	empty, _ := mustRender(t, tree("r", f), render.Spec{Path: "empty"}, nil)
	if empty.Len() != 0 || empty.InputDigest() == "" {
		t.Error("an empty path is a state without objects")
	}
}

// Row A-1: twelve shapes of links, none followed, none named by its target.
func TestRenderRefusesLinks(t *testing.T) {
	const canary = "canary-4711"
	base := texts("app/a.yaml", object("a", ""), "other/secret.yaml", "password: "+canary, "app/sub/b.yaml", object("b", ""))
	shapes := map[string]struct {
		path, target string
		mode         sources.Mode
	}{
		"absolute file":        {"app/l.yaml", "/etc/passwd#" + canary, sources.ModeSymlink},
		"absolute directory":   {"app/l", "/etc/" + canary, sources.ModeSymlink},
		"parent file":          {"app/l.yaml", "../other/secret.yaml#" + canary, sources.ModeSymlink},
		"parent directory":     {"app/l", "../other/" + canary, sources.ModeSymlink},
		"out of the tree":      {"app/l.yaml", "../../../" + canary, sources.ModeSymlink},
		"sibling":              {"app/l.yaml", "a.yaml#" + canary, sources.ModeSymlink},
		"loop to itself":       {"app/l.yaml", "l.yaml#" + canary, sources.ModeSymlink},
		"loop to the parent":   {"app/sub/l", "..#" + canary, sources.ModeSymlink},
		"dangling":             {"app/l.yaml", canary, sources.ModeSymlink},
		"device":               {"app/l.yaml", "/dev/zero#" + canary, sources.ModeSymlink},
		"chain":                {"app/l.yaml", "m.yaml#" + canary, sources.ModeSymlink},
		"other name, deep":     {"app/sub/README", "/proc/self/environ#" + canary, sources.ModeSymlink},
		"submodule":            {"app/mod", canary, sources.ModeSubmodule},
		"name of an ignore":    {"app/.gitopsdignore", "../" + canary, sources.ModeSymlink},
		"name of a deep one":   {"app/sub/.gitopsdignore", "../" + canary, sources.ModeSymlink},
		"ignore above the app": {".gitopsdignore", canary, sources.ModeSymlink},
	}
	good, _ := mustRender(t, tree("r0", base), render.Spec{Path: "app"}, nil)
	for name, shape := range shapes {
		f := base.link(shape.path, shape.mode, shape.target)
		for _, prev := range []*render.State{nil, good} {
			got := renderErr(t, tree("r1", f), render.Spec{Path: "app"}, prev)
			if !strings.Contains(got, shape.path+": is a "+shape.mode.String()) || strings.Contains(got, canary) {
				t.Errorf("%s: %s", name, got)
			}
		}
	}
	// As the target of a reference, as a step on the way to it, and for a template.
	for spec, f := range map[string]files{
		"contentFrom: {file: l}":             base.link("app/l", sources.ModeSymlink, canary),
		"contentFrom: {file: ../l/x}":        base.link("l", sources.ModeSymlink, canary),
		"contentFrom: {template: ../l}":      base.link("l", sources.ModeSymlink, canary),
		"contentFrom: {file: ../mod/file}":   base.link("mod", sources.ModeSubmodule, canary),
		"contentFrom: {file: ../app/../l/x}": base.link("l", sources.ModeSymlink, canary),
	} {
		got := renderErr(t, tree("r1", f.with("app/f.yaml", hostFile("f", spec))), render.Spec{Path: "app"}, nil)
		if !strings.Contains(got, "which is a s") && !strings.Contains(got, "is a symbolic link") || strings.Contains(got, canary) {
			t.Errorf("%s: %s", spec, got)
		}
	}
	// A file that turns into a link of the same bytes has the hash it had.
	for path, spec := range map[string]string{"app/.gitopsdignore": "content: x", ".gitopsdignore": "content: x", "l": "contentFrom: {file: ../l}", "app/a.yaml": "content: x"} {
		f := base.with("app/f.yaml", hostFile("f", spec), "l", "text", "app/.gitopsdignore", "none", ".gitopsdignore", "none")
		prev, _ := mustRender(t, tree("r0", f), render.Spec{Path: "app"}, nil)
		got := renderErr(t, tree("r1", f.link(path, sources.ModeSymlink, f[path].data)), render.Spec{Path: "app"}, prev)
		if !strings.Contains(got, path) || !strings.Contains(got, "is a symbolic link") {
			t.Errorf("%s: %s", path, got)
		}
	}
	// An ignored link is no part of the application.
	s, _ := mustRender(t, tree("r1", base.link("app/l", sources.ModeSymlink, canary).with("app/.gitopsdignore", "l\n")), render.Spec{Path: "app"}, nil)
	if s.Len() != 2 {
		t.Error(show(s))
	}
}

// Row A-24: what a filter of Git left, and names that are one on another system.
func TestRenderRefusesFilteredAndColliding(t *testing.T) {
	lfs := "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
	const hint = " and not the content itself; commit the content, without a filter on this path in .gitattributes"
	for _, c := range []struct {
		f    files
		want string
	}{
		{texts("a.yaml", lfs), "a.yaml: the file is a Git LFS pointer" + hint},
		{texts("a.yaml", "\x00GITCRYPT\x00abc"), "a.yaml: the file is encrypted by git-crypt" + hint},
		{texts("a.yaml", hostFile("f", "contentFrom: {file: x.bin}"), "x.bin", lfs), "a.yaml:6: x.bin: the file is a Git LFS pointer" + hint},
		{texts("a.yaml", hostFile("f", "contentFrom: {template: x.bin}"), "x.bin", "\x00GITCRYPT\x00abc"), "a.yaml:6: x.bin: the file is encrypted by git-crypt" + hint},
		{texts(".gitopsdignore", lfs), ".gitopsdignore: the file is a Git LFS pointer" + hint},
		{texts("d/A.yaml", object("a", ""), "d/a.yaml", object("b", "")), `d/a.yaml: the name "a.yaml" differs from "A.yaml" only in case or in the encoding of accents; rename one of them, or name one in .gitopsdignore`},
		{texts("Sub/a.yaml", object("a", ""), "sub/b.yaml", object("b", "")), `sub: the name "sub" differs from "Sub" only in case or in the encoding of accents; rename one of them, or name one in .gitopsdignore`},
		{texts("e\u0301.yaml", object("a", ""), "\u00e9.yaml", object("b", "")), "\u00e9.yaml: the name \"\\u00e9.yaml\" differs from \"e\\u0301.yaml\" only in case or in the encoding of accents; rename one of them, or name one in .gitopsdignore"},
		{texts("stra\u00dfe.txt", "", "STRASSE.txt", ""), "stra\u00dfe.txt: the name \"stra\\u00dfe.txt\" differs from \"STRASSE.txt\" only in case or in the encoding of accents; rename one of them, or name one in .gitopsdignore"},
	} {
		if got := renderErr(t, tree("r", c.f), render.Spec{}, nil); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

// Row B-36: one identity in two files, versions or documents.
func TestRenderRefusesDuplicates(t *testing.T) {
	f := texts("a.yaml", object("x", ""), "m.yaml", object("q", ""), "z.yaml", object("z", ""))
	good, _ := mustRender(t, tree("r0", f), render.Spec{}, nil)
	bad := f.with("b.yaml", object("z", "")+"---\n"+object("w", ""), "sub/c.yaml", strings.Replace(object("z", ""), "v1", "v1beta1", 1))
	want := "sub/c.yaml:1: A/z is declared a second time, first at b.yaml:1 (as v1 and v1beta1, which are versions of one object); keep one of them\n" +
		"z.yaml:1: A/z is declared a second time, first at b.yaml:1; keep one of them"
	for _, prev := range []*render.State{nil, good} {
		if got := renderErr(t, tree("r1", bad), render.Spec{}, prev); got != want {
			t.Error(cmp.Diff(want, got))
		}
	}
	// Moving is no duplicate, whichever name sorts first.
	s, d := mustRender(t, tree("r2", f.with("z.yaml", "-", "0.yaml", object("z", ""))), render.Spec{}, good)
	if got := deltaText(d); got != "upserted [] removed [] moved [z]" {
		t.Error(got)
	}
	if o, _ := s.Get(manifest.ID{Kind: "A", Name: "z"}); o.Origin() != (manifest.Origin{Path: "0.yaml", Line: 1, Revision: "r2"}) {
		t.Error(o)
	}
}

// Row B-30: one bad document refuses the whole, and every problem is named.
func TestRenderIsAllOrNothing(t *testing.T) {
	f := texts("a.yaml", object("a", ""), "b.yaml", "x: 1\n---\n"+object("b", "x: .inf\n"), "c/d.yaml", "- 1\n").link("c/l", sources.ModeSymlink, "x")
	got := renderErr(t, tree("r", f), render.Spec{}, nil)
	var places []string
	for line := range strings.Lines(got) {
		places = append(places, strings.SplitN(line, ": ", 2)[0])
	}
	if d := cmp.Diff([]string{"b.yaml:1", "b.yaml:6", "c/d.yaml:1", "c/l"}, places); d != "" {
		t.Error(d, got)
	}
	var problems manifest.Errors
	_, _, err := new(render.Renderer).Render(context.Background(), tree("r", f), render.Spec{}, nil)
	if !errors.As(err, &problems) || len(problems) != 4 {
		t.Errorf("%T", err)
	}
}

// A tree that cannot be read is no problem of the content.
func TestRenderTellsUnreadFromRefused(t *testing.T) {
	f := texts("a.yaml", object("a", ""), "d/b.yaml", object("b", ""), "f.yaml", hostFile("f", "contentFrom: {file: x}"), "x", "text", "d/.gitopsdignore", "")
	for _, p := range []string{"", "d", "a.yaml", "x", "d/.gitopsdignore"} {
		tr := tree("r", f)
		tr.fail[p] = fmt.Errorf("%w: object 123", sources.ErrDamaged)
		_, _, err := new(render.Renderer).Render(context.Background(), tr, render.Spec{}, nil)
		var problems manifest.Errors
		if !errors.Is(err, sources.ErrDamaged) || errors.As(err, &problems) {
			t.Errorf("%q: %v", p, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := new(render.Renderer).Render(ctx, tree("r", f), render.Spec{}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestRenderLimits(t *testing.T) {
	f := texts("a/1.yaml", object("a", ""), "a/2.yaml", object("b", ""), "a/b/c/3.yaml", object("c", ""))
	size := int64(3 * len(object("a", "")))
	for _, c := range []struct {
		limits render.Limits
		want   string
	}{
		{render.Limits{Files: 3, TotalBytes: size, Depth: 4}, ""},
		{render.Limits{Files: 2}, ".: 3 files are more than the limit of 2; split the application, or raise the limit"},
		{render.Limits{TotalBytes: size - 1}, fmt.Sprintf(".: the files and the contents made from them have more than %d bytes; split the application, or raise the limit", size-1)},
		{render.Limits{Dirs: 3}, ""},
		{render.Limits{Dirs: 2}, ".: there are more than 2 directories below it; split the application, or name some in .gitopsdignore"},
		{render.Limits{Depth: 3}, "a/b/c: directories are nested deeper than 3 levels; move it up or ignore it"},
		{render.Limits{Manifest: manifest.Limits{FileBytes: 10}}, "a/1.yaml: the file has 43 bytes, more than the limit of 10; split it, or name it in .gitopsdignore"},
	} {
		good, _, _ := new(render.Renderer).Render(context.Background(), tree("r", f.with("a/2.yaml", "-", "a/b/c/3.yaml", "-")), render.Spec{Limits: c.limits}, nil)
		for _, prev := range []*render.State{nil, good} {
			_, _, err := new(render.Renderer).Render(context.Background(), tree("r", f), render.Spec{Limits: c.limits}, prev)
			if (err == nil) != (c.want == "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("%+v: %v", c.limits, err)
			}
		}
	}
	// One file used by many objects counts as often as it is used.
	big := texts("x", strings.Repeat("x", 1000))
	for i := range 10 {
		big = big.with(fmt.Sprintf("%d.yaml", i), hostFile(fmt.Sprint("f", i), "contentFrom: {file: x}"))
	}
	if got := renderErr(t, tree("r", big), render.Spec{Limits: render.Limits{TotalBytes: 10_000}}, nil); !strings.Contains(got, "more than 10000 bytes") {
		t.Error(got)
	}
}

// swarm is a tree in which every directory holds ten more, down to a depth: few
// objects in a repository, and more directories than anybody can walk.
type swarm struct {
	sources.Tree
	depth int
	leaf  []sources.Entry
}

func (s swarm) Stat(p string) (sources.Entry, error) {
	if path.Base(p) == render.IgnoreFile {
		return sources.Entry{}, fs.ErrNotExist
	}
	return sources.Entry{Path: p, Mode: sources.ModeDir, Hash: "swarm"}, nil
}

func (s swarm) ReadDir(p string) (out []sources.Entry, err error) {
	depth := strings.Count(p, "/") + 1
	for i := range 10 {
		e := sources.Entry{Mode: sources.ModeDir, Hash: sources.Hash(fmt.Sprint(depth))}
		if depth >= s.depth {
			e = s.leaf[i%len(s.leaf)]
		}
		e.Path = path.Join(p, fmt.Sprint("x", i, path.Ext(e.Path)))
		out = append(out, e)
	}
	return out, nil
}

// Row A-8: trees that name each other again and again are refused before they
// are walked, whatever stands at their ends.
func TestRenderTreeBomb(t *testing.T) {
	for name, c := range map[string]struct {
		leaf  sources.Entry
		depth int
		want  string
	}{
		"directories": {sources.Entry{Path: "d", Mode: sources.ModeDir}, 49, "directories are nested deeper than 50 levels"},
		"files":       {sources.Entry{Path: "a.txt"}, 12, "there are more than 100000 directories"},
		"manifests":   {sources.Entry{Path: "a.yaml"}, 12, "200001 files are more than the limit of 200000"},
		"links":       {sources.Entry{Path: "a", Mode: sources.ModeSymlink}, 12, "is a symbolic link"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			s := swarm{Tree: tree("r", files{}), depth: c.depth, leaf: []sources.Entry{c.leaf}}
			if _, _, err := new(render.Renderer).Render(ctx, s, render.Spec{}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %.300v, want %q", err, c.want)
			}
		})
	}
}

func TestRenderIgnoreFiles(t *testing.T) {
	f := texts("x/app/a.yaml", object("a", ""), "x/app/b.yaml", object("b", ""), "x/app/gen/c.yaml", object("c", ""), "x/app/gen/keep.yaml", object("k", ""),
		"x/app/sub/a.yaml", object("d", ""), "x/app/sub/gen/e.yaml", "broken: [")
	for _, c := range []struct {
		name, want string
		change     []string
	}{
		{"root of the tree", "b c d k", []string{".gitopsdignore", "# comment\n\n/x/app/a.yaml\nx/app/sub/gen/\n"}},
		{"relative to its directory", "b c d k", []string{"x/app/.gitopsdignore", "/a.yaml\nsub/gen\n"}},
		{"in every directory below", "b c k", []string{"x/app/.gitopsdignore", "a.yaml\r\nsub/gen\r\n"}},
		{"the inner one wins", "a b d k", []string{"x/app/.gitopsdignore", "gen/*\nsub/gen\n", "x/app/gen/.gitopsdignore", "!keep.yaml\n"}},
		{"between root and path", "a b d", []string{"x/.gitopsdignore", "gen\n"}},
		{"a deeper directory", "a b c d k", []string{"x/app/sub/.gitopsdignore", "gen/\n"}},
	} {
		s, _ := mustRender(t, tree("r", f.with(c.change...)), render.Spec{Path: "x/app"}, nil)
		var got []string
		for o := range s.All() {
			got = append(got, o.ID().Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	// Ignore files are input, wherever they stand, and the inner rules build on
	// the outer ones as these are now.
	before, _ := mustRender(t, tree("r0", f.with("x/app/gen/.gitopsdignore", "!keep.yaml\n", "x/app/sub/gen/e.yaml", "-")), render.Spec{Path: "x/app"}, nil)
	for _, p := range []string{"x/.gitopsdignore", "x/app/sub/gen/.gitopsdignore", "x/app/.gitopsdignore"} {
		after, d := mustRender(t, tree("r1", f.with("x/app/gen/.gitopsdignore", "!keep.yaml\n", "x/app/sub/gen/e.yaml", "-", p, "nothing\n")), render.Spec{Path: "x/app"}, before)
		if !d.Empty() || after.InputDigest() == before.InputDigest() || !slices.ContainsFunc(after.FilesRead(), func(r render.FileRead) bool { return r.Path == p }) {
			t.Errorf("%s: %s, %v", p, deltaText(d), after.FilesRead())
		}
	}
	_, d := mustRender(t, tree("r1", f.with("x/app/gen/.gitopsdignore", "!keep.yaml\n", "x/app/sub/gen/e.yaml", "-", "x/app/.gitopsdignore", "gen/*\n")), render.Spec{Path: "x/app"}, before)
	if got := deltaText(d); got != "upserted [] removed [c] moved []" || d.Stats.FilesDecoded != 0 {
		t.Error(got, d.Stats)
	}
	for pattern, want := range map[string]string{
		"app\n":    "x/app: the rendered path is left out by a .gitopsdignore above it; change the pattern or the path",
		"/x/\n":    "x/app: the rendered path is left out by a .gitopsdignore above it; change the pattern or the path",
		"ok\n[a\n": ".gitopsdignore:2: the pattern is malformed; close the bracket, or escape it with a backslash",
		"\xff\n":   ".gitopsdignore: the file is not UTF-8; save it as UTF-8",
	} {
		if got := renderErr(t, tree("r", f.with(".gitopsdignore", pattern)), render.Spec{Path: "x/app"}, nil); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s", pattern, got)
		}
	}
}

// Row C-46, the half of render: policy, plan and apply get one object, and its
// canonical form is that object.
func TestRenderGivesOneObject(t *testing.T) {
	f := texts("f.yaml", hostFile("f", "contentFrom: {template: t}", "mode: 0644", "on: 1.10"), "t", "a{{.x}}\r\n", "g.yaml", hostFile("g", "contentFrom: {file: bin}"), "bin", "a\x00b")
	if got := renderErr(t, tree("r", f), render.Spec{Variables: map[string]any{"x": 1}}, nil); !strings.Contains(got, "f.yaml:8: the key on") {
		t.Error(got)
	}
	f = f.with("f.yaml", hostFile("f", "contentFrom: {template: t}", "mode: 0644", "x: 1.10"))
	s, _ := mustRender(t, tree("r", f), render.Spec{Variables: map[string]any{"x": 1}}, nil)
	for o := range s.All() {
		again, err := manifest.Decode("again.json", manifest.Canonical(o.Content()), manifest.Limits{})
		if err != nil || again[0].Hash() != o.Hash() {
			t.Error(o, err)
		}
		got, _ := s.Get(o.ID())
		if got != o {
			t.Error("Get and All give different objects")
		}
	}
	want := "host.gitopsd.io/File/f (f.yaml:1) {\"content\":\"a1\\u000d\\n\",\"mode\":420,\"path\":\"/etc/f\",\"x\":1.1}\n" +
		"host.gitopsd.io/File/g (g.yaml:1) {\"contentBase64\":\"YQBi\",\"path\":\"/etc/g\"}\n"
	if got := show(s); got != want {
		t.Error(cmp.Diff(want, got))
	}
}
