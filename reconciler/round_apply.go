package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
)

// applyAndVerify carries out what the plan allows and reads back what it did.
func (r *round) applyAndVerify(ctx context.Context, state *desiredState, p *plan.Plan) {
	r.out.looked = r.full
	r.out.failures = r.settled()
	if r.suspended {
		r.out.after = p
		return
	}
	r.moveAway(ctx)
	r.phase(PhaseApplying)
	start := r.m.opts.Now()
	worked := r.execute(ctx, state, p)
	r.m.opts.Metrics.step(stepApply, r.m.opts.Now().Sub(start))
	if !worked || ctx.Err() != nil {
		r.out.after = p
		return
	}
	r.phase(PhaseVerifying)
	keys := touched(p)
	r.observeKeys(ctx, state, keys)
	r.checkHealth(ctx, state, keys)
	after, err := r.build(state, keys)
	if err != nil {
		r.out.after, r.out.message, r.out.broken = p, err.Error(), true
		return
	}
	r.recordVerified(ctx, p, after)
	r.out.after = mergePlans(p, after, keys)
}

// settled returns the failures of keys that this round does not concern.
func (r *round) settled() map[plan.Key]failure {
	kept := map[plan.Key]failure{}
	for k, f := range r.failures {
		if _, again := r.out.scope[k]; !again {
			kept[k] = f
		}
	}
	return kept
}

// moveAway hands over what another application desires now.
func (r *round) moveAway(ctx context.Context) {
	for _, t := range r.moves {
		moved, err := r.m.registry.move(ctx, t)
		if err != nil {
			r.out.message = err.Error()
		}
		if !moved {
			continue
		}
		r.event(EventMoved, fmt.Sprintf("%s moved to application %s", t.from.Key, t.owner),
			map[string]any{"key": t.from.Key.String(), "to": t.owner})
		r.m.look(t.owner, []plan.Key{t.to})
	}
}

// execution is one plan being carried out.
type execution struct {
	r     *round
	state *desiredState
	plan  *plan.Plan
	// whole holds, for targets that take only whole sets, the level at which
	// theirs is applied: that of its last write.
	whole map[string]int

	mu sync.Mutex
	// unmet says, by key, why what depends on it has to wait.
	unmet  map[plan.Key]string
	failed bool // something of this round failed or is not complete: nothing is pruned
	worked bool
}

// execute applies the plan level by level. It reports whether anything was done.
func (r *round) execute(ctx context.Context, state *desiredState, p *plan.Plan) (worked bool) {
	levels := plan.Levels(p)
	e := &execution{r: r, state: state, plan: p, whole: map[string]int{}, unmet: map[plan.Key]string{}}
	e.remember()
	e.prepare(levels)
	for n, level := range levels {
		groups := map[string][]*plan.Change{}
		for _, i := range level {
			c := &p.Changes[i]
			if _, whole := e.whole[c.Key.Target]; whole || c.Blocked != "" || !e.ready(c) {
				continue
			}
			groups[c.Key.Target] = append(groups[c.Key.Target], c)
		}
		for name, at := range e.whole {
			if at == n {
				groups[name] = e.wholeSet(name)
			}
		}
		each(groups, func(name string, changes []*plan.Change) {
			done := r.applyTo(ctx, name, changes, e)
			e.mu.Lock()
			defer e.mu.Unlock()
			e.worked = e.worked || done
		})
	}
	return e.worked
}

// remember takes in what rounds before this one left unfinished and this one does
// not look at: a key outside the scope is not for that reason complete.
func (e *execution) remember() {
	for k := range e.r.out.failures {
		e.unmet[k] = "which failed"
	}
	for k := range e.r.pending {
		if _, again := e.r.out.scope[k]; !again {
			e.unmet[k] = "which is not complete yet"
		}
	}
	e.failed = len(e.unmet) > 0
}

