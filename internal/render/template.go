package render

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// A template is text/template with less: no included templates, no functions but
// those below, and an undefined name is an error. All of it is pure.

// builtin are the functions of text/template that stay available. Those that
// build text without a bound (print, printf, js and so on) are not.
var builtin = map[string]bool{
	"and": true, "or": true, "not": true, "len": true,
	"eq": true, "ne": true, "lt": true, "le": true, "gt": true, "ge": true,
}

// tick is the function that the body of every loop calls first. Its name is
// refused where a person writes it.
const tick = "_tick"

// errBudget ends an expansion that does more than the limits allow.
var errBudget = errors.New("the template does too much")

// compiled is a checked template, for any number of concurrent expansions.
type compiled struct{ t *template.Template }

// compile parses and checks a template. name stands in errors, with the line.
func compile(name, text string) (compiled, error) {
	t, err := template.New(name).Option("missingkey=error").Funcs((&budget{}).funcs()).Parse(text)
	if err != nil {
		return compiled{}, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	if len(t.Templates()) > 1 {
		return compiled{}, fmt.Errorf("%s: define and block are not available; use one template a file", name)
	}
	if t.Tree == nil {
		return compiled{t}, nil
	}
	c := &templateChecker{tree: t.Tree}
	c.node(t.Root)
	return compiled{t}, c.err
}

// templateChecker refuses what is not available and meters the loops, since
// text/template cannot be stopped from outside.
type templateChecker struct {
	tree *parse.Tree
	err  error
}

func (c *templateChecker) refuse(n parse.Node, msg string) {
	if c.err == nil {
		place, _ := c.tree.ErrorContext(n)
		c.err = fmt.Errorf("%s: %s", place, msg)
	}
}

// node checks n and returns the number of nodes in it.
func (c *templateChecker) node(n parse.Node) int {
	switch n := n.(type) {
	case *parse.ListNode:
		count := 0
		if n != nil {
			for _, e := range n.Nodes {
				count += c.node(e)
			}
		}
		return count
	case *parse.ActionNode:
		return 1 + c.node(n.Pipe)
	case *parse.PipeNode:
		count := 1
		if n != nil {
			for _, cmd := range n.Cmds {
				for _, arg := range cmd.Args {
					count += c.node(arg)
				}
			}
		}
		return count
	case *parse.ChainNode:
		return 1 + c.node(n.Node)
	case *parse.IfNode:
		return 1 + c.node(n.Pipe) + c.node(n.List) + c.node(n.ElseList)
	case *parse.WithNode:
		return 1 + c.node(n.Pipe) + c.node(n.List) + c.node(n.ElseList)
	case *parse.RangeNode:
		count := 1 + c.node(n.Pipe) + c.node(n.List) + c.node(n.ElseList)
		c.meter(n, count)
		return count
	case *parse.TemplateNode:
		c.refuse(n, "template and block are not available; use one template a file")
	case *parse.IdentifierNode:
		if _, own := (&budget{}).funcs()[n.Ident]; (!own && !builtin[n.Ident]) || n.Ident == tick {
			c.refuse(n, fmt.Sprintf("the function %s is not available; there are quote, lower, upper, join, indent, index, len, comparisons, and, or, not", n.Ident))
		}
	}
	return 1
}

// meter makes every turn of a loop pay for the nodes that it may execute.
func (c *templateChecker) meter(n *parse.RangeNode, cost int) {
	trees, err := parse.Parse(tick, fmt.Sprintf("{{%s %d}}", tick, cost), "", "", (&budget{}).funcs())
	if err != nil {
		c.refuse(n, err.Error())
		return
	}
	n.List.Nodes = append([]parse.Node{trees[tick].Root.Nodes[0]}, n.List.Nodes...)
}

// execute expands the template. The text has at most limits.Manifest.ObjectBytes.
func (c compiled) execute(ctx context.Context, vars map[string]any, limits Limits) (string, error) {
	if c.t.Tree == nil {
		return "", nil
	}
	timed, cancel := context.WithTimeout(ctx, limits.TemplateTime)
	defer cancel()
	b := &budget{ended: timed.Err, steps: limits.TemplateSteps, bytes: limits.Manifest.ObjectBytes}
	t, err := c.t.Clone()
	if err != nil {
		return "", err
	}
	err = t.Funcs(b.funcs()).Execute(b, vars)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, errBudget):
		return "", fmt.Errorf("%s: %w", c.t.Name(), b.exceeded(limits))
	case err != nil:
		return "", errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	return b.out.String(), nil
}

