package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Apply implements appliers.Applier.
func (a *Applier) Apply(ctx context.Context, ops []appliers.Operation) []appliers.Result {
	f, _ := a.begin(ctx, "apply")
	a.world.mu.Lock()
	a.world.count.Applies++
	a.world.mu.Unlock()
	results := make([]appliers.Result, len(ops))
	if a.is.Batch {
		if err := a.consistent(ops); err != nil {
			for i := range results {
				results[i] = refused(appliers.Wait, err)
			}
			return results
		}
	}
	for i, op := range ops {
		if err := ctx.Err(); err != nil {
			results[i] = refused(appliers.Retry, fmt.Errorf("not begun: %w", err))
			continue
		}
		results[i] = a.one(f, op)
	}
	return results
}

func refused(class appliers.Class, err error) appliers.Result {
	return appliers.Result{Outcome: appliers.Refused, Err: appliers.WithClass(class, err)}
}

// one carries out one operation through the seam.
func (a *Applier) one(f Faults, op appliers.Operation) appliers.Result {
	if f.Refuse != nil {
		if err := f.Refuse(op); err != nil {
			return appliers.Result{Outcome: appliers.Refused, Err: err}
		}
	}
	name := effect.TargetApply
	if op.Change.Action == plan.Delete {
		name = effect.TargetDelete
	}
	var result appliers.Result
	var rest error
	if f.Rest != nil {
		rest = f.Rest(op)
	}
	err := a.env.Effect(name, op.Change.Key.String(), func() error {
		result = a.write(op, rest)
		return nil
	})
	if err == nil && f.LostReply != nil && f.LostReply(op) && result.Outcome != appliers.Refused {
		err = errors.New("the connection ended before the reply; observe before the next try")
	}
	if err != nil {
		return appliers.Result{Outcome: appliers.Uncertain, Err: err}
	}
	return result
}

