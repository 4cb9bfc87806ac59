package manifest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	nameRE      = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.:@]{0,251}[A-Za-z0-9])?$`)
	kindRE      = regexp.MustCompile(`^[A-Z][A-Za-z0-9]{0,62}$`)
	groupRE     = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$`)
	versionRE   = regexp.MustCompile(`^[a-z][a-z0-9]{0,62}$`)
	namespaceRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

const (
	quoteHint      = "put it in quotes"
	booleanHint    = "put it in quotes; without them y, n, yes, no, on, off, true and false are booleans"
	apiVersionHint = "write group/version, as in host.gitopsd.io/v1alpha1"
	kindHint       = "write a name in CamelCase, as in ConfigMap"
	nameHint       = "use letters, digits and -_.:@, at most 253, the first and the last a letter or a digit"
	namespaceHint  = "use lower-case letters, digits and -, at most 63, the first and the last a letter or a digit"
)

// identify checks the envelope of the content and takes the identity from it.
func (o *Object) identify() *FieldError {
	apiVersion, err := required(o.content, "/apiVersion", apiVersionHint)
	if err != nil {
		return err
	}
	group, version, found := strings.Cut(apiVersion, "/")
	if !found {
		group, version = "", apiVersion
	}
	if (found && !groupRE.MatchString(group)) || !versionRE.MatchString(version) {
		return &FieldError{At: "/apiVersion", Msg: fmt.Sprintf("apiVersion %q is not a group and a version", shorten(apiVersion)), Hint: apiVersionHint}
	}
	kind, err := required(o.content, "/kind", kindHint)
	if err != nil {
		return err
	}
	if !kindRE.MatchString(kind) {
		return &FieldError{At: "/kind", Msg: "kind is not a name in CamelCase", Hint: kindHint}
	}
	if v, present := o.content["metadata"]; present {
		if _, ok := v.(map[string]any); !ok {
			return &FieldError{At: "/metadata", Msg: "metadata is " + typeOf(v) + " and not a mapping", Hint: "write name and what else belongs to it indented below it"}
		}
	}
	name, err := required(o.content, "/metadata/name", nameHint)
	if err != nil {
		return err
	}
	if !nameRE.MatchString(name) {
		return &FieldError{At: "/metadata/name", Msg: "metadata.name is not a name", Hint: nameHint}
	}
	namespace := ""
	if v, present := Lookup(o.content, "/metadata/namespace"); present {
		if namespace, err = text(v, "/metadata/namespace", "metadata.namespace", namespaceHint); err != nil {
			return err
		}
		if !namespaceRE.MatchString(namespace) {
			return &FieldError{At: "/metadata/namespace", Msg: "metadata.namespace is not a DNS label", Hint: namespaceHint}
		}
	}
	for _, field := range []string{"labels", "annotations"} {
		if err := o.textMap(field); err != nil {
			return err
		}
	}
	o.apiVersion, o.id = apiVersion, ID{Group: group, Kind: kind, Namespace: namespace, Name: name}
	return nil
}

// required returns the text of a field that every object has.
func required(content map[string]any, at Pointer, hint string) (string, *FieldError) {
	name := strings.Join(at.Tokens(), ".")
	v, present := Lookup(content, at)
	if !present {
		return "", &FieldError{At: at, Msg: name + " is missing", Hint: hint, missing: true}
	}
	return text(v, at, name, hint)
}

// text returns v if it is text. hint is for what quotes would not mend.
func text(v any, at Pointer, name, hint string) (string, *FieldError) {
	switch v := v.(type) {
	case string:
		if v == "" {
			return "", &FieldError{At: at, Msg: name + " is empty", Hint: hint}
		}
		return v, nil
	case nil:
		return "", &FieldError{At: at, Msg: name + " is empty", Hint: hint}
	case bool:
		hint = booleanHint
	case int64, float64:
		// Above metadata no number becomes right by quotes.
		if Pointer("/metadata").Covers(at) {
			hint = quoteHint
		}
	}
	return "", &FieldError{At: at, Msg: name + " is " + typeOf(v) + " and not text", Hint: hint}
}

// textMap checks the labels or the annotations, of which each is text.
func (o *Object) textMap(field string) *FieldError {
	at := Pointer("/metadata").Child(field)
	v, _ := Lookup(o.content, at)
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		return &FieldError{At: at, Msg: "metadata." + field + " is " + typeOf(v) + " and not a mapping", Hint: "write each as KEY: TEXT, indented below it"}
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] == "" {
			continue
		}
		name := fmt.Sprintf("metadata.%s[%q]", field, shorten(k))
		if _, err := text(m[k], at.Child(k), name, `write a text; an empty one is ""`); err != nil {
			return err
		}
	}
	return nil
}

// typeOf names the type of a value that is not what it should be.
func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "empty"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case string:
		return "text"
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	default:
		return "a secret"
	}
}
