package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Plan returns the difference between what is desired and what was last
// observed: of the candidate when it came to a plan, else of the accepted revision.
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
	m         *Manager
	name      string
	app       *app // nil when it is not configured any more and left something behind
	revision  string
	accepted  *desiredState
	candidate *Candidate
	proposed  *plan.Plan
	observed  keyMap[plan.Observed]
	contended map[plan.FieldRef]bool
	problems  map[plan.Key]string
	unhealthy map[plan.Key]appliers.Health
	lookedAt  time.Time
	status    Status
	digest    string // of what waits for an approval
}

func (m *Manager) view(ctx context.Context, application string) (*view, error) {
	v := &view{m: m, name: application}
	a, err := m.app(application)
	if err != nil {
		if m.registry.count(application) == 0 {
			return nil, err
		}
		return v, nil
	}
	v.app = a
	err = a.ask(ctx, func(st *appState) {
		v.revision, v.accepted, v.candidate, v.proposed = st.record.Revision, st.accepted, st.candidate, st.proposed
		v.status = m.status(a)
		v.observed, v.lookedAt, v.contended = st.observed, st.lookedAt, st.fights.contended(m.opts.Now())
		v.problems, v.unhealthy = st.problems(), maps.Clone(st.unhealthy)
		if st.candidate != nil {
			v.digest = st.candidate.Digest
		} else if st.hold != nil {
			v.digest = st.hold.Digest
		}
	})
	return v, err
}

// contained runs fn; a panic is an error of this reader alone.
func (v *view) contained(fn func() error) error {
	err := contained(fn)
	if p := new(panicked); errors.As(err, &p) {
		v.m.opts.Log.Error("reader ended by a panic", "application", v.name, "error", p.value, "stack", p.stack)
	}
	return err
}

func (v *view) plan() (PlanView, error) {
	out := PlanView{At: v.lookedAt, Digest: v.digest, Sync: v.status.Sync}
	if c := v.candidate; c != nil && c.State != CandidateHeld {
		out.Waits = c
	}
	var err error
	switch {
	case v.app == nil: // nothing is desired, so nothing differs
	case v.candidate != nil && v.proposed != nil:
		out.Plan, out.Revision, out.Candidate = v.proposed, v.candidate.Revision, true
	case v.accepted == nil:
		out.Plan = &plan.Plan{Application: v.name}
	default:
		out.Revision = v.accepted.revision
		out.Plan, err = v.build(append(v.accepted.allKeys(), v.m.registry.keys(v.name)...))
	}
	if why := v.unknown(); why != "" && out.Plan != nil {
		doubted := *out.Plan // what the loop proposes is not this reader's
		doubted.Unknown = why
		out.Plan = &doubted
	}
	return out, err
}

// unknown says why it is not known whether anything differs from the accepted
// revision, as the status does; "" when it is known.
func (v *view) unknown() string {
	switch {
	case v.app == nil || v.candidate != nil && v.proposed != nil:
		return ""
	case v.accepted == nil && v.candidate != nil && v.revision == "":
		return "nothing was accepted before"
	case v.accepted == nil && v.candidate != nil: // of which the message is
		return shortRevision(v.revision) + " was accepted before; since the start nothing has been looked at"
	case v.accepted == nil, v.status.Sync == SyncUnknown, v.status.Sync == Stale:
		return v.status.Message
	default:
		return ""
	}
}

func (v *view) object(ref string) (ObjectView, error) {
	k, err := v.find(ref)
	if err != nil {
		return ObjectView{}, err
	}
	known := v.summary(k)
	out := ObjectView{Key: k, Health: known.Health, Problem: known.Problem}
	if v.accepted != nil {
		if item, ok := v.accepted.items.get(k); ok {
			out.Desired, out.Origin, out.Locator = item.Object, item.Source.Origin(), item.Locator
		}
	}
	if e, ok := v.m.registry.entry(v.name, k); ok {
		out.Entry, out.Locator = &e, e.Locator
		if out.Desired == nil {
			out.Origin = e.Origin
		}
	}
	out.Observed, _ = v.observed.get(k)
	if out.Observed.Presence == plan.PresenceUnknown && out.Observed.Reason == "" {
		out.Observed.Reason = v.unknown()
	}
	if v.app == nil {
		out.Observed.Reason = "left behind by an application that is not configured any more; nobody looks at it"
	}
	p, err := v.build([]plan.Key{k})
	if err != nil {
		return out, err
	}
	for i := range p.Changes {
		if c := &p.Changes[i]; c.Key == k {
			out.Fields = append(append(out.Fields, c.Fields...), c.Reported...)
			if out.Problem == "" {
				out.Problem = c.Unfinished
			}
		}
	}
	return out, nil
}

