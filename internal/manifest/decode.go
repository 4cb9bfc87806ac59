package manifest

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits bound what one file may contain. A zero field means its default.
type Limits struct {
	FileBytes   int64 // of one file; default 10 MiB
	ObjectBytes int64 // of one document; default 1 MiB, the limit of the Kubernetes API server being 1.5 MiB
	Documents   int   // in one file; default 10,000
	Depth       int   // of nested mappings and lists; default 100
	Values      int   // in one document, aliases counted as often as they are used; default 100,000
}

// WithDefaults returns the limits with every zero field filled in.
func (l Limits) WithDefaults() Limits {
	return Limits{
		FileBytes:   cmp.Or(l.FileBytes, 10<<20),
		ObjectBytes: cmp.Or(l.ObjectBytes, 1<<20),
		Documents:   cmp.Or(l.Documents, 10_000),
		Depth:       cmp.Or(l.Depth, 100),
		Values:      cmp.Or(l.Values, 100_000),
	}
}

// IsManifest reports whether a file of this name holds objects: .yaml, .yml and
// .json, in any case. Every other file is left alone.
func IsManifest(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// Decode reads all objects of one file, in the order in which they stand there.
// It returns either every object or an error of type Errors, never both.
//
// A YAML file holds documents separated by "---"; one without content (empty, or
// comments only) is no document, and one that holds null or a bare value is an
// error. A .json file holds one object. Scalars mean what they mean to kubectl
// (YAML 1.1 without base 60), except where that would change a value silently:
// keys that are no text, whole numbers beyond 64 bits, infinities, tags other
// than those of plain JSON types, merge keys ("<<") and repeated keys are
// refused, and so are lists of objects (kind List), because what is judged one
// by one must be what is applied. Nothing is expanded: "${NAME}" is that text.
//
// path names the file in errors and origins; it is not opened.
func Decode(path string, data []byte, limits Limits) ([]*Object, error) {
	limits = limits.WithDefaults()
	var problems []*Error
	var objects []*Object
	var set Set
	docs, errs := documents(path, data, limits)
	problems = append(problems, errs...)
	for _, d := range docs {
		if len(problems) >= maxErrors {
			break
		}
		root, content, errs := d.decode(limits)
		if len(errs) > 0 {
			problems = append(problems, errs...)
			continue
		}
		o, err := d.object(root, content, path)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if err := set.Add(o); err != nil {
			problems = append(problems, err.(*Error))
			continue
		}
		objects = append(objects, o)
	}
	for _, p := range problems {
		p.Path = path
	}
	if err := Join(problems); err != nil {
		return nil, err
	}
	return objects, nil
}

// envelopeHint is for a document that lacks what makes it an object.
const envelopeHint = "every document needs apiVersion, kind and metadata.name; a file that holds none belongs into .gitopsdignore"

// object makes an object of the document's content. root is where the content
// was read from; an error stands on the line of its field.
func (d *document) object(root *yaml.Node, content map[string]any, path string) (*Object, *Error) {
	kind, _ := content["kind"].(string)
	_, items := content["items"].([]any)
	if kind == "List" || items {
		at := Pointer("/items")
		if kind == "List" {
			at = "/kind"
		}
		return nil, &Error{Line: d.fieldLine(root, at), Msg: "a list of objects is no object",
			Hint: "write its items as documents of their own, separated by ---"}
	}
	o, err := New(content, Origin{Path: path, Line: d.start})
	if err == nil {
		return o, nil
	}
	var field *FieldError
	if !errors.As(err, &field) {
		return nil, &Error{Line: d.start, Msg: err.Error()}
	}
	if field.missing {
		field.Hint = envelopeHint
	}
	return nil, &Error{Line: d.fieldLine(root, field.At), Msg: field.Msg, Hint: field.Hint}
}

// document is one piece of a file on its way to an object.
type document struct {
	text  []byte
	line  int // of the first line of text in the file
	start int // line of the first value, once decoded
	json  bool
}

// documents checks the file as a whole and cuts it into its documents.
func documents(path string, data []byte, limits Limits) ([]*document, []*Error) {
	if int64(len(data)) > limits.FileBytes {
		return nil, []*Error{{Msg: fmt.Sprintf("the file has %d bytes, more than the limit of %d", len(data), limits.FileBytes),
			Hint: "split it, or raise the limit"}}
	}
	text, problems := normalizeText(data)
	if len(problems) > 0 {
		return nil, problems
	}
	if strings.HasSuffix(strings.ToLower(path), ".json") {
		return []*document{{text: text, line: 1, json: true}}, nil
	}
	docs := split(text)
	if len(docs) > limits.Documents {
		return nil, []*Error{{Line: docs[limits.Documents].line,
			Msg: fmt.Sprintf("the file has %d documents, more than the limit of %d", len(docs), limits.Documents), Hint: "split it"}}
	}
	return docs, nil
}

// decode parses a document, checks its structure, and converts it. It
// returns the node the content was read from, too.
func (d *document) decode(limits Limits) (*yaml.Node, map[string]any, []*Error) {
	d.start = d.line
	if int64(len(d.text)) > limits.ObjectBytes {
		return nil, nil, []*Error{{Line: d.line,
			Msg:  fmt.Sprintf("the document has %d bytes, more than the limit of %d for one object", len(d.text), limits.ObjectBytes),
			Hint: "large content belongs into a file of its own"}}
	}
	root, err := d.parse(limits)
	if err != nil {
		return nil, nil, []*Error{err}
	}
	d.start = d.lineOf(root)
	if root.Kind != yaml.MappingNode {
		return nil, nil, []*Error{{Line: d.start, Msg: "the document is " + describe(root) + " and not a mapping",
			Hint: "write an object with apiVersion, kind and metadata, or remove it"}}
	}
	c := &checker{doc: d, limits: limits}
	c.check(root)
	if len(c.problems) > 0 {
		return nil, nil, c.problems
	}
	value, err := d.convert()
	if err != nil {
		return nil, nil, []*Error{err}
	}
	value, err = d.reconcile(root, value)
	if err != nil {
		return nil, nil, []*Error{err}
	}
	return root, value.(map[string]any), nil
}

// lineOf returns the line of a node in the file.
func (d *document) lineOf(n *yaml.Node) int { return d.line + max(n.Line, 1) - 1 }

func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return "an alias"
	case n.Tag == "!!null":
		return "null"
	default:
		return "a bare value"
	}
}

