package reconciler

import (
	"errors"
	"fmt"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/render"
	"github.com/gitopsd/gitopsd/sources"
)

// Check finds what the loop would refuse of a revision before it asks policies and
// looks at targets, by the loop's own steps: routes, what targets make of objects,
// two objects at one address, waves and dependencies, and what two applications
// declare. It is for one goroutine.
type Check struct {
	targets  map[string]*target
	digest   func(any) manifest.Digest
	registry *registry // holds no object: only what applications want is compared
	checked  []checkedApp
}

type checkedApp struct {
	Application
	state *desiredState
}

// What is wrong with an object.
const (
	RuleRoute   = "route"   // it goes to no target, or to more than one
	RuleTarget  = "target"  // its target does not take it as it is
	RuleDepends = "depends" // what it depends on is missing, later, or depends on it
	RuleRival   = "rival"   // another application declares the same thing
)

// Problem is one thing for which the loop would refuse a revision to an application.
type Problem struct {
	Application string
	Rule        string
	Object      *manifest.Object // where it was declared is its origin
	Line        int              // of the field it is about, in the file of the object
	Msg         string           // without the name of the object
	Hint        string           // what to do; may be empty, and part of Msg
	Err         error            // the cause
}

// inFile returns the problem as one of the object's file.
func (p Problem) inFile() *manifest.Error {
	return &manifest.Error{
		Path: p.Object.Origin().Path, Line: p.Line, Msg: p.Object.ID().String() + ": " + p.Msg, Hint: p.Hint, Err: p.Err,
	}
}

// NewCheck checks against these targets, by name; none of them is contacted.
func NewCheck(targets map[string]appliers.Applier, sealer *manifest.Sealer) *Check {
	c := &Check{targets: map[string]*target{}, digest: sealer.Digest, registry: newRegistry(nil, 0)}
	places := map[string]string{}
	for name, a := range targets {
		places[name] = appliers.PlaceOf(a, name)
		c.targets[name] = &target{name: name, place: places[name], applier: a}
	}
	c.registry.setPlaces(places)
	return c
}

// Application checks what was rendered for an application from tree, of which delta
// says that all of it is new. An error means that it could not be checked.
func (c *Check) Application(a Application, tree sources.Tree, rendered *render.State, delta *render.Delta) ([]Problem, error) {
	targets := map[string]*target{}
	for _, name := range routeTargets(a.Routes) {
		if c.targets[name] == nil {
			return nil, fmt.Errorf("application %s: target %s is not configured", a.Name, name)
		}
		targets[name] = c.targets[name]
	}
	pipe, err := newPipeline(a, targets, c.digest)
	if err != nil {
		return nil, fmt.Errorf("application %s: %w", a.Name, err)
	}
	state := &desiredState{locators: iradix.New[plan.Key](), rendered: rendered}
	_, faults := pipe.take(state, delta)
	var out []Problem
	for _, f := range faults {
		rule := RuleTarget
		if errors.As(f.err, new(*routeError)) {
			rule = RuleRoute
		}
		for _, p := range f.problems(tree) {
			p.Application, p.Rule = a.Name, rule
			out = append(out, p)
		}
	}
	if len(faults) == 0 { // else what is depended on may be one of those left out
		out = append(out, dependencies(a, tree, state)...)
	}
	c.checked = append(c.checked, checkedApp{a, state})
	c.registry.setDesire(a.Name, desire{source: a.Source, ready: true, state: state})
	return out, nil
}

func dependencies(a Application, tree sources.Tree, state *desiredState) (out []Problem) {
	err := plan.CheckDependencies(state.chains)
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	for _, err := range joined.Unwrap() {
		var wrong *plan.DependencyError
		if !errors.As(err, &wrong) {
			continue // there is no other
		}
		item, _ := state.items.get(wrong.Key)
		out = append(out, Problem{
			Application: a.Name, Rule: RuleDepends, Object: item.Source, Msg: err.Error(), Err: err,
			Line: render.FieldLine(tree, item.Source.Origin(), annotation(AnnotationDependsOn)),
		})
	}
	return out
}

// Rivals returns what more than one of the applications checked so far declares,
// once for each of them.
func (c *Check) Rivals() (out []Problem) {
	for _, a := range c.checked {
		keys := a.state.allKeys()
		sortKeys(keys)
		for i := range keys {
			if claimed, found := c.registry.rival(a.Name, a.Source, a.state, keys[i:i+1]); found {
				item, _ := a.state.items.get(keys[i])
				err := claimed.refusal(item)
				f := fault{item.Source, err}
				out = append(out, Problem{
					Application: a.Name, Rule: RuleRival, Object: item.Source, Line: item.Source.Origin().Line, Msg: f.bare(err.Error()), Err: err,
				})
			}
		}
	}
	return out
}
