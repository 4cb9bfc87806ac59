package render

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"golang.org/x/sync/errgroup"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/sources"
)

// Renderer renders paths of trees. The zero value is ready; it holds no state
// and is safe for concurrent use.
type Renderer struct {
	// Parallel is how many files one Render decodes at a time; default GOMAXPROCS.
	Parallel int
}

// Render returns the objects below spec.Path in the tree, and what changed since
// prev (nil: since nothing). The cost follows the change: directories and files
// with the hash they had in prev are neither read nor decoded.
//
// It is all or nothing. A problem of the content is an error of type
// manifest.Errors that names every place; prev stays as it is. A path that is
// missing or of the wrong type is such an error and never an empty State. Every
// other error means that the tree could not be read, or that ctx ended.
func (rr *Renderer) Render(ctx context.Context, tree sources.Tree, spec Spec, prev *State) (*State, *Delta, error) {
	if err := spec.validate(); err != nil {
		return nil, nil, fmt.Errorf("render: %w", err)
	}
	spec.Path = clean(spec.Path)
	limits := spec.Limits.withDefaults()
	r := &round{tree: tree, path: spec.Path, limits: limits, vars: spec.variables(), references: map[string]*reference{}}
	next := &State{revision: tree.Revision(), spec: spec.Digest(), limits: limits, objects: iradix.New[*manifest.Object](), watch: newWatch()}
	reuse := &State{watch: newWatch()}
	if prev != nil {
		next.objects = prev.objects
		if prev.spec == next.spec && prev.limits == limits {
			reuse = prev
		} else {
			r.leave(prev.root)
		}
	}
	if err := r.run(ctx, rr.parallel(), next, reuse); err != nil {
		return nil, nil, fmt.Errorf("render %q %s: %w", spec.Path, place(tree), err)
	}
	if err := manifest.Join(r.problems); err != nil {
		return nil, nil, err
	}
	var d *Delta
	var twice []*manifest.Error
	next.objects, d, twice = delta(next.objects, r.gone, r.came)
	if err := manifest.Join(twice); err != nil {
		return nil, nil, err
	}
	d.Stats = Stats{DirsRead: r.dirsRead, FilesRead: int(r.filesRead.Load()), FilesDecoded: int(r.decoded.Load()), ObjectsExpanded: int(r.expanded.Load())}
	return next, d, nil
}

func (rr *Renderer) parallel() int {
	if rr.Parallel > 0 {
		return rr.Parallel
	}
	return runtime.GOMAXPROCS(0)
}

// round is the work of one Render. The walk runs in one goroutine; the jobs that
// it leaves run in several, and share what stands below mu.
type round struct {
	tree       sources.Tree
	path       string
	limits     Limits
	vars       map[string]any
	dirty      map[string]bool // manifests that refer to a changed file
	dirtyPaths []string        // the same, sorted
	jobs       []job
	gone, came []*file
	dirsRead   int
	dirs       int  // met by the walk
	files      int  // manifests met by the walk
	full       bool // more of them than there may be: the walk has ended

	filesRead, decoded, expanded atomic.Int64
	bytes                        atomic.Int64 // read and made in this round

	mu         sync.Mutex
	problems   []*manifest.Error
	references map[string]*reference
}

// job fills one file: by decoding it, or, with the units it had, by expanding
// these again.
type job struct {
	f     *file
	units []unit
}

func (r *round) report(e *manifest.Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.problems = append(r.problems, e)
}

