// Package apitest holds a Backend for tests of whatever speaks the API. It keeps
// its answers in memory and notes the calls that steer.
package apitest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/reconciler"
)

// Backend answers from its fields. Set them before the first call; Update
// changes them later. It is safe for concurrent use.
type Backend struct {
	Apps    []reconciler.Status
	Source  []reconciler.SourceStatus
	Target  []reconciler.TargetStatus
	Sets    []reconciler.PolicySetStatus
	Plans   map[string]reconciler.PlanView
	Views   map[string]reconciler.ObjectView
	Listed  map[string][]reconciler.ObjectSummary
	Past    map[string][]reconciler.HistoryEntry
	Records []api.AuditRecord
	Verdict api.AuditVerdict
	// Err, when set, is what every call with an error result returns.
	Err error

	mu      sync.Mutex
	calls   []string
	waiters []chan struct{}
}

var (
	_ api.Backend = (*Backend)(nil)
	_ api.Audit   = (*Backend)(nil)
)

// Update changes the fields and tells the watchers.
func (b *Backend) Update(change func(*Backend)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
	for _, ch := range b.waiters {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// Watchers returns how many watch for changes.
func (b *Backend) Watchers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiters)
}

// Calls returns the steering calls so far, as "Verb arguments by principal".
func (b *Backend) Calls() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.calls)
}

func (b *Backend) note(by, format string, args ...any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.Err == nil {
		b.calls = append(b.calls, fmt.Sprintf(format, args...)+" by "+by)
	}
	return b.Err
}

func (b *Backend) known(app string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.ContainsFunc(b.Apps, func(s reconciler.Status) bool { return s.Application == app }) {
		return fmt.Errorf("%w: %q", reconciler.ErrUnknownApplication, app)
	}
	return b.Err
}

// Status implements api.Viewer.
func (b *Backend) Status(apps ...string) ([]reconciler.Status, error) {
	for _, app := range apps {
		if err := b.known(app); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Clone(b.Apps)
	return slices.DeleteFunc(out, func(s reconciler.Status) bool {
		return len(apps) > 0 && !slices.Contains(apps, s.Application)
	}), b.Err
}

// Sources implements api.Informer.
func (b *Backend) Sources() []reconciler.SourceStatus { return b.Source }

// Targets implements api.Informer.
func (b *Backend) Targets() []reconciler.TargetStatus { return b.Target }

// PolicySets implements api.Informer.
func (b *Backend) PolicySets() []reconciler.PolicySetStatus { return b.Sets }

// Changed implements api.Viewer.
func (b *Backend) Changed(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	b.mu.Lock()
	b.waiters = append(b.waiters, ch)
	b.mu.Unlock()
	context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.waiters = slices.DeleteFunc(b.waiters, func(w chan struct{}) bool { return w == ch })
		close(ch)
	})
	return ch
}

// Plan implements api.Looker.
func (b *Backend) Plan(_ context.Context, app string) (reconciler.PlanView, error) {
	return b.Plans[app], b.known(app)
}

// Object implements api.Looker.
func (b *Backend) Object(_ context.Context, app, ref string) (reconciler.ObjectView, error) {
	if err := b.known(app); err != nil {
		return reconciler.ObjectView{}, err
	}
	for key, view := range b.Views {
		if strings.Contains(key, ref) {
			return view, nil
		}
	}
	return reconciler.ObjectView{}, fmt.Errorf("%w %q in application %s", reconciler.ErrUnknownObject, ref, app)
}

// Objects implements api.Looker.
func (b *Backend) Objects(_ context.Context, app string) ([]reconciler.ObjectSummary, error) {
	return b.Listed[app], b.known(app)
}

// History implements api.Historian.
func (b *Backend) History(_ context.Context, app string, limit int) ([]reconciler.HistoryEntry, error) {
	past := b.Past[app]
	return past[:min(limit, len(past))], b.known(app)
}

// Sync implements api.Steerer.
func (b *Backend) Sync(_ context.Context, by, app string, wait bool) error {
	if app != "" {
		if err := b.known(app); err != nil {
			return err
		}
	}
	return b.note(by, "Sync %q wait=%v", app, wait)
}

func (b *Backend) scope(app string, all bool) ([]string, error) {
	if !all {
		return []string{app}, b.known(app)
	}
	var names []string
	for _, s := range b.Apps {
		names = append(names, s.Application)
	}
	return names, nil
}

// Suspend implements api.Stopper.
func (b *Backend) Suspend(_ context.Context, by, app string, all bool, why string, until time.Time) ([]string, error) {
	names, err := b.scope(app, all)
	if err != nil {
		return nil, err
	}
	end := "never"
	if !until.IsZero() {
		end = until.UTC().Format(time.RFC3339)
	}
	return names, b.note(by, "Suspend %q all=%v why=%q until=%s", app, all, why, end)
}

// Resume implements api.Stopper.
func (b *Backend) Resume(_ context.Context, by, app string, all bool, why string) ([]string, error) {
	names, err := b.scope(app, all)
	if err != nil {
		return nil, err
	}
	return names, b.note(by, "Resume %q all=%v why=%q", app, all, why)
}

// Approve implements api.Steerer.
func (b *Backend) Approve(_ context.Context, by reconciler.Approver, app, digest, why string, validFor time.Duration) (reconciler.Approval, error) {
	if err := b.known(app); err != nil {
		return reconciler.Approval{}, err
	}
	expires := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC).Add(validFor)
	return reconciler.Approval{Application: app, Digest: digest, Expires: expires},
		b.note(by.Name, "Approve %q digest=%s why=%q for=%s", app, digest, why, validFor)
}

// AcceptHistory implements api.Steerer.
func (b *Backend) AcceptHistory(_ context.Context, by, app, revision, why string) (string, string, error) {
	if err := b.known(app); err != nil {
		return "", "", err
	}
	return "site", "8843d7f92416211de9ebb963ff4ce28125932878", b.note(by, "AcceptHistory %q revision=%q why=%q", app, revision, why)
}

// Forget implements api.Forgetter.
func (b *Backend) Forget(_ context.Context, by, app string, objects []string, why string) ([]string, error) {
	if err := b.known(app); err != nil {
		return nil, err
	}
	left := objects
	if len(left) == 0 {
		left = []string{"host:host.gitopsd.io/File/left"}
	}
	return left, b.note(by, "Forget %q %v why=%q", app, objects, why)
}

// Query implements api.Audit.
func (b *Backend) Query(_ context.Context, application, kind string, limit int) ([]api.AuditRecord, error) {
	var out []api.AuditRecord
	for _, r := range b.Records {
		if (application == "" || r.Application == application) && (kind == "" || r.Kind == kind) && len(out) < limit {
			out = append(out, r)
		}
	}
	return out, b.Err
}

// Verify implements api.Audit.
func (b *Backend) Verify(context.Context) (api.AuditVerdict, error) { return b.Verdict, b.Err }
