package gittest

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Entry is one raw entry of a tree object. Nothing is checked: this is how
// hostile trees are made.
type Entry struct {
	Mode string // as git writes it: 100644, 100755, 40000, 120000, 160000
	Name string
	ID   string
}

// Object writes a loose object of any type and content and returns its ID.
func (r *Repo) Object(kind string, data []byte) string {
	r.t.Helper()
	raw := append(fmt.Appendf(nil, "%s %d\x00", kind, len(data)), data...)
	sum := sha1.Sum(raw)
	id := hex.EncodeToString(sum[:])
	r.mu.Lock()
	done := r.written[id]
	r.written[id] = true
	r.mu.Unlock()
	if done {
		return id
	}
	dir := filepath.Join(r.Dir, "objects", id[:2])
	r.must(os.MkdirAll(dir, 0o755))
	path := filepath.Join(dir, id[2:])
	temp := path + ".tmp"
	r.must(os.WriteFile(temp, r.deflate(raw), 0o444))
	r.must(os.Rename(temp, path))
	return id
}

// deflate compresses as git does. The writer is kept: a new one costs more than
// all the rest of a small object.
func (r *Repo) deflate(raw []byte) []byte {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var packed bytes.Buffer
	if r.zlib == nil {
		r.zlib = zlib.NewWriter(&packed)
	}
	r.zlib.Reset(&packed)
	_, err := r.zlib.Write(raw)
	r.must(err)
	r.must(r.zlib.Close())
	return packed.Bytes()
}

// Blob writes a file's content.
func (r *Repo) Blob(data string) string { r.t.Helper(); return r.Object("blob", []byte(data)) }

// Tree writes a tree object with exactly these entries in exactly this order.
func (r *Repo) Tree(entries ...Entry) string {
	r.t.Helper()
	var b bytes.Buffer
	for _, e := range entries {
		id, err := hex.DecodeString(e.ID)
		r.must(err)
		fmt.Fprintf(&b, "%s %s\x00%s", e.Mode, e.Name, id)
	}
	return r.Object("tree", b.Bytes())
}

// TreeOf writes a well-formed tree for files by path.
func (r *Repo) TreeOf(files map[string]File) string {
	r.t.Helper()
	var entries []Entry
	below := map[string]map[string]File{}
	for path, f := range files {
		if dir, rest, ok := strings.Cut(path, "/"); ok {
			if below[dir] == nil {
				below[dir] = map[string]File{}
			}
			below[dir][rest] = f
			continue
		}
		e := Entry{Mode: f.Mode, Name: path}
		switch f.Mode {
		case "":
			e.Mode = modeFile
			fallthrough
		default:
			e.ID = r.Blob(f.Data)
		case ModeSubmodule:
			e.ID = f.Data
		}
		entries = append(entries, e)
	}
	for dir, files := range below {
		entries = append(entries, Entry{Mode: modeDir, Name: dir, ID: r.TreeOf(files)})
	}
	sort.Slice(entries, func(i, j int) bool { return sortName(entries[i]) < sortName(entries[j]) })
	return r.Tree(entries...)
}

// sortName is git's order: a directory sorts as if its name ended in a slash.
func sortName(e Entry) string {
	if e.Mode == modeDir {
		return e.Name + "/"
	}
	return e.Name
}

// Hostile commits to a branch a tree with one directory "d" that holds the given
// raw entries, such as a name that no checkout may ever see.
func (r *Repo) Hostile(branch string, entries ...Entry) string {
	r.t.Helper()
	root := r.Tree(Entry{Mode: modeDir, Name: "d", ID: r.Tree(entries...)})
	id := r.CommitTree(root, "Hostile\n", epoch)
	r.SetRef("refs/heads/"+branch, id)
	return id
}
