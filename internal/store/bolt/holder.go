package bolt

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// holder describes the process that has a lock on the file, or returns "" where
// that cannot be told. Linux lists locks in /proc/locks as
//
//	1: FLOCK  ADVISORY  WRITE 4242 fe:00:131 0 EOF
//
// with the inode after the last colon. The device is not compared: overlay and
// btrfs show another one there than stat does.
func holder(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	locks, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer locks.Close()
	return holderIn(bufio.NewScanner(locks), fmt.Sprint(st.Ino))
}

func holderIn(locks *bufio.Scanner, inode string) string {
	for locks.Scan() {
		f := strings.Fields(locks.Text())
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], ":"+inode) {
			continue
		}
		pid := f[4]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			return ", probably by process " + pid
		}
		return fmt.Sprintf(", probably by process %s (%s)", pid, strings.TrimSpace(string(name)))
	}
	return ""
}
