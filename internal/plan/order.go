package plan

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// node is one key as ordering sees it.
type node struct {
	wave   int
	deps   []Key
	origin manifest.Origin
}

// graph answers how deep a key stands, walking only what it depends on.
type graph struct {
	node func(Key) (node, bool)
	// strict makes a missing dependency and one in a later wave errors.
	strict bool
	depths map[Key]int
	// path holds the keys being walked, outermost first, and on their places in it.
	path []Key
	on   map[Key]int
}

func newGraph(node func(Key) (node, bool), strict bool) *graph {
	return &graph{node: node, strict: strict, depths: map[Key]int{}, on: map[Key]int{}}
}

func (b *builder) desiredNode(k Key) (node, bool) {
	d, ok := b.in.Desired(k)
	return nodeOf(d), ok
}

func nodeOf(d Desired) node {
	n := node{wave: d.Wave, deps: sortedKeys(d.DependsOn)}
	if d.Object != nil {
		n.origin = d.Object.Origin()
	}
	return n
}

func (b *builder) ownedNode(k Key) (node, bool) {
	e, ok := b.in.Inventory(k)
	return node{wave: e.Wave, deps: sortedKeys(e.DependsOn), origin: e.Origin}, ok
}

// depth returns the length of the longest chain of dependencies below k. It is
// a function of what k depends on, so the order of two keys is the same in
// every scope.
func (g *graph) depth(k Key) (int, error) {
	if d, ok := g.depths[k]; ok {
		return d, nil
	}
	if at, ok := g.on[k]; ok {
		return 0, g.cycle(g.path[at:])
	}
	n, _ := g.node(k)
	if len(n.deps) == 0 {
		return 0, nil
	}
	g.on[k] = len(g.path)
	g.path = append(g.path, k)
	defer func() {
		g.path = g.path[:len(g.path)-1]
		delete(g.on, k)
	}()
	deepest := 0
	for _, dep := range n.deps {
		if skip, err := g.check(k, n, dep); err != nil {
			return 0, err
		} else if skip {
			continue
		}
		d, err := g.depth(dep)
		if err != nil {
			return 0, err
		}
		deepest = max(deepest, d+1)
	}
	g.depths[k] = deepest
	return deepest, nil
}

// DependencyError is what is wrong with the dependencies of Key; of a cycle, that
// is the smallest key in it.
type DependencyError struct {
	Key  Key
	text string
}

func (e *DependencyError) Error() string { return e.text }

func wrongDependency(k Key, format string, args ...any) error {
	return &DependencyError{k, fmt.Sprintf(format, args...)}
}

// check looks at one edge; skip means that it leads nowhere.
func (g *graph) check(k Key, n node, dep Key) (skip bool, err error) {
	to, ok := g.node(dep)
	switch {
	case !ok && g.strict:
		return true, wrongDependency(k, "%s depends on %s, which this application does not declare; declare it, or correct the annotation gitopsd.io/depends-on", at(k, n.origin), dep)
	case !ok:
		return true, nil
	case g.strict && to.wave > n.wave:
		return true, wrongDependency(k, "%s is in wave %d and depends on %s in the later wave %d; change gitopsd.io/wave of one of them", at(k, n.origin), n.wave, at(dep, to.origin), to.wave)
	}
	return false, nil
}

// depthOrZero is for records, where a cycle may stand between two revisions and
// must not stop anything: its members are ordered by key.
func (g *graph) depthOrZero(k Key) int {
	d, err := g.depth(k)
	if err != nil {
		return 0
	}
	return d
}

// cycle names the keys of a cycle, beginning with the smallest.
func (g *graph) cycle(keys []Key) error {
	first := 0
	for i := range keys {
		if keys[i].Compare(keys[first]) < 0 {
			first = i
		}
	}
	var ring, places []string
	for i := range keys {
		k := keys[(first+i)%len(keys)]
		n, _ := g.node(k)
		ring = append(ring, k.String())
		if n.origin.Path != "" {
			places = append(places, at(k, n.origin))
		}
	}
	ring = append(ring, ring[0])
	return wrongDependency(keys[first], "dependency cycle %s, declared in %s; remove one annotation gitopsd.io/depends-on",
		strings.Join(ring, " -> "), cmp.Or(strings.Join(places, ", "), "unknown files"))
}

func at(k Key, o manifest.Origin) string {
	if o.Path == "" {
		return k.String()
	}
	return fmt.Sprintf("%s (%s)", k, o)
}

