package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

// Row A-1: twelve shapes of links; none is followed, none is read.
func TestLinksAreNotFollowed(t *testing.T) {
	p := localPlace(t)
	secret := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(secret, []byte("s3cret-canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := map[string]gittest.File{"real": {Data: "x"}, "dir/file": {Data: "x"}}
	for name, target := range map[string]string{
		"absolute": secret, "etc": "/etc/passwd", "parent": "../outside", "far": "../../../../../../etc/passwd", "inside": "real", "directory": "dir",
		"chain": "inside", "loop": "loop", "dangling": "nothing", "device": "/dev/zero", "proc": "/proc/self/environ", "empty": "", "dir/up": "..",
	} {
		files[name] = gittest.File{Mode: gittest.ModeSymlink, Data: target}
	}
	p.repo.Commit("main", files)
	r, id := fetched(t, p)
	tree, err := r.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range files {
		if f.Mode != gittest.ModeSymlink {
			continue
		}
		if e, err := tree.Stat(name); err != nil || e.Mode != sources.ModeSymlink {
			t.Errorf("Stat(%s) = %+v, %v", name, e, err)
		}
		data, err := tree.ReadFile(name, 1<<20)
		if !errors.Is(err, sources.ErrRefused) || data != nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("ReadFile(%s) gave %d bytes, %v", name, len(data), err)
		}
		if _, err := tree.ReadDir(name); !errors.Is(err, sources.ErrRefused) {
			t.Errorf("ReadDir(%s): %v", name, err)
		}
		if data, err := tree.ReadFile(name+"/file", 1<<20); err == nil {
			t.Errorf("ReadFile(%s/file) gave %q", name, data)
		}
	}
}

// Row A-3: a submodule is asked for nowhere, whatever .gitmodules says.
func TestSubmodulesAreNotFetched(t *testing.T) {
	p, h := webPlace(t, gittest.HTTPOptions{})
	marker := filepath.Join(t.TempDir(), "marker")
	for name, url := range map[string]string{
		"http": h.URL + "/other.git", "relative": "../other.git", "file": "file://" + t.TempDir(), "ext": "ext::sh -c touch% " + marker, "option": "--upload-pack=touch " + marker,
	} {
		p.repo.Commit("main", map[string]gittest.File{
			"sub": {Mode: gittest.ModeSubmodule, Data: strings.Repeat("1", 40)}, "a": {Data: "1"},
			".gitmodules": {Data: "[submodule \"sub\"]\n\tpath = sub\n\turl = " + url + "\n"},
		})
		p.options.Dir = t.TempDir()
		before := h.Requests()
		r, id := fetched(t, p)
		if n := h.Requests() - before; n != 3 {
			t.Errorf("%s: %d requests, want two for refs and one for content", name, n)
		}
		tree, err := r.Open(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := tree.Stat("sub"); err != nil || e.Mode != sources.ModeSubmodule {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a command was run")
	}
}

// Rows: entries that are one name, and raw trees git would not write.
func TestCollidingNames(t *testing.T) {
	p := localPlace(t)
	blob, dir := p.repo.Blob("x"), p.repo.Tree()
	file := func(name string) gittest.Entry { return gittest.Entry{Mode: "100644", Name: name, ID: blob} }
	for what, entries := range map[string][]gittest.Entry{
		"twice":              {file("a"), file("a")},
		"file and directory": {file("a"), {Mode: "40000", Name: "a", ID: dir}},
		"case":               {file("README"), file("readme")},
		"accents":            {file("caf\u00e9"), file("cafe\u0301")},
		"case of accents":    {file("\u00c9"), file("e\u0301")},
		"unknown mode":       {{Mode: "100600", Name: "a", ID: blob}},
		"device":             {{Mode: "20000", Name: "a", ID: blob}},
		"padded mode":        {{Mode: "040000", Name: "a", ID: dir}},
		"a file as a tree":   {{Mode: "40000", Name: "a", ID: blob}},
	} {
		id := p.repo.Hostile("main", entries...)
		p.options.Dir = t.TempDir()
		r := mustOpen(t, p.options)
		err := r.Fetch(t.Context(), mainRef, id)
		var tree sources.Tree
		if err == nil {
			tree, err = r.Open(t.Context(), id)
		}
		if err == nil {
			_, err = tree.ReadDir("d")
		}
		if !errors.Is(err, sources.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Row A-24: the pointer of Git LFS is not taken for the file.
func TestLFSPointer(t *testing.T) {
	p := localPlace(t)
	p.repo.Write("main", map[string]string{
		"big.yaml": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
		"doc.md":   "A pointer starts with version https://git-lfs.github.com/spec/v1\n",
	})
	r, id := fetched(t, p)
	tree, err := r.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.ReadFile("big.yaml", 1000); !errors.Is(err, sources.ErrRefused) || !strings.Contains(err.Error(), "LFS") {
		t.Error(err)
	}
	if _, err := tree.ReadFile("doc.md", 1000); err != nil {
		t.Error(err)
	}
}

// The beginning of row A-18: a commit that readers could take for two different
// ones is refused.
func TestMalformedCommits(t *testing.T) {
	p := localPlace(t)
	a, b := p.repo.TreeOf(map[string]gittest.File{"a": {Data: "1"}}), p.repo.TreeOf(map[string]gittest.File{"a": {Data: "2"}})
	who := "Test <test@example.com> 1700000000 +0000"
	tail := "author " + who + "\ncommitter " + who + "\n\nMessage\n"
	for what, raw := range map[string]string{
		"two trees":              "tree " + a + "\ntree " + b + "\n" + tail,
		"a tree after":           "tree " + a + "\n" + strings.Replace(tail, "\n\n", "\ntree "+b+"\n\n", 1),
		"a parent after":         "tree " + a + "\n" + strings.Replace(tail, "\n\n", "\nparent "+b+"\n\n", 1),
		"no tree":                tail,
		"no author":              "tree " + a + "\n\nMessage\n",
		"a short tree":           "tree " + a[:39] + "\n" + tail,
		"something in between":   "tree " + a + "\nx y\n" + tail,
		"the parent comes first": "parent " + a + "\ntree " + a + "\n" + tail,
	} {
		id := p.repo.Object("commit", []byte(raw))
		p.repo.SetRef(mainRef, id)
		p.options.Dir = t.TempDir()
		r := mustOpen(t, p.options)
		err := r.Fetch(t.Context(), mainRef, id)
		if err == nil {
			_, err = r.Open(t.Context(), id)
		}
		if !errors.Is(err, sources.ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// Signatures and unknown headers after the committer are fine.
	ok := p.repo.Object("commit", []byte("tree "+a+"\nauthor "+who+"\ncommitter "+who+"\ngpgsig -----BEGIN\n tree "+b+"\n -----END\nencoding UTF-8\n\ntree "+b+"\n"))
	p.repo.SetRef(mainRef, ok)
	p.options.Dir = t.TempDir()
	r, id := fetched(t, p)
	if got, err := readAll(t, r, id); err != nil || got["a"] != "1" {
		t.Errorf("a signed commit: %v, %v", got, err)
	}
}

// Row A-10: forced pushes and unrelated histories are told from progress, over
// merges too.
func TestAncestry(t *testing.T) {
	p := localPlace(t)
	tree := p.repo.TreeOf(map[string]gittest.File{"a": {Data: "1"}})
	at := func(message string, parents ...string) string {
		return p.repo.CommitTree(tree, message, time.Unix(1_700_000_000, 0), parents...)
	}
	//  a - b ----- m - n        x (unrelated)
	//   \- c - d -/
	a := at("a")
	b, c := at("b", a), at("c", a)
	d := at("d", c)
	m := at("m", b, d)
	n, x := at("n", m), at("x")
	for name, id := range map[string]string{"main": n, "x": x, "c": c} {
		p.repo.SetRef("refs/heads/"+name, id)
	}
	r, _ := fetched(t, p)
	if err := r.Fetch(t.Context(), "refs/heads/x", x); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		old, new string
		want     bool
	}{{a, n, true}, {c, n, true}, {d, m, true}, {b, m, true}, {b, d, false}, {d, b, false}, {n, a, false}, {x, n, false}, {a, x, false}, {m, m, true}} {
		if got, err := r.IsAncestor(t.Context(), q.old, q.new); err != nil || got != q.want {
			t.Errorf("IsAncestor(%.4s, %.4s) = %v, %v", q.old, q.new, got, err)
		}
	}
}

// Row A-8: a directory named ten times in a directory named ten times in ... is
// checked once, however many files that would be, and large directories do not
// stay in memory.
func TestTreeBomb(t *testing.T) {
	p := localPlace(t)
	id := p.repo.Blob("x")
	mode := "100644"
	for range 12 {
		var entries []gittest.Entry
		for i := range 10 {
			entries = append(entries, gittest.Entry{Mode: mode, Name: fmt.Sprint(i), ID: id})
		}
		id, mode = p.repo.Tree(entries...), "40000"
	}
	p.repo.SetRef(mainRef, p.repo.CommitTree(id, "bomb\n", time.Now()))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r := mustOpen(t, p.options)
	if err := r.Fetch(ctx, mainRef, p.repo.Ref(mainRef)); err != nil {
		t.Fatal(err)
	}
	tree, err := r.Open(ctx, p.repo.Ref(mainRef))
	if err != nil {
		t.Fatal(err)
	}
	if data, err := tree.ReadFile("1/2/3/4/5/6/7/8/9/0/1/2", 10); err != nil || string(data) != "x" {
		t.Errorf("it reads %q, %v", data, err)
	}
}

// Row A-8: what is kept of directories is bounded by the names in them.
func TestDecodedDirectoriesAreBounded(t *testing.T) {
	d, err := newDecoded()
	if err != nil {
		t.Fatal(err)
	}
	last := plumbing.ZeroHash
	for i := range 3 * decodedDirs {
		last = plumbing.Hash{byte(i), byte(i >> 8)}
		d.add(last, make([]entry, 1000))
	}
	if n := d.dirs.Len(); n != decodedNames/1000 || d.names != n*1000 {
		t.Errorf("%d directories with %d names are kept", n, d.names)
	}
	if _, ok := d.get(last); !ok {
		t.Error("the last directory is gone")
	}
	d.add(plumbing.Hash{1, 1, 1}, make([]entry, decodedNames+1))
	if d.dirs.Len() != 0 || d.names != 0 {
		t.Errorf("a directory larger than all that is kept leaves %d with %d names", d.dirs.Len(), d.names)
	}
}
