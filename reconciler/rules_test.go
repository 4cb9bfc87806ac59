package reconciler

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
)

// rules is a policy made of functions, which counts what it is asked. The
// functions return why something is denied, or "".
type rules struct {
	mu      sync.Mutex
	digest  string
	object  func(*manifest.Object) string
	change  func(policies.Change) string
	warn    func(policies.Change) string
	err     error // of asking
	loadErr error // of loading
	asked   int
	source  string // of the policy set
	// wrap, when set, makes another policy of the loaded one.
	wrap func(*loaded) policies.Policy
}

func (r *rules) set(digest string, change func(*rules)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.digest = digest
	change(r)
}

func (r *rules) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *rules) config() PolicySetConfig {
	r.mu.Lock()
	defer r.mu.Unlock()
	return PolicySetConfig{Name: "rules", Digest: fmt.Sprint(r.digest, r.loadErr), Source: r.source, Path: ".", Load: func(context.Context, map[string][]byte) (policies.Policy, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.loadErr != nil {
			return nil, r.loadErr
		}
		l := &loaded{rules: r, digest: r.digest, object: r.object, change: r.change, warn: r.warn}
		if r.wrap != nil {
			return r.wrap(l), nil
		}
		return l, nil
	}}
}

// loaded is the rules as they were when they were loaded.
type loaded struct {
	rules  *rules
	digest string
	object func(*manifest.Object) string
	change func(policies.Change) string
	warn   func(policies.Change) string
}

func (l *loaded) Digest() string { return l.digest }

func (l *loaded) ask() error {
	l.rules.mu.Lock()
	defer l.rules.mu.Unlock()
	return l.rules.err
}

func (l *loaded) Objects(_ context.Context, objects []*manifest.Object) ([]policies.Verdict, error) {
	if err := l.ask(); err != nil {
		return nil, err
	}
	l.rules.mu.Lock()
	l.rules.asked += len(objects)
	l.rules.mu.Unlock()
	out := make([]policies.Verdict, len(objects))
	for i, o := range objects {
		if l.object != nil {
			out[i] = verdict(l.object(o))
		}
	}
	return out, nil
}

func (l *loaded) Changes(_ context.Context, changes []policies.Change) ([]policies.Verdict, error) {
	if err := l.ask(); err != nil {
		return nil, err
	}
	out := make([]policies.Verdict, len(changes))
	for i, c := range changes {
		if l.change != nil {
			out[i] = verdict(l.change(c))
		}
		if l.warn != nil {
			if why := l.warn(c); why != "" {
				out[i].Warn = []policies.Finding{{Rule: "test.warn", Msg: why}}
			}
		}
	}
	return out, nil
}

func verdict(why string) policies.Verdict {
	if why == "" {
		return policies.Verdict{}
	}
	return policies.Verdict{Deny: []policies.Finding{{Rule: "test.deny", Msg: why}}}
}

// errRuntime is what a rule that divides by zero gives.
var errRuntime = errors.New("eval_builtin_error: div: divide by zero")

// denyName denies objects of a name.
func denyName(name string) func(*manifest.Object) string {
	return func(o *manifest.Object) string {
		if o.ID().Name == name {
			return name + " is not allowed"
		}
		return ""
	}
}
