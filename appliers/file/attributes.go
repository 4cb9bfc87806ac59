package file

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// dress gives a temporary file the attributes of the file it will replace, then
// its owner, then its mode, and makes it durable.
func dress(dir int, name string, f *os.File, m meta) error {
	copyAttributes(dir, name, int(f.Fd()))
	return give(int(f.Fd()), m)
}

// give sets owner and mode of what is open, where they differ, and makes it durable.
func give(fd int, m meta) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != m.uid || st.Gid != m.gid {
		if err := unix.Fchown(fd, int(m.uid), int(m.gid)); err != nil {
			return fmt.Errorf("give it to user %d and group %d: %w; only root may do that: run gitopsd as root, or leave owner and group out", m.uid, m.gid, err)
		}
	}
	if err := unix.Fchmod(fd, m.mode); err != nil {
		return fmt.Errorf("set its mode to %s: %w; only its owner and root may do that: run gitopsd as root, or give it to gitopsd's user", modeString(m.mode), err)
	}
	return unix.Fsync(fd)
}

// copyAttributes copies the extended attributes that administrators set: labels,
// access lists, and the user's own. It is best effort, as file systems differ in
// which they keep.
func copyAttributes(dir int, name string, to int) {
	from, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(from)
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, list)
	if err != nil {
		return
	}
	for _, attr := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if attr != "security.selinux" && attr != "system.posix_acl_access" && !strings.HasPrefix(attr, "user.") {
			continue
		}
		value := make([]byte, 64<<10)
		if n, err := unix.Fgetxattr(from, attr, value); err == nil {
			_ = unix.Fsetxattr(to, attr, value[:n], 0)
		}
	}
}

// real refuses to write into the kernel's own file systems, however one came there.
func real(dir int, p string) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil {
		return explain(err, p)
	}
	switch int64(st.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.SECURITYFS_MAGIC:
		return fmt.Errorf("%w: %s lies in a file system of the kernel", ErrProtected, p)
	}
	return nil
}
