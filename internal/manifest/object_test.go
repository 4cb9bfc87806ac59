package manifest_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

func sealer(t testing.TB) *manifest.Sealer {
	t.Helper()
	s, err := manifest.NewSealer(bytes.Repeat([]byte("canarykey"), 4))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newObject(t testing.TB, spec map[string]any) *manifest.Object {
	t.Helper()
	o, err := manifest.New(map[string]any{"apiVersion": "v1", "kind": "A", "metadata": map[string]any{"name": "a"}, "spec": spec}, manifest.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestSensitiveNeverLeaks(t *testing.T) {
	const canary = "canary-4711"
	secret := sealer(t).Seal(canary)
	o := newObject(t, map[string]any{"password": secret, "list": []any{secret}})
	type hidden struct {
		s manifest.Sensitive
		p *manifest.Sensitive
		o *manifest.Object
		m map[string]any
		k *manifest.Sealer
	}
	values := map[string]any{
		"value": secret, "pointer": &secret, "content": o.Content(), "object": o, "objects": []*manifest.Object{o},
		"unexported": hidden{secret, &secret, o, o.Content(), sealer(t)}, "fields": manifest.Fields(o.Content()), "sealer": sealer(t),
		"error": fmt.Errorf("wrapped: %v %w", secret, &manifest.Error{Msg: fmt.Sprint(secret)}),
	}
	keyBytes := fmt.Sprint([]byte("canarykey"))
	check := func(where, out string) {
		t.Helper()
		if strings.Contains(out, "canary") || strings.Contains(out, fmt.Sprintf("%x", "canary")) || strings.Contains(out, strings.Trim(keyBytes, "[]")) {
			t.Errorf("%s: leaks in %s", where, out)
		}
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%20s", "%.3s", "%T", "%p", "%t", "%w"} {
			check(name+" "+verb, fmt.Sprintf(verb, v))
		}
		if out, err := json.Marshal(v); err == nil {
			check(name+" json", string(out))
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "k", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "k", v, slog.Group("g", "k", v))
		check(name+" slog", log.String())
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%20.3s", "%t"} {
		if got := fmt.Sprintf(verb+verb+verb, secret, o, sealer(t)); got != manifest.Mask+"A/a"+"(digest key)" {
			t.Errorf("%s: %s", verb, got)
		}
	}
	text, _ := secret.MarshalText()
	check("text", string(text))
	out, _ := xml.Marshal(secret)
	check("xml", string(out))
	check("canonical", string(manifest.Canonical(o.Content())))
	check("hash", string(o.Hash()))
	if secret.Reveal() != canary {
		t.Error("Reveal does not")
	}
	if (manifest.Sensitive{}).Reveal() != "" {
		t.Error("the zero value is not the empty secret")
	}
}

func TestSealer(t *testing.T) {
	if _, err := manifest.NewSealer(make([]byte, 31)); err == nil {
		t.Error("a short key is accepted")
	}
	key := bytes.Repeat([]byte{1}, 32)
	a, _ := manifest.NewSealer(key)
	key[0] = 2
	b, _ := manifest.NewSealer(key)
	same, _ := manifest.NewSealer(bytes.Repeat([]byte{1}, 32))
	if a.Digest("x") != same.Digest("x") {
		t.Error("the sealer keeps the caller's key slice")
	}
	if a.Digest("x") == b.Digest("x") {
		t.Error("digests do not depend on the key")
	}
	if !a.Seal("x").Equal(same.Seal("x")) || a.Seal("x").Equal(a.Seal("y")) || a.Seal("x").Equal(b.Seal("x")) {
		t.Error("Equal of secrets is wrong")
	}
	if a.Digest(a.Seal("x")) != a.Digest("x") || a.Seal("x").Digest() != a.Digest("x") {
		t.Error("a secret has not the digest of what it hides")
	}
	if a.Digest("\xff") == a.Digest("\xfe") || a.Digest("\xff") == a.Digest("\ufffd") {
		t.Error("texts that are not UTF-8 share a digest")
	}
	if a.Digest(map[string]any{"p": a.Seal("x")}) == a.Digest(map[string]any{"p": a.Seal("y")}) {
		t.Error("secrets inside are not part of the digest")
	}
	if newObject(t, map[string]any{"p": a.Seal("x")}).Hash() == newObject(t, map[string]any{"p": a.Seal("y")}).Hash() {
		t.Error("secrets are not part of the hash")
	}
	if newObject(t, map[string]any{"p": a.Seal("x")}).Hash() == newObject(t, map[string]any{"p": manifest.Mask}).Hash() {
		t.Error("a mask as text has the hash of a secret")
	}
}

func TestCanonical(t *testing.T) {
	for want, v := range map[string]any{
		`null`: nil, `true`: true, `-1`: int64(-1), `9007199254740993`: int64(9007199254740993), `1.5`: 1.5, `2`: 2.0,
		`9007199254740992`: float64(1 << 53), `100000000`: 1e8, `0`: math.Copysign(0, -1), `1e+20`: 1e20, `1e-07`: 1e-7,
		`"<a>&\"\\\n\u0000\u202e\u007f` + "é😀\"": "<a>&\"\\\n\x00\u202e\x7fé😀",
		`{"a":[{}],"b":{}}`:                      map[string]any{"b": map[string]any(nil), "a": []any{map[string]any{}}},
		`{"A":1,"a":2,"é":3}`:                    map[string]any{"é": int64(3), "a": int64(2), "A": int64(1)},
	} {
		got := string(manifest.Canonical(v))
		if got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("%s is no JSON", got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, v := range map[string]any{
		"infinite": math.Inf(1), "nan": math.NaN(), "uint": uint64(1), "struct": struct{}{}, "bytes": []byte("x"), "not UTF-8": "\xff",
		"key": map[string]any{"\xff": "x"}, "nested": []any{map[string]any{"a": []string{"x"}}}, "long": json.Number("18446744073709551616"),
		"huge": json.Number("1e999"),
	} {
		_, err := manifest.New(map[string]any{"apiVersion": "v1", "kind": "A", "metadata": map[string]any{"name": "a"}, "spec": v}, manifest.Origin{})
		if err == nil || !strings.Contains(err.Error(), "/spec") {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := newObject(t, map[string]any{"a": 1, "b": json.Number("2"), "c": 3.0, "d": []any{4, 4.5}})
	if got := string(manifest.Canonical(o.Content()["spec"])); got != `{"a":1,"b":2,"c":3,"d":[4,4.5]}` {
		t.Error(got)
	}
	if o.Content()["spec"].(map[string]any)["c"] != int64(3) {
		t.Error("a whole float is no int64")
	}
}

// Objects may share content: making one never writes to what another shows.
// The race detector is the judge.
func TestNewSharesContentSafely(t *testing.T) {
	o := newObject(t, map[string]any{"a": map[string]any{"b": int64(1)}, "l": []any{int64(1)}})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			c, err := manifest.New(manifest.With(o.Content(), "/spec/x", int64(i)), manifest.Origin{})
			if err != nil || c.Hash() == o.Hash() {
				t.Error(c, err)
			}
		})
	}
	wg.Wait()
	if _, ok := o.Spec()["x"]; ok {
		t.Error("With changed its argument")
	}
}

func TestAtKeepsTheObject(t *testing.T) {
	o := newObject(t, nil)
	moved := o.At(manifest.Origin{Path: "b.yaml", Line: 3, Revision: "r"})
	if moved.Hash() != o.Hash() || moved.ID() != o.ID() || moved.Origin().Line != 3 || o.Origin().Line != 0 {
		t.Error(moved, o)
	}
}

// values draws values of the model that a file can hold.
func values() *rapid.Generator[any] {
	text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"no", "0644", "1.10", "22:22", "~", "", "\u202e", "a\nb", "\ufeff", "\u0085", "<<", " x ", "!x", "# c"}))
	return rapid.Deferred(func() *rapid.Generator[any] {
		return rapid.Custom(func(t *rapid.T) any {
			switch rapid.IntRange(0, 8).Draw(t, "type") {
			case 0:
				return nil
			case 1:
				return rapid.Bool().Draw(t, "bool")
			case 2:
				return rapid.Int64().Draw(t, "int")
			case 3:
				f := rapid.Float64().Draw(t, "float")
				if f == math.Trunc(f) && math.Abs(f) < 1<<63 {
					return int64(f)
				}
				return f
			case 4, 5:
				return strings.ReplaceAll(text.Draw(t, "text"), "\x00", "0")
			case 6:
				return rapid.SliceOfN(values(), 0, 3).Draw(t, "list")
			default:
				return rapid.MapOfN(key(), values(), 0, 3).Draw(t, "map")
			}
		})
	})
}

