package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
)

const inventoryPrefix = "inventory/"

// errTaken: another application owns the key or its locator.
var errTaken = errors.New("owned by another application")

// registry is the only place that says which application owns which object. An
// entry is durable before the first write to its object and goes only after the
// object was seen gone. It is safe for concurrent use.
type registry struct {
	store store.Store
	epoch uint64

	mu        sync.RWMutex
	entries   map[plan.Key]plan.Entry
	byLocator map[locator]plan.Key
	owned     map[string]map[plan.Key]struct{}
	left      map[string]map[plan.Key]struct{} // those of owned that were left behind
	desires   map[string]desire
	// tried is, by source, the newest revision that all its applications have looked
	// at, restoring how many have not read yet what they accepted before the start;
	// heardAll is closed and replaced when that changes.
	tried     map[string]uint64
	restoring int
	heardAll  chan struct{}
	// places names, by target, the place that the target acts on.
	places map[string]string
	// reserved are the keys and locators of writes that the store has not taken
	// yet; freed is closed and replaced when one of them ends.
	reserved map[reservation]struct{}
	freed    chan struct{}
}

// locator is an address at a physical place: one thing in the world, whichever
// target reaches it.
type locator struct{ place, address string }

func newRegistry(s store.Store, epoch uint64) *registry {
	return &registry{
		store: s, epoch: epoch,
		entries: map[plan.Key]plan.Entry{}, byLocator: map[locator]plan.Key{},
		owned: map[string]map[plan.Key]struct{}{}, left: map[string]map[plan.Key]struct{}{}, desires: map[string]desire{},
		heardAll: make(chan struct{}),
		reserved: map[reservation]struct{}{}, freed: make(chan struct{}),
	}
}

// load reads the inventory from the store.
func (r *registry) load(ctx context.Context) error {
	records, err := r.store.List(ctx, inventoryPrefix)
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range records {
		var e plan.Entry
		if err := e.UnmarshalRecord(rec.Value); err != nil {
			return fmt.Errorf("inventory record %s: %w", rec.Key, err)
		}
		r.put(e)
	}
	return nil
}

// place returns the place that a target acts on; the caller holds the lock.
func (r *registry) place(target string) string {
	if p, ok := r.places[target]; ok {
		return p
	}
	return target
}

// placed is place for who does not hold the lock.
func (r *registry) placed(target string) string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.place(target)
}

// locate returns where the object of a record is; the caller holds the lock.
func (r *registry) locate(e plan.Entry) locator {
	return locator{cmp.Or(e.Place, r.place(e.Key.Target)), e.Locator}
}

// setPlaces says which place each configured target acts on.
func (r *registry) setPlaces(places map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.places = places
	clear(r.byLocator)
	for k, e := range r.entries {
		r.byLocator[r.locate(e)] = k
	}
}

// elsewhere returns the first record of a target whose place is another one.
func (r *registry) elsewhere(target, place string) (plan.Entry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var first plan.Entry
	found := false
	for k, e := range r.entries {
		if k.Target == target && e.Place != "" && e.Place != place && (!found || k.Compare(first.Key) < 0) {
			first, found = e, true
		}
	}
	return first, found
}

// put and drop keep the indexes; the caller holds the lock.
func (r *registry) put(e plan.Entry) {
	r.drop(e.Key)
	r.entries[e.Key] = e
	r.byLocator[r.locate(e)] = e.Key
	add(r.owned, e.Owner, e.Key)
	if e.State == plan.EntryOrphaned {
		add(r.left, e.Owner, e.Key)
	}
}

func (r *registry) drop(k plan.Key) {
	e, ok := r.entries[k]
	if !ok {
		return
	}
	delete(r.entries, k)
	if at := r.locate(e); r.byLocator[at] == k {
		delete(r.byLocator, at)
	}
	remove(r.owned, e.Owner, k)
	remove(r.left, e.Owner, k)
}

func add(index map[string]map[plan.Key]struct{}, owner string, k plan.Key) {
	if index[owner] == nil {
		index[owner] = map[plan.Key]struct{}{}
	}
	index[owner][k] = struct{}{}
}

func remove(index map[string]map[plan.Key]struct{}, owner string, k plan.Key) {
	delete(index[owner], k)
	if len(index[owner]) == 0 {
		delete(index, owner)
	}
}

// entry returns the record of a key as application may use it: its own, or one
// that a vanished application left behind, which whoever desires it inherits.
func (r *registry) entry(application string, k plan.Key) (plan.Entry, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.entries[k]
	if !ok || (e.Owner != application && e.State != plan.EntryOrphaned) {
		return plan.Entry{}, false
	}
	return e, true
}

// at returns the key of application's own entry with a locator.
func (r *registry) at(application, target, address string) (plan.Key, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k, ok := r.byLocator[locator{r.place(target), address}]
	if !ok {
		return plan.Key{}, false
	}
	e := r.entries[k]
	return k, e.Owner == application || e.State == plan.EntryOrphaned
}