// prepare finds the level of whole sets, and what is blocked from the start.
func (e *execution) prepare(levels [][]int) {
	for n, level := range levels {
		for _, i := range level {
			c := &e.plan.Changes[i]
			if _, whole := appliers.Ability[appliers.Batcher](e.r.m.target(c.Key.Target).applier); !whole {
				continue
			}
			if _, known := e.whole[c.Key.Target]; !known || c.Desired != nil {
				e.whole[c.Key.Target] = n
			}
		}
	}
	for i := range e.plan.Changes {
		c := &e.plan.Changes[i]
		_, whole := e.whole[c.Key.Target]
		switch {
		case c.Blocked != "":
			e.unmet[c.Key] = "which is blocked"
		case whole && c.Action != plan.None && c.Action != plan.Forget:
			e.unmet[c.Key] = "which its target takes together with others"
		}
	}
}

// wholeSet returns all changes of a target that may be made.
func (e *execution) wholeSet(name string) []*plan.Change {
	var out []*plan.Change
	for i := range e.plan.Changes {
		if c := &e.plan.Changes[i]; c.Key.Target == name {
			delete(e.unmet, c.Key) // within the set, dependencies are the target's business
		}
	}
	for i := range e.plan.Changes {
		c := &e.plan.Changes[i]
		if c.Key.Target == name && c.Blocked == "" && (c.Action != plan.None || c.Record) && e.ready(c) {
			out = append(out, c)
		}
	}
	return out
}

// ready reports whether a change of this level may be made now; if not, it is
// blocked with the reason.
func (e *execution) ready(c *plan.Change) bool {
	if f, held := e.r.heldBack(c); held {
		e.r.out.failures[c.Key] = f
		c.Blocked = f.Message
		e.unmet[c.Key], e.failed = "which failed", true
		return false
	}
	if at, open := e.r.underWay(c); open {
		e.r.out.pending[c.Key] = at
		e.unmet[c.Key], e.failed = "which is not complete yet", true
		return false
	}
	if why := e.mustWait(c); why != "" {
		c.Blocked, e.r.waited = why, true
		e.unmet[c.Key] = "which waits"
		return false
	}
	return true
}

func (e *execution) mustWait(c *plan.Change) string {
	if c.Action != plan.None && e.r.app.suspension() != nil {
		return e.r.app.suspended()
	}
	if e.r.superseded() && c.Action != plan.None {
		return "a newer revision goes first"
	}
	if c.Action != plan.None && c.Desired != nil {
		if dep, why := e.below(c.Key, 0); why != "" {
			return fmt.Sprintf("waits for %s, %s", dep, why)
		}
	}
	if why := e.arrived(c); why != "" {
		return why
	}
	if e.failed && c.Action == plan.Delete {
		return "the prune waits: other objects of this round failed or are not complete"
	}
	return ""
}

// stop blocks what is left of a level when the application is suspended meanwhile.
func (e *execution) stop(changes []*plan.Change) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, c := range changes {
		if c.Action != plan.None {
			c.Blocked, e.unmet[c.Key] = e.r.app.suspended(), "which waits"
		}
	}
}

// maxChain bounds the walk down a chain of dependencies.
const maxChain = 1000

// below finds what a key waits for among what it depends on, also through
// objects about which there is nothing to do.
func (e *execution) below(k plan.Key, depth int) (plan.Key, string) {
	item, ok := e.state.items.get(k)
	if !ok || depth > maxChain {
		return plan.Key{}, ""
	}
	for _, dep := range item.DependsOn {
		if why := e.unmet[dep]; why != "" {
			return dep, why
		}
		if found, why := e.below(dep, depth+1); why != "" {
			return found, why
		}
	}
	return plan.Key{}, ""
}

// fail records that a change was not made; see round.fail.
func (e *execution) fail(c *plan.Change, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unmet[c.Key], e.failed = "which failed", true
	e.r.fail(c, err)
}

