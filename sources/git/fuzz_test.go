package git

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/gitopsd/gitopsd/sources"
)

// treeBytes writes a tree as git stores it: "mode name" and the ID of what it is.
func treeBytes(entries ...string) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		id := sha1.Sum([]byte(e))
		b.WriteString(e + "\x00" + string(id[:]))
	}
	return b.Bytes()
}

// FuzzTree: a tree is read as go-git reads it or refused; of one that passes the
// check of names, each name is one file on any file system (rows ).
func FuzzTree(f *testing.F) {
	f.Add(treeBytes("100644 a", "40000 b"))
	f.Add(treeBytes("100644 .git"))
	f.Add(treeBytes("100644 a", "100644 A"))
	f.Add(treeBytes("120000 link", "160000 module", "100755 run", "100664 old"))
	f.Add(treeBytes("100644 ../x"))
	f.Add(treeBytes("100644 e\u0301", "100644 \u00e9"))
	f.Add(treeBytes("100644 a", "100644 a"))
	f.Add(treeBytes("777 a"))
	f.Add(treeBytes("100644 a")[:12])
	modes := map[filemode.FileMode]sources.Mode{
		filemode.Regular: sources.ModeFile, filemode.Deprecated: sources.ModeFile, filemode.Executable: sources.ModeExec,
		filemode.Dir: sources.ModeDir, filemode.Symlink: sources.ModeSymlink, filemode.Submodule: sources.ModeSubmodule,
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := parseTree(raw)
		if err != nil {
			if entries != nil || !errors.Is(err, sources.ErrRefused) {
				t.Fatalf("%v with %v", err, entries)
			}
			return
		}
		stored := &plumbing.MemoryObject{}
		stored.SetType(plumbing.TreeObject)
		_, _ = stored.Write(raw)
		other := &object.Tree{}
		if err := other.Decode(stored); err == nil {
			if len(other.Entries) != len(entries) {
				t.Fatalf("%d entries, go-git reads %d", len(entries), len(other.Entries))
			}
			for i, e := range other.Entries {
				mode, known := modes[e.Mode]
				if e.Name != entries[i].name || e.Hash != entries[i].hash || !known || mode != entries[i].mode {
					t.Fatalf("entry %d is %+v, go-git reads %+v", i, entries[i], e)
				}
			}
		}
		if checkNames(entries) != nil {
			return
		}
		seen := map[string]bool{}
		for _, e := range entries {
			key := cases.Fold().String(norm.NFC.String(e.name))
			if seen[key] || e.name == "" || strings.ContainsAny(e.name, "/\\\x00") || strings.EqualFold(e.name, ".git") || e.name == ".." || e.name == "." {
				t.Fatalf("%q is accepted in %q", e.name, raw)
			}
			seen[key] = true
		}
	})
}

// FuzzCommit: what a commit leads to is what go-git reads, or it is refused; a
// header that could be read in two ways is (row A-18).
func FuzzCommit(f *testing.F) {
	id := strings.Repeat("0123456789", 4)
	who := " Ada <ada@example.org> 1700000000 +0000\n"
	good := "tree " + id + "\nparent " + id + "\nauthor" + who + "committer" + who + "\nmessage\n"
	for _, s := range []string{
		good, strings.Replace(good, "parent", "tree", 1), strings.Replace(good, "author", "parent", 1), good[:60], "", "tree " + id + "\n",
		strings.ToUpper(good), strings.Replace(good, "\nmessage", "gpgsig x\n y\n\nmessage", 1), "tree " + id[:39] + "\nauthor x\n",
		strings.Replace(good, "parent "+id+"\n", strings.Repeat("parent "+id+"\n", 3), 1), good + "\ntree " + id + "\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := parseLinks(raw)
		if err != nil {
			if !errors.Is(err, sources.ErrRefused) || !l.tree.IsZero() || l.parents != nil {
				t.Fatalf("%v with %+v", err, l)
			}
			return
		}
		header, _, _ := strings.Cut(string(raw), "\n\n")
		if strings.Contains(header, "\ntree ") || !strings.HasPrefix(header, "tree ") || strings.Count(header, "\nparent ") != len(l.parents) {
			t.Fatalf("%+v of\n%s", l, raw)
		}
		stored := &plumbing.MemoryObject{}
		stored.SetType(plumbing.CommitObject)
		_, _ = stored.Write(raw)
		other := &object.Commit{}
		if err := other.Decode(stored); err != nil {
			return
		}
		if other.TreeHash != l.tree || !slices.Equal(other.ParentHashes, l.parents) {
			t.Fatalf("%+v, go-git reads tree %s, parents %s, of\n%s", l, other.TreeHash, other.ParentHashes, raw)
		}
	})
}

