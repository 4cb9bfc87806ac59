package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// split cuts a YAML stream into documents and leaves out those without content.
// A line that starts with "---" or "..." and a blank ends a document wherever it
// stands, by the grammar of YAML, so no parser is needed to find it. That matters
// because the parsers that convert a document take the first one they see and
// silently drop the rest.
func split(text []byte) []*document {
	var docs []*document
	cur := &document{line: 1}
	begin, content := 0, false
	flush := func(end, nextLine int) {
		if cur.text = text[begin:end]; content {
			docs = append(docs, cur)
		}
		cur, begin, content = &document{line: nextLine}, end, false
	}
	for pos, line := 0, 1; pos < len(text); line++ {
		end := len(text)
		if i := bytes.IndexByte(text[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		rest := text[pos:end]
		switch {
		case isMarker(rest, "---"):
			flush(pos, line)
			content = hasContent(rest[3:])
		case isMarker(rest, "..."):
			// Text behind the marker is an error that the parser reports.
			content = content || hasContent(rest[3:])
			flush(end, line+1)
		default:
			content = content || hasContent(rest)
		}
		pos = end
	}
	flush(len(text), 0)
	return docs
}

func isMarker(line []byte, marker string) bool {
	if !bytes.HasPrefix(line, []byte(marker)) {
		return false
	}
	return len(line) == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\n'
}

// hasContent reports whether a line is more than blanks and a comment.
func hasContent(line []byte) bool {
	line = bytes.TrimLeft(line, " \t\n")
	return len(line) > 0 && line[0] != '#'
}

// parse returns the root node of the one document that the text holds.
func (d *document) parse(limits Limits) (root *yaml.Node, problem *Error) {
	if d.json {
		return d.parseJSON(limits)
	}
	if i := firstContent(d.text); d.text[i] == '%' {
		return nil, &Error{Line: d.line + bytes.Count(d.text[:i], []byte("\n")), Msg: "YAML directives are not supported", Hint: "remove the line"}
	}
	defer func() {
		// The parser reports some hostile input by a panic of its own.
		if r := recover(); r != nil {
			root, problem = nil, &Error{Line: d.line, Msg: "the YAML parser failed on this document", Hint: "simplify it"}
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(d.text))
	var doc, rest yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, d.syntax(err)
	}
	// Whatever stands behind the document would be dropped by the conversion.
	if err := dec.Decode(&rest); err == nil {
		return nil, &Error{Line: d.lineOf(&rest), Msg: "text after the end of the document", Hint: "put --- on a line of its own between documents"}
	} else if !errors.Is(err, io.EOF) {
		return nil, d.syntax(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, &Error{Line: d.line, Msg: "the document has no value", Hint: "remove it"}
	}
	return doc.Content[0], nil
}

func firstContent(text []byte) int {
	for pos := 0; pos < len(text); {
		end := len(text)
		if i := bytes.IndexByte(text[pos:], '\n'); i >= 0 {
			end = pos + i + 1
		}
		if hasContent(text[pos:end]) {
			return pos
		}
		pos = end
	}
	return 0
}

var lineRE = regexp.MustCompile(`^line (\d+): `)

// syntax turns an error of a YAML library into ours, with the line of the file.
func (d *document) syntax(err error) *Error {
	e := &Error{Line: d.line, Hint: "check the indentation and quotes near this line"}
	msg := strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "error converting YAML to JSON: ")
	msg = strings.TrimPrefix(msg, "yaml: ")
	msg = strings.TrimPrefix(msg, "unmarshal errors:   ")
	if m := lineRE.FindStringSubmatch(msg); m != nil {
		n, _ := strconv.Atoi(m[1])
		e.Line += max(n, 1) - 1
		msg = msg[len(m[0]):]
	}
	e.Msg = "not valid YAML: " + shortenTo(msg, 200)
	return e
}

// parseJSON returns the nodes of a JSON text as the YAML parser would, so that
// one set of checks serves both.
func (d *document) parseJSON(limits Limits) (*yaml.Node, *Error) {
	p := &jsonParser{doc: d, dec: json.NewDecoder(bytes.NewReader(d.text)), limits: limits, line: 1}
	p.dec.UseNumber()
	root, err := p.value(0)
	if err != nil {
		return nil, err
	}
	rest := d.text[p.offset:]
	if after := bytes.TrimLeft(rest, " \t\n"); len(after) > 0 {
		line := p.line + bytes.Count(rest[:len(rest)-len(after)], []byte("\n"))
		return nil, &Error{Line: line, Msg: "text after the end of the JSON object",
			Hint: "a .json file holds one object; use a .yaml file and --- for more"}
	}
	return root, nil
}

type jsonParser struct {
	doc    *document
	dec    *json.Decoder
	limits Limits
	offset int64 // up to which lines are counted
	line   int
}

// token returns the next token and sets line to where it ends.
func (p *jsonParser) token() (json.Token, *Error) {
	before := p.offset
	t, err := p.dec.Token()
	end := p.dec.InputOffset()
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		end = syntax.Offset
	}
	end = min(max(end, before), int64(len(p.doc.text)))
	raw := p.doc.text[before:end]
	p.line += bytes.Count(raw, []byte("\n"))
	p.offset = end
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("unexpected end of the file")
		}
		return nil, &Error{Line: p.line, Msg: "not valid JSON: " + shortenTo(err.Error(), 200), Hint: "check the commas, brackets and quotes near this line"}
	}
	if s, ok := t.(string); ok && strings.ContainsRune(s, '\ufffd') &&
		!bytes.ContainsRune(raw, '\ufffd') && !bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`)) {
		return nil, &Error{Line: p.line, Msg: "half of a surrogate pair", Hint: "write the character itself"}
	}
	return t, nil
}

// value reads one value and the tokens inside it.
func (p *jsonParser) value(depth int) (*yaml.Node, *Error) {
	if depth > p.limits.Depth {
		return nil, tooDeep(p.line, p.limits)
	}
	t, err := p.token()
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line}
	switch t := t.(type) {
	case string:
		n.Tag, n.Style, n.Value = "!!str", yaml.DoubleQuotedStyle, t
	case json.Number:
		n.Tag, n.Value = "!!float", t.String()
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	case json.Delim:
		n.Tag, n.Kind = "!!map", yaml.MappingNode
		if t == '[' {
			n.Tag, n.Kind = "!!seq", yaml.SequenceNode
		}
		for p.dec.More() {
			if n.Kind == yaml.MappingNode {
				key, err := p.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.Content = append(n.Content, key)
			}
			e, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, e)
		}
		if _, err := p.token(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func tooDeep(line int, limits Limits) *Error {
	return &Error{Line: line, Msg: fmt.Sprintf("mappings and lists are nested deeper than %d levels", limits.Depth), Hint: "flatten the document"}
}

func shortenTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
