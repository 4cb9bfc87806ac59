package file

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/internal/effect"
)

// place moves a temporary file or link into the place of a path, in one step. On
// an error the temporary one is removed.
func (r *run) place(j *job, dir int, temp, name string) error {
	if j.changesKind() && j.found.typ == unix.S_IFDIR { // a rename does not replace it
		return r.exchange(j, dir, temp, name, 0)
	}
	err := r.do(effect.FileRename, j.path, func() error { return unix.Renameat(dir, temp, dir, name) })
	if err != nil {
		_ = unix.Unlinkat(dir, temp, 0) // the first error is the one to tell
	}
	return err
}

// turnIntoDirectory puts an empty directory in the place of a file or link.
func (r *run) turnIntoDirectory(j *job, dir int, name string) error {
	uid, gid, err := r.owner(j)
	if err != nil {
		return err
	}
	temp := newTempName()
	err = r.do(effect.FileMkdir, j.path, func() error { return unix.Mkdirat(dir, temp, 0o700) })
	if err == nil {
		err = r.do(effect.FileChmod, j.path, func() error {
			fd, err := j.tree.root.step(dir, temp, unix.O_RDONLY|unix.O_DIRECTORY, j.tree.root.cross)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return give(fd, meta{j.want.mode, uid, gid})
		})
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temp, unix.AT_REMOVEDIR)
		return settled(err)
	}
	if err := r.exchange(j, dir, temp, name, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	return r.touch(j, dir)
}

// exchange lets a temporary entry and the one at a path change places, in one
// step, and removes the old one from its new place. A directory that has been
// filled since it was looked at, and anything that is not what was looked at, goes
// back to where it was. newFlags are those of unlinkat for the temporary entry.
func (r *run) exchange(j *job, dir int, temp, name string, newFlags int) error {
	swap := func() error { return unix.Renameat2(dir, temp, dir, name, unix.RENAME_EXCHANGE) }
	err := r.do(effect.FileRename, j.path, swap)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
		return r.replaceInTwo(j, dir, temp, name, newFlags)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temp, newFlags)
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstatat(dir, temp, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && (st.Ino != j.found.ino || st.Dev != j.found.dev) {
		err = errors.New("was replaced since it was looked at; observe again")
	}
	if err == nil {
		err = r.do(effect.FileRemove, j.path, func() error { return unix.Unlinkat(dir, temp, j.found.unlink()) })
	}
	if err == nil || errors.Is(err, errUncertain) { // in doubt the old one is removed with other temporary files
		return err
	}
	if back := r.do(effect.FileRename, j.path, swap); back != nil {
		return fmt.Errorf("%w: %w; to put it back as it was: %w", errUncertain, err, back)
	}
	_ = unix.Unlinkat(dir, temp, newFlags)
	return r.filled(j, err)
}

// replaceInTwo is exchange for file systems that cannot: between its two steps
// nothing is at the path. A process that is killed there is completed by the next.
func (r *run) replaceInTwo(j *job, dir int, temp, name string, newFlags int) error {
	err := r.do(effect.FileRemove, j.path, func() error { return unix.Unlinkat(dir, name, j.found.unlink()) })
	if err != nil {
		_ = unix.Unlinkat(dir, temp, newFlags)
		return r.filled(j, err)
	}
	err = r.do(effect.FileRename, j.path, func() error { return unix.Renameat(dir, temp, dir, name) })
	if err != nil {
		_ = unix.Unlinkat(dir, temp, newFlags)
		return fmt.Errorf("%w: %w", errUncertain, err) // the old one is gone
	}
	return nil
}

// filled says of an error of rmdir what the directory holds.
func (r *run) filled(j *job, err error) error {
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	why, failed := j.tree.occupied(j.path)
	if failed != nil || why == "" {
		return err
	}
	return inUse(why, j.want.kind)
}

// unlink returns the flags of unlinkat that remove what was found.
func (l *look) unlink() int {
	if l.typ == unix.S_IFDIR {
		return unix.AT_REMOVEDIR
	}
	return 0
}