// FieldLine returns the line of a field in a file that Decode has accepted, for
// an error that is found later: the line of the nearest ancestor of p that
// exists in the document that starts on line start. Indexes of lists are tokens
// of p too. It parses the document again, so it is for the way of failure only.
func FieldLine(path string, data []byte, start int, p Pointer) int {
	limits := Limits{}.WithDefaults()
	docs, _ := documents(path, data, limits)
	after := slices.IndexFunc(docs, func(d *document) bool { return d.line > start })
	if after < 0 {
		after = len(docs)
	}
	if after == 0 {
		return start
	}
	d := docs[after-1]
	if root, err := d.parse(limits); err == nil && d.lineOf(root) == start {
		return d.fieldLine(root, p)
	}
	return start
}

// fieldLine returns the line of the nearest ancestor of p that root has.
func (d *document) fieldLine(root *yaml.Node, p Pointer) int {
	line := d.lineOf(root)
	for n, tokens := root, p.Tokens(); n != nil && len(tokens) > 0; tokens = tokens[1:] {
		line, n = d.member(n, tokens[0], line)
	}
	return line
}

// member returns the line and value of one key or index of n.
func (d *document) member(n *yaml.Node, token string, line int) (int, *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for i, e := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode && token == fmt.Sprint(i):
			return d.lineOf(e), e
		case n.Kind == yaml.MappingNode && i%2 == 0 && e.Value == token:
			return d.lineOf(e), n.Content[i+1]
		}
	}
	return line, nil
}