// FuzzRefs: of what a server advertises only refs that git would let exist are
// taken, each with an ID (row A-4).
func FuzzRefs(f *testing.F) {
	id := hex.EncodeToString(bytes.Repeat([]byte{0xab}, 20))
	pkt := func(lines ...string) []byte {
		var b strings.Builder
		for i, l := range lines {
			if i == 0 {
				l += "\x00ofs-delta side-band-64k agent=x"
			}
			fmt.Fprintf(&b, "%04x%s\n", len(l)+5, l)
		}
		return []byte(b.String() + "0000")
	}
	f.Add(pkt(id+" HEAD", id+" refs/heads/main", id+" refs/tags/v1", id+" refs/tags/v1^{}"))
	f.Add(pkt(id + " refs/heads/../../x"))
	f.Add(pkt(id + " refs/heads/a\nb"))
	f.Add(pkt(strings.Repeat("0", 40) + " capabilities^{}"))
	f.Add([]byte("0000"))
	f.Add([]byte("0011ERR go away\n"))
	f.Add([]byte("<html>"))
	f.Add(pkt(strings.Repeat("<", 40) + " refs/heads/main")) // the library quotes the line
	f.Add(pkt(id + " HEAD")[:20])
	f.Fuzz(func(t *testing.T, raw []byte) {
		refs, err := decodeRefs(bytes.NewReader(raw))
		if err != nil {
			if refs != nil || !errors.Is(err, sources.ErrRefused) && !errors.Is(err, sources.ErrUnavailable) {
				t.Fatalf("%v with %v", err, refs)
			}
			if strings.ContainsAny(err.Error(), "\x1b\x00\r") {
				t.Fatalf("the error holds control characters: %q", err)
			}
			return
		}
		for name, hash := range refs.References {
			if hash.IsZero() || !strings.HasPrefix(name, "refs/") || strings.Contains(name, "..") || strings.Contains(name, "//") || strings.ContainsAny(name, "\x00\n \\~^:?*[") {
				t.Fatalf("%q at %s is taken", name, hash)
			}
		}
	})
}

// FuzzMask: no spelling of a secret that was used is left in a text of others,
// and a text without one stays as it is (row A-20).
func FuzzMask(f *testing.F) {
	f.Add("deploy", "s3cret/with+signs", "before ", " after")
	f.Add("", "aaaa", "aaa", "aaaaa")
	f.Add("u", "***", "", "")
	f.Add("u", "tok%65n", "https://u:", "@h/")
	f.Fuzz(func(t *testing.T, user, secret, before, after string) {
		if len(secret) < 4 || strings.Contains("***", secret) || strings.Trim(secret, "*") == "" {
			return // too short to be told from ordinary text
		}
		var m mask
		if text := before + after; m.text(text) != text {
			t.Fatal("a mask without secrets changes a text")
		}
		m.add(user, secret)
		spellings := slices.Clone(m.values)
		for _, v := range spellings {
			masked := m.text(before + v + after)
			if !strings.Contains(masked, "***") {
				t.Fatalf("%q becomes %q", before+v+after, masked)
			}
			for _, w := range spellings {
				if strings.Contains(masked, w) && !strings.Contains(w, "*") {
					t.Fatalf("%q is left of %q in %q", w, before+v+after, masked)
				}
			}
		}
		err := m.err(fmt.Errorf("%s%s: %w", before, secret, sources.ErrUnauthorized))
		if !errors.Is(err, sources.ErrUnauthorized) {
			t.Fatal("the error lost its class")
		}
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			if s := fmt.Sprintf(format, err); strings.Contains(s, secret) && !strings.Contains(secret, "*") {
				t.Fatalf("%s prints %s", format, s)
			}
		}
	})
}