// write changes the world, or says why not. rest is why what follows does not succeed.
func (a *Applier) write(op appliers.Operation, rest error) appliers.Result {
	w, c := a.world, op.Change
	locator, err := locatorOf(c)
	if err != nil {
		return refused(appliers.Stop, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.at(locator)
	w.settle(t, a.env.Now(), false)
	if a.is.Marks {
		if op.Epoch < w.epoch {
			return refused(appliers.Stop, fmt.Errorf(
				"%s: epoch %d is over, epoch %d has written here: another gitopsd has taken over", c.Key, op.Epoch, w.epoch))
		}
		w.epoch = op.Epoch
	}
	if c.Action == plan.Delete && a.is.Releases && t.now != nil && a.keeps(t, op) {
		return appliers.Result{Outcome: appliers.Released}
	}
	next, same, err := a.next(t.now, op)
	if err != nil {
		return appliers.Result{Outcome: appliers.Refused, Err: err}
	}
	if same {
		return t.follow(t.owed, rest)
	}
	if a.is.Async != nil && c.Action != plan.Adopt {
		return a.accept(t, next, c.Entry.Token)
	}
	w.countWrite(t.now, next, c.Action)
	w.put(t, next)
	return t.follow(next != nil && (t.owed || c.Action != plan.Adopt), rest)
}

// follow does what follows a write, where there is something to follow.
func (t *thing) follow(owed bool, rest error) appliers.Result {
	if t.owed = owed && rest != nil; t.owed {
		return appliers.Result{Outcome: appliers.Uncertain, Err: fmt.Errorf("written, but what follows has not succeeded: %w", rest)}
	}
	return appliers.Result{Outcome: appliers.Done}
}

// keeps reports whether a delete leaves what is there, and takes our mark off it.
func (a *Applier) keeps(t *thing, op appliers.Operation) bool {
	m := t.now.mark
	if m == nil || (m.application != op.Application && !op.Change.Entry.WasOf(m.application)) {
		return true
	}
	if how, _ := manifest.Lookup(t.now.content, "/spec/onPrune"); how != "leave" {
		return false
	}
	next := *t.now
	next.mark = nil
	a.world.put(t, &next)
	return true
}

func (w *World) countWrite(now, next *state, action plan.Action) {
	switch {
	case action == plan.Adopt:
		w.count.Adopts++
	case next == nil:
		w.count.Deletes++
	case now == nil:
		w.count.Creates++
	default:
		w.count.Updates++
	}
}

// accept starts a write that completes by itself. The same write again, with the
// token that its start answered or without one, is the one under way.
func (a *Applier) accept(t *thing, next *state, token string) appliers.Result {
	same := t.coming != nil && (token == "" || token == t.coming.token) && (t.coming.to == nil) == (next == nil) &&
		(next == nil || manifest.Equal(t.coming.to.content, next.content))
	if !same {
		a.world.countWrite(t.now, next, plan.None)
		a.world.count.Started++
		t.coming = &write{to: next, observes: a.is.Async.Observes, token: fmt.Sprintf("write-%d", a.world.count.Started)}
		if a.is.Async.After > 0 {
			t.coming.at = a.env.Now().Add(a.is.Async.After)
		}
	}
	return appliers.Result{Outcome: appliers.Pending, CheckAfter: a.is.Async.After, Token: t.coming.token}
}

// next is the state after the operation; same means that it is so already.
func (a *Applier) next(now *state, op appliers.Operation) (next *state, same bool, err error) {
	c := op.Change
	if c.Action == plan.Delete {
		if now == nil {
			return nil, true, nil
		}
		return nil, false, moved(now, c)
	}
	content, _ := reveal(c.Desired.Content()).(map[string]any)
	content = a.is.normalize(content)
	want := &mark{id: c.Key.ID, application: op.Application, epoch: op.Epoch}
	if !a.is.Marks {
		want = nil
	}
	if c.Action == plan.Adopt || (now != nil && matches(a.is.normalize(now.content), content, c.Fields)) {
		return a.remark(now, c, want)
	}
	if now == nil {
		now = &state{}
	} else if err := a.allowed(now, c, content); err != nil {
		return nil, false, err
	}
	next = &state{writer: Writer, owners: map[manifest.Pointer]string{}, content: content, mark: want}
	if a.is.FieldOwners {
		next.content, next.owners = merge(now, content, c.Fields)
	}
	for p, v := range a.is.Defaults {
		if _, ok := manifest.Lookup(next.content, p); !ok {
			next.content = manifest.With(next.content, p, manifest.Clone(v))
		}
	}
	for _, f := range manifest.Fields(content) {
		next.owners[f.Path] = Writer
	}
	return next, false, nil
}

// remark changes the mark alone.
func (a *Applier) remark(now *state, c plan.Change, want *mark) (*state, bool, error) {
	if now == nil {
		return nil, false, appliers.WithClass(appliers.Retry, fmt.Errorf("%s: to be adopted, but it is gone; observe again", c.Key))
	}
	if want == nil || (now.mark != nil && now.mark.id == want.id && now.mark.application == want.application) {
		return nil, true, nil
	}
	next := *now
	next.mark = want
	return &next, false, nil
}

// allowed reports why an object that is there and differs must not be written now.
func (a *Applier) allowed(now *state, c plan.Change, content map[string]any) error {
	if c.Action == plan.Create && !c.Adopting {
		return appliers.WithClass(appliers.Retry, fmt.Errorf("%s: to be created, but it is there, written by %s; observe again", c.Key, now.writer))
	}
	if err := moved(now, c); err != nil {
		return err
	}
	if !a.is.Conflicts || c.Adopting {
		return nil
	}
	for _, f := range manifest.Fields(content) {
		owner := now.owners[f.Path]
		if v, ok := manifest.Lookup(now.content, f.Path); ok && !manifest.Equal(v, f.Value) && owner != "" && owner != Writer {
			return appliers.WithClass(appliers.Stop, fmt.Errorf(
				"%s: %s is set by %s: let one of the two own the field", c.Key, f.Path, owner))
		}
	}
	return nil
}

// moved holds a conditional write to its condition.
func moved(now *state, c plan.Change) error {
	if c.Version != "" && c.Version != fmt.Sprint(now.version) {
		return appliers.WithClass(appliers.Retry, fmt.Errorf("%s: changed since it was read, by %s; observe again", c.Key, now.writer))
	}
	return nil
}

func matches(live, content map[string]any, changes []plan.FieldChange) bool {
	for _, f := range manifest.Fields(content) {
		if v, ok := manifest.Lookup(live, f.Path); !identity[f.Path] && (!ok || !manifest.Equal(v, f.Value)) {
			return false
		}
	}
	for _, f := range changes {
		if _, there := manifest.Lookup(live, f.Path); f.Op == plan.FieldRemove && there {
			return false
		}
	}
	return true
}

// merge lays the named fields over what is there.
func merge(now *state, content map[string]any, changes []plan.FieldChange) (map[string]any, map[manifest.Pointer]string) {
	merged, owners := now.content, maps.Clone(now.owners)
	if owners == nil {
		owners = map[manifest.Pointer]string{}
	}
	for _, f := range changes {
		if f.Op == plan.FieldRemove {
			merged = manifest.Without(merged, f.Path)
			delete(owners, f.Path)
		}
	}
	for _, f := range manifest.Fields(content) {
		merged = manifest.With(merged, f.Path, f.Value)
	}
	return merged, owners
}

// consistent reports why the operations, taken together, would leave the world
// with a reference that leads nowhere.
func (a *Applier) consistent(ops []appliers.Operation) error {
	next := map[string]*state{}
	for _, op := range ops {
		locator, err := locatorOf(op.Change)
		if err != nil {
			return err
		}
		next[locator] = nil
		if op.Change.Action != plan.Delete {
			content, _ := reveal(op.Change.Desired.Content()).(map[string]any)
			next[locator] = &state{content: content}
		}
	}
	a.world.mu.Lock()
	defer a.world.mu.Unlock()
	if why := a.world.dangling(next); why != "" {
		return fmt.Errorf("the set is not consistent: %s; apply both together", why)
	}
	return nil
}

// locatorOf finds the place of a change: that of the desired object, or of the
// record when nothing is desired any more.
func locatorOf(c plan.Change) (string, error) {
	switch {
	case c.Desired != nil:
		return Locate(c.Desired), nil
	case c.Action == plan.Delete && c.Entry.Locator != "":
		return c.Entry.Locator, nil
	}
	return "", fmt.Errorf("%s: %s without a desired object or a locator", c.Key, c.Action)
}
