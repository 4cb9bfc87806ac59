package manifest_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math/big"
	"reflect"
	"slices"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// around makes an object of JSON text as its spec; ok is false when text is no
// value of an object.
func around(text string) (o *manifest.Object, ok bool) {
	objects, err := manifest.Decode("a.json", []byte(`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"spec":`+text+`}`), manifest.Limits{})
	if err != nil || len(objects) != 1 {
		return nil, false
	}
	return objects[0], true
}

// independent reads JSON without the code under test, numbers as exact values.
func independent(t *testing.T, text []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		t.Fatalf("%q holds more than one value", text)
	}
	return exact(v)
}

// exact replaces numbers by the number that a 64-bit integer or float holds.
func exact(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = exact(v[k])
		}
	case []any:
		for i := range v {
			v[i] = exact(v[i])
		}
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return big.NewRat(i, 1).RatString()
		}
		f, err := v.Float64()
		if err != nil {
			return v.String()
		}
		return new(big.Rat).SetFloat64(f).RatString()
	}
	return v
}

// FuzzCanonical: the canonical form says what the text said, and it is one for
// each meaning: equal content has equal forms and hashes, other content others.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		`{"b":1,"a":[true,null,"x"]}`, `{"a": [true, null, "x"], "b": 1.0}`, `9007199254740993`, `-0.0`, `1e3`, `1E-7`, `18446744073709551615`,
		`"\u202e\u001b[31m\ud83d\ude00"`, `"\ud800"`, `{"":{"":{}}}`, `[]`, `{}`, `""`, `1e400`, `0.1`, `0.12345678901234567`, `100000000000000000000`,
	} {
		f.Add(s, `{"a":[true,null,"x"],"b":1}`)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		a, ok := around(first)
		if !ok {
			return
		}
		canonical := manifest.Canonical(a.Content())
		if got, want := independent(t, canonical), independent(t, []byte(`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"spec":`+first+`}`)); !reflect.DeepEqual(got, want) {
			t.Fatalf("%s became %s", first, canonical)
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, canonical); err != nil || !bytes.Equal(compact.Bytes(), canonical) {
			t.Fatalf("%s holds white space: %v", canonical, err)
		}
		if raw, err := a.MarshalJSON(); err != nil || !bytes.Equal(raw, canonical) {
			t.Fatalf("marshalled %s, %v", raw, err)
		}
		b, ok := around(second)
		if !ok {
			return
		}
		same := reflect.DeepEqual(a.Content(), b.Content())
		if equal := bytes.Equal(canonical, manifest.Canonical(b.Content())); equal != same || (a.Hash() == b.Hash()) != same {
			t.Fatalf("%s and %s: same content %v, same form %v, same hash %v", first, second, same, equal, a.Hash() == b.Hash())
		}
	})
}

// FuzzFields: the leaves of an object are all of it, a field that is set is
// there, one that is taken out is gone with all below it, and nothing else moves.
func FuzzFields(f *testing.F) {
	for _, p := range []string{"/spec/mode", "/spec/a~1b/c~0d", "/spec", "/spec/list", "/spec/", "/spec/none/deep", "/metadata/name", "", "/spec/mode/below"} {
		f.Add(`{"mode":"0644","a/b":{"c~d":1,"e":{}},"list":[{"x":1}],"":{"":2}}`, p)
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		o, ok := around(text)
		p, err := manifest.ParsePointer(path)
		if !ok || err != nil {
			return
		}
		content, before := o.Content(), manifest.Canonical(o.Content())
		fields := manifest.Fields(content)
		rebuilt := map[string]any{}
		for _, field := range fields {
			rebuilt = manifest.With(rebuilt, field.Path, field.Value)
		}
		if !bytes.Equal(manifest.Canonical(rebuilt), before) {
			t.Fatalf("the fields %v of %s make %s", fields, before, manifest.Canonical(rebuilt))
		}
		if p == "" {
			return
		}
		set := manifest.With(content, p, "set")
		if v, ok := manifest.Lookup(set, p); !ok || v != "set" {
			t.Fatalf("%s of %s is %v after it was set", p, before, v)
		}
		outside := func(fields []manifest.Field) []manifest.Field {
			return slices.DeleteFunc(fields, func(field manifest.Field) bool { return p.Covers(field.Path) || field.Path.Covers(p) })
		}
		if !reflect.DeepEqual(outside(manifest.Fields(set)), outside(slices.Clone(fields))) {
			t.Fatalf("setting %s of %s made %s", p, before, manifest.Canonical(set))
		}
		cut := manifest.Without(content, p)
		if _, ok := manifest.Lookup(cut, p); ok {
			t.Fatalf("%s of %s is still there", p, before)
		}
		if !reflect.DeepEqual(outside(manifest.Fields(cut)), outside(slices.Clone(fields))) {
			t.Fatalf("taking %s out of %s left %s", p, before, manifest.Canonical(cut))
		}
		if !bytes.Equal(manifest.Canonical(content), before) {
			t.Fatalf("%s was changed into %s", before, manifest.Canonical(content))
		}
	})
}