// wait records that a change was accepted by its target and is not complete.
func (e *execution) wait(c *plan.Change, res appliers.Result) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unmet[c.Key], e.failed = "which is not complete yet", true
	e.r.setPending(c.Key, res.CheckAfter)
}

// superseded reports whether the source has moved on since the round began
// while something already fails: then the newest revision is worth more.
func (r *round) superseded() bool {
	return len(r.out.failures) > 0 && r.evaluate && r.m.head(r.app.Source).seq > r.head.seq
}

// applyTo sends changes to one target in chunks that fit a store transaction.
func (r *round) applyTo(ctx context.Context, name string, changes []*plan.Change, e *execution) (worked bool) {
	t := r.m.target(name)
	chunk := store.MaxOps / 2 // a transfer writes and drops a record
	if _, whole := e.whole[name]; whole {
		chunk = max(1, len(changes))
	}
	for len(changes) > 0 {
		if r.app.suspension() != nil {
			e.stop(changes)
			return worked
		}
		n := min(chunk, len(changes))
		if r.applyChunk(ctx, t, changes[:n], e) {
			worked = true
		}
		changes = changes[n:]
	}
	return worked
}

// triedBefore counts the changes that were tried in a round before this one, and failed.
func (r *round) triedBefore(changes []*plan.Change) (n int) {
	for _, c := range changes {
		if f, failed := r.failures[c.Key]; failed && f.want == wanted(c) {
			n++
		}
	}
	return n
}

// without fails the change whose record does not fit the store and returns the others.
func (e *execution) without(changes []*plan.Change, big *unrecordable) []*plan.Change {
	var rest []*plan.Change
	for _, c := range changes {
		if c.Key != big.key {
			rest = append(rest, c)
			continue
		}
		e.fail(c, appliers.WithClass(appliers.Stop, fmt.Errorf("it was not touched: %w", big)))
	}
	return rest
}

// applyChunk records the ownership of what is about to be written, writes it,
// and records what was written. Between the two records an interruption leaves
// entries that say Pending, which the next round reads back.
func (r *round) applyChunk(ctx context.Context, t *target, changes []*plan.Change, e *execution) bool {
	var put []plan.Entry
	var drop []plan.Key
	var ops []appliers.Operation
	var writes []*plan.Change
	fresh := map[plan.Key]bool{}
	for _, c := range changes {
		switch c.Action {
		case plan.Forget:
			drop = append(drop, c.Key)
			continue
		case plan.None:
			if c.Record {
				put = append(put, c.Done())
			}
		default:
			put = append(put, c.Entry)
			ops = append(ops, appliers.Operation{Change: *c, Application: r.app.Name, Epoch: r.m.opts.Epoch})
			writes = append(writes, c)
			_, known := r.m.registry.entry(r.app.Name, c.Key)
			fresh[c.Key] = !known && c.TransferFrom == nil
		}
		if c.TransferFrom != nil {
			drop = append(drop, *c.TransferFrom)
		}
	}
	if ctx.Err() != nil {
		return false
	}
	// What was said about this round so far comes before what it does next. The
	// wait ends early only when the round is told to end.
	if len(ops) > 0 && r.m.journal.flush(ctx) != nil {
		return false
	}
	if err := r.m.registry.write(ctx, put, drop); err != nil {
		if big := new(unrecordable); errors.As(err, &big) { // it stops alone
			return r.applyChunk(ctx, t, e.without(changes, big), e)
		}
		for _, c := range changes {
			e.fail(c, fmt.Errorf("its ownership was not recorded, so it was not touched: %w", err))
		}
		return false
	}
	if len(ops) == 0 {
		return false
	}
	if ctx.Err() != nil { // while the record was made; the next round reads back
		return false
	}
	r.m.opts.Metrics.targetRetry(t.name, r.triedBefore(writes))
	results := t.apply(ctx, ops)
	r.recordApplied(ctx, writes, fresh, results, e)
	return true
}
