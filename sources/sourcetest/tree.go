package sourcetest

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/sources"
)

func stat(t testing.TB, tree sources.Tree, path string) sources.Entry {
	t.Helper()
	e, err := tree.Stat(path)
	if err != nil {
		t.Fatalf("Stat(%q): %v", path, err)
	}
	if e.Hash == "" {
		t.Fatalf("Stat(%q) has no hash", path)
	}
	return e
}

func testStat(t *testing.T, f Fixture) {
	tree := open(t, f, Text("top.yaml", "1", "d/e/f.yaml", "2"))
	for _, c := range []struct {
		path, want string
		mode       sources.Mode
	}{
		{"", "", sources.ModeDir}, {".", "", sources.ModeDir}, {"top.yaml", "top.yaml", sources.ModeFile},
		{"d", "d", sources.ModeDir}, {"d/e", "d/e", sources.ModeDir}, {"d/e/f.yaml", "d/e/f.yaml", sources.ModeFile},
	} {
		e := stat(t, tree, c.path)
		if e.Path != c.want || e.Mode != c.mode {
			t.Errorf("Stat(%q) = %q, a %s, want %q, a %s", c.path, e.Path, e.Mode, c.want, c.mode)
		}
	}
}

func testReadDir(t *testing.T, f Fixture) {
	// "a-", "a.b" and "a0" sort around "a/": a directory sorts by its plain name.
	tree := open(t, f, Text("d/a/x", "1", "d/a-", "2", "d/a.b", "3", "d/a0", "4", "d/Z", "5", "top", "6"))
	for path, want := range map[string]string{
		"":    "d top",
		".":   "d top",
		"d":   "d/Z d/a d/a- d/a.b d/a0",
		"d/a": "d/a/x",
	} {
		entries, err := tree.ReadDir(path)
		if err != nil {
			t.Fatalf("ReadDir(%q): %v", path, err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, e.Path)
			if again := stat(t, tree, e.Path); again != e {
				t.Errorf("ReadDir says %+v, Stat says %+v", e, again)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("ReadDir(%q) = %v, want %s", path, got, want)
		}
	}
	if _, err := tree.ReadDir("top"); err == nil {
		t.Error("ReadDir of a file succeeded")
	}
}

func testReadFile(t *testing.T, f Fixture) {
	big := strings.Repeat("0123456789abcdef", 20_000)
	tree := open(t, f, Text("a.yaml", "hello", "empty", "", "d/big", big))
	for _, c := range []struct {
		path  string
		limit int64
		want  string
	}{{"a.yaml", 5, "hello"}, {"a.yaml", 1 << 40, "hello"}, {"empty", 0, ""}, {"d/big", int64(len(big)), big}} {
		data, err := tree.ReadFile(c.path, c.limit)
		if err != nil || string(data) != c.want {
			t.Errorf("ReadFile(%s, %d) gave %d bytes, %v", c.path, c.limit, len(data), err)
		}
	}
	for _, c := range []struct {
		path  string
		limit int64
	}{{"a.yaml", 4}, {"d/big", int64(len(big)) - 1}, {"d", 100}, {"", 100}} {
		data, err := tree.ReadFile(c.path, c.limit)
		if !errors.Is(err, sources.ErrRefused) || data != nil {
			t.Errorf("ReadFile(%q, %d) gave %d bytes, %v, want ErrRefused", c.path, c.limit, len(data), err)
		}
		var large *sources.TooLargeError
		if isFile := c.limit != 100; errors.As(err, &large) != isFile || isFile && (large.Limit != c.limit || large.Size != c.limit+1) {
			t.Errorf("ReadFile(%q, %d): %v, want the size and the limit of a file as a TooLargeError", c.path, c.limit, err)
		}
	}
	data, err := tree.ReadFile("a.yaml", 10)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if again, err := tree.ReadFile("a.yaml", 10); err != nil || string(again) != "hello" {
		t.Errorf("a reader changed the tree: %q, %v", again, err)
	}
}

func testMissing(t *testing.T, f Fixture) {
	tree := open(t, f, Text("a.yaml", "1", "d/b.yaml", "2"))
	for _, path := range []string{"none", "d/none", "d/none/below", "a.yaml/below", "A.yaml", "D", "../a.yaml", "d/../../x"} {
		_, err1 := tree.Stat(path)
		_, err2 := tree.ReadDir(path)
		_, err3 := tree.ReadFile(path, 100)
		for i, err := range []error{err1, err2, err3} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s(%q): %v, want fs.ErrNotExist", [...]string{"Stat", "ReadDir", "ReadFile"}[i], path, err)
			}
		}
	}
}

