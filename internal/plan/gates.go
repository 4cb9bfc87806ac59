package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Defaults of Budget, from RELIABILITY "prune guard on by default".
const (
	DefaultMaxCount   = 10
	DefaultMaxPercent = 20
)

// gates returns the guards that the deletes of a plan run into. Only deletes
// that would be made count: not the forgotten, the handed over, the blocked.
func (b *builder) gates(p *Plan) []Gate {
	var deletes, protected, leaving []GatedChange
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Desired != nil || c.Action == Forget {
			continue
		}
		g := GatedChange{Key: c.Key, Action: Delete}
		if _, held := b.opts.Handover[c.Key]; !held {
			leaving = append(leaving, g)
		}
		if c.Blocked != "" {
			continue
		}
		deletes = append(deletes, g)
		if b.opts.Protected != nil && b.opts.Protected(c.Key.ID) {
			protected = append(protected, g)
		}
	}
	var gates []Gate
	add := func(kind GateKind, changes []GatedChange, format string, args ...any) {
		slices.SortFunc(changes, GatedChange.compare)
		gates = append(gates, Gate{Kind: kind, Message: fmt.Sprintf(format, args...), Changes: changes})
	}
	n, owned := len(deletes), max(b.opts.Owned, len(deletes))
	count := cmp.Or(b.opts.Budget.MaxCount, DefaultMaxCount)
	percent := cmp.Or(b.opts.Budget.MaxPercent, DefaultMaxPercent)
	if b.opts.Prune && b.opts.Want == 0 && b.opts.Owned > 0 && len(leaving) > 0 {
		add(GateEmpty, leaving, "nothing is desired any more, and %d of %d objects would go; approve if this is meant, or restore the files", len(leaving), b.opts.Owned)
	}
	if count >= 0 && n > count {
		add(GatePruneCount, slices.Clone(deletes), "%d deletes are more than prune.maxCount %d; approve them, or raise the limit", n, count)
	}
	// One object is always a large part of a small application.
	if percent >= 0 && n > 1 && n*100 > percent*owned {
		add(GatePrunePercent, slices.Clone(deletes), "%d deletes of %d owned objects are more than prune.maxPercent %d; approve them, or raise the limit", n, owned, percent)
	}
	if len(protected) > 0 {
		add(GateProtected, protected, "of kinds that are never deleted unasked: %d to delete; approve them, or restore the files", len(protected))
	}
	return gates
}

func (g GatedChange) compare(o GatedChange) int {
	return cmp.Or(g.Key.Compare(o.Key), cmp.Compare(g.Action, o.Action), cmp.Compare(g.Want, o.Want))
}

// Gated returns the changes under any gate, sorted, each once.
func (p *Plan) Gated() []GatedChange {
	var all []GatedChange
	for _, g := range p.Gates {
		all = append(all, g.Changes...)
	}
	slices.SortFunc(all, GatedChange.compare)
	return slices.Compact(all)
}

// GatedDigest names the application and its set of gated changes (key, action,
// digest of what is wanted): 64 hexadecimal digits, or "" when nothing is gated.
// Observed values are not part of it.
func (p *Plan) GatedDigest() string {
	gated := p.Gated()
	if len(gated) == 0 {
		return ""
	}
	h := sha256.New()
	err := json.NewEncoder(h).Encode([]any{p.Application, gated})
	if err != nil { // strings always marshal
		panic(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// CoveredBy reports whether every gated change is among the approved ones. A
// set that shrank is covered; one that grew, or wants something else, is not.
func CoveredBy(gates []Gate, approved []GatedChange) bool {
	set := make(map[GatedChange]bool, len(approved))
	for _, a := range approved {
		set[a] = true
	}
	for _, g := range gates {
		for _, c := range g.Changes {
			if !set[c] {
				return false
			}
		}
	}
	return true
}