// ownerOf returns which other application owns a key or a locator, or "".
func (r *registry) ownerOf(application string, k plan.Key, address string) (owner string, held plan.Key) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, held := range []plan.Key{k, r.byLocator[locator{r.place(k.Target), address}]} {
		if e, ok := r.entries[held]; ok && e.Owner != application && e.State != plan.EntryOrphaned {
			return e.Owner, held
		}
	}
	return "", plan.Key{}
}

// keys returns the keys that an application owns, sorted.
func (r *registry) keys(application string) []plan.Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(r.owned[application]), plan.Key.Compare)
}

// count returns how many objects an application owns.
func (r *registry) count(application string) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.owned[application])
}

// owners returns every application that owns something.
func (r *registry) owners() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.owned))
}

// targets returns every target that applications own something on, with one key
// of each. What was left behind holds no target back.
func (r *registry) targets() map[string]plan.Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := map[string]plan.Key{}
	for k, e := range r.entries {
		if e.State == plan.EntryOrphaned {
			continue
		}
		if have, ok := out[k.Target]; !ok || k.Compare(have) < 0 {
			out[k.Target] = k
		}
	}
	return out
}

// write makes entries and drops durable, in transactions of what fits one, and
// then visible. An entry may replace one of another key with the same locator,
// which has to be among the drops; one of another application only when
// orphaned. Entries go before drops: what stops in between leaves two records of
// one object, never none. While the store works, what write is about is reserved,
// and nothing else waits.
func (r *registry) write(ctx context.Context, put []plan.Entry, drop []plan.Key) error {
	return r.change(ctx, func() ([]plan.Entry, []plan.Key, error) { return put, drop, r.check(put, drop) })
}

// change carries out what decide says, under a reservation of the keys and the
// locators concerned: those are nobody else's to change until the outcome is
// known. decide is called with the lock, maybe more than once; an error of it
// counts once no write under way may turn it.
func (r *registry) change(ctx context.Context, decide func() (put []plan.Entry, drop []plan.Key, err error)) error {
	put, claims, drop, err := r.reserve(ctx, decide)
	if err != nil {
		return err
	}
	defer r.free(claims)
	ops, entries, err := r.encode(put, drop)
	if err != nil {
		return err
	}
	for _, tx := range store.Transactions(ops) {
		if _, err := r.store.Commit(ctx, r.epoch, nil, tx); err != nil {
			return fmt.Errorf("inventory: %w", err)
		}
		r.confirm(tx, entries)
	}
	return nil
}

// reservation is what a write under way is about: a plan.Key or a locator.
type reservation any

// reserve waits until no write under way is about the same, and returns what is
// to be written, ready to store.
func (r *registry) reserve(ctx context.Context, decide func() ([]plan.Entry, []plan.Key, error)) (put []plan.Entry, claims []reservation, drop []plan.Key, err error) {
	for {
		r.mu.Lock()
		put, drop, err = decide()
		put = slices.Clone(put)
		for i := range put {
			put[i].Epoch, put[i].Place = r.epoch, r.locate(put[i]).place
		}
		claims = r.claimed(put, drop)
		held := slices.IndexFunc(claims, func(c reservation) bool { _, busy := r.reserved[c]; return busy })
		if held < 0 && err != nil {
			r.mu.Unlock()
			return nil, nil, nil, err
		}
		if held < 0 {
			for _, c := range claims {
				r.reserved[c] = struct{}{}
			}
			r.mu.Unlock()
			return put, claims, drop, nil
		}
		freed := r.freed
		r.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return nil, nil, nil, fmt.Errorf("inventory: the store has not yet taken an earlier record of %v: %w", claims[held], ctx.Err())
		}
	}
}

// claimed returns the keys and locators that a write is about; the caller holds the lock.
func (r *registry) claimed(put []plan.Entry, drop []plan.Key) (claims []reservation) {
	known := func(k plan.Key) {
		claims = append(claims, k)
		if e, ok := r.entries[k]; ok {
			claims = append(claims, r.locate(e))
		}
	}
	for _, e := range put {
		known(e.Key)
		claims = append(claims, r.locate(e))
	}
	for _, k := range drop {
		known(k)
	}
	return claims
}

// free ends a reservation.
func (r *registry) free(claims []reservation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range claims {
		delete(r.reserved, c)
	}
	close(r.freed)
	r.freed = make(chan struct{})
}