// run fills next but for its objects. Problems of the content are left in the
// round; an error is anything else.
func (r *round) run(ctx context.Context, parallel int, next, reuse *State) error {
	changed, dirty, err := reuse.watch.changes(r.tree)
	if err != nil {
		return err
	}
	r.dirty, r.dirtyPaths = dirty, slices.Sorted(maps.Keys(dirty))
	root, err := r.rootEntry()
	if root == nil || err != nil {
		return err
	}
	if next.above, err = r.rulesAbove(reuse.above); err != nil {
		return err
	}
	if r.excluded(next.above, *root) {
		return nil
	}
	if root.Mode == sources.ModeDir {
		next.root, err = r.walk(ctx, *root, reuse.root, next.above, 1)
	} else {
		next.root = r.single(*root, reuse.root, next.above)
	}
	if err != nil {
		return err
	}
	if r.full {
		return nil
	}
	if err := r.runJobs(ctx, parallel); err != nil {
		return err
	}
	if len(r.problems) > 0 {
		return nil
	}
	next.root.seal()
	r.checkTotals(next.root)
	next.input = inputDigest(next)
	next.watch, err = reuse.watch.update(changed, r.gone, r.came, func(p string) (seen, error) { return stat(r.tree, p) })
	return err
}

// rootEntry returns what stands at the path, or nil after reporting what is wrong.
func (r *round) rootEntry() (*sources.Entry, error) {
	here := manifest.Origin{Path: named(r.path)}
	problem, err := r.plainPath(r.path, "the rendered path")
	if err != nil {
		return nil, err
	}
	if problem != nil {
		problem.hint = "correct the path of the Application, or the files; nothing is removed meanwhile"
		r.report(problem.at(here))
		return nil, nil
	}
	e, err := r.tree.Stat(r.path)
	if err != nil {
		return nil, err
	}
	e.Path = r.path
	if e.Mode != sources.ModeDir && !manifest.IsManifest(path.Base(r.path)) {
		r.report(&manifest.Error{Path: here.Path, Msg: fmt.Sprintf("is a %s and no manifest", e.Mode), Hint: "name a directory, or a .yaml, .yml or .json file"})
		return nil, nil
	}
	return &e, nil
}

