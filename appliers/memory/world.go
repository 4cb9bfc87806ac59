package memory

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// World is what the appliers act on. Other writers change it by hand through
// Set, SetField and Delete. It is safe for concurrent use, starts no goroutine
// and lives inside a testing/synctest bubble as well as outside.
type World struct {
	mu      sync.Mutex
	place   string            // see SetPlace
	things  map[string]*thing // by locator
	version uint64
	epoch   uint64 // highest epoch that ever wrote
	count   Counters
	faults  Faults
	health  map[string]appliers.Health
	subs    map[*subscription]bool
}

// thing is one place in the world, also while nothing is there.
type thing struct {
	now    *state // nil: absent
	before *state // what was there before the last write
	stale  bool   // the next observation is served from before
	owed   bool   // what follows the last write has not succeeded
	coming *write
}

type state struct {
	content map[string]any
	version uint64
	writer  string
	owners  map[manifest.Pointer]string // who set a leaf last
	mark    *mark
}

type mark struct {
	id          manifest.ID
	application string
	epoch       uint64
}

// write is a write that was accepted and has not completed.
type write struct {
	to       *state // nil: delete
	observes int    // observations left; 0 does not count
	at       time.Time
	token    string
}

// Live is one object of the world as a test sees it.
type Live struct {
	Locator string
	Content map[string]any // plain: the target itself knows its secrets
	Version uint64
	Writer  string
	Owner   string // application of the mark; "" without one
	Owed    bool   // what follows its write has not succeeded
}

// Counters count calls and what they did since the world began.
type Counters struct {
	Observes     int // calls
	KeysObserved int
	Applies      int // calls
	Creates      int
	Updates      int
	Deletes      int
	Adopts       int
	Started      int // writes that complete by themselves
}

// Writes is the number of changes to objects.
func (c Counters) Writes() int { return c.Creates + c.Updates + c.Deletes }

// NewWorld returns an empty world.
func NewWorld() *World {
	return &World{things: map[string]*thing{}, health: map[string]appliers.Health{}, subs: map[*subscription]bool{}}
}

// SetFaults replaces what goes wrong.
func (w *World) SetFaults(f Faults) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = f
}

func (w *World) faultsNow() Faults {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faults
}

// Counters returns a copy of the counters.
func (w *World) Counters() Counters {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// List returns the objects that are there, sorted by locator.
func (w *World) List() []Live {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []Live
	for _, locator := range slices.Sorted(maps.Keys(w.things)) {
		if l, ok := w.live(locator); ok {
			list = append(list, l)
		}
	}
	return list
}

// Get returns the object at a locator.
func (w *World) Get(locator string) (Live, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live(locator)
}

func (w *World) live(locator string) (Live, bool) {
	t := w.things[locator]
	if t == nil || t.now == nil {
		return Live{}, false
	}
	content, _ := manifest.Clone(t.now.content).(map[string]any)
	l := Live{Locator: locator, Content: content, Version: t.now.version, Writer: t.now.writer, Owed: t.owed}
	if t.now.mark != nil {
		l.Owner = t.now.mark.application
	}
	return l, true
}

// Set puts an object there by another writer's hand, in place of what was there.
// A mark that was on it stays.
func (w *World) Set(writer string, obj *manifest.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.at(Locate(obj))
	content, _ := reveal(obj.Content()).(map[string]any)
	w.byHand(writer, Locate(obj), t, content)
}

// SetField changes one field of the object at a locator by another writer's
// hand and reports whether the object is there.
func (w *World) SetField(writer, locator string, path manifest.Pointer, value any) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.things[locator]
	if t == nil || t.now == nil {
		return false
	}
	w.byHand(writer, locator, t, manifest.With(t.now.content, path, manifest.Clone(value)))
	return true
}

func (w *World) byHand(writer, locator string, t *thing, content map[string]any) {
	next := &state{content: content, writer: writer, owners: map[manifest.Pointer]string{}}
	var old map[string]any
	if t.now != nil {
		next.mark, old = t.now.mark, t.now.content
	}
	for _, f := range manifest.Fields(content) {
		if v, ok := manifest.Lookup(old, f.Path); ok && manifest.Equal(v, f.Value) {
			next.owners[f.Path] = t.now.owners[f.Path]
			continue
		}
		next.owners[f.Path] = writer
	}
	w.put(t, next)
	w.report(locator)
}

// Delete removes the object at a locator by another writer's hand and reports
// whether it was there.
func (w *World) Delete(locator string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.things[locator]
	if t == nil || t.now == nil {
		return false
	}
	w.put(t, nil)
	w.report(locator)
	return true
}

// SetHealth sets the health of the object at a locator. Without one an object
// that is there is Healthy.
func (w *World) SetHealth(locator string, h appliers.Health) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.health[locator] = h
}

func (w *World) at(locator string) *thing {
	t := w.things[locator]
	if t == nil {
		t = &thing{}
		w.things[locator] = t
	}
	return t
}

// put makes next what is there and drops a write that was still to come.
func (w *World) put(t *thing, next *state) {
	if next != nil {
		w.version++
		next.version = w.version
	}
	t.before, t.now, t.coming = t.now, next, nil
	t.stale = w.faults.Stale
}

// settle completes a pending write that is due. observing counts one look.
func (w *World) settle(t *thing, now time.Time, observing bool) {
	c := t.coming
	if c == nil {
		return
	}
	due := !c.at.IsZero() && !now.Before(c.at)
	if observing && c.observes > 0 {
		c.observes--
		due = due || c.observes == 0
	}
	if due {
		w.put(t, c.to)
	}
}

func (w *World) marks(target string) []appliers.Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []appliers.Mark
	for _, locator := range slices.Sorted(maps.Keys(w.things)) {
		if t := w.things[locator]; t.now != nil && t.now.mark != nil {
			m := t.now.mark
			list = append(list, appliers.Mark{
				Key: plan.Key{Target: target, ID: m.id}, Locator: locator, Application: m.application, Epoch: m.epoch,
			})
		}
	}
	return list
}

// dangling returns a sentence about the first reference in the overlaid world
// that leads nowhere, or "". next holds the states that are about to be.
func (w *World) dangling(next map[string]*state) string {
	there := map[string]map[string]any{}
	for locator, t := range w.things {
		if t.now != nil {
			there[locator] = t.now.content
		}
	}
	for locator, s := range next {
		delete(there, locator)
		if s != nil {
			there[locator] = s.content
		}
	}
	names := map[string]bool{}
	for _, c := range there {
		names[nameOf(c)] = true
	}
	for _, locator := range slices.Sorted(maps.Keys(there)) {
		list, _ := refs(there[locator])
		for _, name := range list {
			c := there[locator]
			full := nameOf(manifest.With(c, "/metadata/name", name))
			if !names[full] {
				return strings.TrimPrefix(locator, "memory:") + " refers to " + name + ", which would not be there"
			}
		}
	}
	return ""
}

// nameOf is what a reference resolves to: the same group, kind and namespace.
func nameOf(c map[string]any) string {
	o, err := manifest.New(c, manifest.Origin{})
	if err != nil {
		return ""
	}
	return o.ID().String()
}
