package render

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/sources"
)

// dir is one walked directory: what was read in it, and totals of all below. It
// is immutable once its round is over. A single rendered file stands in a dir of
// its own.
type dir struct {
	path   string
	hash   sources.Hash
	outer  string   // id of the rules in force above
	rules  *rules   // in force inside
	ignore FileRead // the ignore file in it; zero if there is none
	files  []*file  // manifests, sorted by path
	dirs   []*dir   // sorted by path
	sealed bool     // what follows is computed
	count  int
	nested int // directories
	bytes  int64
	digest string // "" when nothing below was read
}

// file is one manifest and its objects, in their order.
type file struct {
	path   string
	hash   sources.Hash
	bytes  int64
	units  []unit
	digest string
}

func (d *dir) where() string  { return d.path }
func (f *file) where() string { return f.path }

// find returns the element of a sorted list with a path, or nil.
func find[T interface {
	*dir | *file
	where() string
}](list []T, p string) T {
	i, ok := slices.BinarySearchFunc(list, p, func(v T, p string) int { return strings.Compare(v.where(), p) })
	if !ok {
		return nil
	}
	return list[i]
}

// walk returns the state of one directory. before is its state in the last
// round, or nil; outer are the rules in force above.
func (r *round) walk(ctx context.Context, e sources.Entry, before *dir, outer *rules, depth int) (*dir, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if before != nil && before.hash == e.Hash && before.outer == outer.ID() {
		return r.keep(before), nil
	}
	d := &dir{path: e.Path, hash: e.Hash, outer: outer.ID(), rules: outer}
	if depth > r.limits.Depth {
		r.report(&manifest.Error{Path: e.Path, Msg: fmt.Sprintf("directories are nested deeper than %d levels", r.limits.Depth), Hint: "move it up or ignore it"})
		return d, nil
	}
	entries, err := r.tree.ReadDir(e.Path)
	if err != nil {
		return nil, err
	}
	r.dirsRead++
	if err := r.readIgnore(d, before, entries); err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(slices.Clone(entries), d.rules.ignores)
	r.collisions(entries)
	for _, sub := range entries {
		if r.full || r.hopeless() {
			break
		}
		if err := r.entry(ctx, d, before, sub, depth); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(d.files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	slices.SortFunc(d.dirs, func(a, b *dir) int { return strings.Compare(a.path, b.path) })
	r.compare(before, d)
	return d, nil
}

// entry takes one name of a directory in.
func (r *round) entry(ctx context.Context, d, before *dir, e sources.Entry, depth int) error {
	switch {
	case e.Mode == sources.ModeSymlink || e.Mode == sources.ModeSubmodule:
		r.report(&manifest.Error{Path: e.Path, Msg: fmt.Sprintf("is a %s; it is not followed", e.Mode),
			Hint: "put the files themselves there, or name it in " + IgnoreFile})
	case e.Mode == sources.ModeDir:
		if r.dirs++; r.dirs > r.limits.Dirs {
			r.stop(r.tooManyDirs())
			return nil
		}
		var sub *dir
		if before != nil {
			sub = find(before.dirs, e.Path)
		}
		sub, err := r.walk(ctx, e, sub, d.rules, depth+1)
		if err != nil {
			return err
		}
		d.dirs = append(d.dirs, sub)
	case manifest.IsManifest(path.Base(e.Path)):
		if r.files++; r.files > r.limits.Files {
			r.stop(r.tooManyFiles(r.files))
			return nil
		}
		var f *file
		if before != nil {
			f = find(before.files, e.Path)
		}
		d.files = append(d.files, r.file(e.Path, e.Hash, f))
	}
	return nil
}

// stop ends the walk: a few trees that name each other often are more directories
// than anybody can walk (row A-8).
func (r *round) stop(e *manifest.Error) {
	r.full = true
	r.report(e)
}

// maxProblems is how many problems end a walk; far fewer are shown.
const maxProblems = 1000

func (r *round) hopeless() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.problems) > maxProblems
}

// file returns the file that was there before, or a new one with a job to fill it.
func (r *round) file(p string, hash sources.Hash, before *file) *file {
	if before != nil && before.hash == hash {
		if !r.dirty[p] {
			return before
		}
		f := &file{path: p, hash: hash, bytes: before.bytes}
		r.jobs = append(r.jobs, job{f: f, units: before.units})
		return f
	}
	f := &file{path: p, hash: hash}
	r.jobs = append(r.jobs, job{f: f})
	return f
}

// keep returns a directory whose names and hashes are as before. Only manifests
// that refer to a changed file elsewhere are made anew.
func (r *round) keep(before *dir) *dir {
	if !r.anyDirty(before.path) {
		return before
	}
	d := &dir{path: before.path, hash: before.hash, outer: before.outer, rules: before.rules, ignore: before.ignore}
	for _, f := range before.files {
		d.files = append(d.files, r.file(f.path, f.hash, f))
	}
	for _, sub := range before.dirs {
		d.dirs = append(d.dirs, r.keep(sub))
	}
	r.compare(before, d)
	return d
}

