package file

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// nothingBelow says that nothing can be at a path: above it is a file, or a link of
// our own, which is where it ends for us.
type nothingBelow struct{ error }

func (e nothingBelow) Unwrap() error { return e.error }

// noWay names what is no directory on the way down a path, its end included. The
// kernel tells a link from other things in some places only.
func (t *tree) noWay(err error, rel, p string) error {
	at := t.root.path
	for part := range strings.SplitSeq(rel, "/") {
		dir, found := t.fd, unix.Stat_t{}
		if at != t.root.path {
			fd, err := t.root.step(t.fd, t.rel(at), unix.O_DIRECTORY|unix.O_PATH, t.root.cross)
			if err != nil {
				break
			}
			defer unix.Close(fd)
			dir = fd
		}
		at = path.Join(at, part)
		if unix.Fstatat(dir, part, &found, unix.AT_SYMLINK_NOFOLLOW) != nil {
			break
		}
		switch l := newLook(&found); l.typ {
		case unix.S_IFDIR:
		case unix.S_IFLNK:
			err := fmt.Errorf("%w: %s is one; declare the real path", ErrSymlink, at)
			if t.record(at).wrote(kindSymlink) {
				return nothingBelow{err}
			}
			return err
		case unix.S_IFREG:
			return nothingBelow{fmt.Errorf("%s is %s: %w; remove it by hand, or declare another path than %s", at, l.typeOf(), unix.ENOTDIR, p)}
		default:
			return fmt.Errorf("%s is %s: %w; remove it by hand, or declare another path than %s", at, l.typeOf(), unix.ENOTDIR, p)
		}
	}
	return explain(err, p) // it has changed meanwhile
}
