package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// prepare reads all operations and what is there, and ends those that must not
// or need not be carried out.
func (r *run) prepare(ctx context.Context) {
	var err error
	if r.pending, err = r.a.pending(ctx); err != nil {
		for _, j := range r.jobs {
			j.end(refusal(err))
		}
		return
	}
	for _, j := range r.jobs {
		if err := r.prepareJob(ctx, j); err != nil {
			j.end(refusal(err))
		}
	}
	// By directory, so that a directory stands before its entries and each is opened once.
	slices.SortStableFunc(r.jobs, func(x, y *job) int {
		return cmp.Or(strings.Compare(path.Dir(x.path), path.Dir(y.path)), strings.Compare(x.path, y.path))
	})
}

func (r *run) prepareJob(ctx context.Context, j *job) error {
	c := j.op.Change
	switch {
	case c.Desired != nil:
		j.want = fromResolved(c.Desired)
		j.path = j.want.path
	case j.deletes():
		j.path = c.Entry.Locator
	default:
		return appliers.WithClass(appliers.Stop, fmt.Errorf("%s without a desired object", c.Action))
	}
	root, err := r.a.allowed(j.path)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("not begun: %w", err)
	}
	if j.tree, err = r.tree(ctx, root); err != nil {
		return err
	}
	if e := j.tree.epoch(); j.op.Epoch < e {
		return appliers.WithClass(appliers.Stop, fmt.Errorf(
			"epoch %d is over: epoch %d has written below %s, and this process may not any more", j.op.Epoch, e, root.path))
	}
	if j.found, err = j.tree.look(j.path); err != nil {
		return err
	}
	j.old = j.tree.record(j.path)
	j.rec = r.recordFor(j)
	if j.deletes() {
		return r.prepareDelete(j)
	}
	return r.prepareWrite(j)
}

// recordFor is what the ledger says of the job's path once it is done. What
// stays true from before is kept.
func (r *run) recordFor(j *job) *record {
	rec := &record{Path: j.path, ID: j.op.Change.Key.ID, Application: j.op.Application, Epoch: j.op.Epoch}
	if old := j.old; old != nil {
		rec.Known, rec.Adopted, rec.Backup = old.ours(), old.Adopted, old.Backup
		rec.OnChange, rec.OnPrune, rec.Sensitive = old.OnChange, old.OnPrune, old.Sensitive
	}
	if s := j.want; s != nil {
		rec.OnChange, rec.OnPrune, rec.Sensitive = s.onChange, s.onPrune, s.sensitive
		rec.Digest = r.a.digestOf(s)
		if s.keep {
			rec.Digest = r.a.digest(j.found)
		}
		if rec.OnPrune == pruneDelete {
			rec.OnPrune = ""
		}
	}
	return rec
}

func (r *run) prepareWrite(j *job) error {
	c := j.op.Change
	if c.Action == plan.Adopt && j.found.absent {
		return appliers.WithClass(appliers.Retry, errors.New("to be adopted, but it is gone; observe again"))
	}
	same, err := r.same(j)
	if err != nil {
		return err
	}
	if same {
		if c.Action == plan.Adopt && !j.rec.Known {
			r.willKeep(j)
		}
		j.state = jobSame
		return nil
	}
	if c.Action == plan.Adopt {
		return appliers.WithClass(appliers.Retry, errors.New("to be adopted as it is, but it differs now; observe again"))
	}
	if j.found.absent {
		return nil
	}
	if c.Action == plan.Create && !c.Adopting {
		return appliers.WithClass(appliers.Retry, errors.New("to be created, but it is there already; observe again"))
	}
	if err := moved(j); err != nil {
		return err
	}
	if err := suitable(j); err != nil {
		return err
	}
	// The second is what a hand put in the place of something else of ours.
	if c.Adopting || j.rec.Known && !j.old.wrote(j.found.kind()) {
		r.willKeep(j)
	}
	return nil
}

// willKeep names the backup that the job is going to make, so that the ledger
// knows it before anything is replaced. The first adoption is the one to go
// back to; what we wrote ourselves is not kept.
func (r *run) willKeep(j *job) {
	if j.rec.Known && j.old.Digest == r.a.digest(j.found) {
		return
	}
	j.keeps = true
	if j.rec.Backup == "" || !j.tree.hasBackup(j.rec.Backup) {
		j.rec.Adopted, j.rec.Backup = true, j.tree.backupName(j.path, j.found)
	}
}

// moved holds a conditional write to its condition.
func moved(j *job) error {
	if v := j.op.Change.Version; v != "" && v != j.found.version() {
		return appliers.WithClass(appliers.Retry, errors.New("changed since it was looked at; observe again"))
	}
	return nil
}

