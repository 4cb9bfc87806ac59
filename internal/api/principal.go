package api

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"sync"
)

// Role says what a principal may do. Each role may do what the ones before it may.
type Role uint8

// The roles. The zero value may do nothing.
const (
	NoRole Role = iota
	RoleViewer
	RoleOperator
	RoleApprover
)

// String returns the word used in configuration and messages.
func (r Role) String() string {
	return [...]string{"none", "viewer", "operator", "approver"}[r]
}

// Principal is who is calling.
type Principal struct {
	// Name is "user (uid N)", or "uid N" when the user has no name.
	Name string
	// Login is the user name, "" when the user has none.
	Login string
	// Emails are the addresses that Roles give the user.
	Emails []string
	UID    uint32
	Role   Role
}

// Roles maps the user and groups of a peer to roles; the highest that matches
// counts. It is immutable once in use.
type Roles struct {
	Users  map[uint32]Role
	Groups map[uint32]Role
	// Emails are the addresses that users commit under.
	Emails map[uint32][]string
	// Others is for whoever may open the socket and is in no map.
	Others Role
}

// DefaultRoles makes root and the daemon's own user approvers. Everybody else
// who may open the socket, which its mode limits to one group, is a viewer.
func DefaultRoles() Roles {
	return Roles{
		Users:  map[uint32]Role{0: RoleApprover, uint32(os.Geteuid()): RoleApprover},
		Groups: map[uint32]Role{},
		Emails: map[uint32][]string{},
		Others: RoleViewer,
	}
}

// GrantUser gives a user of this host, by name or number, at least a role.
// Roles must not be in use yet.
func (r Roles) GrantUser(name string, role Role) error {
	uid, err := lookupUser(name)
	if err == nil {
		r.Users[uid] = max(r.Users[uid], role)
	}
	return err
}

// GrantGroup gives the members of a group of this host, by name or number, at
// least a role. Roles must not be in use yet.
func (r Roles) GrantGroup(name string, role Role) error {
	gid, err := lookupGroup(name)
	if err == nil {
		r.Groups[gid] = max(r.Groups[gid], role)
	}
	return err
}

// of returns the role of a user who is in the given groups.
func (r Roles) of(uid uint32, groups []uint32) Role {
	role := max(r.Others, r.Users[uid])
	for gid, granted := range r.Groups {
		if slices.Contains(groups, gid) {
			role = max(role, granted)
		}
	}
	return role
}

// AddEmail says that a user of this host, by name or number, commits under an
// address. Roles must not be in use yet.
func (r Roles) AddEmail(name, address string) error {
	uid, err := lookupUser(name)
	if err == nil {
		r.Emails[uid] = append(r.Emails[uid], address)
	}
	return err
}

type principalKey struct{}

// principalFrom returns who is calling, or false when the connection says nothing.
func principalFrom(ctx context.Context) (Principal, bool) {
	who, ok := ctx.Value(principalKey{}).(func() Principal)
	if !ok {
		return Principal{}, false
	}
	return who(), true
}

// withPeer notes in ctx who is at the other end of a Unix socket. Any other
// connection gets no principal and so no access. Names and groups are looked up
// at the first call, because that may take long and no other connection should
// wait for it.
func withPeer(ctx context.Context, conn net.Conn, roles Roles) context.Context {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	cred, err := peerCredentials(uc)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, principalKey{}, sync.OnceValue(func() Principal {
		return roles.principal(cred)
	}))
}

// principal adds to the groups of the calling process those that the user
// database of the host gives its user: a process that began before its user was
// put into a group counts as a member.
func (r Roles) principal(peer *peer) Principal {
	p := Principal{Name: fmt.Sprintf("uid %d", peer.uid), UID: peer.uid, Emails: r.Emails[peer.uid]}
	groups := peer.groups
	if u, err := user.LookupId(strconv.FormatUint(uint64(peer.uid), 10)); err == nil {
		p.Login = u.Username
		p.Name = fmt.Sprintf("%s (uid %d)", u.Username, peer.uid)
		groups = append(groups, groupsOf(u)...)
	}
	p.Role = r.of(peer.uid, groups)
	return p
}
