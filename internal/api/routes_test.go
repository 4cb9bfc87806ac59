package api

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/reconciler"
	"github.com/gitopsd/gitopsd/sources"
)

// procedures lists every call of the contract.
func procedures() []string {
	var out []string
	service := pb.File_gitopsd_v1alpha1_gitopsd_proto.Services().ByName("ControlService")
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		out = append(out, fmt.Sprintf("/%s/%s", service.FullName(), m.Name()))
	}
	return out
}

// TestEveryRouteHasARole fails when a call is added to the contract without a
// decision about who may make it (row F-96).
func TestEveryRouteHasARole(t *testing.T) {
	all := procedures()
	for _, p := range all {
		if routes[p] == NoRole {
			t.Errorf("%s has no role", p)
		}
	}
	if len(routes) != len(all) {
		t.Errorf("%d routes for %d calls", len(routes), len(all))
	}
}

// TestAuthorize is the matrix of every call and every role (rows F-96, F-97).
func TestAuthorize(t *testing.T) {
	want := map[string]Role{
		"Info": RoleViewer, "GetStatus": RoleViewer, "WatchStatus": RoleViewer, "GetPlan": RoleViewer, "GetObject": RoleViewer, "ListObjects": RoleViewer,
		"GetHistory": RoleViewer, "QueryAudit": RoleViewer, "VerifyAudit": RoleViewer,
		"Sync": RoleOperator, "Suspend": RoleOperator, "Resume": RoleOperator,
		"Approve": RoleApprover, "AcceptHistory": RoleApprover, "Forget": RoleApprover,
	}
	for _, p := range append(procedures(), "/gitopsd.v1alpha1.ControlService/Unknown") {
		var name string
		if _, err := fmt.Sscanf(p, "/gitopsd.v1alpha1.ControlService/%s", &name); err != nil {
			t.Fatal(err)
		}
		if got := connect.CodeOf(authorize(context.Background(), p)); got != connect.CodeUnauthenticated {
			t.Errorf("%s without a principal: %v", name, got)
		}
		for role := NoRole; role <= RoleApprover; role++ {
			ctx := context.WithValue(context.Background(), principalKey{}, func() Principal { return Principal{Name: "x", Role: role} })
			err := authorize(ctx, p)
			need, known := want[name]
			if allowed := known && role >= need; (err == nil) != allowed {
				t.Errorf("%s as %s: %v", name, role, err)
			}
			if err != nil && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("%s as %s: %v", name, role, err)
			}
		}
	}
}

func TestRoles(t *testing.T) {
	r := Roles{
		Users: map[uint32]Role{0: RoleApprover}, Groups: map[uint32]Role{50: RoleOperator, 60: RoleApprover}, Others: RoleViewer,
	}
	for _, c := range []struct {
		uid    uint32
		groups []uint32
		want   Role
	}{
		{0, nil, RoleApprover}, {1, nil, RoleViewer}, {1, []uint32{7, 50}, RoleOperator}, {1, []uint32{50, 60}, RoleApprover},
	} {
		if got := r.of(c.uid, c.groups); got != c.want {
			t.Errorf("uid %d in %v: %s, want %s", c.uid, c.groups, got, c.want)
		}
	}
	if got := (Roles{}).of(0, nil); got != NoRole {
		t.Errorf("no mapping: %s", got)
	}
}

func TestErrorCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want connect.Code
	}{
		{reconciler.ErrUnknownApplication, connect.CodeNotFound},
		{fmt.Errorf("x: %w", reconciler.ErrUnknownObject), connect.CodeNotFound},
		{reconciler.ErrPrecondition, connect.CodeFailedPrecondition},
		{reconciler.ErrInvalid, connect.CodeInvalidArgument},
		{sources.ErrUnavailable, connect.CodeUnavailable},
		{context.Canceled, connect.CodeCanceled},
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded},
		{connect.NewError(connect.CodeAborted, errors.New("x")), connect.CodeAborted},
		{errors.New("x"), connect.CodeInternal},
	} {
		if got := connect.CodeOf(toCode(c.err)); got != c.want {
			t.Errorf("%v: %s, want %s", c.err, got, c.want)
		}
	}
	if toCode(nil) != nil {
		t.Error("nil became an error")
	}
}
