package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	sigsyaml "sigs.k8s.io/yaml"
)

// convert reads the document as kubectl does: YAML to JSON by sigs.k8s.io/yaml.
// Numbers stay as they are written there.
func (d *document) convert() (value any, problem *Error) {
	text := d.text
	if !d.json {
		defer func() {
			// As in parse: not every failure of the library is an error value.
			if r := recover(); r != nil {
				value, problem = nil, &Error{Line: d.start, Msg: "the YAML parser failed on this document", Hint: "simplify it"}
			}
		}()
		var err error
		if text, err = sigsyaml.YAMLToJSONStrict(text); err != nil {
			return nil, d.syntax(err)
		}
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&value); err != nil {
		return nil, d.syntax(err)
	}
	return value, nil
}

// reconcile walks the nodes and the converted value side by side and returns the
// value with its numbers in the model. The two come from different parsers; what
// they do not agree on is refused, so no value is read in a way that the checks
// did not see.
func (d *document) reconcile(n *yaml.Node, v any) (any, *Error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch v := v.(type) {
	case map[string]any:
		if n.Kind != yaml.MappingNode || len(n.Content) != 2*len(v) {
			return nil, d.disagree(n)
		}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			e, ok := v[k.Value]
			if !ok {
				return nil, &Error{Line: d.lineOf(k), Msg: fmt.Sprintf("the key %s is a boolean or a number in YAML, not text", shorten(k.Value)), Hint: "put it in quotes"}
			}
			e, err := d.reconcile(n.Content[i+1], e)
			if err != nil {
				return nil, err
			}
			v[k.Value] = e
		}
		return v, nil
	case []any:
		if n.Kind != yaml.SequenceNode || len(n.Content) != len(v) {
			return nil, d.disagree(n)
		}
		for i := range v {
			e, err := d.reconcile(n.Content[i], v[i])
			if err != nil {
				return nil, err
			}
			v[i] = e
		}
		return v, nil
	default:
		if n.Kind != yaml.ScalarNode {
			return nil, d.disagree(n)
		}
		return d.scalar(n, v)
	}
}

func (d *document) scalar(n *yaml.Node, v any) (any, *Error) {
	switch v := v.(type) {
	case string:
		if strings.IndexByte(v, 0) >= 0 {
			return nil, &Error{Line: d.lineOf(n), Msg: "NUL character in text", Hint: "binary content goes into a base64 field or a file of its own"}
		}
		return v, nil
	case json.Number:
		// The literal tells a float from a whole number that was too long for
		// the conversion, which has rounded it by now.
		literal := n.Value
		if strings.ContainsAny(v.String(), ".eE") && !strings.ContainsAny(literal, ".eE") {
			v = json.Number(strings.ReplaceAll(literal, "_", ""))
		} else if strings.ContainsAny(literal, ".eE") && !strings.HasPrefix(strings.TrimLeft(literal, "+-"), "0x") {
			v = json.Number(floatForm(v.String()))
		}
		value, err := number(v.String())
		if err != nil {
			return nil, &Error{Line: d.lineOf(n), Msg: err.Error(), Hint: "put it in quotes if text will do"}
		}
		return value, nil
	default:
		return v, nil
	}
}

// floatForm marks a number as a float where the conversion wrote it as a whole one.
func floatForm(s string) string {
	if strings.ContainsAny(s, ".eE") {
		return s
	}
	return s + "e0"
}

func (d *document) disagree(n *yaml.Node) *Error {
	return &Error{Line: d.lineOf(n), Msg: "two readers of YAML understand this value differently", Hint: "write it in a plainer way, with quotes around text"}
}
