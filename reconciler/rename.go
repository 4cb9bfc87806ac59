package reconciler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

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
// be done again after it was cut short, and costs nothing once it is done. It
// returns those of apps that have everything: the others must not work yet, since
// they know neither who suspended them nor what they own; a later reload tries again.
func (m *Manager) rename(ctx context.Context, apps []*app) (whole []*app, err error) {
	var errs []error
	for _, a := range apps {
		if err := m.renameOne(ctx, a); err != nil {
			errs = append(errs, fmt.Errorf("application %s was called %s, and what that had could not be handed over, so it does not run: %w", a.Name, a.RenamedFrom, err))
			continue
		}
		whole = append(whole, a)
	}
	return whole, errors.Join(errs...)
}

func (m *Manager) renameOne(ctx context.Context, a *app) error {
	if a.RenamedFrom == "" {
		return nil
	}
	moved, err := m.registry.rename(ctx, a.RenamedFrom, a.Name)
	if err != nil {
		return err
	}
	for _, k := range moved {
		m.event(ctx, Event{
			Kind: EventMoved, Application: a.Name, Message: fmt.Sprintf("%s moved from application %s, which is called %s now", k, a.RenamedFrom, a.Name),
			Data: map[string]any{"key": k.String(), "from": a.RenamedFrom, "to": a.Name},
		})
	}
	return m.renameRecords(ctx, a)
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
			e.HandOver(to)
			put = append(put, e)
		}
		return put, nil, nil
	})
	return moved, err
}

// renamingPrefix is where it stands that the records of an application are being
// replaced by those of its former name, which is the value.
const renamingPrefix = "renaming/"

// renameRecords gives an application what is remembered under its former name, in
// place of what another one of its name left, and reads it.
func (m *Manager) renameRecords(ctx context.Context, a *app) error {
	var left, put, former []store.Op
	for _, prefix := range []string{historyPrefix, driftPrefix, controlPrefix, departurePrefix, appPrefix} {
		own := prefix == departurePrefix // what its settings say now is on record already
		have, err := m.recordsOf(ctx, prefix, a.Name)
		if err != nil {
			return err
		}
		for _, rec := range have {
			if !own {
				left = append(left, store.Op{Key: rec.Key})
			}
		}
		records, err := m.recordsOf(ctx, prefix, a.RenamedFrom)
		if err != nil {
			return err
		}
		for _, rec := range records {
			if !own {
				put = append(put, store.Op{Key: prefix + a.Name + strings.TrimPrefix(rec.Key, prefix+a.RenamedFrom), Value: rec.Value})
			}
			former = append(former, store.Op{Key: rec.Key})
		}
	}
	begun, err := m.recordsOf(ctx, renamingPrefix, a.Name)
	if err != nil || len(former)+len(begun) == 0 {
		return err
	}
	if len(begun) > 0 { // what is there under the new name is what was copied before
		left = nil
	}
	mark := store.Op{Key: renamingPrefix + a.Name}
	for _, ops := range [][]store.Op{append(left, store.Op{Key: mark.Key, Value: []byte(a.RenamedFrom)}), put, append(former, mark)} {
		for _, tx := range store.Transactions(ops) {
			if err := m.commit(ctx, tx...); err != nil {
				return err
			}
		}
	}
	a.steering.control = control{}
	a.state, err = m.loadState(ctx, a)
	return err
}

// recordsOf returns the records of one kind of an application.
func (m *Manager) recordsOf(ctx context.Context, prefix, application string) ([]store.Record, error) {
	if prefix == historyPrefix {
		return m.opts.Store.List(ctx, prefix+application+"/")
	}
	rec, err := m.opts.Store.Get(ctx, prefix+application)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return []store.Record{rec}, err
}
