package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/render"
	"github.com/gitopsd/gitopsd/internal/store"
)

// DeletionPolicy says what becomes of the objects of an application that is taken
// out of the configuration.
type DeletionPolicy string

// The deletion policies.
const (
	DeletionOrphan DeletionPolicy = "Orphan" // default: they stay, and are listed
	DeletionDelete DeletionPolicy = "Delete" // they go, through budget and approval
)

// departurePrefix is where it stands that the objects of an application go with
// it. What is not on record there while the application is configured does not
// count: a configuration cannot both bring the wish and carry it out.
const departurePrefix = "departure/"

// departure is what has to be known of an application to delete its objects when
// its declaration is gone.
type departure struct {
	Budget   plan.Budget          `json:"budget"`
	Protect  []manifest.GroupKind `json:"protect,omitempty"`
	Policies []string             `json:"policies,omitempty"`
	Suspend  bool                 `json:"suspend,omitempty"`
}

// recordDepartures makes durable which applications of a configuration want their
// objects deleted when they are taken out of it.
func (m *Manager) recordDepartures(ctx context.Context, config Config) error {
	records, err := m.opts.Store.List(ctx, departurePrefix)
	if err != nil {
		return fmt.Errorf("deletion policies: %w", err)
	}
	have := map[string]string{}
	for _, rec := range records {
		have[rec.Key] = string(rec.Value)
	}
	var ops []store.Op
	for _, a := range config.Applications {
		op := store.Op{Key: departurePrefix + a.Name}
		if a.departing {
			continue
		}
		if a.DeletionPolicy == DeletionDelete {
			if op, err = jsonOp(op.Key, departure{a.Budget, a.Protect, a.Policies, a.Suspend}); err != nil {
				return err
			}
		}
		if have[op.Key] != string(op.Value) {
			ops = append(ops, op)
		}
	}
	for _, tx := range store.Transactions(ops) {
		if err := m.commit(ctx, tx...); err != nil {
			return fmt.Errorf("deletion policies: %w", err)
		}
	}
	return nil
}

// withDepartures adds to a configuration the applications that are not in it any
// more and whose objects are to go with them. Each wants nothing, and ends when
// nothing is left.
func (m *Manager) withDepartures(ctx context.Context, config Config) (Config, error) {
	config.Applications = slices.Clone(config.Applications)
	renamed := config.renames()
	for _, owner := range m.registry.owners() {
		if config.has(owner) || renamed[owner] != "" {
			continue
		}
		var targets []string
		for _, k := range m.registry.kept(owner) {
			targets = append(targets, k.Target)
		}
		if len(targets) == 0 {
			continue
		}
		rec, err := m.opts.Store.Get(ctx, departurePrefix+owner)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return config, fmt.Errorf("application %s: its deletion policy could not be read: %w", owner, err)
		}
		var d departure
		if err := json.Unmarshal(rec.Value, &d); err != nil {
			m.opts.Log.Error("the deletion policy on record is damaged, so the objects are left behind", "application", owner, "error", err)
			continue
		}
		a := Application{
			Name: owner, Digest: "departing\x00" + string(rec.Value), departing: true,
			Policies: d.Policies, Suspend: d.Suspend, Prune: true, Budget: d.Budget, Protect: d.Protect, Adopt: plan.AdoptNever,
		}
		slices.Sort(targets)
		for _, name := range slices.Compact(targets) {
			a.Routes = append(a.Routes, appliers.Route{Target: name})
		}
		config.Applications = append(config.Applications, a)
	}
	return config, nil
}

// kept returns what an application owns and has not left behind, sorted.
func (r *registry) kept(application string) []plan.Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var keys []plan.Key
	for k := range r.owned[application] {
		if _, left := r.left[application][k]; !left {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, plan.Key.Compare)
	return keys
}

// depart gives a departing application the state it is to be in: nothing.
func (a *app) depart() {
	st := a.state
	st.accepted = &desiredState{revision: st.record.Revision, rendered: &render.State{}, locators: iradix.New[plan.Key]()}
	st.restored = true
	a.m.registry.setDesire(a.Name, desire{ready: true, state: st.accepted})
}

// undo says how the deletes of a plan are taken back; "" for what plan says itself.
func (a *app) undo() string {
	if !a.departing {
		return ""
	}
	return "the application can be put back into the configuration"
}

// departed says to whom it may concern that nothing is left of an application.
func (a *app) departed() {
	if !a.departing || len(a.m.registry.kept(a.Name)) > 0 {
		return
	}
	select {
	case a.m.departures <- struct{}{}:
	default: // somebody is told already
	}
}

// endDepartures ends the applications of which nothing is left. Only Run calls it.
func (m *Manager) endDepartures(ctx context.Context) {
	for _, a := range m.apps() {
		if !a.departing || len(m.registry.kept(a.Name)) > 0 {
			continue
		}
		a.cancel()
		<-a.done
		m.mu.Lock()
		delete(m.running, a.Name)
		m.mu.Unlock()
		m.registry.dropDesire(a.Name)
		m.opts.Metrics.forgetApplication(a.Name)
		m.event(ctx, Event{Kind: EventDeparted, Application: a.Name, Message: "nothing is left of what it owned: it is not configured any more, and its deletion policy was Delete"})
		// Its history stays. What the rest says would be wrong for another one of its name.
		if err := m.commit(ctx, store.Op{Key: departurePrefix + a.Name}, store.Op{Key: controlPrefix + a.Name}, store.Op{Key: driftPrefix + a.Name}); err != nil {
			m.opts.Log.Warn("records of an application that is gone stay in the store", "application", a.Name, "error", err)
		}
	}
	m.changed()
}

// unheard holds back the deletes of a departing application while the wishes of one that
// reaches the same place are not known: no revision says when an application left
// the configuration, so that all others have to have spoken.
func (r *round) unheard(gone []plan.Key, moves []transfer, wait map[plan.Key]string) {
	if !r.app.departing {
		return
	}
	moved := map[plan.Key]bool{}
	for _, t := range moves {
		moved[t.from.Key] = true
	}
	silent := map[string]string{} // by place
	for _, k := range gone {
		if moved[k] || wait[k] != "" {
			continue
		}
		place := r.m.registry.placed(k.Target)
		name, asked := silent[place]
		if !asked {
			name = r.m.unread(r.app, 0, place)
			silent[place] = name
		}
		if name != "" {
			wait[k] = fmt.Sprintf("%swhether application %s wants it is not known before that has rendered a revision; look at it with: gitopsd status %s", awaiting, name, name)
		}
	}
}