// rulesAbove returns the rules in force above the path, from the files of before
// where these are still the same.
func (r *round) rulesAbove(before *rules) (*rules, error) {
	known := map[string]*rules{}
	for ; before != nil; before = before.outer {
		known[before.id] = before
	}
	var above *rules
	for _, d := range ancestors(r.path) {
		p := path.Join(d, IgnoreFile)
		e, err := r.tree.Stat(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		e.Path = p
		if same := known[above.next(e)]; same != nil && isFile(e) {
			above = same
			continue
		}
		if above, err = r.loadRules(above, d, e); err != nil {
			return nil, err
		}
	}
	return above, nil
}

// excluded reports a path that an ignore file above it leaves out.
func (r *round) excluded(above *rules, root sources.Entry) bool {
	for _, p := range append(ancestors(root.Path), root.Path) {
		e := sources.Entry{Path: p, Mode: sources.ModeDir}
		if p == root.Path {
			e.Mode = root.Mode
		}
		if p != "" && above.ignores(e) {
			r.report(&manifest.Error{Path: root.Path, Msg: "the rendered path is left out by a " + IgnoreFile + " above it", Hint: "change the pattern or the path"})
			return true
		}
	}
	return false
}

// single renders a path that is one file.
func (r *round) single(e sources.Entry, before *dir, above *rules) *dir {
	d := &dir{path: e.Path, hash: e.Hash, outer: above.ID(), rules: above}
	var f *file
	if before != nil {
		f = find(before.files, e.Path)
	}
	d.files = []*file{r.file(e.Path, e.Hash, f)}
	r.compare(before, d)
	return d
}

// runJobs decodes and expands, several files at a time.
func (r *round) runJobs(ctx context.Context, parallel int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, j := range r.jobs {
		g.Go(func() error {
			if ctx.Err() != nil || r.over() {
				return ctx.Err()
			}
			return r.do(ctx, j)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if r.over() {
		r.problems = []*manifest.Error{r.tooLarge()}
	}
	return nil
}

func (r *round) over() bool { return r.bytes.Load() > r.limits.TotalBytes }

func (r *round) tooLarge() *manifest.Error {
	return &manifest.Error{Path: named(r.path), Msg: fmt.Sprintf("the files and the contents made from them have more than %d bytes", r.limits.TotalBytes),
		Hint: "split the application, or raise the limit"}
}

func (r *round) tooManyFiles(n int) *manifest.Error {
	return &manifest.Error{Path: named(r.path), Msg: fmt.Sprintf("%d files are more than the limit of %d", n, r.limits.Files), Hint: "split the application, or raise the limit"}
}

func (r *round) tooManyDirs() *manifest.Error {
	return &manifest.Error{Path: named(r.path), Msg: fmt.Sprintf("there are more than %d directories below it", r.limits.Dirs), Hint: "split the application, or name some in " + IgnoreFile}
}

func (r *round) checkTotals(d *dir) {
	if d.count > r.limits.Files {
		r.report(r.tooManyFiles(d.count))
	}
	if d.nested > r.limits.Dirs {
		r.report(r.tooManyDirs())
	}
	if d.bytes > r.limits.TotalBytes {
		r.report(r.tooLarge())
	}
}

// do fills one file.
func (r *round) do(ctx context.Context, j job) error {
	f, units := j.f, j.units
	if units == nil {
		var err error
		if units, err = r.decode(f); err != nil {
			return err
		}
	}
	for _, u := range units {
		if old := u; j.units != nil && !r.stale(old) {
			f.units = append(f.units, old)
			continue
		}
		n, problem, err := r.expand(ctx, u.raw)
		if err != nil {
			return err
		}
		if problem != nil {
			at := u.raw.Origin()
			at.Line = FieldLine(r.tree, at, problem.field)
			r.report(problem.at(at))
			continue
		}
		r.bytes.Add(n.size)
		f.units = append(f.units, n)
	}
	f.digest = f.sum()
	return nil
}

// FieldLine returns the line of a field of an object that was rendered from tree
// and stands at o: that of its nearest ancestor where the field is missing, and
// o.Line where the file cannot be read. It reads the file again, so it is for
// errors only.
func FieldLine(tree sources.Tree, o manifest.Origin, field manifest.Pointer) int {
	if field == "" {
		return o.Line
	}
	data, err := tree.ReadFile(o.Path, manifest.Limits{}.WithDefaults().FileBytes)
	if err != nil {
		return o.Line
	}
	return manifest.FieldLine(o.Path, data, o.Line, field)
}

// stale reports whether the file that an object refers to has changed.
func (r *round) stale(u unit) bool {
	if u.read.Path == "" {
		return false
	}
	now, err := stat(r.tree, u.read.Path)
	return err != nil || now.hash != u.read.Hash || (now.mode != sources.ModeFile && now.mode != sources.ModeExec)
}

// decode reads one manifest.
func (r *round) decode(f *file) ([]unit, error) {
	data, problem, err := r.read(f.path, r.limits.Manifest.FileBytes, "split it, or name it in "+IgnoreFile)
	if err != nil {
		return nil, err
	}
	if problem != nil {
		r.report(problem.at(manifest.Origin{Path: f.path}))
		return nil, nil
	}
	f.bytes = int64(len(data))
	r.bytes.Add(f.bytes)
	r.decoded.Add(1)
	objects, err := manifest.Decode(f.path, data, r.limits.Manifest)
	if err != nil {
		var problems manifest.Errors
		if !errors.As(err, &problems) {
			return nil, err
		}
		for _, p := range problems {
			r.report(p)
		}
		return nil, nil
	}
	units := make([]unit, len(objects))
	for i, o := range objects {
		at := o.Origin()
		at.Revision = r.tree.Revision()
		units[i] = unit{raw: o.At(at)}
	}
	return units, nil
}

func inputDigest(s *State) string {
	h := sha256.New()
	writeParts(h.Write, version, s.spec, s.above.ID(), s.root.digest)
	return hex.EncodeToString(h.Sum(nil))
}

// named gives the root of the tree a name.
func named(p string) string { return cmp.Or(p, ".") }
