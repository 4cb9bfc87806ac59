package reconciler

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// desire is what an application wants as of the newest revision it has looked
// at: what the others need to know before they delete or claim anything. Every
// configured application has one, from before any of them works.
type desire struct {
	source string
	// seq is the revision of source that state was rendered at (see sourceHead);
	// 0 before the first.
	seq uint64
	// tried is the newest revision that was looked at, rendered or not.
	tried uint64
	// ready is false when the newest revision was not accepted yet.
	ready bool
	state *desiredState // nil until one was rendered: then nothing is known
	// version grows with every news about the others.
	version uint64
	// restoring: a revision was accepted before the start and is not read yet.
	restoring bool
}

// setDesire publishes what an application wants; see desire.
func (r *registry) setDesire(application string, d desire) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.tried = max(d.tried, d.seq)
	have := r.desires[application]
	if have.source == d.source {
		d.tried = max(d.tried, have.tried)
	}
	r.replaceDesire(application, have, d)
}

// replaceDesire counts what is news to others; the caller holds the lock.
func (r *registry) replaceDesire(application string, old, d desire) {
	same := old.source == d.source && old.seq == d.seq && old.tried == d.tried && old.ready == d.ready && old.restoring == d.restoring &&
		(old.state == nil) == (d.state == nil) && (d.state == nil || old.state.revision == d.state.revision)
	d.version = old.version
	if !same {
		d.version++
	}
	r.desires[application] = d
	r.hear()
}

// hear wakes who waits for all applications of a source to have looked at a
// revision; the caller holds the lock.
func (r *registry) hear() {
	tried := map[string]uint64{} // by source: what all have looked at
	restoring := 0
	for _, d := range r.desires {
		if d.restoring {
			restoring++
		}
		if least, known := tried[d.source]; !known || d.tried < least {
			tried[d.source] = d.tried
		}
	}
	if !maps.Equal(tried, r.tried) || restoring != r.restoring {
		close(r.heardAll)
		r.heardAll = make(chan struct{})
	}
	r.tried, r.restoring = tried, restoring
}

// awaitTried waits until every other application of a source has looked at
// revision seq and no other at all is being restored, or ctx ends: then it
// returns one that has not.
func (r *registry) awaitTried(ctx context.Context, application, source string, seq uint64) string {
	for {
		r.mu.RLock()
		late := ""
		for name, d := range r.desires {
			if name != application && (d.source == source && d.tried < seq || d.restoring) && (late == "" || name < late) {
				late = name
			}
		}
		heard := r.heardAll
		r.mu.RUnlock()
		if late == "" || ctx.Err() != nil {
			return late
		}
		select {
		case <-heard:
		case <-ctx.Done():
			return late
		}
	}
}

// resetDesire says of an application that starts that nothing is known of it yet, or
// no more than what it wanted with other settings; restoring is set when it had
// accepted a revision before.
func (r *registry) resetDesire(application, source string, restoring bool, before *desiredState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replaceDesire(application, r.desires[application], desire{source: source, restoring: restoring, state: before})
}

// failDesire records that an application could not render a revision: what it
// will want is not known, and what it wanted before still counts.
func (r *registry) failDesire(application string, seq uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.desires[application]
	d.tried, d.ready, d.restoring = max(d.tried, seq), false, false
	r.replaceDesire(application, r.desires[application], d)
}

// desire returns what is known of an application's wishes.
func (r *registry) desire(application string) desire {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.desires[application]
}

// heard counts the news about the wishes of all others.
func (r *registry) heard(application string) (n uint64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for name, d := range r.desires {
		if name != application {
			n += d.version
		}
	}
	return n
}

// dropDesire forgets an application that is no longer configured.
func (r *registry) dropDesire(application string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.desires, application)
	r.hear()
}

// claim is a key that an application wants and another one wants too, or owns
// and may still want.
type claim struct {
	key   plan.Key
	rival string
	// origin is where the rival declares it; zero while that is not known at this
	// revision yet.
	origin  manifest.Origin
	unknown bool
}

