package reconciler

import (
	"fmt"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// takeDrift keeps the drift of keys that were looked at: what was healed goes
// after it has been counted, what stays is shown with its first-seen time.
func (a *app) takeDrift(st *appState, res roundResult, now time.Time) {
	if res.before == nil {
		return
	}
	left := map[plan.FieldRef]bool{}
	if res.after != nil {
		for i := range res.after.Changes {
			c := &res.after.Changes[i]
			for _, f := range drifted(c) {
				left[plan.FieldRef{Key: c.Key, Path: f.Path}] = true
			}
		}
	}
	changed := false
	for i := range res.before.Changes {
		c := &res.before.Changes[i]
		for _, f := range drifted(c) {
			changed = a.noteDrift(st, c, f, res, !left[plan.FieldRef{Key: c.Key, Path: f.Path}], now) || changed
		}
	}
	for ref, d := range st.drift {
		if _, looked := res.scope[ref.Key]; looked && !left[ref] {
			if d.sent {
				a.countHeal(st, ref, now)
			}
			delete(st.drift, ref)
			changed = true
		}
	}
	if !changed {
		return
	}
	note := func(err error) {
		if err != nil {
			a.log.Warn("drift was not recorded", "error", err)
		}
	}
	op, err := driftOp(a.Name, st.drift)
	if err != nil {
		note(err)
		return
	}
	a.m.journal.record(op, note)
}

// driftedField is a field that moved by itself and what the rules say about it.
type driftedField struct {
	plan.FieldChange
	mode plan.DriftMode
}

// drifted returns the fields of a change that moved by themselves. An object
// that was deleted by hand is one field: the whole.
func drifted(c *plan.Change) []driftedField {
	if c.Action == plan.Create {
		if c.Cause != plan.Drift {
			return nil
		}
		return []driftedField{{plan.FieldChange{Op: plan.FieldAdd, Cause: plan.Drift}, plan.DriftHeal}}
	}
	var out []driftedField
	for _, f := range c.Fields {
		if f.Cause != plan.Intended {
			out = append(out, driftedField{f, plan.DriftHeal})
		}
	}
	for _, f := range c.Reported {
		out = append(out, driftedField{f, plan.DriftReport})
	}
	return out
}

// reportDrift tells of drift that is news, before anything is done about it.
func (r *round) reportDrift() {
	for i := range r.out.before.Changes {
		c := &r.out.before.Changes[i]
		for _, f := range drifted(c) {
			ref := plan.FieldRef{Key: c.Key, Path: f.Path}
			if _, known := r.drift[ref]; known {
				continue
			}
			data := map[string]any{"key": c.Key.String(), "path": string(f.Path), "mode": string(f.mode)}
			if r.contended[ref] {
				data["mode"], data["contended"] = string(plan.DriftHeal), true
			}
			r.event(EventDrift, driftName(ref)+" drifted", data)
		}
	}
}

func driftName(ref plan.FieldRef) string {
	if ref.Path == "" {
		return fmt.Sprintf("%s as a whole", ref.Key)
	}
	return fmt.Sprintf("%s %s", ref.Key, ref.Path)
}

// noteDrift records one drifted field and reports whether it is news. gone says
// that it does not differ any more at the end of the round. Only a heal that was
// written counts for a fight: one that failed is a failure and says nothing about
// other writers.
func (a *app) noteDrift(st *appState, c *plan.Change, f driftedField, res roundResult, gone bool, now time.Time) (news bool) {
	ref := plan.FieldRef{Key: c.Key, Path: f.Path}
	_, written := res.written[c.Key]
	_, pending := res.pending[c.Key]
	healing := f.mode == plan.DriftHeal && c.Blocked == ""
	d, known := st.drift[ref]
	if !known {
		d = DriftedField{Key: c.Key, FirstSeen: now}
	}
	healed := healing && (written || gone && res.after != nil)
	if !known || healed {
		d.Seen++
	}
	if healed {
		a.countHeal(st, ref, now)
	}
	d.Change, d.Mode, d.sent = f.FieldChange, f.mode, healing && pending && !healed
	if d.Contended = now.Before(st.fights.until[ref]); d.Contended {
		d.Mode = plan.DriftHeal // only what is healed is fought over; it is left alone for a while
	}
	if w := res.writers[c.Key]; w != "" {
		d.Writer = w
	}
	st.drift[ref] = d
	return !known
}

// countHeal takes in that a drifted field was written, and tells when that was
// once too often.
func (a *app) countHeal(st *appState, ref plan.FieldRef, now time.Time) {
	if !st.fights.heal(ref, a.Contention, now) {
		return
	}
	a.tell(EventContended,
		fmt.Sprintf("%s is written by somebody else again and again; it is left alone for %s; let one of the two own it, or set drift mode report for it", driftName(ref), a.Contention.Cooldown),
		map[string]any{"key": ref.Key.String(), "path": string(ref.Path)})
}