// budget is what one expansion may still do, the functions that draw on it, and
// the writer of its text. It is used by one goroutine.
type budget struct {
	ended func() error
	steps int
	bytes int64 // of output still allowed
	out   strings.Builder
}

func (b *budget) exceeded(limits Limits) error {
	switch {
	case b.bytes < 0:
		return fmt.Errorf("gives more than %d bytes; the limit is the one for an object", limits.Manifest.ObjectBytes)
	case b.steps < 0:
		return fmt.Errorf("takes more than %d steps; use fewer or shorter loops", limits.TemplateSteps)
	default:
		return fmt.Errorf("takes longer than %v; use fewer or shorter loops", limits.TemplateTime)
	}
}

// Write takes in a piece of the output.
func (b *budget) Write(p []byte) (int, error) {
	if b.bytes -= int64(len(p)); b.bytes < 0 {
		return 0, errBudget
	}
	return b.out.Write(p)
}

// spend pays for work.
func (b *budget) spend(steps int) error {
	if b.steps -= steps; b.steps < 0 || b.ended() != nil {
		return errBudget
	}
	return nil
}

// built pays for a text that a function makes of n bytes, before or after it is
// made: 32 bytes for a step.
func (b *budget) built(n int) error { return b.spend(1 + n/32) }

func (b *budget) funcs() template.FuncMap {
	return template.FuncMap{
		tick: func(cost int) (string, error) { return "", b.spend(cost) },
		"quote": func(v any) (string, error) {
			s, err := scalar(v)
			if err != nil {
				return "", err
			}
			// Quoting a character takes at most ten bytes.
			return strconv.Quote(s), b.built(10 * len(s))
		},
		"lower": func(s string) (string, error) { return strings.ToLower(s), b.built(len(s)) },
		"upper": func(s string) (string, error) { return strings.ToUpper(s), b.built(len(s)) },
		"join":  b.join,
		"indent": func(n int, s string) (string, error) {
			if n < 0 || n > 100 {
				return "", errors.New("want 0 to 100 columns")
			}
			if err := b.built(len(s) + n*(strings.Count(s, "\n")+1)); err != nil {
				return "", err
			}
			pad := strings.Repeat(" ", n)
			return pad + strings.ReplaceAll(s, "\n", "\n"+pad), nil
		},
		"index": index,
	}
}

func (b *budget) join(sep string, list []any) (string, error) {
	parts := make([]string, len(list))
	size := 0
	for i, e := range list {
		s, err := scalar(e)
		if err != nil {
			return "", err
		}
		parts[i] = s
		size += len(s) + len(sep)
	}
	if err := b.built(size); err != nil {
		return "", err
	}
	return strings.Join(parts, sep), nil
}

// index follows keys and positions; what is not there is an error, as a field is.
func index(v any, keys ...any) (any, error) {
	for _, k := range keys {
		switch c := v.(type) {
		case map[string]any:
			name, ok := k.(string)
			if !ok {
				return nil, errors.New("a mapping is indexed by a name")
			}
			if v, ok = c[name]; !ok {
				return nil, fmt.Errorf("there is no entry %q", name)
			}
		case []any:
			i, err := position(k)
			if err != nil || i < 0 || i >= int64(len(c)) {
				return nil, fmt.Errorf("there is no entry %v in a list of %d", k, len(c))
			}
			v = c[i]
		default:
			return nil, errors.New("only mappings and lists have entries")
		}
	}
	return v, nil
}

func position(k any) (int64, error) {
	switch k := k.(type) {
	case int:
		return int64(k), nil
	case int64:
		return k, nil
	}
	return 0, errors.New("want a number")
}

func scalar(v any) (string, error) {
	switch v.(type) {
	case string, bool, int, int64, float64:
		return fmt.Sprint(v), nil
	}
	return "", errors.New("want text, a number or a boolean")
}
