package opa

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/open-policy-agent/opa/v1/ast"
)

// value turns a value of the object model into what rules see. Secrets become
// manifest.Mask here, before anything of OPA's has seen them.
func value(v any) (*ast.Term, error) {
	switch v := v.(type) {
	case nil:
		return ast.NullTerm(), nil
	case bool:
		return ast.InternedTerm(v), nil
	case string:
		return ast.StringTerm(v), nil
	case manifest.Sensitive:
		return ast.StringTerm(manifest.Mask), nil
	case int64:
		return ast.NewTerm(ast.Number(strconv.FormatInt(v, 10))), nil
	case float64:
		return ast.NewTerm(ast.Number(strconv.FormatFloat(v, 'g', -1, 64))), nil
	case []any:
		terms := make([]*ast.Term, len(v))
		for i, e := range v {
			t, err := value(e)
			if err != nil {
				return nil, err
			}
			terms[i] = t
		}
		return ast.ArrayTerm(terms...), nil
	case map[string]any:
		obj := ast.NewObjectWithCapacity(len(v))
		for k, e := range v {
			t, err := value(e)
			if err != nil {
				return nil, err
			}
			obj.Insert(ast.StringTerm(k), t)
		}
		return ast.NewTerm(obj), nil
	default:
		return nil, fmt.Errorf("policy input: values of type %T are not supported", v)
	}
}

// objectInput is the input of rules about objects: the object itself.
func objectInput(o *manifest.Object) (ast.Value, error) {
	t, err := value(o.Content())
	if err != nil {
		return nil, err
	}
	return t.Value, nil
}

// ChangeInput returns the input that gitopsd.change rules see of one change, in
// the model of manifest values and with every secret masked, so that it may be
// shown or written as JSON. docs/policy-input.md describes it and
// docs/schema/change-input.v1.json is its schema.
func ChangeInput(c policies.Change) map[string]any {
	id := c.Change.Key.ID
	in := map[string]any{
		"version":     policies.InputVersion,
		"application": c.Application,
		"operation":   string(c.Change.Action),
		"cause":       nil,
		"target":      c.Change.Key.Target,
		"key": map[string]any{
			"group": id.Group, "kind": id.Kind, "namespace": id.Namespace, "name": id.Name,
		},
		"desired":     content(c.Change.Desired),
		"live":        content(c.Change.Live),
		"lastApplied": lastApplied(c.LastApplied),
		"fields":      fields(c.Change.Fields),
		"commit":      commit(c.Commit),
		"paths":       origins(c.Change),
	}
	if c.Change.Cause != "" {
		in["cause"] = string(c.Change.Cause)
	}
	return in
}

func content(o *manifest.Object) any {
	if o == nil {
		return nil
	}
	return masked(o.Content())
}

// masked copies a value with every secret replaced by the mask.
func masked(v any) any {
	switch v := v.(type) {
	case manifest.Sensitive:
		return manifest.Mask
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			m[k] = masked(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = masked(e)
		}
		return l
	default:
		return v
	}
}

func lastApplied(a plan.Applied) any {
	if a == nil {
		return nil
	}
	paths := make([]any, 0, len(a))
	for _, p := range slices.Sorted(maps.Keys(a)) {
		paths = append(paths, string(p))
	}
	return map[string]any{"paths": paths}
}

func fields(changes []plan.FieldChange) []any {
	out := make([]any, 0, len(changes))
	for _, f := range changes {
		out = append(out, map[string]any{
			"path": string(f.Path), "op": string(f.Op), "cause": string(f.Cause),
			"before": masked(f.Before), "after": masked(f.After),
		})
	}
	return out
}

func commit(c *policies.Commit) any {
	if c == nil {
		return nil
	}
	m := map[string]any{
		"id": c.ID, "author": c.Author, "message": c.Message,
		"when": c.When.UTC().Format(time.RFC3339), "signer": nil,
	}
	if c.Signer != nil {
		m["signer"] = *c.Signer
	}
	return m
}

// origins lists the files that the change comes from: for a delete the one that
// the object was last applied from.
func origins(c *plan.Change) []any {
	out := []any{}
	for _, p := range []string{c.Origin.Path, c.Entry.Origin.Path} {
		if p != "" && len(out) == 0 {
			out = append(out, p)
		}
	}
	return out
}