// encode returns the operations of a write, entries first, and by the key of
// their record the entries; of what is dropped, only its key.
func (r *registry) encode(put []plan.Entry, drop []plan.Key) (ops []store.Op, entries map[string]plan.Entry, err error) {
	entries = make(map[string]plan.Entry, len(put))
	for _, e := range put {
		at := inventoryPrefix + e.Key.String()
		value, err := e.MarshalRecord()
		if err != nil {
			return nil, nil, fmt.Errorf("inventory record %s: %w", at, err)
		}
		if len(at)+len(value) > store.MaxBytes {
			return nil, nil, &unrecordable{e.Key, fmt.Errorf("%w: %d bytes, at most %d", store.ErrTooLarge, len(at)+len(value), store.MaxBytes)}
		}
		ops, entries[at] = append(ops, store.Op{Key: at, Value: value}), e
	}
	drop = slices.Clone(drop)
	slices.SortFunc(drop, plan.Key.Compare)
	for _, k := range slices.Compact(drop) {
		at := inventoryPrefix + k.String()
		if _, written := entries[at]; !written {
			ops, entries[at] = append(ops, store.Op{Key: at}), plan.Entry{Key: k}
		}
	}
	return ops, entries, nil
}

// confirm makes a transaction visible.
func (r *registry) confirm(tx []store.Op, entries map[string]plan.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, op := range tx { // what goes, goes first: another entry may stand at its locator
		if op.Value == nil {
			r.drop(entries[op.Key].Key)
		}
	}
	for _, op := range tx {
		if op.Value != nil {
			r.put(entries[op.Key])
		}
	}
}

func (r *registry) check(put []plan.Entry, drop []plan.Key) error {
	going := make(map[plan.Key]bool, len(drop))
	for _, k := range drop {
		going[k] = true
	}
	for _, e := range put {
		if have, exists := r.entries[e.Key]; exists && have.Locator != e.Locator && !have.Unconfirmed() {
			return fmt.Errorf("%s is on record at %s and would be lost there by a record at %s; give the object a new metadata.name", e.Key, have.Locator, e.Locator)
		}
		held, ok := r.byLocator[r.locate(e)]
		for _, k := range []plan.Key{e.Key, held} {
			have, exists := r.entries[k]
			if exists && have.Owner != e.Owner && have.State != plan.EntryOrphaned {
				return fmt.Errorf("%s at %s: %w: %s", e.Key, e.Locator, errTaken, have.Owner)
			}
		}
		if ok && held != e.Key && !going[held] {
			return fmt.Errorf("%s and %s are both at %s", e.Key, held, e.Locator)
		}
	}
	return nil
}

// unrecordable is the record of one object that no transaction can hold.
type unrecordable struct {
	key plan.Key
	err error
}

func (u *unrecordable) Error() string {
	return fmt.Sprintf("the record of %s, which has a line for each of its fields, is larger than the store can hold; split the object into smaller ones: %v", u.key, u.err)
}

func (u *unrecordable) Unwrap() error { return u.err }

// move carries out a transfer in one transaction and reports whether it did: it
// does not when the record has changed hands meanwhile.
func (r *registry) move(ctx context.Context, t transfer) (bool, error) {
	moved := false
	err := r.change(ctx, func() ([]plan.Entry, []plan.Key, error) {
		have, ok := r.entries[t.from.Key]
		if moved = ok && have.Owner == t.from.Owner; !moved {
			return nil, nil, nil
		}
		next := have
		next.Key = t.to
		next.HandOver(t.owner)
		var drop []plan.Key
		if t.to != t.from.Key {
			drop = []plan.Key{t.from.Key}
		}
		if why := r.occupied(t.to, have); why != "" {
			return []plan.Entry{next}, drop, fmt.Errorf("%s: %s", t.from.Key, why)
		}
		return []plan.Entry{next}, drop, nil
	})
	return moved && err == nil, err
}

// occupied says why the record of another key must not be stored under k, which
// would lose the one that k has, or "". The caller holds the lock.
func (r *registry) occupied(k plan.Key, from plan.Entry) string {
	e, ok := r.entries[k]
	if !ok || k == from.Key {
		return ""
	}
	return fmt.Sprintf("AwaitingHandover: application %s wants what is at %s as %s, and that name is still the one of %s; give the object a new metadata.name there",
		e.Owner, from.Locator, k, e.Locator)
}

// orphan marks everything an application owns as left behind and returns the
// keys that were not so before.
func (r *registry) orphan(ctx context.Context, application string) ([]plan.Key, error) {
	var put []plan.Entry
	var left []plan.Key
	for _, k := range r.keys(application) {
		if e, ok := r.entry(application, k); ok && e.State != plan.EntryOrphaned {
			e.State = plan.EntryOrphaned
			put, left = append(put, e), append(left, k)
		}
	}
	return left, r.write(ctx, put, nil)
}

// stranded returns what was left behind on targets for which configured answers
// false, sorted: nothing can reach it any more.
func (r *registry) stranded(configured func(target string) bool) []plan.Entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []plan.Entry
	for k, e := range r.entries {
		if e.State == plan.EntryOrphaned && !configured(k.Target) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b plan.Entry) int { return a.Key.Compare(b.Key) })
	return out
}

// orphans returns what an application left behind and nobody has taken over, sorted.
func (r *registry) orphans(application string) []plan.Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.SortedFunc(maps.Keys(r.left[application]), plan.Key.Compare)
}