func key() *rapid.Generator[string] {
	return rapid.OneOf(rapid.StringMatching(`[-a-zA-Z0-9_./~é ]{0,12}`), rapid.SampledFrom([]string{"no", "on", "1", "null", "22:22"}))
}

// Row B-31: what an object is, its canonical form says, and reading that form
// as JSON or as YAML gives the same object.
func TestCanonicalRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := values().Draw(t, "value")
		o, err := manifest.New(map[string]any{"apiVersion": "v1", "kind": "A", "metadata": map[string]any{"name": "a"}, "spec": manifest.Clone(v)}, manifest.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		text := manifest.Canonical(o.Content())
		for _, file := range []string{"a.json", "a.yaml"} {
			again, err := manifest.Decode(file, text, manifest.Limits{})
			if err != nil {
				t.Fatalf("%s: %v\n%s", file, err, text)
			}
			if again[0].Hash() != o.Hash() || !manifest.Equal(again[0].Content(), o.Content()) || !manifest.Equal(again[0].Content()["spec"], v) {
				t.Fatalf("%s: %s became %s", file, text, manifest.Canonical(again[0].Content()))
			}
		}
	})
}

// Equal values have equal canonical forms, and the other way round.
func TestEqualIsCanonical(t *testing.T) {
	pairs := [][2]any{
		{int64(9007199254740993), float64(9007199254740992)}, {int64(math.MaxInt64), float64(1 << 63)}, {int64(1), 1.0}, {1.0, int64(1)},
		{int64(0), math.Copysign(0, -1)}, {"1", int64(1)}, {nil, ""}, {nil, map[string]any{}}, {true, "true"}, {[]any{}, []any(nil)},
		{[]any{int64(1)}, []any{1.0}}, {map[string]any{"a": nil}, map[string]any{}}, {math.MinInt64 * 1.0, int64(math.MinInt64)},
	}
	for _, p := range pairs {
		if a, b := string(manifest.Canonical(p[0])), string(manifest.Canonical(p[1])); (a == b) != manifest.Equal(p[0], p[1]) || manifest.Equal(p[0], p[1]) != manifest.Equal(p[1], p[0]) {
			t.Errorf("%v and %v: forms %s and %s, Equal %v", p[0], p[1], a, b, manifest.Equal(p[0], p[1]))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := values().Draw(t, "a"), values().Draw(t, "b")
		if same := string(manifest.Canonical(a)) == string(manifest.Canonical(b)); same != manifest.Equal(a, b) {
			t.Fatalf("Equal(%v, %v) is %v", a, b, !same)
		}
		if !manifest.Equal(a, manifest.Clone(a)) {
			t.Fatalf("%v is not its clone", a)
		}
	})
}
