package file

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// strangersField is the field of a Directory that lists what nobody declared in it.
const strangersField manifest.Pointer = "/spec/strangers"

// strangers lists the entries of a directory that nobody has declared: neither on
// record nor in known, nor on the way to something that is. Records of roots
// within the directory count; open opens one.
func (t *tree) strangers(dir string, open func(*root) (*tree, error), known func(p string) bool) ([]string, error) {
	fd, err := t.dir(dir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	list, err := entries(fd)
	if err != nil {
		return nil, explain(err, dir)
	}
	declared, err := t.recorded(dir, open)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range list {
		p := path.Join(dir, name)
		if name == stateDir { // that of another target's root
			continue
		}
		if _, err := t.a.allowed(p); errors.Is(err, ErrProtected) || declared[p] || known(p) {
			continue
		}
		found = append(found, name)
	}
	return found, nil
}

// recorded returns every path below a directory that is on record, is a root, or
// leads to one of these.
func (t *tree) recorded(dir string, open func(*root) (*tree, error)) (map[string]bool, error) {
	declared := map[string]bool{}
	mark := func(p string) {
		for ; len(p) > len(dir); p = path.Dir(p) {
			declared[p] = true
		}
	}
	trees := []*tree{t}
	for _, r := range t.a.roots {
		if r == t.root || !within(r.path, dir) {
			continue
		}
		mark(r.path)
		other, err := open(r)
		if errors.Is(err, unix.ENOENT) { // nothing is there that could be a stranger
			continue
		}
		if err != nil {
			return nil, err
		}
		trees = append(trees, other)
	}
	for _, other := range trees {
		for _, rec := range other.records() {
			if within(rec.Path, dir) {
				mark(rec.Path)
			}
		}
	}
	return declared, nil
}

// within reports whether a path is a directory or lies in it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// stays says why a stranger cannot be removed, or "" when it can: what is no
// file, link or empty directory has to go by hand.
func (t *tree) stays(p string) (string, error) {
	if err := checkPath(p); err != nil {
		return err.Error(), nil
	}
	dir, name, err := t.parent(p)
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return "", explain(err, p)
	}
	l := newLook(&st)
	switch l.kind() {
	case kindFile, kindSymlink:
		return "", nil
	case kindDirectory:
		return t.occupied(p)
	}
	return fmt.Sprintf("%s is %s", p, l.typeOf()), nil
}

// occupied says what keeps a directory from being removed, or "".
func (t *tree) occupied(p string) (string, error) {
	fd, err := t.dir(p)
	if errors.Is(err, ErrMount) {
		return fmt.Sprintf("%s is a mount point", p), nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	names, err := entries(fd)
	if err != nil {
		return "", explain(err, p)
	}
	if len(names) > 0 {
		return fmt.Sprintf("%s is a directory that is not empty (%s)", p, someOf(names)), nil
	}
	return "", nil
}

// removal is what writing a directory that asks for it would remove.
func (t *tree) removal(dir string, names []string) (plan.Removal, error) {
	r := plan.Removal{Field: strangersField}
	for _, name := range names {
		p := path.Join(dir, name)
		why, err := t.stays(p)
		if errors.Is(err, unix.ENOENT) { // gone since it was listed
			continue
		}
		if err != nil {
			return r, err
		}
		if why == "" {
			r.Addresses = append(r.Addresses, p)
		}
	}
	return r, nil
}

// removeStrangers removes, from exclusive directories that ask for it, what
// nobody has declared and the plan names. Everything is kept first. It comes
// last, when all that this Apply writes has been written. What has appeared since
// the plan was made stays: nobody has looked at it.
func (r *run) removeStrangers(ctx context.Context) {
	for _, j := range append(r.in(jobWritten), r.in(jobSame)...) {
		if j.want == nil || !j.want.remove {
			continue
		}
		if err := r.clearDirectory(ctx, j); err != nil {
			j.end(appliers.Result{Outcome: appliers.Uncertain, Err: withClass(fmt.Errorf("remove what is not declared: %w", err))})
		}
	}
}

func (r *run) clearDirectory(ctx context.Context, j *job) error {
	names, err := j.tree.strangers(j.path, func(root *root) (*tree, error) { return r.tree(ctx, root) }, r.declared)
	if err != nil {
		return err
	}
	var left []string
	for _, name := range names {
		p := path.Join(j.path, name)
		why, err := j.tree.stays(p)
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return err
		case why != "":
			left = append(left, why)
		case !slices.Contains(j.op.Change.Removes, p):
		default:
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := r.removeStranger(j, p); err != nil {
				return err
			}
		}
	}
	if len(left) > 0 {
		return appliers.WithClass(appliers.Wait, fmt.Errorf("%s; remove it by hand", strings.Join(left, "; ")))
	}
	return nil
}

func (r *run) removeStranger(j *job, p string) error {
	l, err := j.tree.look(p)
	if err != nil || l.absent {
		return err
	}
	backup, err := r.keep(j.tree, p, l)
	if err != nil {
		return err
	}
	dir, name, err := j.tree.parent(p)
	if err != nil {
		return err
	}
	err = r.do(effect.FileRemove, p, func() error { return unix.Unlinkat(dir, name, l.unlink()) })
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	r.a.looks.drop(p)
	r.a.count(func(s *Stats) { s.StrangersRemoved++ })
	j.result.Removed = append(j.result.Removed, appliers.Removed{Address: p, Backup: j.tree.backupPath(backup)})
	return r.touchPath(j, dir, path.Dir(p))
}
