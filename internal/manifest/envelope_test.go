package manifest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// A fault of the envelope stands on the line of its field, or of what should
// hold it, with a hint of its own; only a document that lacks a part is told
// what every document needs.
func TestDecodeRefusesEnvelope(t *testing.T) {
	const (
		every   = "; every document needs apiVersion, kind and metadata.name; a file that holds none belongs into .gitopsdignore"
		boolean = " is a boolean and not text; put it in quotes; without them y, n, yes, no, on, off, true and false are booleans"
		number  = " is a number and not text; put it in quotes"
		name    = "; use letters, digits and -_.:@, at most 253, the first and the last a letter or a digit"
		label   = "; use lower-case letters, digits and -, at most 63, the first and the last a letter or a digit"
		version = "; write group/version, as in host.gitopsd.io/v1alpha1"
		kind    = "; write a name in CamelCase, as in ConfigMap"
	)
	meta := func(s string) string { return "apiVersion: v1\nkind: A\nmetadata:\n  # who\n" + s }
	for _, c := range []struct{ text, want string }{
		{"a: b\n", "1: apiVersion is missing" + every},
		{"# c\n---\n# d\nkind: A\nmetadata: {name: a}\n", "4: apiVersion is missing" + every},
		{"apiVersion: v1\nmetadata: {name: a}\n", "1: kind is missing" + every},
		{"apiVersion: v1\nkind: A\n", "1: metadata.name is missing" + every},
		{meta("  generateName: a-\n"), "3: metadata.name is missing" + every},
		{"x: 1\napiVersion: 1\nkind: A\n", "2: apiVersion is a number and not text" + version},
		{"kind: A\napiVersion:\n", "2: apiVersion is empty" + version},
		{"kind: A\napiVersion: a/b/c\n", `2: apiVersion "a/b/c" is not a group and a version` + version},
		{"kind: A\napiVersion: V1\n", `2: apiVersion "V1" is not a group and a version` + version},
		{"apiVersion: v1\nkind: configmap\n", "2: kind is not a name in CamelCase" + kind},
		{"apiVersion: v1\nkind: ''\n", "2: kind is empty" + kind},
		{"apiVersion: v1\nkind: Y\nmetadata: {name: a}\n", "2: kind" + boolean},
		{"apiVersion: v1\nkind: [A]\n", "2: kind is a list and not text" + kind},
		{"apiVersion: v1\nkind: A\nmetadata:\nname: a\n", "3: metadata is empty and not a mapping; write name and what else belongs to it indented below it"},
		{"apiVersion: v1\nkind: A\nmetadata: a\n", "3: metadata is text and not a mapping; write name and what else belongs to it indented below it"},
		{"# c\n" + meta("  name: n\n"), "6: metadata.name" + boolean},
		{head + "---\n# c\n" + meta("  name: n\n"), "11: metadata.name" + boolean},
		{strings.ReplaceAll(meta("  name:\n    off\n"), "\n", "\r\n"), "5: metadata.name" + boolean},
		{meta("  name: 007\n"), "5: metadata.name" + number},
		{meta("  name: 1.10\n"), "5: metadata.name" + number},
		{meta("  name: ~\n"), "5: metadata.name is empty" + name},
		{meta("  name: {a: b}\n"), "5: metadata.name is a mapping and not text" + name},
		{meta("  name: My App\n"), "5: metadata.name is not a name" + name},
		{meta("  name: " + strings.Repeat("a", 254) + "\n"), "5: metadata.name is not a name" + name},
		{meta("  name: a\n  namespace: Web\n"), "6: metadata.namespace is not a DNS label" + label},
		{meta("  name: a\n  namespace:\n"), "6: metadata.namespace is empty" + label},
		{meta("  name: a\n  namespace: no\n"), "6: metadata.namespace" + boolean},
		{meta("  name: a\n  labels: [x]\n"), "6: metadata.labels is a list and not a mapping; write each as KEY: TEXT, indented below it"},
		{meta("  name: a\n  labels:\n    z: 1\n    w: 2\n    a/x: true\n    b: ''\n"), `9: metadata.labels["a/x"]` + boolean},
		{meta("  name: a\n  annotations:\n    a: b\n    x: 1\n"), `8: metadata.annotations["x"]` + number},
		{meta("  name: a\n  annotations:\n    x:\n"), `7: metadata.annotations["x"] is empty; write a text; an empty one is ""`},
		{"x: &l\n  v: 1\n" + meta("  name: a\n  labels: *l\n"), `2: metadata.labels["v"]` + number},
	} {
		for range 5 { // the order of a map must not show
			_, err := manifest.Decode("a.yaml", []byte(c.text), manifest.Limits{})
			if err == nil {
				t.Fatalf("%q is accepted", c.text)
			}
			if d := cmp.Diff("a.yaml:"+c.want, err.Error()); d != "" {
				t.Fatalf("%q: %s", c.text, d)
			}
		}
	}
	_, err := manifest.Decode("a.json", []byte("{\"apiVersion\": \"v1\", \"kind\": \"A\",\n\"metadata\": {\n\"name\": true}}"), manifest.Limits{})
	if want := "a.json:3: metadata.name" + boolean; err == nil || err.Error() != want {
		t.Errorf("JSON: %v, want %s", err, want)
	}
	_, err = manifest.New(map[string]any{"apiVersion": "v1", "kind": "A"}, manifest.Origin{})
	if want := "metadata.name is missing" + name; err == nil || err.Error() != want {
		t.Errorf("New: %v, want %s", err, want)
	}
}