// anyDirty reports whether a manifest below a directory has to be made anew.
func (r *round) anyDirty(dir string) bool {
	if dir != "" {
		dir += "/"
	}
	i, _ := slices.BinarySearch(r.dirtyPaths, dir)
	return i < len(r.dirtyPaths) && strings.HasPrefix(r.dirtyPaths[i], dir)
}

// compare notes the files of one directory that went and came, and everything
// below directories that went.
func (r *round) compare(before, now *dir) {
	for _, f := range now.files {
		if before == nil || find(before.files, f.path) != f {
			r.came = append(r.came, f)
		}
	}
	if before == nil {
		return
	}
	for _, f := range before.files {
		if find(now.files, f.path) != f {
			r.gone = append(r.gone, f)
		}
	}
	for _, sub := range before.dirs {
		if find(now.dirs, sub.path) == nil {
			r.leave(sub)
		}
	}
}

func (r *round) leave(d *dir) {
	r.gone = append(r.gone, d.files...)
	for _, sub := range d.dirs {
		r.leave(sub)
	}
}

// readIgnore sets the rules inside d.
func (r *round) readIgnore(d, before *dir, entries []sources.Entry) error {
	i := slices.IndexFunc(entries, func(e sources.Entry) bool { return path.Base(e.Path) == IgnoreFile })
	if i < 0 {
		return nil
	}
	e := entries[i]
	d.ignore = FileRead{Path: e.Path, Hash: e.Hash}
	if before != nil && before.ignore == d.ignore && before.outer == d.outer {
		d.rules = before.rules
		return nil
	}
	var err error
	d.rules, err = r.loadRules(d.rules, d.path, e)
	return err
}

func isFile(e sources.Entry) bool { return e.Mode == sources.ModeFile || e.Mode == sources.ModeExec }

// loadRules adds an ignore file to the rules.
func (r *round) loadRules(outer *rules, dir string, e sources.Entry) (*rules, error) {
	if !isFile(e) {
		r.report(&manifest.Error{Path: e.Path, Msg: fmt.Sprintf("is a %s and not a file", e.Mode), Hint: "make it a file or remove it"})
		return outer, nil
	}
	data, problem, err := r.read(e.Path, r.limits.Manifest.ObjectBytes, "shorten it")
	if err != nil {
		return nil, err
	}
	if problem == nil && !utf8.Valid(data) {
		problem = complain("the file is not UTF-8", "save it as UTF-8")
	}
	if problem != nil {
		r.report(problem.at(manifest.Origin{Path: e.Path}))
		return outer, nil
	}
	for i, line := range strings.Split(string(data), "\n") {
		if _, err := path.Match(strings.TrimSpace(line), ""); err != nil && !strings.HasPrefix(line, "#") {
			r.report(&manifest.Error{Path: e.Path, Line: i + 1, Msg: "the pattern is malformed", Hint: "close the bracket, or escape it with a backslash"})
		}
	}
	return outer.with(dir, e, data), nil
}

// collisions reports names that are one name on another file system.
func (r *round) collisions(entries []sources.Entry) {
	folded := make(map[string]string, len(entries))
	fold := cases.Fold()
	for _, e := range entries {
		name := path.Base(e.Path)
		key := norm.NFC.String(fold.String(name))
		if first, ok := folded[key]; ok {
			r.report(&manifest.Error{Path: e.Path,
				Msg:  fmt.Sprintf("the name %+q differs from %+q only in case or in the encoding of accents", name, first),
				Hint: "rename one of them, or name one in " + IgnoreFile})
			continue
		}
		folded[key] = name
	}
}

// seal computes totals and the digest of a directory from the bottom up. It goes
// into new directories only.
func (d *dir) seal() {
	if d.sealed {
		return
	}
	d.sealed = true
	h := sha256.New()
	if d.ignore.Path != "" {
		d.count++
		writeParts(h.Write, "ignore", d.ignore.Path, string(d.ignore.Hash))
		if d.rules != nil && d.rules.read == d.ignore {
			d.bytes += d.rules.size
		}
	}
	for _, f := range d.files {
		d.count++
		d.bytes += f.bytes
		for _, u := range f.units {
			d.bytes += u.size
		}
		writeParts(h.Write, "file", f.digest)
	}
	for _, sub := range d.dirs {
		sub.seal()
		d.count += sub.count
		d.nested += 1 + sub.nested
		d.bytes += sub.bytes
		if sub.count > 0 {
			writeParts(h.Write, "dir", sub.digest)
		}
	}
	d.digest = string(h.Sum(nil))
}

// sum returns the digest of what a manifest depends on.
func (f *file) sum() string {
	h := sha256.New()
	writeParts(h.Write, f.path, string(f.hash))
	for _, u := range f.units {
		writeParts(h.Write, u.read.Path, string(u.read.Hash))
	}
	return string(h.Sum(nil))
}
