package reconciler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/policies"
)

// Where the loop keeps its records. The inventory and the sources have their own.
const (
	appPrefix     = "app/"
	controlPrefix = "control/"
	driftPrefix   = "drift/"
	historyPrefix = "history/"
)

// historyKept is how many revisions of an application stay in the history.
const historyKept = 200

// appRecord is what an application remembers across restarts; only its rounds write it.
type appRecord struct {
	Revision   string    `json:"revision,omitempty"`
	Source     string    `json:"source,omitempty"`
	AcceptedAt time.Time `json:"acceptedAt,omitzero"`
	// Input names what was accepted: the files read and the settings they were
	// read with; see pipeline.input.
	Input      string `json:"input,omitempty"`
	HistorySeq uint64 `json:"historySeq,omitempty"`
	// Owed says that the history does not tell yet how Revision ended.
	Owed bool `json:"owed,omitempty"`
	// Last is the newest line of the history, and Asked what an approval was asked
	// for last, so that a restart does not repeat them.
	Last  lastOutcome `json:"last,omitzero"`
	Asked asked       `json:"asked,omitzero"`
	// Denied names what runs although the policies deny it by now, as it was last told.
	Denied string `json:"denied,omitempty"`
}

// asked names what an approval was asked for.
type asked struct {
	Revision string `json:"revision"`
	Digest   string `json:"digest"`
}

type lastOutcome struct {
	Revision string  `json:"revision"`
	Outcome  Outcome `json:"outcome"`
	Reason   string  `json:"reason,omitempty"`
}

// control is what people said about an application; only their calls write it.
type control struct {
	Suspended *Suspension `json:"suspended,omitempty"`
	Approvals []Approval  `json:"approvals,omitempty"`
	// Version grows with each change, so that a held candidate is looked at again.
	Version uint64 `json:"version"`
}

// driftRecord is one drifted field across restarts: when it was first seen, never its value.
type driftRecord struct {
	Key       plan.Key         `json:"key"`
	Path      manifest.Pointer `json:"path"`
	FirstSeen time.Time        `json:"firstSeen"`
	Seen      int              `json:"seen"`
}

// readJSON reads one record into v; a missing record leaves v as it is.
func readJSON(ctx context.Context, s store.Store, key string, v any) error {
	rec, err := s.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(rec.Value, v)
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", key, err)
	}
	return nil
}

func jsonOp(key string, v any) (store.Op, error) {
	value, err := json.Marshal(v)
	return store.Op{Key: key, Value: value}, err
}

func (m *Manager) commit(ctx context.Context, ops ...store.Op) error {
	_, err := m.opts.Store.Commit(ctx, m.opts.Epoch, nil, ops)
	return err
}

func (m *Manager) saveApp(ctx context.Context, name string, rec appRecord) error {
	op, err := jsonOp(appPrefix+name, rec)
	if err == nil {
		err = m.commit(ctx, op)
	}
	if err != nil {
		return fmt.Errorf("application %s: its record was not saved, so nothing was applied: %w", name, err)
	}
	return nil
}

func historyKey(app string, seq uint64) string {
	return fmt.Sprintf("%s%s/%016d", historyPrefix, app, seq)
}

// appendHistory writes a line of the history together with the record that counts it.
func (m *Manager) appendHistory(ctx context.Context, name string, rec appRecord, e HistoryEntry) (appRecord, error) {
	rec.HistorySeq++
	e.Seq = rec.HistorySeq
	rec.Last = lastOutcome{Revision: e.Revision, Outcome: e.Outcome, Reason: e.Reason}
	rec.Owed = rec.Owed && e.Outcome != OutcomeSynced && e.Outcome != OutcomePartial
	line, err := jsonOp(historyKey(name, e.Seq), e)
	if err != nil {
		return rec, err
	}
	record, err := jsonOp(appPrefix+name, rec)
	if err != nil {
		return rec, err
	}
	ops := []store.Op{line, record}
	if e.Seq > historyKept {
		ops = append(ops, store.Op{Key: historyKey(name, e.Seq-historyKept)})
	}
	return rec, m.commit(ctx, ops...)
}

// History returns the newest lines of an application's history, newest first.
// limit 0 means 20.
func (m *Manager) History(ctx context.Context, application string, limit int) ([]HistoryEntry, error) {
	if limit <= 0 {
		limit = 20
	}
	records, err := m.opts.Store.List(ctx, historyPrefix+application+"/")
	if err != nil {
		return nil, err
	}
	if _, err := m.app(application); err != nil && len(records) == 0 {
		return nil, err
	}
	slices.Reverse(records)
	out := make([]HistoryEntry, 0, min(limit, len(records)))
	for _, rec := range records[:min(limit, len(records))] {
		var e HistoryEntry
		if err := json.Unmarshal(rec.Value, &e); err != nil {
			return nil, fmt.Errorf("record %s: %w", rec.Key, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// driftOp is the record of what is drifted, no larger than fits a transaction.
func driftOp(name string, drift map[plan.FieldRef]DriftedField) (store.Op, error) {
	list := make([]driftRecord, 0, len(drift))
	for ref, d := range drift {
		list = append(list, driftRecord{Key: ref.Key, Path: ref.Path, FirstSeen: d.FirstSeen, Seen: d.Seen})
	}
	slices.SortFunc(list, func(a, b driftRecord) int {
		if c := a.Key.Compare(b.Key); c != 0 {
			return c
		}
		return strings.Compare(string(a.Path), string(b.Path))
	})
	if len(list) > maxDriftRecords { // first-seen times are a comfort; the rest is found again by looking
		list = list[:maxDriftRecords]
	}
	op, err := jsonOp(driftPrefix+name, list)
	if len(list) == 0 {
		op.Value = nil
	}
	return op, err
}

// maxDriftRecords keeps the record of an application's drift within one transaction.
const maxDriftRecords = 1000

func (m *Manager) newState() *appState {
	return &appState{
		failures: map[plan.Key]failure{}, blocked: map[plan.Key]string{}, pending: map[plan.Key]time.Time{},
		unhealthy: map[plan.Key]appliers.Health{}, cautions: map[plan.Key][]policies.Finding{}, drift: map[plan.FieldRef]DriftedField{}, nextLook: m.opts.Now(),
	}
}

// loadState reads what is remembered of an application.
func (m *Manager) loadState(ctx context.Context, a *app) (*appState, error) {
	st := m.newState()
	if err := readJSON(ctx, m.opts.Store, appPrefix+a.Name, &st.record); err != nil {
		return nil, err
	}
	if st.record.Source != a.Source && !a.departing { // pointed at another source: its revisions mean nothing there
		st.record.Revision = ""
	}
	if err := readJSON(ctx, m.opts.Store, controlPrefix+a.Name, &a.steering.control); err != nil {
		return nil, err
	}
	var drift []driftRecord
	if err := readJSON(ctx, m.opts.Store, driftPrefix+a.Name, &drift); err != nil {
		return nil, err
	}
	for _, d := range drift {
		ref := plan.FieldRef{Key: d.Key, Path: d.Path}
		st.drift[ref] = DriftedField{Key: d.Key, Change: plan.FieldChange{Path: d.Path}, FirstSeen: d.FirstSeen, Seen: d.Seen}
	}
	return st, nil
}
