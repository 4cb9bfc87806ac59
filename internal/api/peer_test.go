package api_test

import (
	"context"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/api/apitest"
)

// TestCallersOfTheHost: who calls over a real socket is who the kernel says,
// with the groups of the process and those of the user database (rows F-96,
// F-97).
func TestCallersOfTheHost(t *testing.T) {
	granted := api.DefaultRoles()
	granted.Others = api.NoRole
	for _, err := range []error{
		granted.GrantUser("41001", api.RoleViewer), granted.GrantUser("41002", api.RoleOperator),
		granted.GrantGroup("42001", api.RoleOperator), granted.GrantGroup("42002", api.RoleApprover),
		granted.GrantGroup("42002", api.RoleViewer), // the highest counts
		granted.GrantUser("0", api.RoleViewer),      // root cannot be lowered
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	socket := serveIn(t, apitest.Dir(t), api.Access{Everyone: true}, granted)
	many := []uint32{42002}
	for i := range 200 {
		many = append(many, uint32(50000+i))
	}
	for name, c := range map[string]struct {
		who  apitest.Caller
		want string
	}{
		"root":                {apitest.Caller{}, "approver"},
		"nobody we know":      {apitest.Caller{UID: 41000, GID: 41000}, ""},
		"a user":              {apitest.Caller{UID: 41001, GID: 41000}, "viewer"},
		"another user":        {apitest.Caller{UID: 41002, GID: 41000}, "operator"},
		"primary group":       {apitest.Caller{UID: 41000, GID: 42001}, "operator"},
		"supplementary group": {apitest.Caller{UID: 41000, GID: 41000, Groups: []uint32{7, 42001}}, "operator"},
		"the highest":         {apitest.Caller{UID: 41001, GID: 42001, Groups: []uint32{42002}}, "approver"},
		"two hundred groups":  {apitest.Caller{UID: 41000, GID: 41000, Groups: many}, "approver"},
	} {
		t.Run(name, func(t *testing.T) {
			client := apitest.ClientAs(t, socket, c.who)
			res, err := client.Info(context.Background(), connect.NewRequest(&pb.InfoRequest{}))
			if c.want == "" {
				if connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(api.HintOf(err), "--viewer-group") {
					t.Errorf("%v, want a refusal that says how to get a role", err)
				}
				return
			}
			if err != nil || res.Msg.Role != c.want {
				t.Errorf("%v, %v; want %s", res, err, c.want)
			}
		})
	}
}

// TestSocketModes: the mode of the socket lets in whom Access names and nobody else.
func TestSocketModes(t *testing.T) {
	member := apitest.Caller{UID: 41000, GID: 41000, Groups: []uint32{42001}}
	stranger := apitest.Caller{UID: 41000, GID: 41000}
	for _, c := range []struct {
		access api.Access
		who    apitest.Caller
		opens  bool
	}{
		{api.Access{}, member, false},
		{api.Access{Group: "42001"}, member, true},
		{api.Access{Group: "42001"}, stranger, false},
		{api.Access{Everyone: true}, stranger, true},
	} {
		socket := serveIn(t, apitest.Dir(t), c.access, api.DefaultRoles())
		client := apitest.ClientAs(t, socket, c.who)
		_, err := client.Info(context.Background(), connect.NewRequest(&pb.InfoRequest{}))
		if (err == nil) != c.opens {
			t.Errorf("%+v of %+v: %v", c.who, c.access, err)
		}
		if !c.opens && !strings.Contains(err.Error(), fs.ErrPermission.Error()) {
			t.Errorf("%+v: %v, want that the socket cannot be opened", c.access, err)
		}
	}
}

func TestGrantsOfUnknownNames(t *testing.T) {
	r := api.DefaultRoles()
	if err := r.GrantUser("no-such-user", api.RoleViewer); err == nil || !strings.Contains(err.Error(), "user no-such-user does not exist") {
		t.Errorf("user: %v", err)
	}
	if err := r.GrantGroup("no-such-group", api.RoleViewer); err == nil || !strings.Contains(err.Error(), "group no-such-group does not exist") {
		t.Errorf("group: %v", err)
	}
}

// serveIn answers in a directory until the test ends.
func serveIn(t *testing.T, dir string, access api.Access, roles api.Roles) string {
	t.Helper()
	socket := filepath.Join(dir, "s")
	ln, err := api.Listen(socket, access)
	if err != nil {
		t.Fatal(err)
	}
	b := apitest.Sample()
	handler := api.NewHandler(b, api.Options{
		Audit: b, Log: slog.New(slog.DiscardHandler), Now: apitest.Now, Info: func() api.Info { return api.Info{} },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, ln, handler, roles) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket
}
