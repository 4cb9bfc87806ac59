package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gitopsd/gitopsd/internal/api"
)

// roleFlags are the flags of gitopsd run that give users and groups of the host
// a role.
type roleFlags struct {
	users, groups [api.RoleApprover + 1][]string // by role
	emails        []string                       // USER=ADDRESS
}

// roleWords is what each role may do, for the help.
var roleWords = [...]string{
	api.RoleViewer:   "look",
	api.RoleOperator: "look, sync, suspend and resume",
	api.RoleApprover: "do everything, approve included",
}

func (r *roleFlags) register(f *pflag.FlagSet) {
	for role := api.RoleViewer; role <= api.RoleApprover; role++ {
		f.StringSliceVar(&r.users[role], role.String()+"-user", nil, "user, by name or number, who may "+roleWords[role]+"; may be repeated")
		f.StringSliceVar(&r.groups[role], role.String()+"-group", nil, "group, by name or number, whose members may "+roleWords[role]+"; may be repeated")
	}
	f.StringSliceVar(&r.emails, "principal-email", nil, "USER=ADDRESS: an address that the user, by name or number, commits under, so that they do not approve their own commits; may be repeated")
}

// given reports whether anybody got a role.
func (r *roleFlags) given() bool {
	for role := range r.users {
		if len(r.users[role])+len(r.groups[role]) > 0 {
			return true
		}
	}
	return false
}

// access says who may open the socket. A socket has one group; roles may be
// given to more, and to users. Then everybody may knock, and who has no role is
// sent away: the kernel says who it is.
func (r *roleFlags) access(socketGroup string) api.Access {
	return api.Access{Group: socketGroup, Everyone: socketGroup == "" && r.given()}
}

// roles looks up the users and groups. Root and the daemon's own user are
// approvers whatever the flags say.
func (r *roleFlags) roles(socketGroup string) (api.Roles, error) {
	out := api.DefaultRoles()
	if r.access(socketGroup).Everyone {
		out.Others = api.NoRole
	}
	for role := api.RoleViewer; role <= api.RoleApprover; role++ {
		for _, name := range r.users[role] {
			if err := out.GrantUser(strings.TrimSpace(name), role); err != nil {
				return out, hinted(fmt.Errorf("--%s-user: %w", role, err), "name one that getent passwd knows, or a number")
			}
		}
		for _, name := range r.groups[role] {
			if err := out.GrantGroup(strings.TrimSpace(name), role); err != nil {
				return out, hinted(fmt.Errorf("--%s-group: %w", role, err), "name one that getent group knows, or a number")
			}
		}
	}
	for _, text := range r.emails {
		name, address, _ := strings.Cut(text, "=")
		if !strings.Contains(address, "@") {
			return out, hinted(fmt.Errorf("--principal-email %s: there is no address", text), "write it as --principal-email ada=ada@example.org")
		}
		if err := out.AddEmail(strings.TrimSpace(name), strings.TrimSpace(address)); err != nil {
			return out, hinted(fmt.Errorf("--principal-email: %w", err), "name one that getent passwd knows, or a number")
		}
	}
	return out, nil
}
