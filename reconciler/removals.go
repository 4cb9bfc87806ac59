package reconciler

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
)

// awaiting begins the reason of a change that waits for news of another application.
const awaiting = "AwaitingHandover: "

// removals decides, for one plan, what its changes may remove besides.
type removals struct {
	r     *round
	state *desiredState
	// allowed holds what was decided, by key; withheld why nothing of it may go.
	allowed  map[plan.Key][]string
	withheld map[plan.Key]string
}

func (r *round) removals(state *desiredState) *removals {
	return &removals{r: r, state: state, allowed: map[plan.Key][]string{}, withheld: map[plan.Key]string{}}
}

// observed returns what is known of a key, with what may be removed next to it.
func (m *removals) observed(k plan.Key) plan.Observed {
	o, _ := m.r.out.observed.get(k)
	if len(o.Removes.Addresses) == 0 {
		return o
	}
	if _, decided := m.allowed[k]; !decided {
		m.decide(k, o.Removes.Addresses)
	}
	o.Removes.Addresses = m.allowed[k]
	return o
}

// decide leaves out what the application declares or owns itself, of which the
// target may not have heard yet. All of it is withheld while something of it
// belongs to another application, through whichever target, or may do so.
func (m *removals) decide(k plan.Key, addresses []string) {
	r := m.r
	place := r.m.registry.placed(k.Target)
	owned := r.m.registry.ownersAt(place, addresses)
	addresses = slices.DeleteFunc(slices.Clone(addresses), func(address string) bool {
		return m.state.declares(place, address) || owned[address] == r.app.Name
	})
	m.allowed[k] = addresses
	if len(addresses) == 0 {
		return
	}
	if address, owner := r.m.claimed(r.app, place, addresses); owner != "" {
		m.withheld[k] = fmt.Sprintf("%sit would remove %s, which belongs to application %s; declare both through one target, or take exclusive from the directory", awaiting, address, owner)
	} else if name := r.m.unread(r.app, r.place(m.state), place); name != "" {
		m.withheld[k] = fmt.Sprintf("%sit would remove %s, and whether application %s declares something of that is not known before that has rendered this revision; look at it with: gitopsd status %s",
			awaiting, addresses[0]+more(len(addresses)-1), name, name)
	}
	if m.withheld[k] != "" {
		m.allowed[k] = nil
	}
}

// guard blocks the changes that would have removed what is withheld.
func (m *removals) guard(p *plan.Plan) {
	block(p, func(c *plan.Change) string {
		o, _ := m.r.out.observed.get(c.Key)
		if c.Action == plan.Update && slices.ContainsFunc(c.Fields, func(f plan.FieldChange) bool { return o.Removes.Field.Covers(f.Path) }) {
			return m.withheld[c.Key]
		}
		return ""
	})
}

// declares reports whether a state wants something at an address of a place, or
// below it where addresses are paths.
func (s *desiredState) declares(place, address string) bool {
	if s == nil {
		return false
	}
	at := locatorKey(place, address)
	if _, ok := s.locators.Get(at); ok {
		return true
	}
	it := s.locators.Root().Iterator()
	it.SeekPrefix(append(at, '/'))
	_, _, below := it.Next()
	return below
}

// ownersAt returns which application has something on record at each address of a
// place, or below it where addresses are paths.
func (r *registry) ownersAt(place string, addresses []string) map[string]string {
	asked := make(map[string]bool, len(addresses))
	for _, a := range addresses {
		asked[a] = true
	}
	out := map[string]string{}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for at, k := range r.byLocator {
		if at.place != place {
			continue
		}
		for p := at.address; p != ""; p = p[:max(0, strings.LastIndexByte(p, '/'))] {
			if asked[p] {
				out[p] = r.entries[k].Owner
			}
		}
	}
	return out
}

// claimed returns the first of addresses of a place that another application declares or
// owns, and which.
func (m *Manager) claimed(a *app, place string, addresses []string) (address, owner string) {
	owners := m.registry.ownersAt(place, addresses)
	for _, other := range m.apps() {
		if other.Name == a.Name {
			continue
		}
		state := m.registry.desire(other.Name).state
		for _, address := range addresses {
			if state.declares(place, address) {
				owners[address] = other.Name
			}
		}
	}
	for _, address := range slices.Sorted(maps.Keys(owners)) {
		if owners[address] != a.Name {
			return address, owners[address]
		}
	}
	return "", ""
}

