package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/reconciler"
)

// caller is the name under which a call is recorded; the interceptor has made
// sure that there is one.
func caller(ctx context.Context) string {
	p, _ := principalFrom(ctx)
	return p.Name
}

// approver is the caller with what is known of them as an author of commits.
func approver(ctx context.Context) reconciler.Approver {
	p, _ := principalFrom(ctx)
	return reconciler.Approver{Name: p.Name, Login: p.Login, Emails: p.Emails}
}

// checkText refuses what does not belong into a record.
func checkText(what, text string) error {
	if len(text) > maxText {
		return invalid("", "%s has %d bytes (at most %d)", what, len(text), maxText)
	}
	return nil
}

func checkReason(why string) error {
	if strings.TrimSpace(why) == "" {
		return invalid("say why with --why; it is shown in status and audit", "a reason is required")
	}
	return checkText("the reason", why)
}

// checkScope holds a call to exactly one of an application and all.
func checkScope(app string, all bool) error {
	if (app == "") != all {
		return invalid("", "name either one application or all")
	}
	return checkText("the application", app)
}

func (s *server) Sync(ctx context.Context, req *connect.Request[pb.SyncRequest]) (*connect.Response[pb.SyncResponse], error) {
	if err := s.backend.Sync(ctx, caller(ctx), req.Msg.Application, req.Msg.Wait); err != nil {
		return nil, toCode(err)
	}
	var names []string
	if req.Msg.Application != "" {
		names = []string{req.Msg.Application}
	}
	apps, err := s.status(names)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.SyncResponse{Applications: apps}), nil
}

func (s *server) Suspend(ctx context.Context, req *connect.Request[pb.SuspendRequest]) (*connect.Response[pb.SuspendResponse], error) {
	if err := checkScope(req.Msg.Application, req.Msg.All); err != nil {
		return nil, err
	}
	if err := checkReason(req.Msg.Why); err != nil {
		return nil, err
	}
	var until time.Time
	if req.Msg.Until != nil {
		until = req.Msg.Until.AsTime()
		if req.Msg.Until.CheckValid() != nil || !until.After(s.Now()) {
			return nil, invalid("", "until is not in the future")
		}
	}
	names, err := s.backend.Suspend(ctx, caller(ctx), req.Msg.Application, req.Msg.All, req.Msg.Why, until)
	if err != nil {
		return nil, toCode(err)
	}
	return connect.NewResponse(&pb.SuspendResponse{Applications: names}), nil
}

func (s *server) Resume(ctx context.Context, req *connect.Request[pb.ResumeRequest]) (*connect.Response[pb.ResumeResponse], error) {
	if err := checkScope(req.Msg.Application, req.Msg.All); err != nil {
		return nil, err
	}
	if err := checkText("the reason", req.Msg.Why); err != nil {
		return nil, err
	}
	names, err := s.backend.Resume(ctx, caller(ctx), req.Msg.Application, req.Msg.All, req.Msg.Why)
	if err != nil {
		return nil, toCode(err)
	}
	return connect.NewResponse(&pb.ResumeResponse{Applications: names}), nil
}

// Bounds of an approval's life.
const (
	defaultApproval = 24 * time.Hour
	maxApproval     = 30 * 24 * time.Hour
)

func (s *server) Approve(ctx context.Context, req *connect.Request[pb.ApproveRequest]) (*connect.Response[pb.ApproveResponse], error) {
	if err := checkReason(req.Msg.Why); err != nil {
		return nil, err
	}
	if req.Msg.Application == "" || req.Msg.Digest == "" {
		return nil, invalid("gitopsd diff shows what waits, and prints the command that approves it", "application and digest are required")
	}
	validFor := defaultApproval
	if req.Msg.ValidFor != nil {
		validFor = req.Msg.ValidFor.AsDuration()
	}
	if validFor <= 0 || validFor > maxApproval {
		return nil, invalid(fmt.Sprintf("give a time from 1s to %s", maxApproval), "the approval would be valid for %s", validFor)
	}
	approval, err := s.backend.Approve(ctx, approver(ctx), req.Msg.Application, req.Msg.Digest, req.Msg.Why, validFor)
	if err != nil {
		return nil, toCode(err)
	}
	return connect.NewResponse(&pb.ApproveResponse{Digest: approval.Digest, Expires: stamp(approval.Expires)}), nil
}