func testModes(t *testing.T, f Fixture) {
	tree := open(t, f, Files{
		"run.sh":   {Mode: sources.ModeExec, Data: "#!/bin/sh\n"},
		"plain":    {Data: "x"},
		"link":     {Mode: sources.ModeSymlink, Data: "/etc/passwd"},
		"dir/link": {Mode: sources.ModeSymlink, Data: "../plain"},
		"dir/loop": {Mode: sources.ModeSymlink, Data: "loop"},
	})
	for path, mode := range map[string]sources.Mode{
		"run.sh": sources.ModeExec, "plain": sources.ModeFile, "link": sources.ModeSymlink, "dir/link": sources.ModeSymlink,
	} {
		if e := stat(t, tree, path); e.Mode != mode {
			t.Errorf("%s is a %s, want a %s", path, e.Mode, mode)
		}
	}
	if data, err := tree.ReadFile("run.sh", 100); err != nil || string(data) != "#!/bin/sh\n" {
		t.Errorf("ReadFile(run.sh) = %q, %v", data, err)
	}
	for _, path := range []string{"link", "dir/link", "dir/loop"} { // row A-1: a link is never followed
		data, err := tree.ReadFile(path, 1<<20)
		if !errors.Is(err, sources.ErrRefused) || data != nil {
			t.Errorf("ReadFile(%s) gave %d bytes, %v, want ErrRefused", path, len(data), err)
		}
		if err != nil && strings.Contains(err.Error(), "root:") {
			t.Errorf("the error shows what the link points to: %v", err)
		}
		if _, err := tree.ReadDir(path); err == nil {
			t.Errorf("ReadDir(%s) followed a link", path)
		}
	}
}

func testSubmodule(t *testing.T, f Fixture) {
	if !f.Submodules {
		return
	}
	// Row A-3: a submodule is an entry and nothing behind it is ever fetched.
	tree := open(t, f, Files{
		"sub":         {Mode: sources.ModeSubmodule, Data: unknown},
		".gitmodules": {Data: "[submodule \"sub\"]\n\tpath = sub\n\turl = ext::sh -c touch% /tmp/never\n"},
		"a.yaml":      {Data: "1"},
	})
	if e := stat(t, tree, "sub"); e.Mode != sources.ModeSubmodule {
		t.Errorf("sub is a %s", e.Mode)
	}
	if _, err := tree.ReadFile("sub", 100); !errors.Is(err, sources.ErrRefused) {
		t.Errorf("ReadFile(sub): %v, want ErrRefused", err)
	}
	if _, err := tree.ReadDir("sub"); err == nil {
		t.Error("ReadDir(sub) succeeded")
	}
}

