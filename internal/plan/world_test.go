package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

type m = map[string]any

// world is a memory model of one application: Git, the inventory, and a target
// that holds objects by locator and has marks where a test sets them.
type world struct {
	desired map[Key]Desired
	entries map[Key]Entry
	live    map[string]m      // by locator
	marks   map[string]string // by locator
	unknown map[Key]string
	removes map[Key]Removal
	instead map[Key]string // what is there that is nothing of the key's kind
	owed    map[Key]string // what of the last write is still to be done
	opts    Options
}

func newWorld() *world {
	return &world{
		desired: map[Key]Desired{}, entries: map[Key]Entry{}, live: map[string]m{},
		marks: map[string]string{}, unknown: map[Key]string{}, removes: map[Key]Removal{}, instead: map[Key]string{}, owed: map[Key]string{},
		opts: Options{Application: "web", Digest: testSealer().Digest, Prune: true, Epoch: 1, Budget: Budget{DefaultMaxCount, DefaultMaxPercent}},
	}
}

func testSealer() *manifest.Sealer {
	s, err := manifest.NewSealer([]byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		panic(err)
	}
	return s
}

func file(name string) Key {
	return Key{Target: "host", ID: manifest.ID{Group: "host.gitopsd.io", Kind: "File", Name: name}}
}

func object(k Key, spec m) *manifest.Object {
	o, err := manifest.New(m{
		"apiVersion": "host.gitopsd.io/v1alpha1", "kind": k.ID.Kind,
		"metadata": m{"name": k.ID.Name}, "spec": manifest.Clone(spec),
	}, manifest.Origin{Path: "web/" + k.ID.Name + ".yaml", Line: 1, Revision: "c1"})
	if err != nil {
		panic(err)
	}
	return o
}

func path(name string) string { return "/srv/" + name }

// want declares a file at the path of its name.
func (w *world) want(name string, spec m, deps ...string) *world {
	return w.wantAt(name, path(name), spec, deps...)
}

func (w *world) wantAt(name, locator string, spec m, deps ...string) *world {
	d := Desired{Object: object(file(name), spec), Locator: locator}
	for _, dep := range deps {
		d.DependsOn = append(d.DependsOn, file(dep))
	}
	w.desired[file(name)] = d
	return w
}

func (w *world) wave(name string, n int) *world {
	d := w.desired[file(name)]
	d.Wave = n
	w.desired[file(name)] = d
	return w
}

func (w *world) drop(names ...string) *world {
	for _, n := range names {
		delete(w.desired, file(n))
	}
	return w
}

// there puts an object on the target.
func (w *world) there(name string, spec m) *world {
	w.live[path(name)] = object(file(name), spec).Content()
	return w
}

// beside puts things that nobody declared next to an object, which are removed
// when its field strangers is written.
func (w *world) beside(name string, addresses ...string) *world {
	list := make([]any, len(addresses))
	for i, a := range addresses {
		list[i] = a
	}
	at := w.desired[file(name)].Locator
	w.live[at] = manifest.With(w.live[at], "/spec/strangers", list)
	w.removes[file(name)] = Removal{Field: "/spec/strangers", Addresses: addresses}
	return w
}

// gone removes an object from the target.
func (w *world) gone(name string) *world {
	delete(w.live, path(name))
	return w
}

func (w *world) entry(name string, change func(*Entry)) *world {
	e := w.entries[file(name)]
	change(&e)
	w.entries[file(name)] = e
	return w
}

// applied brings the target and the inventory to what is desired now.
func (w *world) applied() *world {
	for k, d := range w.desired {
		w.live[d.Locator] = d.Object.Content()
		w.entries[k] = Entry{
			Key: k, Owner: w.opts.Application, Locator: d.Locator, State: EntryOwned, Applied: Digests(d.Object, w.opts.Digest),
			APIVersion: d.Object.APIVersion(), Wave: d.Wave, DependsOn: sortedKeys(d.DependsOn), Origin: d.Object.Origin(), Epoch: 1,
		}
	}
	return w
}