func (s *server) AcceptHistory(ctx context.Context, req *connect.Request[pb.AcceptHistoryRequest]) (*connect.Response[pb.AcceptHistoryResponse], error) {
	if err := checkReason(req.Msg.Why); err != nil {
		return nil, err
	}
	if req.Msg.Application == "" {
		return nil, invalid("", "an application is required")
	}
	source, accepted, err := s.backend.AcceptHistory(ctx, caller(ctx), req.Msg.Application, req.Msg.Revision, req.Msg.Why)
	if err != nil {
		return nil, toCode(err)
	}
	return connect.NewResponse(&pb.AcceptHistoryResponse{Source: source, Revision: accepted}), nil
}

func (s *server) Forget(ctx context.Context, req *connect.Request[pb.ForgetRequest]) (*connect.Response[pb.ForgetResponse], error) {
	if err := checkReason(req.Msg.Why); err != nil {
		return nil, err
	}
	if req.Msg.Application == "" || len(req.Msg.Objects) > maxNames {
		return nil, invalid("no object at all means all that were left behind", "name an application, and at most %d of its objects", maxNames)
	}
	keys, err := s.backend.Forget(ctx, caller(ctx), req.Msg.Application, req.Msg.Objects, req.Msg.Why)
	if err != nil {
		return nil, toCode(err)
	}
	return connect.NewResponse(&pb.ForgetResponse{Objects: keys}), nil
}

func (s *server) GetPlan(ctx context.Context, req *connect.Request[pb.GetPlanRequest]) (*connect.Response[pb.GetPlanResponse], error) {
	view, err := s.backend.Plan(ctx, req.Msg.Application)
	if err != nil {
		return nil, toCode(err)
	}
	res := &pb.GetPlanResponse{Revision: view.Revision, Candidate: view.Candidate, Empty: true, Sync: string(view.Sync)}
	if view.Plan == nil {
		return connect.NewResponse(res), nil
	}
	var text strings.Builder
	if view.Waits != nil {
		waiting(&text, view)
	}
	if err := view.Plan.Text(&text, plan.TextOptions{Verbose: req.Msg.Full}); err != nil {
		return nil, toCode(err)
	}
	if view.Digest != "" {
		fmt.Fprintf(&text, "Approve with: gitopsd approve %s --digest %s --why REASON\n", req.Msg.Application, view.Digest)
	}
	data, err := json.Marshal(view.Plan)
	if err != nil {
		return nil, toCode(err)
	}
	// There may be nothing to do and still a difference: drift that is only reported.
	res.Unknown = view.Plan.Unknown
	res.Text, res.PlanJson, res.Empty = text.String(), string(data), view.Waits == nil && view.Plan.Empty() && view.Plan.Counts.Drifted == 0
	return connect.NewResponse(res), nil
}

// waiting says why the newest revision is not accepted, and what the plan that
// follows is about when it came to none.
func waiting(w *strings.Builder, view reconciler.PlanView) {
	verb := "waits"
	if view.Waits.State == reconciler.CandidateRefused {
		verb = "refused"
	}
	if reasons := strings.Split(strings.TrimRight(view.Waits.Reason, "\n"), "\n"); len(reasons) == 1 {
		fmt.Fprintf(w, "revision %s %s: %s\n", short(view.Waits.Revision), verb, reasons[0])
	} else {
		fmt.Fprintf(w, "revision %s %s:\n  %s\n\n", short(view.Waits.Revision), verb, strings.Join(reasons, "\n  "))
	}
	switch {
	case view.Candidate:
	case view.Revision == "": // the plan says why there is nothing else to show
		fmt.Fprintln(w, "There is no plan of it.")
	default:
		fmt.Fprintf(w, "There is no plan of it. What follows is about the accepted %s.\n", short(view.Revision))
	}
	fmt.Fprintln(w)
}

// short is a revision as people read it.
func short(revision string) string { return revision[:min(12, len(revision))] }

func (s *server) GetObject(ctx context.Context, req *connect.Request[pb.GetObjectRequest]) (*connect.Response[pb.GetObjectResponse], error) {
	if req.Msg.Object == "" {
		return nil, invalid("", "name an object, as in host.gitopsd.io/File/motd")
	}
	view, err := s.backend.Object(ctx, req.Msg.Application, req.Msg.Object)
	if err != nil {
		return nil, toCode(err)
	}
	res, err := objectView(&view)
	if err != nil {
		return nil, toCode(err)
	}
	return connect.NewResponse(res), nil
}

func (s *server) ListObjects(ctx context.Context, req *connect.Request[pb.ListObjectsRequest]) (*connect.Response[pb.ListObjectsResponse], error) {
	list, err := s.backend.Objects(ctx, req.Msg.Application)
	if err != nil {
		return nil, toCode(err)
	}
	res := &pb.ListObjectsResponse{Objects: make([]*pb.ObjectSummary, len(list))}
	for i := range list {
		res.Objects[i] = objectSummary(&list[i])
	}
	return connect.NewResponse(res), nil
}
