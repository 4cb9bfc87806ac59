package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
)

// renames returns, by former name, the applications of a configuration that had
// another name before.
func (c *Config) renames() map[string]string {
	out := map[string]string{}
	for _, a := range c.Applications {
		if a.RenamedFrom != "" {
			out[a.RenamedFrom] = a.Name
		}
	}
	return out
}

// rename hands what applications had under their former names to them: inventory
// first, so that nothing is taken for left behind, then what is remembered. It can
// be done again after it was cut short, and costs nothing once it is done.
func (m *Manager) rename(ctx context.Context, config Config, apps []*app) error {
	var errs []error
	names := config.renames()
	for _, a := range apps {
		if names[a.RenamedFrom] != a.Name {
			continue
		}
		moved, err := m.registry.rename(ctx, a.RenamedFrom, a.Name)
		for _, k := range moved {
			m.event(ctx, Event{
				Kind: EventMoved, Application: a.Name, Message: fmt.Sprintf("%s moved from application %s, which is called %s now", k, a.RenamedFrom, a.Name),
				Data: map[string]any{"key": k.String(), "from": a.RenamedFrom, "to": a.Name},
			})
		}
		if err == nil {
			err = m.renameRecords(ctx, a)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("application %s was called %s, and what that had could not be handed over: %w", a.Name, a.RenamedFrom, err))
		}
	}
	return errors.Join(errs...)
}

// rename gives everything that one application owns to another and returns the
// keys, sorted.
func (r *registry) rename(ctx context.Context, from, to string) ([]plan.Key, error) {
	var moved []plan.Key
	err := r.change(ctx, func() (put []plan.Entry, drop []plan.Key, err error) {
		moved = slices.SortedFunc(maps.Keys(r.owned[from]), plan.Key.Compare)
		for _, k := range moved {
			e := r.entries[k]
			if e.State == plan.EntryOrphaned { // it is not left behind any more
				e.State = plan.EntryOwned
				if e.Applied == nil {
					e.State = plan.EntryPending
				}
			}
			e.Owner, e.MovedFrom = to, from
			put = append(put, e)
		}
		return put, nil, nil
	})
	return moved, err
}

// renameRecords gives an application what is remembered under its former name,
// unless something is remembered under its own, and reads it.
func (m *Manager) renameRecords(ctx context.Context, a *app) error {
	_, err := m.opts.Store.Get(ctx, appPrefix+a.Name)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var put, drop []store.Op
	move := func(from, to string, value []byte) {
		put, drop = append(put, store.Op{Key: to, Value: value}), append(drop, store.Op{Key: from})
	}
	lines, err := m.opts.Store.List(ctx, historyPrefix+a.RenamedFrom+"/")
	if err != nil {
		return err
	}
	for _, l := range lines {
		move(l.Key, historyPrefix+a.Name+l.Key[len(historyPrefix+a.RenamedFrom):], l.Value)
	}
	for _, prefix := range []string{driftPrefix, controlPrefix, appPrefix} { // the last one says that all is done
		rec, err := m.opts.Store.Get(ctx, prefix+a.RenamedFrom)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		move(rec.Key, prefix+a.Name, rec.Value)
	}
	drop = append(drop, store.Op{Key: departurePrefix + a.RenamedFrom}) // its own settings say so
	for _, tx := range store.Transactions(append(put, drop...)) {
		if err := m.commit(ctx, tx...); err != nil {
			return err
		}
	}
	a.state, err = m.loadState(ctx, a)
	return err
}
