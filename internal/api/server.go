package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1/gitopsdv1alpha1connect"
	"github.com/gitopsd/gitopsd/reconciler"
)

// Limits of messages in bytes. A request holds a few names; an answer may hold
// the plan of a large application.
const (
	MaxRequest  = 1 << 20
	MaxResponse = 64 << 20
)

// Limits of lists, so that no call reads a whole log.
const (
	defaultHistory, maxHistory = 20, 1000
	defaultAudit, maxAudit     = 50, 10000
	maxNames                   = 1000
	maxText                    = 4096 // bytes of a reason
)

// Options are what a server works with.
type Options struct {
	Audit Audit
	Info  func() Info
	Log   *slog.Logger
	// Now is the clock that ages are counted by. Default: time.Now.
	Now func() time.Time
	// WatchGap is the least time between two messages of one status stream.
	// Default: 200 ms.
	WatchGap time.Duration
}

// NewHandler returns the handler of every path of the API. Each call needs a
// Principal, which Serve puts into the context of a connection.
func NewHandler(backend Backend, options Options) http.Handler {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.WatchGap <= 0 {
		options.WatchGap = 200 * time.Millisecond
	}
	s := &server{backend: backend, Options: options, ledger: newLedger()}
	_, handler := gitopsdv1alpha1connect.NewControlServiceHandler(s,
		connect.WithInterceptors(authorizer{}, cleaner{}),
		connect.WithReadMaxBytes(MaxRequest),
		connect.WithSendMaxBytes(MaxResponse),
		connect.WithRecover(s.recovered),
	)
	return handler
}

type server struct {
	Options
	backend Backend
	ledger  *ledger
}

var _ gitopsdv1alpha1connect.ControlServiceHandler = (*server)(nil)

func (s *server) recovered(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
	s.Log.Error("a call panicked", "procedure", spec.Procedure, "panic", fmt.Sprint(p))
	return connect.NewError(connect.CodeInternal, errors.New("the daemon made a mistake; its log says more"))
}

func (s *server) Info(ctx context.Context, _ *connect.Request[pb.InfoRequest]) (*connect.Response[pb.InfoResponse], error) {
	info := s.Options.Info()
	who, _ := principalFrom(ctx)
	res := &pb.InfoResponse{
		Version: info.Version, Started: stamp(info.Started), ConfigDigest: info.ConfigDigest, ConfigError: info.ConfigError,
		Principal: who.Name, Role: who.Role.String(),
	}
	for _, src := range s.backend.Sources() {
		res.Sources = append(res.Sources, &pb.SourceStatus{
			Name: src.Name, Revision: src.Revision, PolledAt: stamp(src.PolledAt), Error: src.Error,
			NextPoll: stamp(src.NextPoll), Rewrite: src.Rewrite,
		})
	}
	for _, t := range s.backend.Targets() {
		res.Targets = append(res.Targets, &pb.TargetStatus{Name: t.Name, Breaker: t.Breaker, Error: t.Error, Since: stamp(t.Since)})
	}
	for _, p := range s.backend.PolicySets() {
		res.PolicySets = append(res.PolicySets, &pb.PolicySetStatus{
			Name: p.Name, Source: p.Source, Revision: p.Revision, Error: p.Error, Since: stamp(p.Since),
		})
	}
	return connect.NewResponse(res), nil
}

func (s *server) GetStatus(_ context.Context, req *connect.Request[pb.GetStatusRequest]) (*connect.Response[pb.GetStatusResponse], error) {
	apps, err := s.status(req.Msg.Applications)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.GetStatusResponse{Applications: apps}), nil
}

func checkNames(names []string) error {
	if len(names) > maxNames {
		return invalid("name none to get all", "%d applications are named (at most %d)", len(names), maxNames)
	}
	return nil
}

func (s *server) status(names []string) ([]*pb.ApplicationStatus, error) {
	if err := checkNames(names); err != nil {
		return nil, err
	}
	list, err := s.backend.Status(names...)
	if err != nil {
		return nil, toCode(err)
	}
	return s.converted(list), nil
}

func (s *server) converted(list []reconciler.Status) []*pb.ApplicationStatus {
	now := s.Now()
	out := make([]*pb.ApplicationStatus, len(list))
	for i := range list {
		out[i] = applicationStatus(&list[i], now)
	}
	return out
}