// build plans for a reader: nothing is recorded, moved or applied.
func (v *view) build(keys []plan.Key) (*plan.Plan, error) {
	if v.accepted == nil {
		return &plan.Plan{Application: v.name}, nil
	}
	m := v.m
	r := &round{m: m, roundInput: roundInput{app: v.app, accepted: v.accepted, head: m.head(v.app.Source), contended: v.contended}}
	r.out.observed = v.observed
	return r.build(v.accepted, keys)
}

// find returns the key that ref names: all of a key, else the name of an object
// with or without what stands before it, else any part of a key. What fits more
// exactly wins over what fits somewhere.
func (v *view) find(ref string) (plan.Key, error) {
	return find(v.keys(), v.name, ref)
}

// keys returns what is desired or owned, sorted.
func (v *view) keys() []plan.Key {
	keys := v.m.registry.keys(v.name)
	if v.accepted != nil {
		keys = append(keys, v.accepted.allKeys()...)
	}
	return dedupe(keys)
}

// find looks for ref among the keys of an application.
func find(keys []plan.Key, application, ref string) (plan.Key, error) {
	var found []plan.Key
	for _, fits := range []func(k plan.Key) bool{
		func(k plan.Key) bool { return k.String() == ref },
		func(k plan.Key) bool { return k.ID.String() == ref },
		func(k plan.Key) bool { return strings.HasSuffix(k.String(), "/"+ref) },
		func(k plan.Key) bool { return strings.Contains(k.String(), ref) },
	} {
		for _, k := range keys {
			if fits(k) {
				found = append(found, k)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	sortKeys(found)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return plan.Key{}, hinted(fmt.Errorf("application %s: %w: %q", application, ErrUnknownObject, ref), "list them with: gitopsd get %s", application)
	default:
		return plan.Key{}, hinted(fmt.Errorf("application %s: %w: %q fits %d objects: %s", application, ErrAmbiguous, ref, len(found), someKeys(found)), "name one of them whole")
	}
}

// maxFits is how many of the objects that a name fits are told.
const maxFits = 5

func someKeys(keys []plan.Key) string {
	names := make([]string, min(len(keys), maxFits))
	for i := range names {
		names[i] = keys[i].String()
	}
	return strings.Join(names, ", ") + more(len(keys)-len(names))
}

// Objects lists what an application desires, owns, or left behind, sorted by key.
func (m *Manager) Objects(ctx context.Context, application string) ([]ObjectSummary, error) {
	v, err := m.view(ctx, application)
	if err != nil {
		return nil, err
	}
	keys := v.keys()
	out := make([]ObjectSummary, len(keys))
	for i, k := range keys {
		out[i] = v.summary(k)
	}
	return out, nil
}

func (v *view) summary(k plan.Key) ObjectSummary {
	out := ObjectSummary{Key: k, Problem: v.problems[k]}
	if e, ok := v.m.registry.entry(v.name, k); ok && e.Owner == v.name {
		out.State, out.Origin, out.Locator = e.State, e.Origin, e.Locator
	}
	if v.accepted != nil {
		if item, ok := v.accepted.items.get(k); ok {
			out.Desired, out.Origin, out.Locator = true, item.Source.Origin(), item.Locator
		}
	}
	o, _ := v.observed.get(k)
	out.Presence = o.Presence
	if o.Presence == plan.Present && out.Desired {
		out.Health = appliers.Healthy
		if h, bad := v.unhealthy[k]; bad {
			out.Health = h.Status
		}
	}
	return out
}

// problems says of each object that is not as desired why, in one line.
func (st *appState) problems() map[plan.Key]string {
	out := map[plan.Key]string{}
	fields := map[plan.Key]int{}
	for k, list := range st.violations().all() {
		out[k] = list[0].Msg
	}
	for ref, d := range st.drift {
		if !d.seen() {
			continue
		}
		if ref.Path == "" {
			out[ref.Key] = "deleted on the target"
			continue
		}
		fields[ref.Key]++
	}
	for k, n := range fields {
		out[k] = counted(n, "field") + " drifted"
	}
	for k := range st.pending {
		out[k] = "written, and not complete yet"
	}
	for k, why := range st.blocked {
		out[k] = "waits: " + firstLine(why)
	}
	for k, f := range st.failures {
		out[k] = "failed: " + firstLine(f.Message)
	}
	return out
}
