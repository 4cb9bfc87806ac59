package reconciler

import (
	"fmt"
	"maps"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// contention notices fields that somebody else keeps writing: healed too often
// within a window, a field is left alone for a while, so that two writers do not
// undo each other for ever. The zero value is ready. It is for one goroutine.
type contention struct {
	healed map[plan.FieldRef][]time.Time
	until  map[plan.FieldRef]time.Time
}

// heal records that a drifted field was written again at now and reports
// whether this was once too often.
func (c *contention) heal(ref plan.FieldRef, rule Contention, now time.Time) bool {
	if c.healed == nil {
		c.healed, c.until = map[plan.FieldRef][]time.Time{}, map[plan.FieldRef]time.Time{}
	}
	recent := c.healed[ref][:0]
	for _, at := range c.healed[ref] {
		if now.Sub(at) < rule.Window {
			recent = append(recent, at)
		}
	}
	recent = append(recent, now)
	if len(recent) < rule.Threshold {
		c.healed[ref] = recent
		return false
	}
	delete(c.healed, ref)
	c.until[ref] = now.Add(rule.Cooldown)
	return true
}

// contended returns the fields to leave alone at now.
func (c *contention) contended(now time.Time) map[plan.FieldRef]bool {
	out := map[plan.FieldRef]bool{}
	for ref, until := range c.until {
		if now.Before(until) {
			out[ref] = true
		}
	}
	return out
}

// said says of the drifted fields that are contended until when they are left
// alone; "" when none is.
func (c *contention) said(drift map[plan.FieldRef]DriftedField) string {
	n, first := 0, time.Time{}
	for ref, d := range drift {
		if until, ok := c.until[ref]; ok && d.Contended {
			if n++; n == 1 || until.Before(first) {
				first = until
			}
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d contended: something else keeps writing there, and healing pauses until %s", n, first.UTC().Format(time.RFC3339))
}

// leftAlone counts the drifted fields that are contended.
func (st *appState) leftAlone() (n int) {
	for _, d := range st.drift {
		if d.Contended {
			n++
		}
	}
	return n
}

// fought returns the fields to leave alone in a plan for state. A new intent for
// an object ends its fights, also for the fields that it does not change.
func (r *round) fought(state *desiredState) map[plan.FieldRef]bool {
	if state != r.candidate || len(r.contended) == 0 {
		return r.contended
	}
	changed := r.changed()
	left := maps.Clone(r.contended)
	maps.DeleteFunc(left, func(ref plan.FieldRef, _ bool) bool { return changed[ref.Key] })
	return left
}

// leftAlone counts the fields of the whole application that differ and are
// contended at the end of the round.
func (r *round) leftAlone() (n int) {
	for ref, d := range r.drift {
		if _, looked := r.out.scope[ref.Key]; d.Contended && !looked {
			n++
		}
	}
	fought := r.fought(r.accepted)
	if r.out.after == nil || len(fought) == 0 {
		return n
	}
	for i := range r.out.after.Changes {
		c := &r.out.after.Changes[i]
		for _, f := range c.Reported {
			if fought[plan.FieldRef{Key: c.Key, Path: f.Path}] {
				n++
			}
		}
	}
	return n
}

// over takes out the fields whose pause has ended: they are looked at again.
func (c *contention) over(now time.Time) map[plan.FieldRef]bool {
	out := map[plan.FieldRef]bool{}
	for ref, until := range c.until {
		if !now.Before(until) {
			out[ref] = true
			delete(c.until, ref)
		}
	}
	return out
}

// tidy drops what was healed too long ago to count.
func (c *contention) tidy(rule Contention, now time.Time) {
	for ref, at := range c.healed {
		if now.Sub(at[len(at)-1]) >= rule.Window {
			delete(c.healed, ref)
		}
	}
}

// forget drops what is known about the fields of keys whose intent changed.
func (c *contention) forget(keys []plan.Key) {
	if len(c.healed)+len(c.until) == 0 {
		return
	}
	gone := make(map[plan.Key]bool, len(keys))
	for _, k := range keys {
		gone[k] = true
	}
	maps.DeleteFunc(c.healed, func(ref plan.FieldRef, _ []time.Time) bool { return gone[ref.Key] })
	maps.DeleteFunc(c.until, func(ref plan.FieldRef, _ time.Time) bool { return gone[ref.Key] })
}
