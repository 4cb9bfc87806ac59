package memory

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// The wire forms of the contract's types. Objects travel with their secrets in
// the clear, as the pipe has two ends of one program; the far end seals them again.

// request is one call. Cancel, with the ID of an earlier call, ends that call's context.
type request struct {
	ID     uint64
	Call   string // "takes", "resolve", "observe", "apply", "place", "cancel"
	Kind   manifest.GroupKind
	Object *wireObject     `json:",omitempty"`
	Query  []wireQuery     `json:",omitempty"`
	Ops    []wireOperation `json:",omitempty"`
}

type response struct {
	ID       uint64
	Answer   appliers.Answer `json:",omitempty"`
	Object   *wireObject     `json:",omitempty"`
	Locator  string          `json:",omitempty"`
	Place    string          `json:",omitempty"`
	Observed []wireObserved  `json:",omitempty"`
	Results  []wireResult    `json:",omitempty"`
	Err      *wireError      `json:",omitempty"`
}

type wireObject struct {
	Content map[string]any
	Origin  manifest.Origin
}

type wireQuery struct {
	Key     plan.Key
	Locator string
	Fields  []manifest.Pointer
	Desired *wireObject `json:",omitempty"`
	Token   string      `json:",omitempty"`
}

type wireOperation struct {
	Key         plan.Key
	Action      plan.Action
	Without     []manifest.Pointer `json:",omitempty"` // fields to remove
	Removes     []string           `json:",omitempty"`
	Desired     *wireObject        `json:",omitempty"`
	Version     string             `json:",omitempty"`
	Locator     string             `json:",omitempty"` // of the record
	Backup      string             `json:",omitempty"`
	MovedFrom   string             `json:",omitempty"`
	Token       string             `json:",omitempty"`
	Adopting    bool               `json:",omitempty"`
	Application string
	Epoch       uint64
}

type wireObserved struct {
	Key      plan.Key
	Presence plan.Presence
	Object   *wireObject `json:",omitempty"`
	Reason   string      `json:",omitempty"`
	Version  string      `json:",omitempty"`
	At       time.Time
	Owner    string       `json:",omitempty"`
	Writer   string       `json:",omitempty"`
	Removes  plan.Removal `json:",omitzero"`
	// Unfinished is what follows the last write and is still to be done.
	Unfinished string `json:",omitempty"`
}

type wireResult struct {
	Outcome    appliers.Outcome
	Err        *wireError         `json:",omitempty"`
	CheckAfter time.Duration      `json:",omitempty"`
	Backup     string             `json:",omitempty"`
	Token      string             `json:",omitempty"`
	Removed    []appliers.Removed `json:",omitempty"`
}

type wireError struct {
	Message string
	Class   appliers.Class
	// Ended says that the call's context ended, which the near end's context explains.
	Ended bool `json:",omitempty"`
	// Undecided says that the error wraps appliers.ErrUndecided.
	Undecided bool `json:",omitempty"`
}

func packError(err error) *wireError {
	if err == nil {
		return nil
	}
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	return &wireError{Message: err.Error(), Class: appliers.ClassOf(err), Ended: ended, Undecided: errors.Is(err, appliers.ErrUndecided)}
}

func (e *wireError) unpack() error {
	switch {
	case e == nil:
		return nil
	case e.Ended:
		return appliers.WithClass(e.Class, fmt.Errorf("%s: %w", e.Message, context.Canceled))
	case e.Undecided:
		rest := strings.TrimPrefix(e.Message, appliers.ErrUndecided.Error()+": ")
		return appliers.WithClass(e.Class, fmt.Errorf("%w: %s", appliers.ErrUndecided, rest))
	}
	return appliers.WithClass(e.Class, errors.New(e.Message))
}

// sealed is the key that stands for a secret on the wire. An object's own map
// cannot be taken for it, as it holds a NUL.
const sealed = "\x00sensitive"

func packObject(o *manifest.Object) *wireObject {
	if o == nil {
		return nil
	}
	content, _ := packValue(o.Content()).(map[string]any)
	return &wireObject{Content: content, Origin: o.Origin()}
}

func packValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = packValue(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = packValue(e)
		}
		return c
	case manifest.Sensitive:
		return map[string]any{sealed: v.Reveal()}
	default:
		return v
	}
}

func (o *wireObject) unpack(s *manifest.Sealer) (*manifest.Object, error) {
	if o == nil {
		return nil, nil
	}
	content, _ := unpackValue(s, o.Content).(map[string]any)
	return manifest.New(content, o.Origin)
}

func unpackValue(s *manifest.Sealer, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if secret, ok := v[sealed].(string); ok && len(v) == 1 {
			return s.Seal(secret)
		}
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = unpackValue(s, e)
		}
		return c
	case []any:
		for i, e := range v {
			v[i] = unpackValue(s, e)
		}
	}
	return v
}

func packQueries(queries []appliers.Query) []wireQuery {
	wire := make([]wireQuery, len(queries))
	for i, q := range queries {
		wire[i] = wireQuery{q.Key, q.Locator, q.Fields, packObject(q.Desired), q.Token}
	}
	return wire
}

func unpackQueries(s *manifest.Sealer, wire []wireQuery) ([]appliers.Query, error) {
	queries := make([]appliers.Query, len(wire))
	for i, q := range wire {
		desired, err := q.Desired.unpack(s)
		if err != nil {
			return nil, err
		}
		queries[i] = appliers.Query{Key: q.Key, Locator: q.Locator, Fields: q.Fields, Desired: desired, Token: q.Token}
	}
	return queries, nil
}

func packOps(ops []appliers.Operation) []wireOperation {
	wire := make([]wireOperation, len(ops))
	for i, op := range ops {
		c := op.Change
		wire[i] = wireOperation{
			Key: c.Key, Action: c.Action, Desired: packObject(c.Desired), Version: c.Version, Locator: c.Entry.Locator,
			Backup: c.Entry.Backup, MovedFrom: c.Entry.MovedFrom, Token: c.Entry.Token, Adopting: c.Adopting, Application: op.Application, Epoch: op.Epoch,
			Removes: c.Removes,
		}
		for _, f := range c.Fields {
			if f.Op == plan.FieldRemove {
				wire[i].Without = append(wire[i].Without, f.Path)
			}
		}
	}
	return wire
}

func unpackOps(s *manifest.Sealer, wire []wireOperation) ([]appliers.Operation, error) {
	ops := make([]appliers.Operation, len(wire))
	for i, o := range wire {
		desired, err := o.Desired.unpack(s)
		if err != nil {
			return nil, err
		}
		c := plan.Change{
			Key: o.Key, Action: o.Action, Desired: desired, Version: o.Version, Adopting: o.Adopting, Removes: o.Removes,
			Entry: plan.Entry{Key: o.Key, Owner: o.Application, Locator: o.Locator, Backup: o.Backup, MovedFrom: o.MovedFrom, Token: o.Token, Epoch: o.Epoch},
		}
		for _, p := range o.Without {
			c.Fields = append(c.Fields, plan.FieldChange{Path: p, Op: plan.FieldRemove})
		}
		ops[i] = appliers.Operation{Change: c, Application: o.Application, Epoch: o.Epoch}
	}
	return ops, nil
}

func packObserved(answers map[plan.Key]plan.Observed) []wireObserved {
	wire := make([]wireObserved, 0, len(answers))
	for k, o := range answers {
		wire = append(wire, wireObserved{k, o.Presence, packObject(o.Object), o.Reason, o.Version, o.At, o.Owner, o.Writer, o.Removes, o.Unfinished})
	}
	return wire
}

func unpackObserved(s *manifest.Sealer, wire []wireObserved) (map[plan.Key]plan.Observed, error) {
	answers := make(map[plan.Key]plan.Observed, len(wire))
	for _, o := range wire {
		obj, err := o.Object.unpack(s)
		if err != nil {
			return nil, err
		}
		answers[o.Key] = plan.Observed{
			Presence: o.Presence, Object: obj, Reason: o.Reason, Version: o.Version, At: o.At, Owner: o.Owner, Writer: o.Writer, Removes: o.Removes, Unfinished: o.Unfinished,
		}
	}
	return answers, nil
}

// decode reads one line, keeping integers apart from floats.
func decode(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	return d.Decode(into)
}
