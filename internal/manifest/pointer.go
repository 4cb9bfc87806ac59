package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Pointer is a JSON pointer (RFC 6901) to a field of an object, as in
// "/spec/mode" or "/metadata/labels/app.kubernetes.io~1name". The empty
// pointer is the whole object.
type Pointer string

var pointerEscape = strings.NewReplacer("~", "~0", "/", "~1")
var pointerUnescape = strings.NewReplacer("~1", "/", "~0", "~")

// ParsePointer reads a JSON pointer as a person writes it.
func ParsePointer(s string) (Pointer, error) {
	if s != "" && s[0] != '/' {
		return "", fmt.Errorf("field %q: want a JSON pointer that starts with a slash, as in /spec/mode", shorten(s))
	}
	for rest := s; ; {
		_, after, found := strings.Cut(rest, "~")
		if !found {
			return Pointer(s), nil
		}
		if after == "" || (after[0] != '0' && after[0] != '1') {
			return "", fmt.Errorf("field %q: a ~ is written ~0 and a / inside a key ~1", shorten(s))
		}
		rest = after
	}
}

// Child returns the pointer to the member key of p.
func (p Pointer) Child(key string) Pointer {
	return p + "/" + Pointer(pointerEscape.Replace(key))
}

// Tokens returns the unescaped keys of p, outermost first.
func (p Pointer) Tokens() []string {
	if p == "" {
		return nil
	}
	tokens := strings.Split(strings.TrimPrefix(string(p), "/"), "/")
	for i, t := range tokens {
		tokens[i] = pointerUnescape.Replace(t)
	}
	return tokens
}

// Covers reports whether p is o or an ancestor of it.
func (p Pointer) Covers(o Pointer) bool {
	return p == o || strings.HasPrefix(string(o), string(p)+"/")
}

// Field is one leaf of an object. Lists and empty maps are leaves: a list is
// compared as a whole, because a list without keys has no identity by element.
type Field struct {
	Path  Pointer
	Value any
}

// Fields returns the leaves of content, sorted by path.
func Fields(content map[string]any) []Field {
	var fields []Field
	var walk func(Pointer, map[string]any)
	walk = func(at Pointer, m map[string]any) {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			p := at.Child(k)
			if sub, ok := m[k].(map[string]any); ok && len(sub) > 0 {
				walk(p, sub)
				continue
			}
			fields = append(fields, Field{Path: p, Value: m[k]})
		}
	}
	walk("", content)
	slices.SortFunc(fields, func(a, b Field) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return fields
}

// Lookup returns the value at p, following maps only.
func Lookup(content map[string]any, p Pointer) (any, bool) {
	var v any = content
	for _, t := range p.Tokens() {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[t]; !ok {
			return nil, false
		}
	}
	return v, true
}

// With returns a copy of content in which p, which is not the empty pointer,
// holds value. Maps on the way are copied or made (also in the place of another
// value), everything else is shared.
func With(content map[string]any, p Pointer, value any) map[string]any {
	return with(content, p.Tokens(), value, true)
}

// Without returns a copy of content that lacks p. Everything else is shared.
func Without(content map[string]any, p Pointer) map[string]any {
	if _, ok := Lookup(content, p); !ok || p == "" {
		return content
	}
	return with(content, p.Tokens(), nil, false)
}

func with(m map[string]any, tokens []string, value any, set bool) map[string]any {
	c := maps.Clone(m)
	if c == nil {
		c = map[string]any{}
	}
	switch {
	case len(tokens) == 0:
		return c
	case len(tokens) > 1:
		sub, _ := c[tokens[0]].(map[string]any)
		c[tokens[0]] = with(sub, tokens[1:], value, set)
	case set:
		c[tokens[0]] = value
	default:
		delete(c, tokens[0])
	}
	return c
}
