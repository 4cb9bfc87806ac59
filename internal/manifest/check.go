package manifest

import (
	"fmt"
	"math"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// checker looks at the structure of one document before it is converted, in time
// linear in its text: an alias is not followed but counted with the size that its
// anchor was found to have.
type checker struct {
	doc      *document
	limits   Limits
	problems []*Error
	sizes    map[*yaml.Node]size // of finished anchors
	open     map[*yaml.Node]bool // anchors being walked
}

// size is what a node becomes once its aliases are written out.
type size struct {
	values int // saturating
	bytes  int // saturating
	depth  int // levels of containers inside, the node itself included
}

func (s *size) add(o size) {
	s.values = addSaturating(s.values, o.values)
	s.bytes = addSaturating(s.bytes, o.bytes)
	s.depth = max(s.depth, o.depth+1)
}

func addSaturating(a, b int) int {
	if a > math.MaxInt32-b {
		return math.MaxInt32
	}
	return a + b
}

func (c *checker) problem(n *yaml.Node, msg, hint string) {
	e := Error{Line: c.doc.lineOf(n), Msg: msg, Hint: hint}
	if last := len(c.problems) - 1; last >= maxErrors || last >= 0 && *c.problems[last] == e {
		return
	}
	c.problems = append(c.problems, &e)
}

func (c *checker) check(root *yaml.Node) {
	total := c.walk(root)
	switch {
	case len(c.problems) > 0:
	case total.depth > c.limits.Depth:
		c.problems = append(c.problems, tooDeep(c.doc.lineOf(root), c.limits))
	case total.values > c.limits.Values:
		c.problem(root, fmt.Sprintf("the document has more than %d values, with aliases written out", c.limits.Values),
			"write fewer or split the object")
	case int64(total.bytes) > c.limits.ObjectBytes:
		c.problem(root, fmt.Sprintf("the document has more than %d bytes, with aliases written out", c.limits.ObjectBytes),
			"use fewer aliases")
	}
}

// walk checks n and returns its size. The parser has bounded the recursion.
func (c *checker) walk(n *yaml.Node) size {
	if n.Kind == yaml.AliasNode {
		if c.open[n.Alias] {
			c.problem(n, fmt.Sprintf("the alias *%s refers to a value that contains it", shorten(n.Value)), "write the value out")
			return size{}
		}
		return c.sizes[n.Alias]
	}
	if n.Anchor != "" {
		if c.open == nil {
			c.open, c.sizes = map[*yaml.Node]bool{}, map[*yaml.Node]size{}
		}
		c.open[n] = true
		defer delete(c.open, n)
	}
	c.tag(n)
	total := size{values: 1, bytes: len(n.Value)}
	if n.Kind != yaml.ScalarNode {
		total.depth = 1
	}
	if n.Kind == yaml.MappingNode {
		c.keys(n)
	}
	for i, e := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			total.bytes = addSaturating(total.bytes, len(e.Value))
			continue
		}
		total.add(c.walk(e))
	}
	if n.Anchor != "" {
		c.sizes[n] = total
	}
	return total
}

var notFinite = regexp.MustCompile(`^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$`)

// tag refuses types that JSON does not have, and reports whether that of n is fine.
func (c *checker) tag(n *yaml.Node) bool {
	const tagged = yaml.TaggedStyle
	switch {
	case n.Kind == yaml.ScalarNode && n.Style&^tagged == 0 && notFinite.MatchString(n.Value) && n.Tag != "!!str":
		c.problem(n, fmt.Sprintf("the number %s is not finite", n.Value), "quote it if text is meant")
	case n.Style&tagged == 0:
		return true
	case n.Tag == "!!binary":
		c.problem(n, "the tag !!binary is not supported", "write base64 into a field that takes it, as contentBase64 of a File")
	default:
		switch n.Tag {
		case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq":
			return true
		default:
			c.problem(n, fmt.Sprintf("the tag %q is not supported", shorten(n.Tag)),
				"remove it; nothing is expanded, neither variables nor files")
		}
	}
	return false
}

// keys checks the keys of a mapping: text, written out, each once.
func (c *checker) keys(n *yaml.Node) {
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		switch {
		case !c.tag(k):
			continue
		case k.Kind != yaml.ScalarNode:
			c.problem(k, "a key is "+describe(k)+" and not text", "write the key out")
			continue
		case k.Value == "<<":
			c.problem(k, "merge keys (<<) are not supported, because readers of YAML do not agree on them", "write the fields out")
			continue
		case k.Tag != "!!str" && k.Tag != "!!timestamp":
			c.problem(k, fmt.Sprintf("the key %s is not text", shorten(k.Value)), "put it in quotes")
		case strings.ContainsFunc(k.Value, mustEscape):
			c.problem(k, "a key contains a control character", "remove it")
			continue
		}
		if first, ok := seen[k.Value]; ok {
			c.problem(k, fmt.Sprintf("the key %q is repeated, first on line %d", shorten(k.Value), c.doc.lineOf(first)), "keep one of them")
			continue
		}
		seen[k.Value] = k
	}
}
