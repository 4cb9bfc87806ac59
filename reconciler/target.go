package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// ErrAbandoned: a call ignored the end of its context and was left behind. What
// it did, or will still do, is unknown.
var ErrAbandoned = errors.New("call abandoned: it did not return in time")

// observeChunk bounds one Observe, so that a large application shares a target
// fairly with small ones.
const observeChunk = 1000

// target is an applier behind its pool, its time limit and its breaker. It is
// safe for concurrent use.
type target struct {
	name    string
	place   string // the physical place it acts on
	digest  string
	applier appliers.Applier
	slots   chan struct{}
	timeout time.Duration
	breaker breaker
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time
	stop    context.CancelFunc // ends the watch
}

func newTarget(c TargetConfig, a appliers.Applier, o *Options) *target {
	if c.Concurrency <= 0 {
		c.Concurrency = 4
	}
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	return &target{
		name: c.Name, place: appliers.PlaceOf(a, c.Name), digest: c.Digest, applier: a,
		slots: make(chan struct{}, c.Concurrency), timeout: c.Timeout,
		breaker: breaker{now: o.Now}, metrics: o.Metrics, log: o.Log, now: o.Now,
	}
}

// call runs fn in the target's pool. A panic is an error of this call; a call
// that outlives its time by a tenth is abandoned and keeps its slot, so that
// at most as many goroutines hang as the pool has slots. Waiting for a slot
// takes as long as it takes and counts for nothing, unless the breaker opens.
func call[T any](ctx context.Context, t *target, op string, fn func(context.Context) (T, error)) (T, error) {
	var zero T
	probe, err := t.breaker.allow()
	if err != nil {
		return zero, fmt.Errorf("target %s: %w", t.name, err)
	}
	if err := t.acquire(ctx, probe); err != nil {
		return zero, fmt.Errorf("target %s: %w", t.name, err)
	}
	start := t.now()
	v, err := t.run(ctx, func(ctx context.Context) (any, error) { return fn(ctx) })
	if ctx.Err() == nil || err == nil || errors.Is(err, ErrAbandoned) {
		t.breaker.done(probe, err)
	} else {
		t.breaker.release(probe) // our own cancellation says nothing about the target
	}
	t.metrics.targetCall(t.name, op, t.now().Sub(start), err)
	t.measure()
	if err != nil {
		return zero, fmt.Errorf("target %s: %w", t.name, err)
	}
	return v.(T), nil
}

// acquire takes a slot of the pool. A probe waits no longer than a call may
// take: the slots may all be held by calls that never came back.
func (t *target) acquire(ctx context.Context, probe bool) error {
	opened, patience := t.breaker.opens(), (<-chan time.Time)(nil)
	if probe {
		timer := time.NewTimer(t.timeout)
		defer timer.Stop()
		opened, patience = nil, timer.C
	}
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-opened:
		return t.breaker.why()
	case <-patience:
		err := fmt.Errorf("all %d calls under way are abandoned ones: %w", cap(t.slots), ErrAbandoned)
		t.breaker.done(probe, err)
		t.measure()
		return err
	case <-ctx.Done():
		t.breaker.release(probe)
		return ctx.Err()
	}
}

// run makes the call; the caller has taken a slot, which is given back when fn returns.
func (t *target) run(ctx context.Context, fn func(context.Context) (any, error)) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	var v any
	err := patiently(ctx, t.timeout/10, func() (err error) {
		defer func() { <-t.slots }()
		v, err = fn(ctx)
		return err
	})
	if p := new(panicked); errors.As(err, &p) {
		t.log.Error("target panicked", "target", t.name, "error", p.value, "stack", p.stack)
	}
	if err != nil { // of an abandoned call, v is not ours
		return nil, err
	}
	return v, nil
}

// measure publishes the state of the breaker.
func (t *target) measure() {
	state, _, _ := t.breaker.state()
	t.metrics.breaker(t.name, state)
}

// observe asks about all queries. Every key has an answer afterwards: what the
// target did not say is unknown, with the reason.
func (t *target) observe(ctx context.Context, queries []appliers.Query) map[plan.Key]plan.Observed {
	out := make(map[plan.Key]plan.Observed, len(queries))
	for len(queries) > 0 {
		chunk := queries[:min(observeChunk, len(queries))]
		queries = queries[len(chunk):]
		answers, err := call(ctx, t, "observe", func(ctx context.Context) (map[plan.Key]plan.Observed, error) {
			return t.applier.Observe(ctx, chunk)
		})
		for _, q := range chunk {
			o, ok := answers[q.Key]
			switch {
			case err != nil:
				o = plan.Observed{Reason: err.Error()}
			case !ok:
				o = plan.Observed{Reason: "the target gave no answer"}
			}
			out[q.Key] = o
		}
	}
	return out
}

// apply carries out operations. Every operation has a result afterwards: what
// the target did not answer is uncertain.
func (t *target) apply(ctx context.Context, ops []appliers.Operation) []appliers.Result {
	results, err := call(ctx, t, "apply", func(ctx context.Context) ([]appliers.Result, error) {
		r := t.applier.Apply(ctx, ops)
		if len(r) != len(ops) {
			return nil, fmt.Errorf("%d results for %d operations", len(r), len(ops))
		}
		return r, nil
	})
	if err == nil {
		return results
	}
	results = make([]appliers.Result, len(ops))
	for i := range results {
		results[i] = appliers.Result{Outcome: appliers.Uncertain, Err: err}
		if errors.Is(err, ErrBreakerOpen) {
			results[i].Outcome = appliers.Refused // the call was never made
		}
	}
	return results
}

// health asks how objects are doing, where the target can tell. Queries without
// an answer are unknown.
func (t *target) health(ctx context.Context, queries []appliers.Query) map[plan.Key]appliers.Health {
	checker, ok := appliers.Ability[appliers.HealthChecker](t.applier)
	if !ok {
		return nil
	}
	out := make(map[plan.Key]appliers.Health, len(queries))
	for len(queries) > 0 {
		chunk := queries[:min(observeChunk, len(queries))]
		queries = queries[len(chunk):]
		answers, err := call(ctx, t, "health", func(ctx context.Context) (map[plan.Key]appliers.Health, error) {
			return checker.Health(ctx, chunk)
		})
		for _, q := range chunk {
			h, ok := answers[q.Key]
			switch {
			case err != nil:
				h = appliers.Health{Status: appliers.HealthUnknown, Message: err.Error()}
			case !ok:
				h = appliers.Health{Status: appliers.HealthUnknown, Message: "the target gave no answer"}
			}
			out[q.Key] = h
		}
	}
	return out
}

// status returns what is known of the target.
func (t *target) status() TargetStatus {
	state, lastError, since := t.breaker.state()
	return TargetStatus{Name: t.name, Breaker: state, Error: lastError, Since: since}
}

func (t *target) close() error {
	if t.stop != nil {
		t.stop()
	}
	c, ok := appliers.Ability[appliers.Closer](t.applier)
	if !ok {
		return nil
	}
	if err := ended(c.Close); err != nil {
		return fmt.Errorf("target %s: closing it: %w", t.name, err)
	}
	return nil
}
