package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
)

// Forget takes objects that an application left behind off the record, without
// touching them, and returns their keys. objects are named as for Object; none
// means all. An object that was not left behind is ErrPrecondition, and then
// nothing is forgotten. Who desires one of them later has to adopt it.
func (m *Manager) Forget(ctx context.Context, by, application string, objects []string, why string) ([]string, error) {
	if why == "" {
		return nil, errNoReason
	}
	keys, err := m.forgettable(application, objects)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.String()
	}
	// Told before it is done, so that nothing is forgotten without a word.
	for _, k := range keys {
		e, _ := m.registry.entry(application, k)
		m.event(ctx, Event{
			Kind: EventForgotten, Application: application, Principal: by, Message: why,
			Data: map[string]any{"key": k.String(), "locator": e.Locator, "place": e.Place},
		})
	}
	if err := m.registry.forget(ctx, application, keys); err != nil {
		return nil, err
	}
	if a, err := m.app(application); err == nil {
		// A caller who asks for the status next finds what it did.
		_ = a.ask(ctx, func(st *appState) { a.publish(st) }) // fails when the application is ending: nothing is shown then
	} else {
		m.changed()
	}
	return names, m.noteForgotten(ctx, by, application, keys, why)
}

// forgettable resolves the objects to forget.
func (m *Manager) forgettable(application string, objects []string) ([]plan.Key, error) {
	owned := m.registry.keys(application)
	if _, err := m.app(application); err != nil && len(owned) == 0 {
		return nil, err
	}
	if len(objects) == 0 {
		left := m.registry.orphans(application)
		if len(left) == 0 {
			return nil, fmt.Errorf("application %s: %w: it left nothing behind", application, ErrPrecondition)
		}
		return left, nil
	}
	var keys []plan.Key
	left := m.registry.orphans(application)
	for _, ref := range objects {
		k, err := find(owned, application, ref)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(left, k) {
			return nil, notLeft(application, k)
		}
		keys = append(keys, k)
	}
	return dedupe(keys), nil
}

func notLeft(application string, k plan.Key) error {
	return hinted(fmt.Errorf("application %s: %w: %s was not left behind", application, ErrPrecondition, k),
		"only what gitopsd status %s --diff lists as orphaned can be forgotten", application)
}

// noteForgotten writes a line of the history. Its key follows that of the newest
// revision, so that the rounds, which alone count revisions, need not wait.
func (m *Manager) noteForgotten(ctx context.Context, by, application string, keys []plan.Key, why string) error {
	var rec appRecord
	if err := readJSON(ctx, m.opts.Store, appPrefix+application, &rec); err != nil {
		return err
	}
	now := m.opts.Now()
	reason := fmt.Sprintf("%s: %s%s", why, keys[0], more(len(keys)-1))
	op, err := jsonOp(fmt.Sprintf("%s.%016x", historyKey(application, rec.HistorySeq), now.UnixNano()), HistoryEntry{
		Application: application, Seq: rec.HistorySeq, Revision: rec.Revision, Outcome: OutcomeForgotten, Reason: reason,
		Counts: plan.Counts{Forget: len(keys)}, Approver: by, Started: now, Finished: now,
	})
	if err != nil {
		return err
	}
	old, err := m.oldLines(ctx, application)
	if err == nil {
		err = m.commit(ctx, append(old, op)...)
	}
	if err != nil {
		return errors.Join(errors.New("forgotten, and the history was not written"), err)
	}
	return nil
}

// oldLines drops what people did when there is more of it than a history keeps.
func (m *Manager) oldLines(ctx context.Context, application string) ([]store.Op, error) {
	records, err := m.opts.Store.List(ctx, historyPrefix+application+"/")
	if err != nil {
		return nil, err
	}
	var lines []store.Op
	for _, r := range records {
		if len(r.Key) > len(historyKey(application, 0)) {
			lines = append(lines, store.Op{Key: r.Key})
		}
	}
	return lines[:min(max(0, len(lines)-historyKept+1), store.MaxOps-1)], nil
}

// forget drops records of what an application left behind: all of keys, or none
// when one of them was not left behind by it.
func (r *registry) forget(ctx context.Context, application string, keys []plan.Key) error {
	return r.change(ctx, func() ([]plan.Entry, []plan.Key, error) {
		for _, k := range keys {
			if _, left := r.left[application][k]; !left {
				return nil, keys, notLeft(application, k)
			}
		}
		return nil, keys, nil
	})
}
