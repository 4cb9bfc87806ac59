package reconciler

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/render"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/sources"
)

// Annotations that order objects within an application.
const (
	AnnotationWave      = "gitopsd.io/wave"
	AnnotationDependsOn = "gitopsd.io/depends-on"
)

// maxErrors bounds how many errors of one revision are listed.
const maxErrors = 20

// desiredItem is one desired object with what is known of it before its target is asked.
type desiredItem struct {
	plan.Desired
	// Source is the object as rendered: what policies judge.
	Source *manifest.Object
}

// desiredState is what an application wants as of one revision. It is
// immutable; the next one shares all that did not change.
type desiredState struct {
	revision string
	seq      uint64
	commit   *policies.Commit
	rendered *render.State
	items    keyMap[desiredItem]
	// locators finds the key at an address: "place NUL address" -> key.
	locators *iradix.Tree[plan.Key]
	// denied and warned hold what policies said, by key.
	denied, warned keyMap[[]policies.Finding]
	ordered        keyMap[struct{}] // objects with a depends-on
}

// find returns the item of a key, or else the one at an address of a place.
func (s *desiredState) find(k plan.Key, place, address string) (plan.Key, desiredItem, bool) {
	if item, ok := s.items.get(k); ok {
		return k, item, true
	}
	if at, ok := s.locators.Get(locatorKey(place, address)); ok {
		item, ok := s.items.get(at)
		return at, item, ok
	}
	return plan.Key{}, desiredItem{}, false
}

func locatorKey(place, address string) []byte { return []byte(place + "\x00" + address) }

// pipeline turns the tree of a revision into a desired state. It is for one
// application and one goroutine at a time.
type pipeline struct {
	app      Application
	renderer *render.Renderer
	router   *appliers.Router
	targets  map[string]*target
	digest   func(any) manifest.Digest
}

// next renders tree and applies the difference to prev, which may be nil. It
// returns the keys whose desired object changed or went. Errors are for a
// person: each with path:line and what to do.
func (p *pipeline) next(ctx context.Context, tree sources.Tree, prev *desiredState) (*desiredState, []plan.Key, error) {
	var before *render.State
	next := &desiredState{locators: iradix.New[plan.Key]()}
	if prev != nil {
		*next = *prev
		before = prev.rendered
	}
	next.revision = tree.Revision()
	rendered, delta, err := p.renderer.Render(ctx, tree, render.Spec{Path: p.app.Path, Variables: p.app.Variables}, before)
	if err != nil {
		return nil, nil, classify(err)
	}
	next.rendered = rendered
	changed, err := p.apply(tree, next, delta)
	if err != nil {
		return nil, nil, err
	}
	if next.ordered.len() > 0 && len(changed) > 0 {
		if err := plan.CheckDependencies(next.chains); err != nil {
			return nil, nil, err
		}
	}
	return next, changed, nil
}

// errUnread: the revision could not be read, which says nothing about it.
var errUnread = errors.New("the revision could not be read")

// classify tells what is wrong with a revision from what kept it from being read.
func classify(err error) error {
	var content manifest.Errors
	if errors.As(err, &content) || errors.Is(err, sources.ErrRefused) {
		return err
	}
	return fmt.Errorf("%w: %w", errUnread, err)
}

// chains iterates over the desired objects that depend on others, and these others.
func (s *desiredState) chains(yield func(plan.Key, plan.Desired) bool) {
	seen := map[plan.Key]bool{}
	for k := range s.ordered.all() {
		item, _ := s.items.get(k)
		for _, key := range append([]plan.Key{k}, item.DependsOn...) {
			it, ok := s.items.get(key)
			if !ok || seen[key] {
				continue
			}
			seen[key] = true
			if !yield(key, it.Desired) {
				return
			}
		}
	}
}

// fault is what is wrong with one object.
type fault struct {
	object *manifest.Object
	err    error
}

// problems returns what is wrong, each on its line: one problem for each field
// that the error names, and one on the first line for any other error.
func (f fault) problems(tree sources.Tree) []Problem {
	var fields manifest.FieldErrors
	var one *manifest.FieldError
	switch {
	case errors.As(f.err, &fields):
	case errors.As(f.err, &one):
		fields = manifest.FieldErrors{one}
	default:
		return []Problem{{Object: f.object, Line: f.object.Origin().Line, Msg: f.bare(f.err.Error()), Err: f.err}}
	}
	out := make([]Problem, len(fields))
	for i, field := range fields {
		out[i] = Problem{
			Object: f.object, Line: render.FieldLine(tree, f.object.Origin(), field.At),
			Msg: f.bare(field.Msg), Hint: field.Hint, Err: field,
		}
	}
	return out
}

// bare takes the name and the place of the object from the front of a message:
// both are said where it is shown.
func (f fault) bare(msg string) string {
	msg = strings.TrimPrefix(msg, f.object.Origin().String()+": ")
	for _, name := range []string{f.object.ID().String(), f.object.ID().Kind + "/" + f.object.ID().Name} {
		if rest, ok := strings.CutPrefix(msg, name); ok {
			return strings.TrimLeft(rest, ": ")
		}
	}
	return msg
}

