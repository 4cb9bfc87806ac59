package opa

import (
	"errors"
	"fmt"

	"github.com/gitopsd/gitopsd/policies"
)

// Errors of an evaluation that came to an end and still says nothing usable.
var (
	// ErrUndefined: a rule has no value, so it neither allows nor denies.
	ErrUndefined = errors.New("rule is undefined")
	// ErrResultType: a rule's value is not a set or list of messages.
	ErrResultType = errors.New("wrong result type")
)

const setHint = "write `contains msg if { ... }`, whose value is always a set"

// findings reads the value of one rule, as JSON: a list whose elements are
// messages or objects with a string member msg. A set arrives as a sorted list.
func findings(r rule, v any) ([]policies.Finding, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("rule %s: %w: %s, want a set or list of messages; %s", r, ErrResultType, typeName(v), setHint)
	}
	out := make([]policies.Finding, 0, len(list))
	for _, e := range list {
		f, err := finding(r, e)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func finding(r rule, v any) (policies.Finding, error) {
	f := policies.Finding{Rule: r.String()}
	switch v := v.(type) {
	case string:
		f.Msg = v
	case map[string]any:
		msg, ok := v["msg"].(string)
		if !ok {
			return f, fmt.Errorf("rule %s: %w: an object without a string member msg; add one", r, ErrResultType)
		}
		f.Msg = msg
		for k, e := range v {
			if k == "msg" {
				continue
			}
			if f.Details == nil {
				f.Details = map[string]any{}
			}
			f.Details[k] = e
		}
	default:
		return f, fmt.Errorf("rule %s: %w: the set holds a %s; give a message, or an object with msg", r, ErrResultType, typeName(v))
	}
	if f.Msg == "" {
		return f, fmt.Errorf("rule %s: %w: an empty message; say what is wrong", r, ErrResultType)
	}
	return f, nil
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case string:
		return "string"
	case []any:
		return "list"
	case map[string]any:
		return "object"
	default:
		return "number"
	}
}

// verdict puts together what the rules said. values[i] holds the value of
// rules[i] in a list, which is empty when the rule is undefined; exempted[i]
// lists the names that the exceptions of its package gave.
func verdict(rules []rule, values, exempted []any) (policies.Verdict, error) {
	var out policies.Verdict
	for i, r := range rules {
		value, ok := values[i].([]any)
		if !ok || len(value) != 1 {
			return policies.Verdict{}, fmt.Errorf("rule %s: %w for this input, so it is not known to allow it; %s", r, ErrUndefined, setHint)
		}
		said, err := findings(r, value[0])
		if err != nil {
			return policies.Verdict{}, err
		}
		switch {
		case isExempt(r, exempted[i]):
		case r.warns():
			out.Warn = append(out.Warn, said...)
		default:
			out.Deny = append(out.Deny, said...)
		}
	}
	return out, nil
}

func isExempt(r rule, names any) bool {
	list, _ := names.([]any)
	for _, n := range list {
		for _, name := range r.exempt() {
			if n == name {
				return true
			}
		}
	}
	return false
}
