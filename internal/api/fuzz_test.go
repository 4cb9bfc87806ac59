package api

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/reconciler"
)

// quiet is a backend that has nothing.
type quiet struct{}

func (quiet) Status(...string) ([]reconciler.Status, error) { return nil, nil }
func (quiet) Sources() []reconciler.SourceStatus            { return nil }
func (quiet) Targets() []reconciler.TargetStatus            { return nil }
func (quiet) PolicySets() []reconciler.PolicySetStatus      { return nil }
func (quiet) Changed(context.Context) <-chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}
func (quiet) Plan(context.Context, string) (reconciler.PlanView, error) {
	return reconciler.PlanView{}, nil
}
func (quiet) Object(context.Context, string, string) (reconciler.ObjectView, error) {
	return reconciler.ObjectView{}, nil
}
func (quiet) Objects(context.Context, string) ([]reconciler.ObjectSummary, error) { return nil, nil }
func (quiet) Forget(context.Context, string, string, []string, string) ([]string, error) {
	return nil, nil
}
func (quiet) History(context.Context, string, int) ([]reconciler.HistoryEntry, error) {
	return nil, nil
}
func (quiet) Sync(context.Context, string, string, bool) error { return nil }
func (quiet) Suspend(context.Context, string, string, bool, string, time.Time) ([]string, error) {
	return nil, nil
}
func (quiet) Resume(context.Context, string, string, bool, string) ([]string, error) {
	return nil, nil
}
func (quiet) Approve(context.Context, reconciler.Approver, string, string, string, time.Duration) (reconciler.Approval, error) {
	return reconciler.Approval{}, nil
}
func (quiet) AcceptHistory(context.Context, string, string, string, string) (string, string, error) {
	return "", "", nil
}
func (quiet) Query(context.Context, string, string, int) ([]AuditRecord, error) { return nil, nil }
func (quiet) Verify(context.Context) (AuditVerdict, error)                      { return AuditVerdict{}, nil }

// FuzzRequest sends any bytes to every call, as JSON and as protobuf: no answer
// is an internal error, and nothing panics (row F-94).
func FuzzRequest(f *testing.F) {
	all := procedures()
	for i := range all {
		f.Add(uint8(i), true, []byte(`{"application":"a","why":"x","until":"2030-01-01T00:00:00Z","limit":-1}`))
		f.Add(uint8(i), false, []byte("\x0a\x01a\x12\x01b\xff"))
	}
	f.Add(uint8(0), true, []byte(strings.Repeat("[", 10000)))
	var logged strings.Builder
	handler := NewHandler(quiet{}, Options{
		Audit: quiet{}, Info: func() Info { return Info{} }, Log: slog.New(slog.NewTextHandler(&logged, nil)), WatchGap: time.Nanosecond,
	})
	f.Fuzz(func(t *testing.T, i uint8, asJSON bool, body []byte) {
		procedure := all[int(i)%len(all)]
		req := httptest.NewRequest(http.MethodPost, procedure, strings.NewReader(string(body)))
		types := []string{"application/proto", "application/json"}
		if strings.HasSuffix(procedure, "WatchStatus") {
			types = []string{"application/connect+proto", "application/connect+json"}
		}
		contentType := types[0]
		if asJSON {
			contentType = types[1]
		}
		req.Header.Set("Content-Type", contentType)
		who := func() Principal { return Principal{Name: "x", Role: RoleApprover} }
		res := httptest.NewRecorder()
		handler.ServeHTTP(res, req.WithContext(context.WithValue(req.Context(), principalKey{}, who)))
		if !slices.Contains([]int{200, 400, 429, 413}, res.Code) {
			t.Fatalf("%s: %d %s", procedure, res.Code, res.Body)
		}
		if logged.Len() > 0 {
			t.Fatalf("%s: %s", procedure, logged.String())
		}
	})
}