func (p *pipeline) apply(tree sources.Tree, next *desiredState, delta *render.Delta) ([]plan.Key, error) {
	changed, faults := p.take(next, delta)
	slices.SortStableFunc(faults, func(a, b fault) int {
		x, y := a.object.Origin(), b.object.Origin()
		return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Line, y.Line))
	})
	var listed []*manifest.Error
	for _, f := range faults[:min(len(faults), maxErrors)] {
		for _, problem := range f.problems(tree) {
			listed = append(listed, problem.inFile())
		}
	}
	err := manifest.Join(listed)
	if len(faults) > maxErrors {
		err = errors.Join(err, fmt.Errorf("and problems of %d more objects", len(faults)-maxErrors))
	}
	return changed, err
}

// take takes what delta says into next, and returns the keys that changed and
// what is wrong with objects, which are left out.
func (p *pipeline) take(next *desiredState, delta *render.Delta) ([]plan.Key, []fault) {
	var (
		faults  []fault
		changed []plan.Key
		places  = next.locators.Txn()
	)
	edit := func(items *keyMapTxn[desiredItem], ordered *keyMapTxn[struct{}]) {
		remove := func(k plan.Key) {
			old, ok := items.get(k)
			if !ok {
				return
			}
			items.drop(k)
			there := p.locate(k, old)
			if at, _ := places.Get(there); at == k {
				places.Delete(there)
			}
			ordered.drop(k)
			changed = append(changed, k)
		}
		// All that goes, goes first: a new key may take the address of an old one.
		for _, id := range append(append([]manifest.ID(nil), delta.Removed...), delta.Upserted...) {
			for name := range p.targets {
				remove(plan.Key{Target: name, ID: id})
			}
		}
		for _, id := range delta.Upserted {
			obj, _ := next.rendered.Get(id)
			k, item, err := p.place(obj)
			if err == nil {
				err = p.collide(items, places, k, item)
			}
			if err != nil {
				faults = append(faults, fault{obj, err})
				continue
			}
			items.set(k, item)
			places.Insert(p.locate(k, item), k)
			if len(item.DependsOn) > 0 {
				ordered.set(k, struct{}{})
			}
			changed = append(changed, k)
		}
		for _, id := range delta.Moved { // nothing to apply; errors must name the new place
			obj, _ := next.rendered.Get(id)
			if k, item, err := p.place(obj); err == nil {
				items.set(k, item)
			}
		}
	}
	next.items = next.items.edit(func(items *keyMapTxn[desiredItem]) {
		next.ordered = next.ordered.edit(func(ordered *keyMapTxn[struct{}]) { edit(items, ordered) })
	})
	next.locators = places.Commit()
	return dedupe(changed), faults
}

func (p *pipeline) locate(k plan.Key, item desiredItem) []byte {
	return locatorKey(p.targets[k.Target].place, item.Locator)
}

// collide refuses a second object at one address.
func (p *pipeline) collide(items *keyMapTxn[desiredItem], places *iradix.Txn[plan.Key], k plan.Key, item desiredItem) error {
	at, ok := places.Get(p.locate(k, item))
	if !ok {
		return nil
	}
	other, _ := items.get(at)
	return &manifest.FieldError{
		Msg:  fmt.Sprintf("%s on target %s is also declared by %s at %s", item.Locator, k.Target, at.ID, other.Source.Origin()),
		Hint: "keep one of them",
	}
}

// place routes and resolves one object.
func (p *pipeline) place(obj *manifest.Object) (plan.Key, desiredItem, error) {
	name, err := p.router.Route(obj)
	if err != nil && obj.ID().Group == configGroup {
		return plan.Key{}, desiredItem{}, notDesired(obj)
	}
	if err != nil {
		return plan.Key{}, desiredItem{}, &routeError{err}
	}
	t := p.targets[name]
	k := plan.Key{Target: name, ID: obj.ID()}
	item, err := p.resolve(t, obj)
	return k, item, err
}

// routeError: an object goes to no target, or to more than one.
type routeError struct{ err error }

func (e *routeError) Error() string { return e.err.Error() }
func (e *routeError) Unwrap() error { return e.err }

// named returns "path:line: Kind/name: msg" whichever of the three parts msg
// begins with already. A line of the same file that msg names is kept: it may be
// that of the field. Without a message it returns the name alone.
func named(o manifest.Origin, id manifest.ID, msg string) string {
	place := o.String()
	if o.Path != "" {
		if rest, ok := strings.CutPrefix(msg, o.Path+":"); ok {
			if line, after, found := strings.Cut(rest, ":"); found && isNumber(line) {
				place, msg = o.Path+":"+line, strings.TrimPrefix(after, " ")
			} else {
				msg = strings.TrimPrefix(rest, " ")
			}
		}
	}
	short := id.Kind + "/" + id.Name
	for _, name := range []string{id.String(), short} {
		if rest, ok := strings.CutPrefix(msg, name+": "); ok {
			msg = rest
			break
		}
	}
	parts := []string{place, id.String(), msg}
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ": ")
}

func isNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