// unread returns an application that reaches a place and whose wishes are not
// known, at a revision of the same source or at all, or "".
func (m *Manager) unread(a *app, seq uint64, place string) string {
	for _, other := range m.apps() {
		reaches := func(t *target) bool { return t.place == place }
		if other.Name == a.Name || !slices.ContainsFunc(slices.Collect(maps.Values(other.pipe.targets)), reaches) {
			continue
		}
		d := m.registry.desire(other.Name)
		if d.state == nil || d.restoring || d.source == a.Source && d.seq < seq {
			return other.Name
		}
	}
	return ""
}

// changed are the keys that the candidate changes, those under which it leaves an old
// address included.
func (r *round) changed() map[plan.Key]bool {
	changed := make(map[plan.Key]bool, len(r.delta)+len(r.parted))
	for _, k := range r.delta {
		changed[k] = true
	}
	for _, k := range r.parted {
		changed[k] = true
	}
	return changed
}

// holdsNothingNew reports whether all that a plan needs an approval for is the
// removal of what nobody declared, next to objects that the revision does not
// change: that is no fault of the revision, which goes ahead without it.
func (r *round) holdsNothingNew(gates []plan.Gate) bool {
	if r.accepted == nil {
		return false
	}
	changed := r.changed()
	for _, g := range gates {
		for _, c := range g.Changes {
			if c.Removes == "" || changed[c.Key] {
				return false
			}
		}
	}
	return true
}

// deletes reports whether a change takes something away, itself or besides.
func deletes(c *plan.Change) bool { return c.Action == plan.Delete || len(c.Removes) > 0 }

// maxNamed is how many addresses an event lists.
const maxNamed = 100

// removes lists what gated changes remove besides, for an event.
func removes(gates []plan.Gate) []string {
	var out []string
	for _, g := range gates {
		for _, c := range g.Changes {
			if c.Removes != "" {
				out = append(out, c.Removes)
			}
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if n := len(out); n > maxNamed {
		out = append(out[:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
	}
	return out
}

// reportRemoved tells of everything that a change has removed besides.
func (r *round) reportRemoved(c *plan.Change, removed []appliers.Removed) {
	for _, gone := range removed {
		data := map[string]any{
			"key": c.Key.String(), "address": gone.Address, "backup": gone.Backup, "origin": c.Origin.String(), "revision": r.accepted.revision,
		}
		r.addApproval(data)
		message := fmt.Sprintf("removed %s, which nobody declared and %s does not allow", gone.Address, c.Key)
		if gone.Backup != "" {
			message += "; it is kept as " + gone.Backup
		}
		r.event(EventRemoved, message, data)
	}
}

// addApproval names the approval that a delete goes by, if there is one.
func (r *round) addApproval(data map[string]any) {
	if r.approval != nil {
		data["approvedBy"], data["approval"] = r.approval.By, r.approval.Digest
	}
}

// remarkRule is the rule that the warnings of remarks name.
const remarkRule = "health"

// remarks are what targets say of objects that are as desired, sorted by key: an
// exclusive directory lists what nobody declared in it.
func (st *appState) remarks() []policies.Finding {
	var out []policies.Finding
	for _, k := range slices.SortedFunc(maps.Keys(st.unhealthy), plan.Key.Compare) {
		h := st.unhealthy[k]
		if h.Status != appliers.Healthy {
			continue
		}
		if len(out) == maxErrors {
			return append(out, policies.Finding{Rule: remarkRule, Msg: "and more"})
		}
		var origin manifest.Origin
		if item, ok := st.accepted.items.get(k); ok {
			origin = item.Source.Origin()
		}
		out = append(out, policies.Finding{Rule: remarkRule, Msg: named(origin, k.ID, h.Message)})
	}
	return out
}

// within reports whether all that is held was looked at again.
func (c *Candidate) within(scope map[plan.Key]struct{}) bool {
	if c == nil {
		return false
	}
	for _, g := range c.Gates {
		for _, gated := range g.Changes {
			if _, looked := scope[gated.Key]; !looked {
				return false
			}
		}
	}
	return true
}
