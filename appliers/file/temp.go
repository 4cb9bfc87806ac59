package file

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"
)

// tempPrefix begins the names of files that are being written. They are made
// next to what they will replace, readable by us alone.
const tempPrefix = ".gitopsd-tmp-"

var tempRE = regexp.MustCompile(`^\.gitopsd-tmp-[0-9a-f]{16}$`)

func tempName(name string) bool { return tempRE.MatchString(name) }

func newTempName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return tempPrefix + hex.EncodeToString(b[:])
}

// createTemp makes an empty file of mode 0600 in a directory.
func createTemp(dirfd int) (*os.File, string, error) {
	name := newTempName()
	fd, err := unix.Openat(dirfd, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, "", err
	}
	return os.NewFile(uintptr(fd), name), name, nil
}

// replaceIn puts a file that fill writes in the place of name, whole and durably.
func replaceIn(dirfd int, name string, fill func(*os.File) error) error {
	f, temp, err := createTemp(dirfd)
	if err != nil {
		return err
	}
	defer f.Close()
	if err = fill(f); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = unix.Renameat(dirfd, temp, dirfd, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dirfd, temp, 0) // the first error is the one to tell
		return err
	}
	return unix.Fsync(dirfd)
}

// removeTemps removes the temporary files and empty directories in a directory. Nobody else may be
// writing there.
func removeTemps(dirfd int) (removed int, err error) {
	names, err := entries(dirfd)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if !tempName(name) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue
		}
		flags := 0
		switch t := st.Mode & unix.S_IFMT; {
		case t == unix.S_IFDIR: // goes only when it is empty
			flags = unix.AT_REMOVEDIR
		case (t != unix.S_IFREG && t != unix.S_IFLNK) || st.Nlink != 1:
			continue
		}
		if err := unix.Unlinkat(dirfd, name, flags); err == nil {
			removed++
		}
	}
	return removed, nil
}

// entries lists a directory, sorted by name.
func entries(dirfd int) ([]string, error) {
	fd, err := unix.Openat(dirfd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	list, err := f.ReadDir(-1)
	names := make([]string, len(list))
	for i, e := range list {
		names[i] = e.Name()
	}
	slices.Sort(names)
	return names, err
}