// maxErrors bounds how many faults CheckDependencies names at once.
const maxErrors = 10

// CheckDependencies checks the dependencies among all desired objects of an
// application: each must be desired, none may be in a later wave, and there must
// be no cycle. The error names up to ten faults, sorted by key, and one cycle: it joins
// a DependencyError for each.
func CheckDependencies(desired iter.Seq2[Key, Desired]) error {
	all := map[Key]node{}
	var keys []Key
	for k, d := range desired {
		n := nodeOf(d)
		all[k] = n
		if len(n.deps) > 0 {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, Key.Compare)
	g := newGraph(func(k Key) (node, bool) { n, ok := all[k]; return n, ok }, true)
	var faults []error
	for _, k := range keys {
		for _, dep := range all[k].deps {
			if _, err := g.check(k, all[k], dep); err != nil && len(faults) < maxErrors {
				faults = append(faults, err)
			}
		}
	}
	g.strict = false
	for _, k := range keys {
		if _, err := g.depth(k); err != nil {
			faults = append(faults, err)
			break
		}
	}
	return errors.Join(faults...)
}

// putLate finds the writes that come after the deletes, among changes in order,
// and reports whether there are any.
func (b *builder) putLate(changes []Change) (any bool) {
	late := map[Key]bool{}
	wave := 0
	for i := range changes {
		c := &changes[i]
		if c.Desired == nil || !b.replaces(c, changes) && !(any && (c.Wave > wave || b.dependsOn(c.Key, late, map[Key]bool{}))) {
			continue
		}
		if !any {
			wave = c.Wave
		}
		any, c.AfterDeletes, late[c.Key] = true, true, true
	}
	return any
}

// replaces reports whether a change takes the place of an object of another kind
// that holds objects which are to be deleted: their locators begin with its own.
func (b *builder) replaces(c *Change, changes []Change) bool {
	if c.TransferFrom == nil || c.Action != Update || b.in.Observed(c.Key).Instead == "" {
		return false
	}
	return slices.ContainsFunc(changes, func(d Change) bool {
		return d.Action == Delete && d.Key.Target == c.Key.Target && strings.HasPrefix(d.Entry.Locator, c.Entry.Locator+"/")
	})
}

// dependsOn reports whether a desired key depends on one of a set, however far down.
func (b *builder) dependsOn(k Key, set, seen map[Key]bool) bool {
	n, _ := b.desiredNode(k)
	for _, dep := range n.deps {
		if set[dep] {
			return true
		}
		if !seen[dep] {
			seen[dep] = true
			if b.dependsOn(dep, set, seen) {
				return true
			}
		}
	}
	return false
}

// The parts of a plan, in order.
const (
	phaseWrite = iota
	phaseDelete
	phaseLate // Change.AfterDeletes
	phaseForget
)

// phase is the part of a plan that a change stands in.
func (c *Change) phase() int {
	switch {
	case c.Desired != nil && c.AfterDeletes:
		return phaseLate
	case c.Desired != nil:
		return phaseWrite
	case c.Action == Forget:
		return phaseForget
	default:
		return phaseDelete
	}
}

func inOrder(a, b Change) int {
	if c := cmp.Compare(a.phase(), b.phase()); c != 0 {
		return c
	}
	switch a.phase() {
	case phaseWrite, phaseLate:
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.Depth, b.Depth), a.Key.Compare(b.Key))
	case phaseDelete:
		return cmp.Or(cmp.Compare(b.Wave, a.Wave), cmp.Compare(b.Depth, a.Depth), a.Key.Compare(b.Key))
	default:
		return a.Key.Compare(b.Key)
	}
}

// Levels groups the changes that have something to write or record, as indexes
// into p.Changes. Those of one level do not depend on each other and may run at
// the same time; a level begins when the one before it has ended. Waves are
// never mixed, all writes come before all deletes but those of Change.AfterDeletes,
// and forgets come last.
// Blocked changes are in no level.
func Levels(p *Plan) [][]int {
	var levels [][]int
	var last *Change
	for i := range p.Changes {
		c := &p.Changes[i]
		if c.Blocked != "" || (c.Action == None && !c.Record) {
			continue
		}
		same := last != nil && last.phase() == c.phase() && (c.phase() == phaseForget || last.Wave == c.Wave && last.Depth == c.Depth)
		if !same {
			levels = append(levels, nil)
		}
		levels[len(levels)-1] = append(levels[len(levels)-1], i)
		last = c
	}
	return levels
}