func testHashes(t *testing.T, f Fixture) {
	base := Text("a/one", "1", "a/deep/two", "2", "b/one", "1", "b/deep/two", "2", "c/three", "3")
	before := open(t, f, base)
	if f.SameHash {
		for _, p := range []string{"/one", "/deep", ""} {
			if stat(t, before, "a"+p).Hash != stat(t, before, "b"+p).Hash {
				t.Errorf("a%s and b%s are equal and have different hashes", p, p)
			}
		}
	}
	base["a/deep/two"] = File{Data: "changed"}
	after := open(t, f, base)
	for _, p := range []string{"", "a", "a/deep", "a/deep/two"} {
		if f.Snapshot && stat(t, before, p).Hash == stat(t, after, p).Hash {
			t.Errorf("%q changed and kept its hash", p)
		}
	}
	if f.Snapshot {
		for _, p := range []string{"a/one", "b", "b/deep/two", "c", "c/three"} {
			if stat(t, before, p).Hash != stat(t, after, p).Hash {
				t.Errorf("%q did not change and its hash did", p)
			}
		}
	}
	// A mode or a name is content of its directory.
	hash := stat(t, after, "c").Hash
	base["c/three"] = File{Mode: sources.ModeExec, Data: "3"}
	chmod := stat(t, open(t, f, base), "c").Hash
	delete(base, "c/three")
	base["c/four"] = File{Data: "3"}
	renamed := stat(t, open(t, f, base), "c").Hash
	if hash == chmod || hash == renamed || chmod == renamed {
		t.Errorf("directory hashes %s, %s after chmod, %s after rename must differ", hash, chmod, renamed)
	}
	// And back again: the hash is a function of the content.
	delete(base, "c/four")
	base["c/three"] = File{Data: "3"}
	if back := stat(t, open(t, f, base), "c").Hash; back != hash {
		t.Errorf("the same content has hash %s and later %s", hash, back)
	}
}

func testImmutable(t *testing.T, f Fixture) {
	tree := open(t, f, Text("a.yaml", "old", "d/b.yaml", "old"))
	was := stat(t, tree, "d")
	open(t, f, Text("a.yaml", "new", "e/c.yaml", "new"))
	for _, path := range []string{"a.yaml", "d/b.yaml"} {
		data, err := tree.ReadFile(path, 100)
		if err == nil && string(data) != "old" {
			t.Errorf("%s of an opened tree reads %q", path, data)
		}
		if err != nil && (f.Snapshot || errors.Is(err, fs.ErrNotExist)) {
			t.Errorf("%s of an opened tree: %v (unread is not absent)", path, err)
		}
	}
	if e, err := tree.Stat("d"); err == nil && e != was {
		t.Errorf("directory of an opened tree was %+v and is %+v", was, e)
	}
	if entries, err := tree.ReadDir(""); err == nil && (len(entries) != 2 || entries[1].Path != "d") {
		t.Errorf("root of an opened tree lists %v", entries)
	}
}

// HostileNames is the table of names that no tree may hand out (row A-2).
var HostileNames = []string{
	"..", ".", ".git", ".GIT", ".Git", "git~1", "GIT~1", ".g\u200cit", ".gi\ufefft", ".git ", ".git.", ".git::$INDEX_ALLOCATION",
	"a\\b", "..\\x", "", "new\nline", "tab\there", "bell\a", "del\x7f", "a/b",
}

func testHostile(t *testing.T, f Fixture) {
	if f.Hostile == nil {
		return
	}
	made := 0
	for _, name := range HostileNames {
		if !f.Hostile(t, name) {
			continue
		}
		made++
		id := head(t, f)
		err := f.Repository.Fetch(ctx(t), f.Ref, id)
		var tree sources.Tree
		if err == nil {
			tree, err = f.Repository.Open(ctx(t), id)
		}
		if err == nil {
			_, err = tree.ReadDir("d")
		}
		if !errors.Is(err, sources.ErrRefused) {
			t.Errorf("name %q: %v, want ErrRefused", name, err)
		} else if !slices.Contains([]string{"", "."}, name) && !strings.Contains(err.Error(), fmt.Sprintf("%q", name)) {
			t.Errorf("name %q is not named by the error: %v", name, err)
		}
	}
	if made == 0 {
		t.Error("the harness could make none of the hostile names")
	}
}
