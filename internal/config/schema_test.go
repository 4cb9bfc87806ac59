package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/config"
)

const schemaDir = "../../docs/schema"

// TestSchemaFilesAreCurrent holds the files under docs/schema to the Go types;
// run with -update after changing a type.
func TestSchemaFilesAreCurrent(t *testing.T) {
	for name, want := range config.Schemas() {
		path := filepath.Join(schemaDir, name)
		if *update {
			if err := os.MkdirAll(schemaDir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := read(t, path); !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say; run go test ./internal/config -update", path)
		}
	}
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	for name, data := range config.Schemas() {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource(config.SchemaBase+name, doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile(config.SchemaBase + "config.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// documents reads YAML into the values that the schema library wants.
func documents(t *testing.T, data []byte) []any {
	t.Helper()
	var docs []any
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return docs
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
}

// TestSchemaAgreesOnFixtures: what Load takes, the schema takes; what it refuses
// for its form, the schema refuses too. Fixtures marked "schema: passes" are
// wrong in a way that only Load can see.
func TestSchemaAgreesOnFixtures(t *testing.T) {
	s := schema(t)
	for _, name := range slices.Concat(files(t, "testdata/valid/*.yaml"), files(t, "testdata/broken/*.yaml")) {
		data := read(t, name)
		wantOK := strings.Contains(name, "/valid/") || slices.Equal(header(data, "schema"), []string{"passes"})
		var err error
		for _, doc := range documents(t, data) {
			err = errors.Join(err, s.Validate(doc))
		}
		if (err == nil) != wantOK {
			t.Errorf("%s: schema passes = %v, want %v: %v", name, err == nil, wantOK, err)
		}
	}
}

// meaning lists messages about the meaning of well-formed objects, which
// a schema cannot give.
var meaning = []string{
	"there is no ", "is declared twice", "is a circle", "is listed twice", "must be longer than", "must be at least 1",
	"matches everything", "reads its rules from", "for https only", "for ssh only", "http and https only", "belongs to keyFrom", "without encryption",
	"is no address", "is a path", "no valid URL", "scheme is not supported", "is no valid name", "holds a space", "starts with a dash", "ssh needs a key", "leads out of", "must be at least 1s",
}

// TestSchemaAgreesOnMutations changes valid objects at random places and
// compares the two verdicts on their form.
func TestSchemaAgreesOnMutations(t *testing.T) {
	s := schema(t)
	var docs []any
	for _, name := range files(t, "testdata/valid/*.yaml") {
		docs = append(docs, documents(t, read(t, name))...)
	}
	values := []any{
		nil, true, false, json.Number("0"), json.Number("-2"), json.Number("1.5"), json.Number("3"), "", "x", "10s", "-1s", "heal", "Orphan", "never",
		[]any{}, []any{"x"}, []any{json.Number("1")}, map[string]any{}, map[string]any{"x": "y"}, map[string]any{"env": "A"},
	}
	rapid.Check(t, func(t *rapid.T) {
		doc := clone(rapid.SampledFrom(docs).Draw(t, "document"))
		mutate(t, doc.(map[string]any), values)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		schemaErr := s.Validate(doc)
		_, loadErr := config.Load(map[string][]byte{"m.yaml": text})
		if (schemaErr == nil) != formOK(loadErr) {
			t.Fatalf("%s\nschema: %v\nload: %v", text, schemaErr, loadErr)
		}
	})
}

// formOK reports whether err has no problem but ones of meaning.
func formOK(err error) bool {
	if err == nil {
		return true
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !slices.ContainsFunc(meaning, func(m string) bool { return strings.Contains(line, m) }) {
			return false
		}
	}
	return true
}

// mutate replaces, removes or adds one member at a random depth below spec.
func mutate(t *rapid.T, doc map[string]any, values []any) {
	m, ok := doc["spec"].(map[string]any)
	for ok {
		keys := slices.Sorted(func(yield func(string) bool) {
			for k := range m {
				if !yield(k) {
					return
				}
			}
		})
		if len(keys) == 0 {
			m["added"] = rapid.SampledFrom(values).Draw(t, "value")
			return
		}
		key := rapid.SampledFrom(keys).Draw(t, "key")
		if sub, isMap := m[key].(map[string]any); isMap && rapid.Bool().Draw(t, "deeper") {
			m = sub
			continue
		}
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			delete(m, key)
		case 1:
			m[key] = rapid.SampledFrom(values).Draw(t, "value")
		default:
			m["added"] = rapid.SampledFrom(values).Draw(t, "value")
		}
		return
	}
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := map[string]any{}
		for k, e := range v {
			c[k] = clone(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = clone(e)
		}
		return c
	default:
		return v
	}
}