func (p *pipeline) resolve(t *target, obj *manifest.Object) (desiredItem, error) {
	if answer, _ := t.applier.Takes(obj.ID().GroupKind()); answer == appliers.No {
		if obj.ID().Group == configGroup {
			return desiredItem{}, notDesired(obj)
		}
		return desiredItem{}, &manifest.FieldError{
			At: "/kind", Msg: fmt.Sprintf("target %s does not take kind %s", t.name, obj.ID().GroupKind()), Hint: "route it to another target",
		}
	}
	resolved, err := t.applier.Resolve(obj)
	if err != nil {
		return desiredItem{}, err
	}
	item := desiredItem{Source: obj, Desired: plan.Desired{
		Object: resolved.Object, Locator: resolved.Locator, Digests: plan.Digests(resolved.Object, p.digest),
	}}
	if wave := obj.Annotation(AnnotationWave); wave != "" {
		if item.Wave, err = strconv.Atoi(wave); err != nil {
			return item, annotationError(AnnotationWave, fmt.Errorf("%q is not a whole number", wave))
		}
	}
	for _, ref := range strings.FieldsFunc(obj.Annotation(AnnotationDependsOn), func(r rune) bool { return r == ',' || r == ' ' || r == '\n' }) {
		dep, err := parseRef(t.name, ref)
		if err != nil {
			return item, annotationError(AnnotationDependsOn, err)
		}
		item.DependsOn = append(item.DependsOn, dep)
	}
	return item, nil
}

func annotationError(name string, err error) error {
	return &manifest.FieldError{At: annotation(name), Msg: fmt.Sprintf("annotation %s: %v", name, err), Err: err}
}

func annotation(name string) manifest.Pointer {
	return manifest.Pointer("/metadata/annotations").Child(name)
}

// configGroup is the group of the kinds that configure gitopsd itself.
const configGroup = "gitopsd.io"

func notDesired(obj *manifest.Object) error {
	return &manifest.FieldError{
		At: "/kind", Msg: fmt.Sprintf("%s configures gitopsd and is no desired state", obj.ID().GroupKind()), Hint: "keep it out of the path of an application",
	}
}

// parseRef reads "[target:]group/Kind/[namespace/]name"; the default target is
// that of the object which refers.
func parseRef(target, ref string) (plan.Key, error) {
	if head, _, found := strings.Cut(ref, "/"); found && strings.Contains(head, ":") {
		return plan.ParseKey(ref)
	}
	id, err := manifest.ParseID(ref)
	return plan.Key{Target: target, ID: id}, err
}

// judge asks the policies about the objects of keys and records their verdicts
// in a new state. Keys that are gone lose theirs.
func (s *desiredState) judge(ctx context.Context, p policies.Policy, keys []plan.Key) (*desiredState, error) {
	next := *s
	var present []plan.Key
	var objects []*manifest.Object
	for _, k := range keys {
		if item, ok := s.items.get(k); ok {
			present, objects = append(present, k), append(objects, item.Source)
		}
	}
	verdicts := make([]policies.Verdict, len(objects))
	if p != nil && len(objects) > 0 {
		var err error
		if verdicts, err = p.Objects(ctx, objects); err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		if len(verdicts) != len(objects) {
			return nil, fmt.Errorf("policy: %d verdicts for %d objects", len(verdicts), len(objects))
		}
	}
	record := func(m keyMap[[]policies.Finding], of func(policies.Verdict) []policies.Finding) keyMap[[]policies.Finding] {
		return m.edit(func(t *keyMapTxn[[]policies.Finding]) {
			for _, k := range keys {
				t.drop(k)
			}
			for i, k := range present {
				if f := of(verdicts[i]); len(f) > 0 {
					t.set(k, f)
				}
			}
		})
	}
	next.denied = record(s.denied, func(v policies.Verdict) []policies.Finding { return v.Deny })
	next.warned = record(s.warned, func(v policies.Verdict) []policies.Finding { return v.Warn })
	return &next, nil
}

// allKeys returns every desired key.
func (s *desiredState) allKeys() []plan.Key {
	keys := make([]plan.Key, 0, s.items.len())
	for k := range s.items.all() {
		keys = append(keys, k)
	}
	return keys
}

// findings flattens verdicts to at most maxErrors findings, each named by its object.
func (s *desiredState) findings(m keyMap[[]policies.Finding]) []policies.Finding {
	var out []policies.Finding
	for k, list := range m.all() {
		item, _ := s.items.get(k)
		for _, f := range list {
			if len(out) == maxErrors {
				return append(out, policies.Finding{Msg: "and more"})
			}
			f.Msg = named(item.Source.Origin(), k.ID, f.Msg)
			out = append(out, f)
		}
	}
	return out
}

// dedupe returns the keys sorted, each once.
func dedupe(keys []plan.Key) []plan.Key {
	seen := make(map[plan.Key]struct{}, len(keys))
	out := keys[:0]
	for _, k := range keys {
		if _, ok := seen[k]; !ok {
			seen[k] = struct{}{}
			out = append(out, k)
		}
	}
	sortKeys(out)
	return out
}

func sortKeys(keys []plan.Key) { slices.SortFunc(keys, plan.Key.Compare) }