// suitable reports why what is there cannot be replaced by what is wanted.
func suitable(j *job) error {
	if j.changesKind() && !(j.owned() && j.old.wrote(j.found.kind())) {
		return fmt.Errorf("%w: %s is %s that this application did not write; remove it by hand or declare another path", ErrOddType, j.path, j.found.typeOf())
	}
	if j.found.typ == unix.S_IFREG && j.found.nlink > 1 {
		return fmt.Errorf("%w: %s has %d names; make it a file of its own first", ErrHardLinks, j.path, j.found.nlink)
	}
	if !j.changesKind() {
		return nil
	}
	j.rec.Was = j.found.kind()
	if j.found.typ != unix.S_IFDIR {
		return nil
	}
	why, err := j.tree.occupied(j.path)
	if err == nil && why != "" {
		err = inUse(why, j.want.kind)
	}
	return err
}

// changesKind reports whether what is there is of another kind than what is wanted.
func (j *job) changesKind() bool {
	return j.want != nil && !j.found.absent && j.found.kind() != j.want.kind
}

// inUse refuses to replace a directory that is not empty.
func inUse(why, kind string) error {
	return appliers.WithClass(appliers.Wait, fmt.Errorf("%s; a %s takes its place once that is gone: declare it no longer, or move it by hand", why, kind))
}

// same reports whether what is there is as wanted.
func (r *run) same(j *job) (bool, error) {
	l, s := j.found, j.want
	if l.absent || l.kind() != s.kind {
		return false, nil
	}
	if s.kind == kindSymlink {
		return l.target == s.target, nil
	}
	uid, gid, err := r.owner(j)
	if err != nil {
		return false, err
	}
	same := l.perm == s.mode && l.uid == uid && l.gid == gid
	return same && (s.kind != kindFile || s.keep || l.sum == s.sum()), nil
}

// owner returns the user and group that the job's path is to have: as wanted, as
// they are, or our own for a new one.
func (r *run) owner(j *job) (uid, gid uint32, err error) {
	uid, gid = uint32(unix.Geteuid()), uint32(unix.Getegid())
	if j.found != nil && !j.found.absent {
		uid, gid = j.found.uid, j.found.gid
	}
	if j.want.owner != "" {
		if uid, err = r.names.uid(j.want.owner); err != nil {
			return 0, 0, appliers.WithClass(appliers.Wait, err)
		}
	}
	if j.want.group != "" {
		if gid, err = r.names.gid(j.want.group); err != nil {
			return 0, 0, appliers.WithClass(appliers.Wait, err)
		}
	}
	return uid, gid, nil
}

// prepareDelete decides what a delete does. Only what the ledger shows as the
// application's is touched: a delete that comes again, after the file was left
// or restored, finds no record and releases it once more.
func (r *run) prepareDelete(j *job) error {
	if !j.owned() {
		j.released, j.state = !j.found.absent, jobSame
		return nil
	}
	if j.old.OnPrune == pruneRestore {
		if j.backup = path.Base(j.op.Change.Entry.Backup); j.op.Change.Entry.Backup == "" {
			j.backup = j.rec.Backup
		}
	}
	leave := j.old.OnPrune == pruneLeave
	j.released = leave && !j.found.absent || j.backup != ""
	if leave || (j.found.absent && j.backup == "") {
		j.state = jobSame
		return nil
	}
	if j.found.absent {
		return nil
	}
	if kind := j.found.kind(); kind != j.op.Change.Key.ID.Kind && !j.old.wrote(kind) {
		return fmt.Errorf("%w: %s is %s, not what was written there; remove it by hand", ErrOddType, j.path, j.found.typeOf())
	}
	if j.backup != "" {
		if same, err := j.tree.isBackup(j.backup, j.found); err != nil || same {
			if same {
				j.state = jobSame
			}
			return err
		}
	}
	return moved(j)
}

// tree opens a root once, reads its ledger, and clears what a killed run left.
func (r *run) tree(ctx context.Context, root *root) (*tree, error) {
	if t, ok := r.trees[root]; ok {
		return t, nil
	}
	t, err := r.a.open(ctx, root)
	if err != nil {
		return nil, err
	}
	if err = t.hold(false); err == nil {
		err = t.fresh()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	r.trees[root] = t
	r.clear(t)
	return t, nil
}

// clear removes the temporary files of a run that was killed. The ledger says
// where it was writing; what cannot be cleared now is cleared another time.
func (r *run) clear(t *tree) {
	dirs := map[string]bool{}
	for _, rec := range t.records() {
		if rec.Pending {
			dirs[path.Dir(rec.Path)] = true
		}
	}
	for dir := range dirs {
		if fd, err := t.dir(dir); err == nil {
			r.clearDir(fd)
		}
	}
	if t.root.cleared {
		return
	}
	t.root.cleared = true
	if fd, err := t.state(false); err == nil {
		r.clearDir(fd)
	}
	if fd, err := t.backups(false); err == nil {
		r.clearDir(fd)
	}
}

func (r *run) clearDir(fd int) {
	defer unix.Close(fd)
	if n, err := removeTemps(fd); err == nil && n > 0 {
		r.a.count(func(s *Stats) { s.TempFilesRemoved += n })
	}
}

// declared reports whether a path belongs to somebody who has not written it
// yet: an operation of this Apply, or anything that is watched.
func (r *run) declared(p string) bool {
	for _, j := range r.jobs {
		if j.path == p || strings.HasPrefix(j.path, p+"/") {
			return true
		}
	}
	return r.a.watch.declared(p)
}