func (s *server) WatchStatus(ctx context.Context, req *connect.Request[pb.WatchStatusRequest], stream *connect.ServerStream[pb.WatchStatusResponse]) error {
	// Ending with the call also releases the subscription when a send fails.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := s.backend.Changed(ctx) // before the first look, so that no change is missed
	cursor, first := req.Msg.Cursor, true
	for {
		msg, err := s.news(req.Msg.Applications, cursor)
		if err != nil {
			return err
		}
		if cursor = msg.Cursor; first || len(msg.Applications)+len(msg.Removed) > 0 {
			if err := stream.Send(msg); err != nil {
				return err
			}
			first = false
		}
		if !pause(ctx, s.WatchGap) {
			return nil
		}
		select {
		case _, open := <-changed:
			if !open {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// pause waits and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *server) GetHistory(ctx context.Context, req *connect.Request[pb.GetHistoryRequest]) (*connect.Response[pb.GetHistoryResponse], error) {
	limit, err := listLimit(req.Msg.Limit, defaultHistory, maxHistory)
	if err != nil {
		return nil, err
	}
	entries, err := s.backend.History(ctx, req.Msg.Application, limit)
	if err != nil {
		return nil, toCode(err)
	}
	res := &pb.GetHistoryResponse{}
	for i := range entries {
		res.Entries = append(res.Entries, historyEntry(&entries[i]))
	}
	return connect.NewResponse(res), nil
}

func (s *server) QueryAudit(ctx context.Context, req *connect.Request[pb.QueryAuditRequest]) (*connect.Response[pb.QueryAuditResponse], error) {
	limit, err := listLimit(req.Msg.Limit, defaultAudit, maxAudit)
	if err != nil {
		return nil, err
	}
	if kind := req.Msg.Kind; kind != "" && !slices.Contains(reconciler.EventKinds, reconciler.EventKind(kind)) {
		return nil, invalid("there are "+kindList(), "there is no kind %q of audit records", kind)
	}
	records, err := s.Audit.Query(ctx, req.Msg.Application, req.Msg.Kind, limit)
	if err != nil {
		return nil, toCode(err)
	}
	if len(records) == 0 && req.Msg.Application != "" {
		if err := s.heardOf(ctx, req.Msg.Application); err != nil {
			return nil, err
		}
	}
	res := &pb.QueryAuditResponse{}
	for _, r := range records {
		res.Records = append(res.Records, &pb.AuditRecord{
			Seq: r.Seq, At: stamp(r.At), Kind: r.Kind, Application: r.Application, Principal: r.Principal,
			Message: r.Message, DataJson: string(r.Data), Hash: r.Hash,
		})
	}
	return connect.NewResponse(res), nil
}

// heardOf refuses an application that neither is configured nor has a record.
func (s *server) heardOf(ctx context.Context, app string) error {
	if records, err := s.Audit.Query(ctx, app, "", 1); err != nil || len(records) > 0 {
		return toCode(err)
	}
	_, err := s.backend.Status(app)
	return toCode(err)
}

func kindList() string {
	names := make([]string, len(reconciler.EventKinds))
	for i, k := range reconciler.EventKinds {
		names[i] = string(k)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func (s *server) VerifyAudit(ctx context.Context, _ *connect.Request[pb.VerifyAuditRequest]) (*connect.Response[pb.VerifyAuditResponse], error) {
	v, err := s.Audit.Verify(ctx)
	if err != nil {
		return nil, toCode(err)
	}
	return connect.NewResponse(&pb.VerifyAuditResponse{Records: v.Records, Head: v.Head, Error: v.Problem}), nil
}

func listLimit(asked int32, def, most int) (int, error) {
	switch {
	case asked == 0:
		return def, nil
	case asked < 0 || int(asked) > most:
		return 0, invalid("", "limit is %d, want 1 to %d", asked, most)
	}
	return int(asked), nil
}

// invalid refuses a request. hint, what to do, may be empty.
func invalid(hint, format string, args ...any) error {
	err := fmt.Errorf("%w: %s", reconciler.ErrInvalid, fmt.Sprintf(format, args...))
	if hint != "" {
		err = &reconciler.HintError{Err: err, Hint: hint}
	}
	return toCode(err)
}

// stamp leaves a time out that was never set.
func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
