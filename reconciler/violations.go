package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/gitopsd/gitopsd/policies"
)

// violations are the findings of changed policies that deny what runs as desired.
// What is already listed because a change of it is blocked is left out.
func (st *appState) violations() keyMap[[]policies.Finding] {
	if st.accepted == nil || st.accepted.denied.len() == 0 {
		return keyMap[[]policies.Finding]{}
	}
	return st.accepted.denied.edit(func(t *keyMapTxn[[]policies.Finding]) {
		for k, denied := range st.accepted.denied.all() {
			if _, listed := st.blocked[k]; listed || len(denied) == 0 {
				t.drop(k)
				continue
			}
			t.set(k, []policies.Finding{{Rule: denied[0].Rule, Msg: violation(denied[0].Rule, denied[0].Msg)}})
		}
	})
}

// deniedBesides says that n objects are denied although nothing has to change.
func deniedBesides(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "; 1 object is denied by the policies by now"
	default:
		return fmt.Sprintf("; %d objects are denied by the policies by now", n)
	}
}

// tellViolations tells, once for each set of objects and rules, also over
// restarts, that policies deny what runs.
func (r *round) tellViolations(ctx context.Context) error {
	if r.accepted == nil || !r.judged() || r.policy.policy == nil {
		return nil
	}
	denied := r.accepted.denied
	if denied.len() == 0 && r.out.record.Denied == "" {
		return nil
	}
	name, objects := "", []string{}
	if denied.len() > 0 {
		sum := sha256.New()
		for k, list := range denied.all() {
			fmt.Fprintln(sum, k)
			for _, f := range list {
				fmt.Fprintln(sum, f.Rule)
			}
			if len(objects) < maxErrors {
				objects = append(objects, k.String())
			}
		}
		name = hex.EncodeToString(sum.Sum(nil))
	}
	if name == r.out.record.Denied {
		return nil
	}
	if name != "" {
		first := r.accepted.findings(denied)[0]
		r.event(EventViolation, fmt.Sprintf("denied by the policies by now, and running: %s: %s%s; nothing is deleted, and changes of what is denied are blocked",
			first.Rule, first.Msg, more(denied.len()-1)),
			map[string]any{"objects": objects, "count": denied.len(), "revision": r.accepted.revision})
	}
	rec := r.out.record
	rec.Denied = name
	if err := r.m.saveApp(ctx, r.app.Name, rec); err != nil {
		return err
	}
	r.out.record = rec
	return nil
}
