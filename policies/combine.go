package policies

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Named returns p under the name of its PolicySet: findings read
// "name/package.rule", errors start with the name.
func Named(name string, p Policy) Policy { return named{name: name, policy: p} }

type named struct {
	name   string
	policy Policy
}

func (n named) Unwrap() Policy { return n.policy }
func (n named) Digest() string { return n.name + ":" + n.policy.Digest() }
func (n named) Volatile() bool { return IsVolatile(n.policy) }

func (n named) Objects(ctx context.Context, objects []*manifest.Object) ([]Verdict, error) {
	return n.prefix(n.policy.Objects(ctx, objects))
}

func (n named) Changes(ctx context.Context, changes []Change) ([]Verdict, error) {
	return n.prefix(n.policy.Changes(ctx, changes))
}

// prefix copies, because a cache below may have kept the findings.
func (n named) prefix(verdicts []Verdict, err error) ([]Verdict, error) {
	if err != nil {
		return nil, fmt.Errorf("policy set %s: %w", n.name, err)
	}
	under := func(findings []Finding) []Finding {
		if findings == nil {
			return nil
		}
		out := make([]Finding, len(findings))
		for i, f := range findings {
			f.Rule = n.name + "/" + f.Rule
			out[i] = f
		}
		return out
	}
	out := make([]Verdict, len(verdicts))
	for i, v := range verdicts {
		out[i] = Verdict{Deny: under(v.Deny), Warn: under(v.Warn)}
	}
	return out, nil
}

// All judges by every policy: what one denies is denied, and an error of one
// means that nothing was judged. Findings come in the order of the policies.
// All of no policies has nothing against anything.
func All(ps ...Policy) Policy { return all(ps) }

type all []Policy

// Digest covers the digests of all, in order.
func (a all) Digest() string {
	parts := make([]string, len(a))
	for i, p := range a {
		parts[i] = p.Digest()
	}
	h := sha256.New()
	io.WriteString(h, strings.Join(parts, "\n"))
	return hex.EncodeToString(h.Sum(nil))
}

// Volatile reports whether any of them is.
func (a all) Volatile() bool {
	for _, p := range a {
		if IsVolatile(p) {
			return true
		}
	}
	return false
}

func (a all) Objects(ctx context.Context, objects []*manifest.Object) ([]Verdict, error) {
	return a.merge(len(objects), func(p Policy) ([]Verdict, error) { return p.Objects(ctx, objects) })
}

func (a all) Changes(ctx context.Context, changes []Change) ([]Verdict, error) {
	return a.merge(len(changes), func(p Policy) ([]Verdict, error) { return p.Changes(ctx, changes) })
}

func (a all) merge(n int, ask func(Policy) ([]Verdict, error)) ([]Verdict, error) {
	out := make([]Verdict, n)
	for _, p := range a {
		verdicts, err := ask(p)
		if verdicts, err = complete(n, verdicts, err); err != nil {
			return nil, err
		}
		for i, v := range verdicts {
			out[i].Deny = append(out[i].Deny, v.Deny...)
			out[i].Warn = append(out[i].Warn, v.Warn...)
		}
	}
	return out, nil
}
