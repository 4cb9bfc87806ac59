package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
)

// touched is a directory with changes that are not durable yet.
type touched struct {
	fd   int
	path string
	jobs []*job
}

// maxTouched is how many directories are kept open for one sync at the end.
const maxTouched = 64

// errUncertain marks an error after which it is not known whether the step was taken.
var errUncertain = errors.New("it is not certain whether this has happened")

// write carries out the open jobs: writes from the top down, then deletes from the bottom up.
func (r *run) write(ctx context.Context) {
	for _, j := range r.in(jobSame) {
		if err := r.keepFirst(j); err != nil {
			j.end(refusal(err))
		}
	}
	open := r.in(jobOpen)
	for _, j := range open {
		if !j.deletes() {
			r.carryOut(ctx, j, r.put)
		}
	}
	slices.Reverse(open)
	for _, j := range open {
		if j.deletes() {
			r.carryOut(ctx, j, r.remove)
		}
	}
}

func (r *run) carryOut(ctx context.Context, j *job, do func(context.Context, *job) error) {
	if err := ctx.Err(); err != nil {
		r.giveUp(ctx, j, fmt.Errorf("not begun: %w", err))
		return
	}
	err := do(ctx, j)
	r.a.looks.drop(j.path)
	if err != nil {
		r.giveUp(ctx, j, err)
		return
	}
	j.state = jobWritten
}

// giveUp ends a job that failed. When nothing has happened, nothing is left
// behind that would say otherwise.
func (r *run) giveUp(ctx context.Context, j *job, err error) {
	if errors.Is(err, errUncertain) {
		j.end(appliers.Result{Outcome: appliers.Uncertain, Err: withClass(err)})
		return
	}
	j.end(refusal(err))
	r.unexpect(ctx, j)
}

// definite reports whether an error of the kernel says that nothing was changed.
func definite(err error) bool {
	var errno unix.Errno
	return errors.As(err, &errno) && errno != unix.EIO && errno != unix.EINTR
}

// do passes one step through the seam. An error that leaves open whether the
// step was taken is marked.
func (r *run) do(name effect.Name, p string, step func() error) error {
	err := r.a.env.Effect(name, p, step)
	if err == nil || definite(err) {
		return explain(err, p)
	}
	return fmt.Errorf("%s: %w: %w", p, errUncertain, err)
}

// keepFirst backs up what the job takes over, and names the backup in its result.
func (r *run) keepFirst(j *job) error {
	if j.keeps {
		if _, err := r.keep(j.tree, j.path, j.found); err != nil {
			return fmt.Errorf("keep what is there: %w", err)
		}
	}
	if j.rec.Backup != "" && !j.deletes() {
		j.result.Backup = j.tree.backupPath(j.rec.Backup)
	}
	return nil
}

func (r *run) put(ctx context.Context, j *job) error {
	if err := r.keepFirst(j); err != nil {
		return err
	}
	if _, _, err := j.tree.parent(j.path); errors.Is(err, unix.ENOENT) {
		return appliers.WithClass(appliers.Wait, fmt.Errorf("directory %s does not exist; declare it as a Directory, or create it", path.Dir(j.path)))
	}
	switch j.want.kind {
	case kindDirectory:
		return r.putDirectory(j)
	case kindSymlink:
		return r.putSymlink(j)
	}
	uid, gid, err := r.owner(j)
	if err != nil {
		return err
	}
	if !j.found.absent && !j.changesKind() && (j.want.keep || j.found.sum == j.want.sum()) {
		err := r.chmod(j, unix.O_RDONLY|unix.O_NONBLOCK, uid, gid)
		if !errors.Is(err, unix.EACCES) || j.want.keep {
			return err
		}
	}
	return r.replace(ctx, j, j.want.content, meta{j.want.mode, uid, gid}, j.want.check)
}

// meta is the mode and owner of a file that is written.
type meta struct{ mode, uid, gid uint32 }

// replace puts new content in the place of a file, or where nothing is, in one
// step: nobody sees a part of it, and nobody can read it before it has the mode
// and owner it is to have.
func (r *run) replace(ctx context.Context, j *job, content []byte, m meta, check string) error {
	dir, name, err := j.tree.parent(j.path)
	if err != nil {
		return err
	}
	if err := real(dir, j.path); err != nil {
		return err
	}
	f, temp, err := r.fill(dir, j.path, content)
	if f != nil {
		defer f.Close()
	}
	if err == nil && check != "" {
		err = r.check(ctx, j, check, path.Join(path.Dir(j.path), temp))
	}
	if err == nil {
		err = r.do(effect.FileChmod, j.path, func() error { return dress(dir, name, f, m) })
	}
	if err != nil {
		if temp != "" {
			_ = unix.Unlinkat(dir, temp, 0) // the first error is the one to tell
		}
		return settled(err) // the temporary file is all that was touched
	}
	if err := r.place(j, dir, temp, name); err != nil {
		return err
	}
	r.a.count(func(s *Stats) { s.FilesWritten++ })
	return r.touch(j, dir)
}

