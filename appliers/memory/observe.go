package memory

import (
	"context"
	"fmt"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// begin plays latency and hanging at the start of a call.
func (a *Applier) begin(ctx context.Context, call string) (Faults, error) {
	f := a.world.faultsNow()
	if f.Latency != nil {
		f.Latency(ctx, call)
	}
	if f.Hang != nil {
		<-f.Hang
	}
	return f, ctx.Err()
}

// Observe implements appliers.Applier.
func (a *Applier) Observe(ctx context.Context, queries []appliers.Query) (map[plan.Key]plan.Observed, error) {
	f, err := a.begin(ctx, "observe")
	if err != nil {
		return nil, err
	}
	if f.ReadErr != nil {
		return nil, fmt.Errorf("target %s: read: %w", a.env.Target, f.ReadErr)
	}
	reasons := make([]string, len(queries))
	for i, q := range queries {
		if f.Unread != nil {
			reasons[i] = f.Unread(q.Key)
		}
	}
	if f.Answered != nil {
		defer f.Answered()
	}
	a.world.mu.Lock()
	defer a.world.mu.Unlock()
	a.world.count.Observes++
	a.world.count.KeysObserved += len(queries)
	answers := make(map[plan.Key]plan.Observed, len(queries))
	for i, q := range queries {
		if reasons[i] != "" {
			answers[q.Key] = plan.Observed{Reason: reasons[i], At: a.env.Now()}
			continue
		}
		answers[q.Key] = a.look(q)
	}
	return answers, nil
}

// look answers one query; the world is locked.
func (a *Applier) look(q appliers.Query) plan.Observed {
	now := a.env.Now()
	t := a.world.things[q.Locator]
	if t == nil {
		return plan.Observed{Presence: plan.Absent, At: now}
	}
	a.world.settle(t, now, true)
	s := t.now
	if t.stale {
		s, t.stale = t.before, false
	}
	if s == nil {
		return plan.Observed{Presence: plan.Absent, At: now}
	}
	obj, err := a.project(a.is.normalize(s.content), q)
	if err != nil {
		return plan.Observed{Reason: fmt.Sprintf("the live object is malformed: %v", err), At: now}
	}
	seen := plan.Observed{
		Presence: plan.Present, Object: obj, Version: fmt.Sprint(s.version), At: now, Writer: s.writer,
	}
	if s.mark != nil && a.is.Marks {
		seen.Owner = s.mark.application
	}
	if t.owed {
		seen.Unfinished = "what follows the write is still owed"
	}
	return seen
}

// project returns the live object under the identity that was asked for, with
// the fields that were asked for.
func (a *Applier) project(live map[string]any, q appliers.Query) (*manifest.Object, error) {
	id := q.Key.ID
	meta := map[string]any{"name": id.Name}
	if id.Namespace != "" {
		meta["namespace"] = id.Namespace
	}
	content := map[string]any{"apiVersion": live["apiVersion"], "kind": id.Kind, "metadata": meta}
	for _, p := range q.Fields {
		if identity[p] {
			continue
		}
		if v, ok := manifest.Lookup(live, p); ok {
			content = manifest.With(content, p, a.seal(p, v))
		}
	}
	return manifest.New(content, manifest.Origin{})
}

// identity are the fields that the query answers by its key.
var identity = map[manifest.Pointer]bool{
	"": true, "/apiVersion": true, "/kind": true, "/metadata": true, "/metadata/name": true, "/metadata/namespace": true,
}

// Health implements appliers.HealthChecker.
func (a *Applier) Health(ctx context.Context, queries []appliers.Query) (map[plan.Key]appliers.Health, error) {
	if _, err := a.begin(ctx, "health"); err != nil {
		return nil, err
	}
	a.world.mu.Lock()
	defer a.world.mu.Unlock()
	answers := make(map[plan.Key]appliers.Health, len(queries))
	for _, q := range queries {
		answers[q.Key] = a.world.healthOf(q.Locator)
	}
	return answers, nil
}

func (w *World) healthOf(locator string) appliers.Health {
	t := w.things[locator]
	switch h, set := w.health[locator]; {
	case t != nil && t.coming != nil:
		return appliers.Health{Status: appliers.Progressing, Message: "a write is still to complete"}
	case t == nil || t.now == nil:
		return appliers.Health{Status: appliers.Missing, Message: "not there"}
	case set:
		return h
	default:
		return appliers.Health{Status: appliers.Healthy}
	}
}