// rival returns the first of keys that another application claims: it declares
// the key or its address at the same or a newer revision of the same source, or
// in another source; or it owns it and has not looked at the revision yet.
func (r *registry) rival(application, source string, state *desiredState, keys []plan.Key) (claim, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names := slices.Sorted(maps.Keys(r.desires))
	for _, k := range keys {
		item, ok := state.items.get(k)
		if !ok {
			continue
		}
		if e, ok := r.entries[k]; ok && e.Owner == application {
			continue
		}
		for _, name := range names {
			d := r.desires[name]
			if name == application || d.state == nil {
				continue
			}
			_, theirs, wanted := d.state.find(k, r.place(k.Target), item.Locator)
			switch {
			case !wanted:
			case d.source != source || d.seq >= state.seq:
				return claim{key: k, rival: name, origin: theirs.Object.Origin()}, true
			case d.tried < state.seq && r.holds(name, k, item.Locator):
				return claim{key: k, rival: name, unknown: true}, true
			}
		}
	}
	return claim{}, false
}

// holds reports whether an application owns a key or what is at its address;
// the caller holds the lock.
func (r *registry) holds(application string, k plan.Key, address string) bool {
	for _, held := range []plan.Key{k, r.byLocator[locator{r.place(k.Target), address}]} {
		if e, ok := r.entries[held]; ok && e.Owner == application && e.State != plan.EntryOrphaned {
			return true
		}
	}
	return false
}

// transfer is one record that moves to another application.
type transfer struct {
	from  plan.Entry
	to    plan.Key
	owner string
}

// release says what may happen to keys that an application no longer desires at
// revision seq of its source: move to whoever desires them, wait (with the
// reason), or, when in neither answer, go. Undecided are those that wait without
// anybody being known to want them.
func (r *registry) release(application, source string, seq uint64, keys []plan.Key) (moves []transfer, wait map[plan.Key]string, undecided map[plan.Key]bool) {
	if len(keys) == 0 {
		return nil, nil, nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	wait, undecided = map[plan.Key]string{}, map[plan.Key]bool{}
	taken := map[plan.Key]bool{}
	names := slices.Sorted(maps.Keys(r.desires))
	behind := r.behind(application, source, seq, names)
	for _, k := range keys {
		e, ok := r.entries[k]
		if !ok || e.Owner != application {
			continue
		}
		heir, key, ready := r.heir(application, k, r.locate(e), names)
		switch {
		case heir != "" && ready && r.occupied(key, e) != "":
			wait[k] = r.occupied(key, e)
		case heir != "" && ready && taken[key]:
			wait[k] = fmt.Sprintf("AwaitingHandover: application %s takes %s over from another object first", heir, key)
		case heir != "" && ready:
			taken[key] = true
			moves = append(moves, transfer{from: e, to: key, owner: heir})
		case heir != "":
			wait[k] = fmt.Sprintf("AwaitingHandover: application %s wants it, and its revision is not accepted yet; look at it with: gitopsd status %s", heir, heir)
		case behind != "":
			undecided[k] = true
			wait[k] = fmt.Sprintf("AwaitingHandover: whether application %s wants it is not known before that has rendered this revision; look at it with: gitopsd status %s", behind, behind)
		}
	}
	return moves, wait, undecided
}

// behind returns the first of names whose wishes are not known: at seq, for one of
// the same source; since the start, for others. The caller holds the lock.
func (r *registry) behind(application, source string, seq uint64, names []string) string {
	for _, name := range names {
		d := r.desires[name]
		if name != application && (d.source == source && (d.seq < seq || d.state == nil) || d.restoring) {
			return name
		}
	}
	return ""
}

func (r *registry) heir(application string, k plan.Key, at locator, names []string) (name string, key plan.Key, ready bool) {
	for _, name := range names {
		d := r.desires[name]
		if name == application || d.state == nil {
			continue
		}
		if key, _, ok := d.state.find(k, at.place, at.address); ok {
			return name, key, d.ready
		}
	}
	return "", plan.Key{}, false
}
