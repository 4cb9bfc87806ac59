// Package manifest holds the one model of a desired object that policy, diff
// and apply share: its identity, where it was written, its content in one
// canonical form, and the strict decoder that makes it. It does no I/O.
package manifest

import (
	"cmp"
	"fmt"
	"strings"
)

// GroupKind names a type of object without its version.
// The core Kubernetes group is the empty string.
type GroupKind struct {
	Group string `json:"group,omitempty"`
	Kind  string `json:"kind"`
}

// String returns "group/Kind", or "Kind" for the core group.
func (g GroupKind) String() string {
	if g.Group == "" {
		return g.Kind
	}
	return g.Group + "/" + g.Kind
}

// ID is the identity of an object within one target. The version is not part
// of it: the same name in v1 and v1beta1 is the same object, and declaring both
// is an error. ID is comparable and may be a map key.
type ID struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// GroupKind returns the type part of the identity.
func (id ID) GroupKind() GroupKind { return GroupKind{Group: id.Group, Kind: id.Kind} }

// String returns "group/Kind/name" or "group/Kind/namespace/name"; the core
// group is left out together with its slash. ParseID reads it back. A group
// always holds a dot or starts with a lower-case letter and a kind starts with
// an upper-case letter, which keeps the form unambiguous.
func (id ID) String() string {
	parts := make([]string, 0, 4)
	if id.Group != "" {
		parts = append(parts, id.Group)
	}
	parts = append(parts, id.Kind)
	if id.Namespace != "" {
		parts = append(parts, id.Namespace)
	}
	return strings.Join(append(parts, id.Name), "/")
}

// Compare orders identities by group, kind, namespace and name.
func (id ID) Compare(o ID) int {
	return cmp.Or(
		cmp.Compare(id.Group, o.Group),
		cmp.Compare(id.Kind, o.Kind),
		cmp.Compare(id.Namespace, o.Namespace),
		cmp.Compare(id.Name, o.Name),
	)
}

// ParseID reads the form that String writes, and nothing else.
func ParseID(s string) (ID, error) {
	parts := strings.Split(s, "/")
	var id ID
	if !isKind(parts[0]) {
		id.Group, parts = parts[0], parts[1:]
	}
	switch len(parts) {
	case 2:
		id.Kind, id.Name = parts[0], parts[1]
	case 3:
		id.Kind, id.Namespace, id.Name = parts[0], parts[1], parts[2]
	}
	valid := kindRE.MatchString(id.Kind) && nameRE.MatchString(id.Name) &&
		(id.Group == "" || groupRE.MatchString(id.Group)) &&
		(id.Namespace == "" || namespaceRE.MatchString(id.Namespace))
	if !valid || id.String() != s {
		return ID{}, fmt.Errorf("object %q: want [group/]Kind/[namespace/]name, as in host.gitopsd.io/File/motd", shorten(s))
	}
	return id, nil
}

func isKind(s string) bool { return s != "" && s[0] >= 'A' && s[0] <= 'Z' }

// Origin says where an object was written.
type Origin struct {
	// Path is the slash-separated file path inside the source's tree.
	Path string `json:"path,omitempty"`
	// Line is the 1-based line on which the document starts in Path.
	Line int `json:"line,omitempty"`
	// Revision is the commit (or content digest) the file was read at.
	Revision string `json:"revision,omitempty"`
}

// String returns "path:line", or "path" when the line is unknown.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.Path
	}
	return fmt.Sprintf("%s:%d", o.Path, o.Line)
}
