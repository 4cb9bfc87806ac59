package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// recordTimeout is how long the record of what was done may take after the
// round was told to end.
const recordTimeout = 5 * time.Second

// recordApplied makes the outcome durable, also when the round has been told to end.
// fresh are keys that had no record before these writes.
func (r *round) recordApplied(ctx context.Context, writes []*plan.Change, fresh map[plan.Key]bool, results []appliers.Result, e *execution) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	var put []plan.Entry
	var drop []plan.Key
	var done []*plan.Change
	for i, c := range writes {
		res := results[i]
		r.reportRemoved(c, res.Removed)
		switch res.Outcome {
		case appliers.Released: // it may still be there, and is no longer ours
			drop, done = append(drop, c.Key), append(done, c)
			r.reportApplied(c, res, e)
		case appliers.Done:
			if c.Action != plan.Delete { // a delete is dropped after the object is seen gone
				entry := c.Done()
				if res.Backup != "" {
					entry.Backup = res.Backup
				}
				put, done = append(put, entry), append(done, c)
			}
			r.reportApplied(c, res, e)
		case appliers.Pending:
			if res.Token != c.Entry.Token {
				entry := c.Entry
				entry.Token = res.Token
				put = append(put, entry)
			}
			e.wait(c, res)
		default:
			if res.Outcome == appliers.Refused && fresh[c.Key] {
				drop = append(drop, c.Key) // nothing of it was ever written
			} else if res.Backup != "" {
				entry := c.Entry
				entry.Backup = res.Backup
				put = append(put, entry)
			}
			e.fail(c, res.Err)
		}
	}
	if err := r.m.registry.write(ctx, put, drop); err != nil {
		for _, c := range done {
			e.fail(c, fmt.Errorf("it was written, and that could not be recorded: %w", err))
		}
	}
}

func (r *round) reportApplied(c *plan.Change, res appliers.Result, e *execution) {
	r.tellApplied(c, res)
	e.mu.Lock()
	defer e.mu.Unlock()
	r.out.written[c.Key] = struct{}{}
	if _, whole := e.whole[c.Key.Target]; whole {
		r.met = true // what other targets have that depends on it came too early
	}
	if c.Action == plan.Delete {
		r.out.deleted++
	} else {
		r.out.applied++
	}
}

func (r *round) tellApplied(c *plan.Change, res appliers.Result) {
	kind, message := applied(c, res)
	data := map[string]any{
		"key": c.Key.String(), "action": string(c.Action), "cause": string(c.Cause), "origin": c.Origin.String(), "revision": r.accepted.revision,
	}
	if res.Backup != "" {
		data["backup"] = res.Backup
	}
	if c.Unfinished != "" {
		data["finishes"] = c.Unfinished
	}
	if deletes(c) {
		r.addApproval(data)
	}
	r.event(kind, message, data)
}

// applied is how what was done about an object is told.
func applied(c *plan.Change, res appliers.Result) (EventKind, string) {
	switch {
	case res.Outcome == appliers.Released:
		return EventReleased, fmt.Sprintf("released %s: it is left there, or what was there before is back, and it is no longer on record", c.Key)
	case c.Action == plan.Delete:
		return EventDeleted, fmt.Sprintf("delete %s", c.Key)
	case c.Adopting && res.Backup != "":
		return EventAdopted, fmt.Sprintf("adopt %s over other content, which is kept as %s", c.Key, res.Backup)
	case c.Adopting:
		return EventAdopted, fmt.Sprintf("adopt %s over other content", c.Key)
	case c.Action == plan.Adopt:
		return EventAdopted, fmt.Sprintf("adopt %s", c.Key)
	case c.Action == plan.Update && len(c.Fields) == 0:
		return EventApplied, fmt.Sprintf("finish %s", c.Key)
	default:
		return EventApplied, fmt.Sprintf("%s %s", c.Action, c.Key)
	}
}

// setPending notes when to look at an object whose write completes by itself.
func (r *round) setPending(k plan.Key, after time.Duration) {
	if after <= 0 {
		after = time.Second
	}
	r.out.pending[k] = r.m.opts.Now().Add(after)
}

// underWay reports whether the same write was accepted by its target, which
// named it by a token, and when it is looked at again: until then it is not sent
// once more.
func (r *round) underWay(c *plan.Change) (time.Time, bool) {
	at, open := r.pending[c.Key]
	if !open || r.force || !r.m.opts.Now().Before(at) || c.Action == plan.None || c.Action == plan.Forget {
		return at, false
	}
	have, ok := r.m.registry.entry(r.app.Name, c.Key)
	return at, ok && have.Token != "" && have.State == c.Entry.State && maps.Equal(have.Writing, c.Entry.Writing)
}

// heldBack returns the failure of an object that is not tried again yet: the same
// was to be written, and its time has not come. One that has no time waits until
// something else is there.
func (r *round) heldBack(c *plan.Change) (failure, bool) {
	f, failed := r.failures[c.Key]
	if !failed || r.force || c.Action == plan.None || c.Action == plan.Forget {
		return failure{}, false
	}
	if f.want != wanted(c) {
		return failure{}, false
	}
	if f.RetryAt.IsZero() {
		return f, f.seen == r.seen(c.Key)
	}
	return f, r.m.opts.Now().Before(f.RetryAt)
}

// wanted names what a change is to bring about.
func wanted(c *plan.Change) string {
	if c.Desired == nil {
		return string(c.Action)
	}
	return string(c.Desired.Hash())
}

