package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Defaults of a configuration that sets no budget, from RELIABILITY "prune guard
// on by default". Build itself takes Options.Budget as it is.
const (
	DefaultMaxCount   = 10
	DefaultMaxPercent = 20
)

// gates returns the guards that the deletes of a plan run into. Every owned key
// that is no longer desired and not handed over counts toward the budget,
// whether its delete is blocked at present or not: else many deletes that become
// possible a few at a time would pass under it. Not counted are the forgotten,
// those that await a hand-over, and all of them while prune is off. Of protected
// kinds only the deletes that would be made are held.
func (b *builder) gates(p *Plan) []Gate {
	if !b.opts.Prune {
		return nil
	}
	var leaving, protected []GatedChange
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Desired != nil || c.Action == Forget {
			continue
		}
		g := GatedChange{Key: c.Key, Action: Delete}
		if _, held := b.opts.Handover[c.Key]; held {
			continue
		}
		leaving = append(leaving, g)
		if c.Blocked == "" && b.opts.Protected != nil && b.opts.Protected(c.Key.ID) {
			protected = append(protected, g)
		}
	}
	var gates []Gate
	add := func(kind GateKind, changes []GatedChange, format string, args ...any) {
		slices.SortFunc(changes, GatedChange.compare)
		gates = append(gates, Gate{Kind: kind, Message: fmt.Sprintf(format, args...), Changes: changes})
	}
	n, owned := len(leaving), max(b.opts.Owned, len(leaving))
	count, percent := b.opts.Budget.MaxCount, b.opts.Budget.MaxPercent
	if b.opts.Want == 0 && b.opts.Owned > 0 && n > 0 {
		add(GateEmpty, slices.Clone(leaving), "nothing is desired any more, and %d of %d objects would go; approve if this is meant, or restore the files", n, b.opts.Owned)
	}
	if count >= 0 && n > count {
		add(GatePruneCount, slices.Clone(leaving), "%d deletes are more than prune.maxCount %d; approve them, or raise the limit", n, count)
	}
	// One object is always a large part of a small application; a limit of 0 means it.
	if percent >= 0 && (n > 1 || percent == 0) && n*100 > percent*owned {
		add(GatePrunePercent, slices.Clone(leaving), "%d deletes of %d owned objects are more than prune.maxPercent %d; approve them, or raise the limit", n, owned, percent)
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
