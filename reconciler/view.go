package reconciler

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// Plan returns the difference between what is desired and what was last
// observed: of the candidate when there is one, else of the accepted revision.
func (m *Manager) Plan(ctx context.Context, application string) (PlanView, error) {
	v, err := m.view(ctx, application)
	if err != nil {
		return PlanView{}, err
	}
	var out PlanView
	err = v.contained(func() (err error) { out, err = v.plan(); return err })
	return out, err
}

// Object returns what is known of one object, named by its key or any part of
// it that fits no other.
func (m *Manager) Object(ctx context.Context, application, ref string) (ObjectView, error) {
	v, err := m.view(ctx, application)
	if err != nil {
		return ObjectView{}, err
	}
	var out ObjectView
	err = v.contained(func() (err error) { out, err = v.object(ref); return err })
	return out, err
}

// view is what a reader works on: a snapshot of an application, in the reader's
// own goroutine, so that neither a long look nor one that breaks is the loop's.
type view struct {
	app       *app
	revision  string
	accepted  *desiredState
	candidate *Candidate
	proposed  *plan.Plan
	observed  keyMap[plan.Observed]
	contended map[plan.FieldRef]bool
	lookedAt  time.Time
}

func (m *Manager) view(ctx context.Context, application string) (*view, error) {
	a, err := m.app(application)
	if err != nil {
		return nil, err
	}
	v := &view{app: a}
	err = a.ask(ctx, func(st *appState) {
		v.revision, v.accepted, v.candidate, v.proposed = st.record.Revision, st.accepted, st.candidate, st.proposed
		v.observed, v.lookedAt, v.contended = st.observed, st.lookedAt, st.fights.contended(m.opts.Now())
	})
	return v, err
}

// contained runs fn; a panic is an error of this reader alone.
func (v *view) contained(fn func() error) error {
	err := contained(fn)
	if p := new(panicked); errors.As(err, &p) {
		v.app.log.Error("reader ended by a panic", "error", p.value, "stack", p.stack)
	}
	return err
}

func (v *view) plan() (PlanView, error) {
	if v.candidate != nil && v.proposed != nil {
		return PlanView{Plan: v.proposed, Revision: v.candidate.Revision, Candidate: true, At: v.lookedAt}, nil
	}
	if v.accepted == nil {
		return PlanView{Plan: &plan.Plan{Application: v.app.Name}}, nil
	}
	p, err := v.build(append(v.accepted.allKeys(), v.app.m.registry.keys(v.app.Name)...))
	return PlanView{Plan: p, Revision: v.revision, At: v.lookedAt}, err
}

func (v *view) object(ref string) (ObjectView, error) {
	k, err := v.find(ref)
	if err != nil {
		return ObjectView{}, err
	}
	out := ObjectView{Key: k}
	if v.accepted != nil {
		if item, ok := v.accepted.items.get(k); ok {
			out.Desired, out.Origin, out.Locator = item.Object, item.Source.Origin(), item.Locator
		}
	}
	if e, ok := v.app.m.registry.entry(v.app.Name, k); ok {
		out.Entry, out.Locator = &e, e.Locator
		if out.Desired == nil {
			out.Origin = e.Origin
		}
	}
	out.Observed, _ = v.observed.get(k)
	p, err := v.build([]plan.Key{k})
	if err != nil {
		return out, err
	}
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Key == k {
			out.Fields = append(append(out.Fields, c.Fields...), c.Reported...)
		}
	}
	return out, nil
}

// build plans for a reader: nothing is recorded, moved or applied.
func (v *view) build(keys []plan.Key) (*plan.Plan, error) {
	if v.accepted == nil {
		return &plan.Plan{Application: v.app.Name}, nil
	}
	m := v.app.m
	r := &round{m: m, roundInput: roundInput{app: v.app, head: m.head(v.app.Source), contended: v.contended}}
	r.out.observed = v.observed
	return r.build(v.accepted, keys)
}

func (v *view) find(ref string) (plan.Key, error) {
	name := v.app.Name
	known := map[plan.Key]struct{}{}
	if v.accepted != nil {
		for k := range v.accepted.items.all() {
			known[k] = struct{}{}
		}
	}
	for _, k := range v.app.m.registry.keys(name) {
		known[k] = struct{}{}
	}
	var found []plan.Key
	for k := range known {
		if k.String() == ref || k.ID.String() == ref {
			return k, nil
		}
		if strings.Contains(k.String(), ref) {
			found = append(found, k)
		}
	}
	sortKeys(found)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return plan.Key{}, fmt.Errorf("application %s: %w: %q; list them with: gitopsd status %s -o json", name, ErrUnknownObject, ref, name)
	default:
		return plan.Key{}, fmt.Errorf("application %s: %w: %q fits %d objects, among them %s and %s", name, ErrUnknownObject, ref, len(found), found[0], found[1])
	}
}