// seen names what was there when the round planned.
func (r *round) seen(k plan.Key) string {
	o, _ := r.out.observed.get(k)
	if o.Object == nil {
		return fmt.Sprint(o.Presence)
	}
	return string(o.Object.Hash()) + o.Unfinished
}

// fail records a failed object and when it is tried again, by the class of its
// error. The caller holds the lock of the execution.
func (r *round) fail(c *plan.Change, err error) {
	if err == nil {
		err = errors.New("the target gave no result")
	}
	now := r.m.opts.Now()
	k := c.Key
	before, again := r.failures[k]
	f := failure{
		Failure:  Failure{Key: k, Origin: c.Origin, Message: err.Error(), Class: appliers.ClassOf(err), Since: now},
		attempts: 1, want: wanted(c), seen: r.seen(k),
	}
	if again {
		f.Since = before.Since
		if before.want == f.want {
			f.attempts = before.attempts + 1
		}
	}
	switch f.Class {
	case appliers.Retry:
		f.RetryAt = now.Add(r.m.backoff(f.attempts, r.app.RetryMax))
	case appliers.Wait:
		f.RetryAt = now.Add(r.app.Interval)
	}
	if !again || before.Message != f.Message {
		r.app.log.Warn("object failed", "object", k.String(), "origin", f.Origin.String(), "class", f.Class.String(), "error", f.Message)
		r.event(EventFailed, named(c.Origin, k.ID, err.Error()), map[string]any{"key": k.String(), "class": f.Class.String(), "origin": f.Origin.String()})
	}
	r.m.opts.Metrics.failed(r.app.Name, f.Class)
	r.out.failures[k] = f
}

// touched returns the keys that the plan did something about.
func touched(p *plan.Plan) []plan.Key {
	var keys []plan.Key
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Blocked == "" && c.Action != plan.Forget {
			keys = append(keys, c.Key)
		}
	}
	return dedupe(keys)
}

// recordVerified drops what was seen gone and turns into failures what was
// written and is still different: an answer of success is not believed unread.
// Nor is a failure: what is there as before set out to write it was written.
func (r *round) recordVerified(ctx context.Context, before, after *plan.Plan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	var put []plan.Entry
	var drop []plan.Key
	open := map[plan.Key]bool{}          // not as desired yet
	wrote := map[plan.Key]*plan.Change{} // what failed and set out to write more than what follows
	for i := range before.Changes {
		c := &before.Changes[i]
		if _, failed := r.out.failures[c.Key]; failed && !unfinished(c) {
			wrote[c.Key] = c
		}
	}
	for i := range after.Changes {
		c := &after.Changes[i]
		_, failed := r.out.failures[c.Key]
		_, pending := r.out.pending[c.Key]
		switch {
		case c.Blocked != "":
			open[c.Key] = true
		case c.Action == plan.Forget:
			drop = append(drop, c.Key)
		case c.Action == plan.None:
			if c.Record {
				put = append(put, c.Done())
			}
			r.met = r.met || failed
			delete(r.out.failures, c.Key) // an uncertain write that did happen
		case !failed && !pending:
			r.fail(c, errors.New(notConverged(c)))
			open[c.Key] = true
		case wrote[c.Key] != nil && unfinished(c):
			put = append(put, c.Entry) // what is there counts as applied: a later change of it is drift
			r.foundWritten(wrote[c.Key], c)
			open[c.Key] = true
		default:
			open[c.Key] = true
		}
	}
	for k := range r.out.pending { // completed at once
		if !open[k] {
			delete(r.out.pending, k)
			r.met = true
		}
	}
	if err := r.m.registry.write(ctx, put, drop); err != nil {
		r.out.message = err.Error()
	}
}

// unfinished reports whether nothing is left of a write but what has to follow it.
func unfinished(c *plan.Change) bool {
	return c.Action == plan.Update && c.Unfinished != "" && len(c.Fields) == 0
}

// foundWritten tells of a write that is in place, though what has to follow it
// failed; now is what is left of it.
func (r *round) foundWritten(c, now *plan.Change) {
	res := appliers.Result{}
	if c.Adopting {
		res.Backup = now.Entry.Backup
	}
	r.tellApplied(c, res)
	r.out.written[c.Key] = struct{}{}
	r.out.applied++
}

// notConverged says of what was written and confirmed what is not as desired.
func notConverged(c *plan.Change) string {
	if unfinished(c) {
		return "written, and confirmed as complete, but " + c.Unfinished
	}
	return fmt.Sprintf("written, but it still differs at %s; is something else writing it?", fieldsOf(c))
}

func fieldsOf(c *plan.Change) string {
	if len(c.Fields) == 0 {
		return "its presence"
	}
	paths := make([]manifest.Pointer, 0, len(c.Fields))
	for _, f := range c.Fields[:min(3, len(c.Fields))] {
		paths = append(paths, f.Path)
	}
	return fmt.Sprint(paths)
}

// mergePlans returns what is left to do: of the keys that were looked at again
// what the second plan says, of the others what the first one said.
func mergePlans(before, after *plan.Plan, keys []plan.Key) *plan.Plan {
	again := make(map[plan.Key]struct{}, len(keys))
	for _, k := range keys {
		again[k] = struct{}{}
	}
	left := &plan.Plan{Application: before.Application, Gates: before.Gates}
	for _, c := range before.Changes {
		if _, ok := again[c.Key]; !ok && c.Action != plan.Forget {
			left.Changes = append(left.Changes, c)
		}
	}
	left.Changes = append(left.Changes, after.Changes...)
	return left
}
