package api

import (
	"errors"
	"fmt"
	"net"
	"os/user"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// peer is the process at the other end of a Unix socket, as the kernel noted it
// when the connection was made.
type peer struct {
	uid    uint32
	groups []uint32 // its primary group first
}

func peerCredentials(conn *net.UnixConn) (*peer, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var p *peer
	var optErr error
	err = raw.Control(func(fd uintptr) {
		var cred *unix.Ucred
		if cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); optErr == nil {
			p = &peer{uid: cred.Uid, groups: append([]uint32{cred.Gid}, peerGroups(fd)...)}
		}
	})
	if err := errors.Join(err, optErr); err != nil {
		return nil, err
	}
	return p, nil
}

// maxPeerGroups is the most groups that Linux gives a process (NGROUPS_MAX).
const maxPeerGroups = 65536

// peerGroups returns the supplementary groups of the peer, or nil where the
// kernel does not tell (before Linux 4.13). It tells those that the user
// database of this host does not know, as of a service with groups of its own or
// of a user who is in a directory service.
func peerGroups(fd uintptr) []uint32 {
	for n := 32; n <= maxPeerGroups; n *= 2 {
		gids := make([]uint32, n)
		size := uint32(n) * uint32(unsafe.Sizeof(gids[0]))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&gids[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return gids[:size/uint32(unsafe.Sizeof(gids[0]))]
		case unix.ERANGE:
			continue
		default:
			return nil
		}
	}
	return nil
}

// groupsOf returns the groups that the user database gives a user.
func groupsOf(u *user.User) []uint32 {
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	groups := make([]uint32, 0, len(ids))
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			groups = append(groups, uint32(n))
		}
	}
	return groups
}

func lookupUser(name string) (uint32, error) {
	if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(uid), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("user %s does not exist on this host", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(uid), err
}

func lookupGroup(name string) (uint32, error) {
	if gid, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(gid), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("group %s does not exist on this host", name)
	}
	gid, err := strconv.ParseUint(g.Gid, 10, 32)
	return uint32(gid), err
}
