package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const docsFile = "../../docs/configuration.md"

// reference writes a table of all fields of a kind.
func reference(kind string, spec reflect.Type) string {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n| field of `spec` | type | default | meaning |\n|---|---|---|---|\n", kind)
	rows(&b, "", spec)
	return b.String() + "\n"
}

func rows(b *strings.Builder, prefix string, t reflect.Type) {
	for _, f := range fieldsOf(t) {
		def := "-"
		switch {
		case f.required:
			def = "**required**"
		case f.oneof:
			def = "one of these"
		case f.also:
			def = "one of these, or beside one"
		case f.def != "":
			def = "`" + f.def + "`"
		}
		doc := f.doc
		if f.isPath {
			doc += " A relative path starts at the directory of the configuration file."
		}
		fmt.Fprintf(b, "| `%s%s` | %s | %s | %s |\n", prefix, f.name, typeWord(f), def, strings.ReplaceAll(doc, "|", "\\|"))
		elem, name := f.typ, prefix+f.name
		if elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		if elem.Kind() == reflect.Slice {
			elem, name = elem.Elem(), name+"[]"
		}
		if elem == reflect.TypeFor[SecretRef]() && prefix+f.name != "git.auth.basic.passwordFrom" {
			continue // its fields are listed once
		}
		if elem.Kind() == reflect.Struct {
			rows(b, name+".", elem)
		}
	}
}

func typeWord(f field) string {
	t := f.typ
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[Duration]():
		return "duration"
	case t == reflect.TypeFor[SecretRef]():
		return "secret reference"
	case f.enum != nil:
		return "`" + strings.Join(f.enum, "`, `") + "`"
	}
	switch t.Kind() {
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "list of mappings"
		}
		return "list of strings"
	case reflect.Int64:
		return "number"
	case reflect.Struct, reflect.Map:
		return "mapping"
	default:
		return t.Kind().String()
	}
}

// TestReferenceIsCurrent holds the tables of docs/configuration.md to the types;
// run with -update after changing one.
func TestReferenceIsCurrent(t *testing.T) {
	doc, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	want := "<!-- begin reference -->\n" + reference(KindSource, reflect.TypeFor[SourceSpec]()) +
		reference(KindPolicySet, reflect.TypeFor[PolicySetSpec]()) +
		reference(KindApplication, reflect.TypeFor[ApplicationSpec]()) + "<!-- end reference -->"
	re := regexp.MustCompile(`(?s)<!-- begin reference -->.*<!-- end reference -->`)
	if !re.Match(doc) {
		t.Fatal("no place for the reference")
	}
	current := re.ReplaceAllLiteral(doc, []byte(want))
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(docsFile, current, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(doc, current) {
		t.Error("docs/configuration.md is not what the types say; run go test ./internal/config -update")
	}
}

// TestDocumentedExamplesLoad loads all YAML blocks of docs/configuration.md
// together, as one directory.
func TestDocumentedExamplesLoad(t *testing.T) {
	doc, err := os.ReadFile(docsFile)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for i, m := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(doc, -1) {
		files[fmt.Sprintf("block-%02d.yaml", i+1)] = m[1]
	}
	c, err := Load(files)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 5 || len(c.Sources) < 2 || len(c.PolicySets) < 2 || len(c.Targets) < 1 || len(c.Applications) < 2 {
		t.Errorf("%d blocks with %d sources, %d policy sets, %d targets, %d applications: the page lost its examples",
			len(files), len(c.Sources), len(c.PolicySets), len(c.Targets), len(c.Applications))
	}
}
