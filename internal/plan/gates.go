package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
)

// Defaults of a configuration that sets no budget: the prune guard is on by
// default. Build itself takes Options.Budget as it is.
const (
	DefaultMaxCount   = 10
	DefaultMaxPercent = 20
)

// gates returns the guards that the deletes of a plan run into. Every owned key
// that is no longer desired and not handed over counts toward the budget,
// whether its delete is blocked at present or not: else many deletes that become
// possible a few at a time would pass under it. Not counted are the forgotten,
// those that another application is known to want, and all of them while prune is
// off. Of protected kinds only the deletes that would be made are held, and those
// of which nobody knows whether they are handed over instead.
//
// What changes remove besides counts like deletes, each by itself, also while
// prune is off: that is about what is no longer declared, and this never was.
// The percentage is of what is owned all the same, because nothing else is a
// measure of the application: who removes more than that asks for an approval.
func (b *builder) gates(p *Plan) []Gate {
	var leaving, protected []GatedChange
	besides := 0
	for i := range p.Changes {
		c := &p.Changes[i]
		for _, address := range c.Removes {
			leaving = append(leaving, GatedChange{Key: c.Key, Action: Delete, Removes: address})
		}
		besides += len(c.Removes)
		if c.Desired != nil || c.Action == Forget || !b.opts.Prune {
			continue
		}
		g := GatedChange{Key: c.Key, Action: Delete}
		undecided := b.opts.Undecided[c.Key]
		if _, held := b.opts.Handover[c.Key]; held && !undecided {
			continue
		}
		leaving = append(leaving, g)
		if (c.Blocked == "" || undecided) && b.opts.Protected != nil && b.opts.Protected(c.Key.ID) {
			protected = append(protected, g)
		}
	}
	var gates []Gate
	add := func(kind GateKind, changes []GatedChange, hint, format string, args ...any) {
		slices.SortFunc(changes, GatedChange.compare)
		gates = append(gates, Gate{Kind: kind, Message: fmt.Sprintf(format, args...), Hint: hint, Changes: changes})
	}
	restore, raise := cmp.Or(b.opts.Undo, "the files can be restored")+" instead", "the limit can be raised instead"
	n, owned := len(leaving), max(b.opts.Owned, len(leaving)-besides)
	deletes, measure := fmt.Sprintf("%d deletes", n), "of"
	if besides > 0 {
		deletes += fmt.Sprintf(" (%d of undeclared entries)", besides)
		measure = "next to"
	}
	count, percent := b.opts.Budget.MaxCount, b.opts.Budget.MaxPercent
	if b.opts.Want == 0 && b.opts.Owned > 0 && n > 0 {
		add(GateEmpty, slices.Clone(leaving), restore, "nothing is desired any more, and %d of %d objects would go", n, b.opts.Owned)
	}
	if count >= 0 && n > count {
		add(GatePruneCount, slices.Clone(leaving), raise, "%s are more than prune.maxCount %d", deletes, count)
	}
	// One object is always a large part of a small application; a limit of 0 means it.
	if percent >= 0 && (n > 1 || percent == 0) && n*100 > percent*owned {
		add(GatePrunePercent, slices.Clone(leaving), raise, "%s %s %d owned objects are more than prune.maxPercent %d", deletes, measure, owned, percent)
	}
	if len(protected) > 0 {
		add(GateProtected, protected, restore, "of kinds that are never deleted unasked: %d to delete", len(protected))
	}
	return gates
}

// Text is the message with the hint.
func (g Gate) Text() string {
	if g.Hint == "" {
		return g.Message
	}
	return g.Message + "; " + g.Hint
}

func (g GatedChange) compare(o GatedChange) int {
	return cmp.Or(g.Key.Compare(o.Key), cmp.Compare(g.Action, o.Action), cmp.Compare(g.Want, o.Want), cmp.Compare(g.Removes, o.Removes))
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

// String is a gated change as people read it: what goes, and what takes it along.
func (g GatedChange) String() string {
	if g.Removes != "" {
		return fmt.Sprintf("%s %s, which nobody declared (%s)", g.Action, g.Removes, g.Key)
	}
	return fmt.Sprintf("%s %s", g.Action, g.Key)
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