// settled takes the doubt out of an error that came before anything was visible.
func settled(err error) error {
	if errors.Is(err, errUncertain) {
		return errors.New(strings.ReplaceAll(err.Error(), errUncertain.Error()+": ", ""))
	}
	return err
}

// fill makes a temporary file with the content, readable by us alone.
func (r *run) fill(dir int, p string, content []byte) (f *os.File, temp string, err error) {
	err = r.do(effect.FileWrite, p, func() error {
		var err error
		if f, temp, err = createTemp(dir); err != nil {
			return err
		}
		_, err = f.Write(content)
		return err
	})
	return f, temp, err
}

// chmod changes mode and owner of what is there, in place.
func (r *run) chmod(j *job, flags int, uid, gid uint32) error {
	dir, name, err := j.tree.parent(j.path)
	if err != nil {
		return err
	}
	fd, err := j.tree.root.step(dir, name, flags, j.tree.root.cross)
	if err != nil {
		return explain(err, j.path)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return explain(err, j.path)
	}
	if !j.found.absent && (st.Ino != j.found.ino || st.Mode&unix.S_IFMT != j.found.typ) {
		return errors.New("was replaced since it was looked at; observe again")
	}
	err = r.do(effect.FileChmod, j.path, func() error { return give(fd, meta{j.want.mode, uid, gid}) })
	if err != nil {
		return err
	}
	return r.touch(j, dir)
}

func (r *run) putDirectory(j *job) error {
	dir, name, err := j.tree.parent(j.path)
	if err != nil {
		return err
	}
	if err := real(dir, j.path); err != nil {
		return err
	}
	if j.changesKind() {
		return r.turnIntoDirectory(j, dir, name)
	}
	if j.found.absent {
		err := r.do(effect.FileMkdir, j.path, func() error { return unix.Mkdirat(dir, name, 0o700) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err := r.touch(j, dir); err != nil {
			return err
		}
	}
	uid, gid, err := r.owner(j)
	if err != nil {
		return err
	}
	return r.chmod(j, unix.O_RDONLY|unix.O_DIRECTORY, uid, gid)
}

func (r *run) putSymlink(j *job) error {
	dir, name, err := j.tree.parent(j.path)
	if err != nil {
		return err
	}
	if err := real(dir, j.path); err != nil {
		return err
	}
	temp := newTempName()
	err = r.do(effect.FileSymlink, j.path, func() error { return unix.Symlinkat(j.want.target, dir, temp) })
	if err != nil {
		_ = unix.Unlinkat(dir, temp, 0)
		return settled(err)
	}
	if err := r.place(j, dir, temp, name); err != nil {
		return err
	}
	return r.touch(j, dir)
}

// remove takes a path away, or puts back what adoption replaced.
func (r *run) remove(ctx context.Context, j *job) error {
	if j.backup != "" {
		return r.restore(ctx, j)
	}
	dir, name, err := j.tree.parent(j.path)
	if err != nil {
		return err
	}
	err = r.do(effect.FileRemove, j.path, func() error { return unix.Unlinkat(dir, name, j.found.unlink()) })
	switch {
	case errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST):
		return r.notEmpty(j)
	case err != nil && !errors.Is(err, unix.ENOENT):
		return err
	}
	return r.touch(j, dir)
}

func (r *run) notEmpty(j *job) error {
	fd, err := j.tree.dir(j.path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := entries(fd)
	if err != nil {
		return explain(err, j.path)
	}
	return appliers.WithClass(appliers.Wait, fmt.Errorf("%s is not empty (%s); it is removed when nothing is left in it", j.path, someOf(names)))
}

// touch notes that the directory of a job's path has to be made durable.
func (r *run) touch(j *job, dir int) error { return r.touchPath(j, dir, path.Dir(j.path)) }

func (r *run) touchPath(j *job, dir int, p string) error {
	key := j.tree.root.path + "\x00" + p
	d := r.dirs[key]
	if d == nil {
		if len(r.dirs) >= maxTouched {
			r.sync()
		}
		fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w: %w", p, errUncertain, err)
		}
		d = &touched{fd: fd, path: p}
		r.dirs[key] = d
	}
	if !slices.Contains(d.jobs, j) {
		d.jobs = append(d.jobs, j)
	}
	return nil
}

// sync makes every touched directory durable. Where that fails, nothing in it is
// certain, and the next try writes anew: an error of fsync is told only once.
func (r *run) sync() {
	for key, d := range r.dirs {
		err := r.a.env.Effect(effect.FileSyncDir, d.path, func() error { return unix.Fsync(d.fd) })
		unix.Close(d.fd)
		delete(r.dirs, key)
		if err == nil {
			continue
		}
		for _, j := range d.jobs {
			j.end(appliers.Result{Outcome: appliers.Uncertain, Err: fmt.Errorf("make %s durable: %w", d.path, err)})
		}
	}
}
