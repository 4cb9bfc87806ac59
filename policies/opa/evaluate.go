package opa

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Errors of an evaluation that did not come to an end, or not to one end.
var (
	// ErrTimeout: an evaluation took longer than its limit.
	ErrTimeout = errors.New("policy evaluation took too long")
	// ErrFlapping: the same input was judged in two ways.
	ErrFlapping = errors.New("policy contradicts itself")
)

// Objects judges objects, as many at a time as there are processors. The error
// is that of the first object, in the order given, that could not be judged.
func (e *Engine) Objects(ctx context.Context, objects []*manifest.Object) ([]policies.Verdict, error) {
	return each(ctx, len(objects), func(i int) (policies.Verdict, error) {
		if e.objects == nil {
			return policies.Verdict{}, nil
		}
		e.judged.Add(1)
		input, err := objectInput(objects[i])
		if err == nil {
			var v policies.Verdict
			if v, err = e.judge(ctx, e.objects, e.rules.objects, input); err == nil {
				return v, nil
			}
		}
		return policies.Verdict{}, fmt.Errorf("judge object %s%s: %w", objects[i].ID(), at(objects[i].Origin()), err)
	})
}

// Changes judges changes in the same way. A change of action None writes
// nothing and is not evaluated.
func (e *Engine) Changes(ctx context.Context, changes []policies.Change) ([]policies.Verdict, error) {
	return each(ctx, len(changes), func(i int) (policies.Verdict, error) {
		c := changes[i]
		if e.changes == nil || c.Change.Action == plan.None {
			return policies.Verdict{}, nil
		}
		input, err := value(ChangeInput(c))
		if err == nil {
			var v policies.Verdict
			if v, err = e.judge(ctx, e.changes, e.rules.changes, input.Value); err == nil {
				return v, nil
			}
		}
		return policies.Verdict{}, fmt.Errorf("judge change %s %s%s: %w", c.Change.Action, c.Change.Key, at(c.Change.Origin), err)
	})
}

func at(o manifest.Origin) string {
	if o.Path == "" {
		return ""
	}
	return " (" + o.String() + ")"
}

// each calls judge for 0..n-1. Indexes are handed out in order and those handed
// out are finished, so that the lowest failing one is the same in every run.
func each(ctx context.Context, n int, judge func(i int) (policies.Verdict, error)) ([]policies.Verdict, error) {
	verdicts, errs := make([]policies.Verdict, n), make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		workers.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = ctx.Err(); errs[i] == nil {
					verdicts[i], errs[i] = guarded(judge, i)
				}
				if errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	workers.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return verdicts, nil
}

// guarded makes a panic an error like any other: a defect in the evaluator must
// not take down the loop, nor allow anything.
func guarded(judge func(i int) (policies.Verdict, error), i int) (v policies.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			v, err = policies.Verdict{}, fmt.Errorf("policy evaluation panicked, nothing is allowed: %v\n%s", p, debug.Stack())
		}
	}()
	return judge(i)
}

// judge evaluates one input, and a second time when the answer could differ.
func (e *Engine) judge(ctx context.Context, q *rego.PreparedEvalQuery, rules []rule, input ast.Value) (policies.Verdict, error) {
	first, err := e.evaluate(ctx, q, rules, input)
	if err != nil || !e.volatile {
		return first, err
	}
	second, err := e.evaluate(ctx, q, rules, input)
	if err != nil {
		return policies.Verdict{}, err
	}
	if !reflect.DeepEqual(first, second) {
		return policies.Verdict{}, fmt.Errorf("%w: two evaluations gave %v and %v; make rules independent of clock, network and chance",
			ErrFlapping, first, second)
	}
	return first, nil
}

// evaluate runs the query once.
func (e *Engine) evaluate(ctx context.Context, q *rego.PreparedEvalQuery, rules []rule, input ast.Value) (policies.Verdict, error) {
	limited, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	results, err := q.Eval(limited, rego.EvalParsedInput(input), rego.EvalSortSets(true))
	switch {
	case err != nil && ctx.Err() != nil:
		return policies.Verdict{}, ctx.Err()
	case limited.Err() != nil && (err == nil || topdown.IsCancel(err) || errors.Is(err, context.DeadlineExceeded)):
		return policies.Verdict{}, fmt.Errorf("%w: more than %s; simplify the rule that loops, or raise the limit", ErrTimeout, e.timeout)
	case err != nil:
		return policies.Verdict{}, fmt.Errorf("policy failed: %w; guard the expression, nothing is allowed while it fails", err)
	case len(results) != 1:
		return policies.Verdict{}, fmt.Errorf("%w: the query had %d results, want 1", ErrUndefined, len(results))
	}
	values, exempted := make([]any, len(rules)), make([]any, len(rules))
	for i := range rules {
		values[i] = results[0].Bindings[valueVar(i)]
		exempted[i] = results[0].Bindings[exceptionVar(i)]
	}
	return verdict(rules, values, exempted)
}