// input is what Build sees of the world. It copies nothing: do not change the
// world while it is in use.
func (w *world) input() Input {
	return Input{
		Desired:   func(k Key) (Desired, bool) { d, ok := w.desired[k]; return d, ok },
		Inventory: func(k Key) (Entry, bool) { e, ok := w.entries[k]; return e, ok },
		Observed:  w.observe,
		ByLocator: w.holder,
		DesiredAt: func(target, locator string) []Key {
			var out []Key
			for k, d := range w.desired {
				if k.Target == target && d.Locator == locator {
					out = append(out, k)
				}
			}
			return out
		},
	}
}

func (w *world) holder(target, locator string) (Key, bool) {
	for _, k := range w.keys() {
		if e, ok := w.entries[k]; ok && k.Target == target && e.Locator == locator {
			return k, true
		}
	}
	return Key{}, false
}

// observe answers as an applier does: projected onto what is asked for.
func (w *world) observe(k Key) Observed {
	if reason, ok := w.unknown[k]; ok {
		return Observed{Reason: reason}
	}
	d, wanted := w.desired[k]
	e, owned := w.entries[k]
	locator := e.Locator
	switch {
	case wanted:
		locator = d.Locator
		if old, ok := w.holder(k.Target, locator); ok && !owned {
			e = w.entries[old]
		}
	case !owned:
		locator = path(k.ID.Name)
	}
	content, ok := w.live[locator]
	if !ok {
		return Observed{Presence: Absent}
	}
	seen := m{"apiVersion": content["apiVersion"], "kind": content["kind"], "metadata": m{"name": k.ID.Name}}
	for _, p := range Fields(&d, &e) {
		if v, ok := manifest.Lookup(content, p); ok {
			seen = manifest.With(seen, p, v)
		}
	}
	o, err := manifest.New(manifest.Clone(seen).(m), manifest.Origin{})
	if err != nil {
		panic(err)
	}
	return Observed{Presence: Present, Object: o, Version: string(o.Hash()[:8]), Owner: w.marks[locator], Removes: w.removes[k], Instead: w.instead[k], Unfinished: w.owed[k]}
}

// keys are all keys of the world, sorted; also of objects that are only there,
// which a caller need not ask about and may.
func (w *world) keys() []Key {
	set := map[Key]bool{}
	for k := range w.desired {
		set[k] = true
	}
	for k := range w.entries {
		set[k] = true
	}
	for at := range w.live {
		set[file(strings.TrimPrefix(at, path("")))] = true
	}
	return slices.SortedFunc(maps.Keys(set), Key.Compare)
}

func (w *world) options() Options {
	o := w.opts
	o.Owned, o.Want = len(w.entries), len(w.desired)
	return o
}

func (w *world) build(t testing.TB) *Plan {
	t.Helper()
	p, err := Build(w.input(), w.keys(), w.options())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// steps are the three parts of a change in the real loop, so that a test can
// stop between two of them, as a crash does.
func (w *world) record(c *Change) {
	if c.TransferFrom != nil {
		delete(w.entries, *c.TransferFrom)
	}
	if c.Action == Forget {
		delete(w.entries, c.Key)
		return
	}
	w.entries[c.Key] = c.Entry
}

func (w *world) write(c *Change) {
	at := c.Entry.Locator
	switch c.Action {
	case Create, Update:
		content := w.live[at]
		for _, f := range manifest.Fields(c.Desired.Content()) {
			content = manifest.With(content, f.Path, f.Value)
		}
		for _, f := range c.Fields {
			if f.Op == FieldRemove {
				content = manifest.Without(content, f.Path)
			}
		}
		w.live[at] = content
	case Delete:
		delete(w.live, at)
	}
}

func (w *world) confirm(c *Change) {
	delete(w.owed, c.Key)
	if c.Action != Delete && c.Action != Forget {
		w.entries[c.Key] = c.Done()
	}
}

// apply makes everything that is not blocked, level by level.
func (w *world) apply(p *Plan) {
	for _, level := range Levels(p) {
		for _, i := range level {
			c := &p.Changes[i]
			w.record(c)
			w.write(c)
			w.confirm(c)
		}
	}
}

func specN(n int) m { return m{"mode": fmt.Sprintf("06%02d", n), "content": "x\n"} }

// begun brings everything to what is desired, but for the first write of one
// object: of that only the beginning is on record.
func begun(w *world, name string) *world {
	return w.applied().entry(name, func(e *Entry) { e.State, e.Writing, e.Applied = EntryPending, e.Applied, nil })
}
