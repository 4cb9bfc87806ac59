package api

import (
	"context"
	"fmt"

	"connectrpc.com/connect"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1/gitopsdv1alpha1connect"
)

// routes is the role that each procedure needs. A procedure that is not listed
// is refused to everybody.
var routes = map[string]Role{
	pb.ControlServiceInfoProcedure:          RoleViewer,
	pb.ControlServiceGetStatusProcedure:     RoleViewer,
	pb.ControlServiceWatchStatusProcedure:   RoleViewer,
	pb.ControlServiceGetPlanProcedure:       RoleViewer,
	pb.ControlServiceGetObjectProcedure:     RoleViewer,
	pb.ControlServiceListObjectsProcedure:   RoleViewer,
	pb.ControlServiceGetHistoryProcedure:    RoleViewer,
	pb.ControlServiceQueryAuditProcedure:    RoleViewer,
	pb.ControlServiceVerifyAuditProcedure:   RoleViewer,
	pb.ControlServiceSyncProcedure:          RoleOperator,
	pb.ControlServiceSuspendProcedure:       RoleOperator,
	pb.ControlServiceResumeProcedure:        RoleOperator,
	pb.ControlServiceApproveProcedure:       RoleApprover,
	pb.ControlServiceAcceptHistoryProcedure: RoleApprover,
	pb.ControlServiceForgetProcedure:        RoleApprover,
}

// authorize decides about one call.
func authorize(ctx context.Context, procedure string) error {
	p, ok := principalFrom(ctx)
	if !ok {
		return hinted(connect.CodeUnauthenticated, fmt.Errorf("%s: the connection does not say who is calling", procedure), "use the Unix socket of the daemon")
	}
	need, ok := routes[procedure]
	if !ok {
		return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("%s: no role is set for this call", procedure))
	}
	if p.Role < need {
		return hinted(connect.CodePermissionDenied, fmt.Errorf("%s has role %s and this needs %s", p.Name, p.Role, need),
			fmt.Sprintf("ask who runs the daemon to grant it (gitopsd run --%s-user or --%s-group)", need, need))
	}
	return nil
}

// authorizer is the one interceptor that decides about every call.
type authorizer struct{}

func (authorizer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if err := authorize(ctx, req.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
}

func (authorizer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

func (authorizer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := authorize(ctx, conn.Spec().Procedure); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}
