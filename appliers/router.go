package appliers

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// TargetAnnotation on an object names its target and wins over all rules.
const TargetAnnotation = "gitopsd.io/target"

// Route is one target of an application and the objects that go there. Empty
// rules match everything.
type Route struct {
	Target string
	// Kinds are patterns "group/Kind", "Kind" for the core group, "group/*", or "*".
	Kinds      []string
	Namespaces []string
	// Labels are all required, with these values.
	Labels map[string]string
}

// Router finds the target of an object. It is immutable and safe for concurrent use.
type Router struct{ routes []Route }

// NewRouter checks the routes of one application. Naming a target in several
// routes is allowed: an object that any of them matches goes there.
func NewRouter(routes []Route) (*Router, error) {
	if len(routes) == 0 {
		return nil, fmt.Errorf("the application has no targets; name at least one under spec.targets")
	}
	for i, r := range routes {
		if r.Target == "" {
			return nil, fmt.Errorf("target %d has no name", i+1)
		}
		for _, k := range r.Kinds {
			if !validPattern(k) {
				return nil, fmt.Errorf("target %s: kind %q: want group/Kind, Kind (core group), group/* or *", r.Target, k)
			}
		}
	}
	return &Router{routes: slices.Clone(routes)}, nil
}

// Targets returns the names of the targets, sorted, each once.
func (r *Router) Targets() []string {
	names := map[string]bool{}
	for _, route := range r.routes {
		names[route.Target] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Route returns the target of an object. The error names the object, where it
// was written, and what to add.
func (r *Router) Route(obj *manifest.Object) (string, error) {
	if name := obj.Annotation(TargetAnnotation); name != "" {
		if !slices.Contains(r.Targets(), name) {
			return "", &manifest.FieldError{
				At: manifest.Pointer("/metadata/annotations").Child(TargetAnnotation),
				Msg: fmt.Sprintf("%s: %s: annotation %s names %q, which is not a target of this application (%s)",
					obj.Origin(), obj.ID(), TargetAnnotation, name, strings.Join(r.Targets(), ", ")),
			}
		}
		return name, nil
	}
	matched := map[string]bool{}
	for _, route := range r.routes {
		if route.matches(obj) {
			matched[route.Target] = true
		}
	}
	switch names := slices.Sorted(maps.Keys(matched)); len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", &manifest.FieldError{
			Msg:  fmt.Sprintf("%s: %s goes to no target of this application (%s)", obj.Origin(), obj.ID(), strings.Join(r.Targets(), ", ")),
			Hint: fmt.Sprintf("add %s to the kinds of one, or annotation %s to the object", obj.ID().GroupKind(), TargetAnnotation),
		}
	default:
		return "", &manifest.FieldError{
			Msg:  fmt.Sprintf("%s: %s goes to more than one target (%s)", obj.Origin(), obj.ID(), strings.Join(names, ", ")),
			Hint: fmt.Sprintf("narrow their rules, or add annotation %s to the object", TargetAnnotation),
		}
	}
}

func (r Route) matches(obj *manifest.Object) bool {
	id := obj.ID()
	if len(r.Kinds) > 0 && !slices.ContainsFunc(r.Kinds, func(p string) bool { return matchKind(p, id.GroupKind()) }) {
		return false
	}
	if len(r.Namespaces) > 0 && !slices.Contains(r.Namespaces, id.Namespace) {
		return false
	}
	if len(r.Labels) == 0 {
		return true
	}
	labels := obj.Labels()
	for k, v := range r.Labels {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func matchKind(pattern string, gk manifest.GroupKind) bool {
	if pattern == "*" {
		return true
	}
	group, kind, found := strings.Cut(pattern, "/")
	if !found {
		group, kind = "", pattern
	}
	return group == gk.Group && (kind == "*" || kind == gk.Kind)
}

func validPattern(p string) bool {
	if p == "*" {
		return true
	}
	group, kind, found := strings.Cut(p, "/")
	if !found {
		group, kind = "core", p
	}
	upper := kind != "" && kind[0] >= 'A' && kind[0] <= 'Z'
	return group != "" && !strings.ContainsAny(group+kind, " /*") && upper || found && group != "" && kind == "*"
}
