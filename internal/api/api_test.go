package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/api/apitest"
	"github.com/gitopsd/gitopsd/reconciler"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func roles(r api.Role) api.Roles {
	return api.Roles{Users: map[uint32]api.Role{uint32(os.Geteuid()): r}}
}

func dial(t *testing.T, b *apitest.Backend, r api.Role) *api.Client {
	t.Helper()
	socket := apitest.Serve(t, b, roles(r))
	c, err := api.Dial(context.Background(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func call[Req, Res any](t *testing.T, f func(context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	t.Helper()
	res, err := f(context.Background(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func golden(t *testing.T, name string, m proto.Message) {
	t.Helper()
	raw, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer // protojson varies its white space on purpose
	if err := json.Indent(&got, raw, "", " "); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestAnswers compares every answer of the sample with a golden file.
func TestAnswers(t *testing.T) {
	c := dial(t, apitest.Sample(), api.RoleViewer)
	status, err := call(t, c.GetStatus, &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status", status)
	info, err := call(t, c.Info, &pb.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Principal == "" || info.Role != "viewer" {
		t.Errorf("principal %q, role %q", info.Principal, info.Role)
	}
	info.Principal = ""
	golden(t, "info", info)
	plan, err := call(t, c.GetPlan, &pb.GetPlanRequest{Application: "held"})
	if err != nil {
		t.Fatal(err)
	}
	if plan.Empty || !plan.Candidate || !strings.Contains(plan.Text, "File/motd") || !json.Valid([]byte(plan.PlanJson)) {
		t.Errorf("plan: %v", plan)
	}
	object, err := call(t, c.GetObject, &pb.GetObjectRequest{Application: "web", Object: "File/motd"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "object", object)
	objects, err := call(t, c.ListObjects, &pb.ListObjectsRequest{Application: "web"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "objects", objects)
	history, err := call(t, c.GetHistory, &pb.GetHistoryRequest{Application: "web", Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "history", history)
	audit, err := call(t, c.QueryAudit, &pb.QueryAuditRequest{Kind: "Suspended"})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "audit", audit)
	verdict, err := call(t, c.VerifyAudit, &pb.VerifyAuditRequest{})
	if err != nil || verdict.Records != 2 || verdict.Head != "b1b2" || verdict.Error != "" {
		t.Errorf("verify: %v, %v", verdict, err)
	}
}

// TestSteering: each call reaches the backend with its arguments and the peer's name.
func TestSteering(t *testing.T) {
	b := apitest.Sample()
	c := dial(t, b, api.RoleApprover)
	info, err := call(t, c.Info, &pb.InfoRequest{})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = call(t, c.Sync, &pb.SyncRequest{Application: "web", Wait: true})
	must(err)
	_, err = call(t, c.Suspend, &pb.SuspendRequest{All: true, Why: "repair", Until: timestamppb.New(apitest.Now().Add(time.Hour))})
	must(err)
	_, err = call(t, c.Resume, &pb.ResumeRequest{Application: "web", Why: "done"})
	must(err)
	_, err = call(t, c.Approve, &pb.ApproveRequest{Application: "held", Digest: "5f1c", Why: "looked"})
	must(err)
	_, err = call(t, c.Approve, &pb.ApproveRequest{Application: "held", Digest: "5f1c", Why: "looked", ValidFor: durationpb.New(time.Hour)})
	must(err)
	accepted, err := call(t, c.AcceptHistory, &pb.AcceptHistoryRequest{Application: "web", Why: "rebased"})
	must(err)
	if accepted.Source != "site" || accepted.Revision == "" {
		t.Errorf("accepted: %v", accepted)
	}
	forgotten, err := call(t, c.Forget, &pb.ForgetRequest{Application: "web", Objects: []string{"File/left"}, Why: "gone"})
	must(err)
	if len(forgotten.Objects) != 1 {
		t.Errorf("forgotten: %v", forgotten)
	}
	by := " by " + info.Principal
	want := []string{
		`Sync "web" wait=true` + by,
		`Suspend "" all=true why="repair" until=2026-01-02T13:00:00Z` + by,
		`Resume "web" all=false why="done"` + by,
		`Approve "held" digest=5f1c why="looked" for=24h0m0s` + by,
		`Approve "held" digest=5f1c why="looked" for=1h0m0s` + by,
		`AcceptHistory "web" revision="" why="rebased"` + by,
		`Forget "web" [File/left] why="gone"` + by,
	}
	if diff := cmp.Diff(want, b.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// TestRefusals: requests that are wrong get a stable code and reach nothing.
func TestRefusals(t *testing.T) {
	b := apitest.Sample()
	c := dial(t, b, api.RoleApprover)
	past := timestamppb.New(apitest.Now().Add(-time.Hour))
	long := strings.Repeat("x", 5000)
	for name, f := range map[string]func() error{
		"unknown app": func() error { _, err := call(t, c.GetPlan, &pb.GetPlanRequest{Application: "none"}); return err },
		"unknown apps": func() error {
			_, err := call(t, c.GetStatus, &pb.GetStatusRequest{Applications: []string{"none"}})
			return err
		},
		"unknown object": func() error {
			_, err := call(t, c.GetObject, &pb.GetObjectRequest{Application: "web", Object: "none"})
			return err
		},
	} {
		if code := connect.CodeOf(f()); code != connect.CodeNotFound {
			t.Errorf("%s: %v", name, code)
		}
	}
	for name, f := range map[string]func() error{
		"no object": func() error { _, err := call(t, c.GetObject, &pb.GetObjectRequest{Application: "web"}); return err },
		"many apps": func() error {
			_, err := call(t, c.GetStatus, &pb.GetStatusRequest{Applications: make([]string, 1001)})
			return err
		},
		"limit": func() error {
			_, err := call(t, c.GetHistory, &pb.GetHistoryRequest{Application: "web", Limit: 1e6})
			return err
		},
		"audit limit": func() error { _, err := call(t, c.QueryAudit, &pb.QueryAuditRequest{Limit: -1}); return err },
		"no scope":    func() error { _, err := call(t, c.Suspend, &pb.SuspendRequest{Why: "x"}); return err },
		"two scopes": func() error {
			_, err := call(t, c.Resume, &pb.ResumeRequest{Application: "web", All: true})
			return err
		},
		"no why":   func() error { _, err := call(t, c.Suspend, &pb.SuspendRequest{All: true, Why: " "}); return err },
		"long why": func() error { _, err := call(t, c.Suspend, &pb.SuspendRequest{All: true, Why: long}); return err },
		"past": func() error {
			_, err := call(t, c.Suspend, &pb.SuspendRequest{All: true, Why: "x", Until: past})
			return err
		},
		"no digest": func() error {
			_, err := call(t, c.Approve, &pb.ApproveRequest{Application: "held", Why: "x"})
			return err
		},
		"no reason": func() error {
			_, err := call(t, c.Approve, &pb.ApproveRequest{Application: "held", Digest: "x"})
			return err
		},
		"too long": func() error {
			_, err := call(t, c.Approve, &pb.ApproveRequest{Application: "held", Digest: "x", Why: "x", ValidFor: durationpb.New(1e6 * time.Hour)})
			return err
		},
		"forget nothing": func() error { _, err := call(t, c.Forget, &pb.ForgetRequest{Why: "x"}); return err },
		"forget why":     func() error { _, err := call(t, c.Forget, &pb.ForgetRequest{Application: "web"}); return err },
		"accept all":     func() error { _, err := call(t, c.AcceptHistory, &pb.AcceptHistoryRequest{Why: "x"}); return err },
	} {
		if code := connect.CodeOf(f()); code != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", name, code)
		}
	}
	if calls := b.Calls(); len(calls) > 0 {
		t.Errorf("reached the backend: %v", calls)
	}
	if _, err := call(t, c.Suspend, &pb.SuspendRequest{All: true, Why: strings.Repeat("x", api.MaxRequest)}); err == nil {
		t.Error("a request above the limit was taken")
	}
}

// TestRolesOverTheSocket: a viewer looks and does not steer (rows F-96, F-97).
func TestRolesOverTheSocket(t *testing.T) {
	b := apitest.Sample()
	viewer := dial(t, b, api.RoleViewer)
	if _, err := call(t, viewer.GetStatus, &pb.GetStatusRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := call(t, viewer.Sync, &pb.SyncRequest{}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("viewer syncs: %v", err)
	}
	operator := dial(t, b, api.RoleOperator)
	if _, err := call(t, operator.Sync, &pb.SyncRequest{}); err != nil {
		t.Error(err)
	}
	if _, err := call(t, operator.Approve, &pb.ApproveRequest{Application: "held", Digest: "x", Why: "x"}); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("operator approves: %v", err)
	}
	nobody := dial(t, b, api.NoRole)
	stream, err := nobody.WatchStatus(context.Background(), connect.NewRequest(&pb.WatchStatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodePermissionDenied {
		t.Errorf("nobody watches: %v", stream.Err())
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

// TestWatch: the full status first, then after changes, coalesced; ending the
// call ends the subscription.
func TestWatch(t *testing.T) {
	b := apitest.Sample()
	c := dial(t, b, api.RoleViewer)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stream, err := c.WatchStatus(ctx, connect.NewRequest(&pb.WatchStatusRequest{Applications: []string{"web"}}))
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() || len(stream.Msg().Applications) != 1 || stream.Msg().Applications[0].Message != "in sync" {
		t.Fatalf("first message: %v, %v", stream.Msg(), stream.Err())
	}
	for range 100 {
		b.Update(func(b *apitest.Backend) { b.Apps[0].Round++ })
	}
	b.Update(func(b *apitest.Backend) { b.Apps[0].Message = "last" })
	received := 0
	for stream.Receive() {
		if received++; stream.Msg().Applications[0].Message == "last" {
			break
		}
	}
	if received == 0 || received > 50 {
		t.Errorf("%d messages for 101 changes: %v", received, stream.Err())
	}
	cancel()
	if stream.Receive() {
		t.Error("a message after the end")
	}
	_ = stream.Close() // reports the cancellation
	deadline := time.Now().Add(10 * time.Second)
	for b.Watchers() > 0 && time.Now().Before(deadline) {
		b.Update(func(*apitest.Backend) {})
	}
	if n := b.Watchers(); n > 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// TestWatchTellsWhatChanged: after the first message only what changed is sent,
// and a client that comes back with its cursor gets what it missed and no more.
func TestWatchTellsWhatChanged(t *testing.T) {
	b := apitest.Sample()
	c := dial(t, b, api.RoleViewer)
	// first returns the first message of a stream, and the stream.
	first := func(cursor string, names ...string) (*pb.WatchStatusResponse, *connect.ServerStreamForClient[pb.WatchStatusResponse]) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		t.Cleanup(cancel)
		stream, err := c.WatchStatus(ctx, connect.NewRequest(&pb.WatchStatusRequest{Cursor: cursor, Applications: names}))
		if err != nil || !stream.Receive() {
			t.Fatalf("%v, %v", err, stream.Err())
		}
		t.Cleanup(func() { _ = stream.Close() }) // reports the cancellation
		return proto.CloneOf(stream.Msg()), stream
	}
	told := func(m *pb.WatchStatusResponse) string {
		var names []string
		for _, a := range m.Applications {
			names = append(names, a.Application)
		}
		return fmt.Sprint(m.Full, names, m.Removed)
	}
	want := func(what string, m *pb.WatchStatusResponse, want string) {
		t.Helper()
		if got := told(m); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	start, stream := first("")
	want("at first", start, "true [web drifted held refused old] []")
	b.Update(func(b *apitest.Backend) { b.Apps[1].Message = "healed" })
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	want("a change", stream.Msg(), "false [drifted] []")
	last := stream.Msg().Cursor
	b.Update(func(b *apitest.Backend) { b.Apps[0].Round++ })
	b.Update(func(b *apitest.Backend) { b.Apps = b.Apps[:4] })
	back, _ := first(last)
	want("since the last", back, "false [web] [old]")
	again, _ := first(start.Cursor)
	want("since the first", again, "false [web drifted] [old]")
	none, _ := first(back.Cursor)
	want("since now", none, "false [] []")
	all, _ := first("another.daemon.7")
	want("a cursor of another daemon", all, "true [web drifted held refused] []")
	future, _ := first(back.Cursor + "9")
	want("a cursor that was never given", future, "true [web drifted held refused] []")
	other, _ := first(back.Cursor, "web")
	want("a cursor for other applications", other, "true [web] []")
	same, _ := first(other.Cursor, "web")
	want("the cursor for one", same, "false [] []")
}

// TestWatchEndsWithTheServer: a stream does not hold up the end of the daemon.
func TestWatchEndsWithTheServer(t *testing.T) {
	var stream *connect.ServerStreamForClient[pb.WatchStatusResponse]
	t.Run("server", func(t *testing.T) {
		c := dial(t, apitest.Sample(), api.RoleViewer)
		var err error
		if stream, err = c.WatchStatus(context.Background(), connect.NewRequest(&pb.WatchStatusRequest{})); err != nil {
			t.Fatal(err)
		}
		if !stream.Receive() {
			t.Fatal(stream.Err())
		}
	})
	for stream.Receive() {
		continue
	}
	_ = stream.Close() // the connection is gone
}

type panicking struct{ *apitest.Backend }

func (panicking) Status(...string) ([]reconciler.Status, error) { panic("CANARY") }

// TestPanicIsContained: a mistake in one call ends that call alone (row G-105).
func TestPanicIsContained(t *testing.T) {
	b := apitest.Sample()
	socket := apitest.ServeBackend(t, panicking{b}, b, roles(api.RoleViewer))
	c, err := api.Dial(context.Background(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = call(t, c.GetStatus, &pb.GetStatusRequest{})
	if connect.CodeOf(err) != connect.CodeInternal || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("got %v", err)
	}
	if _, err := call(t, c.Info, &pb.InfoRequest{}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestBackendErrors(t *testing.T) {
	b := apitest.Sample()
	b.Err = errors.Join(reconciler.ErrPrecondition, errors.New("nothing is held"))
	c := dial(t, b, api.RoleApprover)
	_, err := call(t, c.Approve, &pb.ApproveRequest{Application: "held", Digest: "x", Why: "x"})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("approve: %v", err)
	}
	_, err = call(t, c.VerifyAudit, &pb.VerifyAuditRequest{})
	if connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("verify: %v", err)
	}
}

// TestHintsAreApart: what to do about an error travels beside the message, and is
// not read out of it.
func TestHintsAreApart(t *testing.T) {
	for _, tt := range []struct {
		err           error
		message, hint string
	}{
		{&reconciler.HintError{Err: fmt.Errorf("%w: it moved; twice", reconciler.ErrPrecondition), Hint: "look again"}, "not possible now: it moved; twice", "look again"},
		{fmt.Errorf("application held: %w", &reconciler.HintError{Err: reconciler.ErrPrecondition, Hint: "caf\xe9"}), "application held: not possible now", "caf\ufffd"},
		{fmt.Errorf("%w: it moved; twice", reconciler.ErrPrecondition), "not possible now: it moved; twice", ""},
	} {
		b := apitest.Sample()
		b.Err = tt.err
		c := dial(t, b, api.RoleApprover)
		_, err := call(t, c.Approve, &pb.ApproveRequest{Application: "held", Digest: "x", Why: "x"})
		var got *connect.Error
		if !errors.As(err, &got) || got.Code() != connect.CodeFailedPrecondition || got.Message() != tt.message || api.HintOf(err) != tt.hint {
			t.Errorf("%v, hint %q; want %q, %q", err, api.HintOf(err), tt.message, tt.hint)
		}
	}
	c := dial(t, apitest.Sample(), api.RoleViewer)
	_, err := call(t, c.Sync, &pb.SyncRequest{})
	if connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(api.HintOf(err), "--operator-group") || strings.Contains(err.Error(), "; ") {
		t.Errorf("%v, hint %q", err, api.HintOf(err))
	}
}

// TestBrokenTextIsSent: a commit message in another encoding does not make the
// status of everything unreadable (row B-32).
func TestBrokenTextIsSent(t *testing.T) {
	b := apitest.Sample()
	b.Apps[0].Commit.Message = "caf\xe9"
	b.Apps[0].Targets = []string{"h\xff"}
	b.Apps[1].Failures[0].Message = "\xc3\x28"
	c := dial(t, b, api.RoleViewer)
	res, err := call(t, c.GetStatus, &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Applications[0]; got.Commit.Message != "caf\ufffd" || got.Targets[0] != "h\ufffd" {
		t.Errorf("got %q, %q", got.Commit.Message, got.Targets)
	}
	stream, err := c.WatchStatus(context.Background(), connect.NewRequest(&pb.WatchStatusRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	if !stream.Receive() {
		t.Errorf("stream: %v", stream.Err())
	}
	_ = stream.Close() // ends it early
}
