package main

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/api/apitest"
)

// parseRoles reads role flags as gitopsd run does.
func parseRoles(t *testing.T, args ...string) *roleFlags {
	t.Helper()
	r := &roleFlags{}
	cmd := &cobra.Command{}
	r.register(cmd.Flags())
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRoleFlags(t *testing.T) {
	root := uint32(0)
	for _, c := range []struct {
		args        []string
		socketGroup string
		access      api.Access
		others      api.Role
		users       map[uint32]api.Role
		groups      map[uint32]api.Role
	}{
		{nil, "", api.Access{}, api.RoleViewer, nil, nil},
		{nil, "7", api.Access{Group: "7"}, api.RoleViewer, nil, nil},
		{[]string{"--viewer-user=5"}, "", api.Access{Everyone: true}, api.NoRole, map[uint32]api.Role{5: api.RoleViewer}, nil},
		{[]string{"--operator-group=8"}, "7", api.Access{Group: "7"}, api.RoleViewer, nil, map[uint32]api.Role{8: api.RoleOperator}},
		{[]string{"--approver-user=5", "--operator-user=5,6", "--viewer-group=8", "--viewer-group=9"}, "", api.Access{Everyone: true}, api.NoRole,
			map[uint32]api.Role{5: api.RoleApprover, 6: api.RoleOperator}, map[uint32]api.Role{8: api.RoleViewer, 9: api.RoleViewer}},
		{[]string{"--viewer-user=root"}, "", api.Access{Everyone: true}, api.NoRole, nil, nil}, // stays an approver
	} {
		flags := parseRoles(t, c.args...)
		if got := flags.access(c.socketGroup); got != c.access {
			t.Errorf("%q: %+v may open the socket, want %+v", c.args, got, c.access)
		}
		got, err := flags.roles(c.socketGroup)
		if err != nil {
			t.Errorf("%q: %v", c.args, err)
			continue
		}
		if got.Others != c.others || len(got.Groups) != len(c.groups) {
			t.Errorf("%q: others are %s and groups %v, want %s and %v", c.args, got.Others, got.Groups, c.others, c.groups)
		}
		for uid, want := range c.users {
			if got.Users[uid] != want {
				t.Errorf("%q: user %d is %s, want %s", c.args, uid, got.Users[uid], want)
			}
		}
		for gid, want := range c.groups {
			if got.Groups[gid] != want {
				t.Errorf("%q: group %d is %s, want %s", c.args, gid, got.Groups[gid], want)
			}
		}
		if got.Users[root] != api.RoleApprover || got.Users[uint32(os.Geteuid())] != api.RoleApprover {
			t.Errorf("%q: root and the daemon's user are no approvers: %v", c.args, got.Users)
		}
	}
	mapped, err := parseRoles(t, "--principal-email=5=ada@example.org,root=ops@example.org", "--principal-email=5=lovelace@example.org").roles("")
	if err != nil || !slices.Equal(mapped.Emails[5], []string{"ada@example.org", "lovelace@example.org"}) || len(mapped.Emails[root]) != 1 {
		t.Errorf("addresses: %v, %v", mapped.Emails, err)
	}
	if _, err := parseRoles(t, "--principal-email=ada").roles(""); err == nil || !strings.Contains(err.Error(), "no address") {
		t.Errorf("a user without an address: %v", err)
	}
	for _, args := range [][]string{{"--operator-user=no-such-user"}, {"--viewer-group=no-such-group"}, {"--viewer-user=-1"}, {"--principal-email=no-such-user=a@b"}} {
		_, err := parseRoles(t, args...).roles("")
		if err == nil || !strings.Contains(err.Error(), strings.Split(args[0], "=")[0]) || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestRolesOfTheDaemon: whoever the flags name can open the socket of a running
// daemon and do there what their role allows, and nobody else can do anything
// (rows F-96, F-97).
func TestRolesOfTheDaemon(t *testing.T) {
	dir := apitest.Dir(t)
	socket := startDaemon(t, dir, parseRoles(t, "--viewer-user=41001", "--operator-group=42001", "--approver-group=42002"))
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != fs.FileMode(0o666) {
		t.Errorf("socket: %v, %v", info, err)
	}
	for name, c := range map[string]struct {
		who                    apitest.Caller
		looks, syncs, approves bool
	}{
		"stranger": {apitest.Caller{UID: 41000, GID: 41000}, false, false, false},
		"viewer":   {apitest.Caller{UID: 41001, GID: 41001}, true, false, false},
		"operator": {apitest.Caller{UID: 41000, GID: 41000, Groups: []uint32{42001}}, true, true, false},
		"approver": {apitest.Caller{UID: 41000, GID: 42002}, true, true, true},
		"root":     {apitest.Caller{}, true, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			client := apitest.ClientAs(t, socket, c.who)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			_, look := client.GetStatus(ctx, connect.NewRequest(&pb.GetStatusRequest{}))
			_, sync := client.Sync(ctx, connect.NewRequest(&pb.SyncRequest{}))
			// Nothing is held: who may approve is told so.
			_, approve := client.Approve(ctx, connect.NewRequest(&pb.ApproveRequest{Application: "web", Digest: "x", Why: "test"}))
			for call, got := range map[string]struct {
				err error
				may bool
			}{"status": {look, c.looks}, "sync": {sync, c.syncs}, "approve": {approve, c.approves}} {
				if denied := connect.CodeOf(got.err) == connect.CodePermissionDenied; denied == got.may {
					t.Errorf("%s: %v", call, got.err)
				}
			}
			if connect.CodeOf(approve) != connect.CodeFailedPrecondition && c.approves {
				t.Errorf("approve: %v", approve)
			}
		})
	}
}

// startDaemon runs a daemon over an empty folder until the test ends and returns
// its socket.
func startDaemon(t *testing.T, dir string, roles *roleFlags) string {
	t.Helper()
	for _, sub := range []string{"desired", "host", "state"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "gitopsd.yaml")
	text := fmt.Sprintf(`apiVersion: gitopsd.io/v1alpha1
kind: Source
metadata: {name: fleet}
spec: {dir: {path: %[1]s/desired}}
---
apiVersion: gitopsd.io/v1alpha1
kind: Target
metadata: {name: host}
spec: {file: {roots: [%[1]s/host]}}
---
apiVersion: gitopsd.io/v1alpha1
kind: Application
metadata: {name: web}
spec: {source: fleet, targets: [{name: host}]}
`, dir)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	o := daemonOptions{config: config, stateDir: filepath.Join(dir, "state"), socket: filepath.Join(dir, "s"), roles: *roles}
	ctx, cancel := context.WithCancel(context.Background())
	var result error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		result = runDaemon(ctx, o, slog.New(slog.DiscardHandler))
	}()
	t.Cleanup(func() {
		cancel()
		if <-ended; result != nil {
			t.Error(result)
		}
	})
	for end := time.Now().Add(storyPatience); ; pause(storyPause) {
		client, err := api.Dial(ctx, o.socket)
		if err == nil {
			client.Close()
			return o.socket
		}
		select {
		case <-ended:
			t.Fatal("the daemon ended")
		default:
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
