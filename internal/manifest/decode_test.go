package manifest_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

const head = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n"

func decode(t testing.TB, text string) []*manifest.Object {
	t.Helper()
	objects, err := manifest.Decode("a.yaml", []byte(text), manifest.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestDecodeGivesOriginAndOrder(t *testing.T) {
	text := "# first\n---\n# a comment\n" + head + "---\n" + strings.ReplaceAll(head, "name: a", "name: b") + "...\n" + strings.ReplaceAll(head, "name: a", "name: c")
	var got []string
	for _, o := range decode(t, text) {
		got = append(got, o.String())
	}
	want := []string{"ConfigMap/a (a.yaml:4)", "ConfigMap/b (a.yaml:9)", "ConfigMap/c (a.yaml:14)"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Rows B-28 to B-38 as far as one bad document shows them: each case is a whole
// file and the exact text of its error. Row B-34: an error comes without a value.
func TestDecodeRefuses(t *testing.T) {
	doc := func(s string) string { return head + s + "\n" }
	at5 := func(s string) string { return "a.yaml:5: " + s }
	cases := []struct{ name, file, text, want string }{
		{"B-28 self alias", "", doc("data: &a [*a]"), at5("the alias *a refers to a value that contains it; write the value out")},
		{"B-28 self alias branching", "", doc("data: &a [*a, *a, {b: *a}]"), at5("the alias *a refers to a value that contains it; write the value out")},
		{"B-28 unknown alias", "", doc("data: *nope"), "a.yaml:1: not valid YAML: unknown anchor 'nope' referenced; check the indentation and quotes near this line"},
		{"B-29 duplicate key", "", doc("data: {x: 1, x: 1}"), at5(`the key "x" is repeated, first on line 5; keep one of them`)},
		{"B-29 duplicate key by escape", "", doc("data: {x: 1, \"\\x78\": 1}"), at5(`the key "x" is repeated, first on line 5; keep one of them`)},
		{"B-29 duplicate top level", "", doc("kind: Secret"), at5(`the key "kind" is repeated, first on line 2; keep one of them`)},
		{"B-29 duplicate in a list", "", doc("data:\n- - a: 1\n    a: 2"), "a.yaml:7: the key \"a\" is repeated, first on line 6; keep one of them"},
		{"B-29 duplicate in JSON", "a.json", `{"apiVersion":"v1",` + "\n" + `"kind":"A","kind":"B","metadata":{"name":"x"}}`, `a.json:2: the key "kind" is repeated, first on line 2; keep one of them`},
		{"B-29 merge", "", doc("x: &x {a: 1}\ndata:\n  <<: *x"), "a.yaml:7: merge keys (<<) are not supported, because readers of YAML do not agree on them; write the fields out"},
		{"B-29 merge quoted", "", doc("data:\n  '<<': {}"), "a.yaml:6: merge keys (<<) are not supported, because readers of YAML do not agree on them; write the fields out"},
		{"B-30 null", "", "---\nnull\n", "a.yaml:2: the document is null and not a mapping; write an object with apiVersion, kind and metadata, or remove it"},
		{"B-30 tilde behind marker", "", "--- ~\n", "a.yaml:1: the document is null and not a mapping; write an object with apiVersion, kind and metadata, or remove it"},
		{"B-30 scalar", "", "just text\n", "a.yaml:1: the document is a bare value and not a mapping; write an object with apiVersion, kind and metadata, or remove it"},
		{"B-30 list", "", "- a\n- b\n", "a.yaml:1: the document is a list and not a mapping; write an object with apiVersion, kind and metadata, or remove it"},
		{"B-30 text after a flow document", "", "{a: b}\nc: d\n", "a.yaml:1: not valid YAML: did not find expected <document start>; check the indentation and quotes near this line"},
		{"B-30 text after a marker", "", head + "... b: c\n", "a.yaml:5: not valid YAML: mapping values are not allowed in this context; check the indentation and quotes near this line"},
		{"B-30 directive", "", "# c\n%YAML 1.1\n---\n" + head, "a.yaml:2: YAML directives are not supported; remove the line"},
		{"B-31 inf", "", doc("x: .inf"), at5("the number .inf is not finite; quote it if text is meant")},
		{"B-31 minus inf", "", doc("x: [-.INF]"), at5("the number -.INF is not finite; quote it if text is meant")},
		{"B-31 nan", "", doc("x: .NaN"), at5("the number .NaN is not finite; quote it if text is meant")},
		{"B-31 uint64", "", doc("x: 18446744073709551615"), at5("the whole number 18446744073709551615 does not fit 64 bits and would lose digits; put it in quotes if text will do")},
		{"B-31 long", "", doc("x: -99999999999999999999999"), at5("the whole number -99999999999999999999999 does not fit 64 bits and would lose digits; put it in quotes if text will do")},
		{"B-31 hex", "", doc("x: 0xFFFFFFFFFFFFFFFE"), at5("the whole number 18446744073709551614 does not fit 64 bits and would lose digits; put it in quotes if text will do")},
		{"B-31 JSON", "a.json", `{"x": 9223372036854775808}`, "a.json:1: the whole number 9223372036854775808 does not fit 64 bits and would lose digits; put it in quotes if text will do"},
		{"B-32 invalid UTF-8", "", doc("x: \xff"), at5("the file is not UTF-8; save it as UTF-8; binary content goes into a base64 field or a file of its own")},
		{"B-32 UTF-16 LE", "", "\xff\xfea\x00", "a.yaml:1: the file is UTF-16; save it as UTF-8"},
		{"B-32 UTF-16 BE", "", "\xfe\xff\x00a", "a.yaml:1: the file is UTF-16; save it as UTF-8"},
		{"B-32 UTF-16 without mark", "", "a\x00", "a.yaml:1: NUL character; save the file as UTF-8; binary content goes into a base64 field or a file of its own"},
		{"B-32 second BOM", "", "\xef\xbb\xbf\xef\xbb\xbf" + head, `a.yaml:1: misplaced byte order mark character U+FEFF; remove it, or write it as "\ufeff" in double quotes`},
		{"B-32 lone CR", "", doc("x: a\rb"), at5(`stray carriage return character U+000D; remove it, or write it as "\u000d" in double quotes`)},
		{"B-32 NEL", "", doc("x: a\u0085---\u0085b"), at5(`control character U+0085; remove it, or write it as "\u0085" in double quotes`)},
		{"B-32 LS", "", doc("x: a\u2028b"), at5(`line separator character U+2028; remove it, or write it as "\u2028" in double quotes`)},
		{"B-32 bidi", "", doc("x: a\u202eb"), at5(`invisible text direction character U+202E; remove it, or write it as "\u202e" in double quotes`)},
		{"B-32 ANSI", "", doc("x: a\x1b[31mb"), at5(`control character U+001B; remove it, or write it as "\u001b" in double quotes`)},
		{"B-32 NUL by escape", "", doc(`x: "a\0b"`), at5("NUL character in text; binary content goes into a base64 field or a file of its own")},
		{"B-32 control in a key", "", doc(`"a\eb": 1`), at5("a key contains a control character; remove it")},
		{"B-32 half a surrogate", "a.json", `{"x": "\ud800"}`, "a.json:1: half of a surrogate pair; write the character itself"},
		{"B-35 number as key", "", doc("data: {1: a}"), at5("the key 1 is not text; put it in quotes")},
		{"B-35 Norway key", "", doc("data: {no: a}"), at5("the key no is a boolean or a number in YAML, not text; put it in quotes")},
		{"B-35 octal key", "", doc("data: {0b1: a}"), at5("the key 0b1 is not text; put it in quotes")},
		{"B-35 null key", "", doc("data: {~: a}"), at5("the key ~ is not text; put it in quotes")},
		{"B-35 list as key", "", doc("data: {[a]: b}"), at5("a key is a list and not text; write the key out")},
		{"B-35 alias as key", "", doc("data: {a: &x b, *x : c}"), at5("a key is an alias and not text; write the key out")},
		{"B-35 binary", "", doc("x: !!binary aGk="), at5("the tag !!binary is not supported; write base64 into a field that takes it, as contentBase64 of a File")},
		{"B-35 custom tag", "", doc("x: !secret a"), at5(`the tag "!secret" is not supported; remove it; nothing is expanded, neither variables nor files`)},
		{"B-35 timestamp tag", "", doc("x: !!timestamp 2001-01-01"), at5(`the tag "!!timestamp" is not supported; remove it; nothing is expanded, neither variables nor files`)},
		{"B-35 tag on a key", "", doc("!!set x: a"), at5(`the tag "!!set" is not supported; remove it; nothing is expanded, neither variables nor files`)},
		{"B-36 two versions", "", head + "---\n" + strings.ReplaceAll(head, "v1", "v2"), "a.yaml:6: ConfigMap/a is declared a second time, first at a.yaml:1 (as v1 and v2, which are versions of one object); keep one of them"},
		{"B-36 twice", "", head + "---\n" + head, "a.yaml:6: ConfigMap/a is declared a second time, first at a.yaml:1; keep one of them"},
		{"B-37 List", "", "apiVersion: v1\nkind: List\nitems: []\n", "a.yaml:2: a list of objects is no object; write its items as documents of their own, separated by ---"},
		{"B-37 named List", "", "apiVersion: v1\nkind: List\nmetadata: {name: a}\n", "a.yaml:2: a list of objects is no object; write its items as documents of their own, separated by ---"},
		{"B-37 typed list", "", "apiVersion: v1\nkind: ConfigMapList\nmetadata: {name: a}\nitems: [{}]\n", "a.yaml:4: a list of objects is no object; write its items as documents of their own, separated by ---"},
		{"B-37 nested list", "", "apiVersion: v1\nkind: List\nitems: [{kind: List, items: []}]\n", "a.yaml:2: a list of objects is no object; write its items as documents of their own, separated by ---"},
		{"B-37 JSON list", "a.JSON", `[{"kind":"A"}]`, "a.JSON:1: the document is a list and not a mapping; write an object with apiVersion, kind and metadata, or remove it"},
		{"B-37 JSON stream", "a.json", "{}\n{}", "a.json:2: text after the end of the JSON object; a .json file holds one object; use a .yaml file and --- for more"},
		{"B-37 empty JSON", "a.json", "", "a.json:1: not valid JSON: unexpected end of the file; check the commas, brackets and quotes near this line"},
		{"B-37 broken JSON", "a.json", "{\"a\":\n1,,}", "a.json:2: not valid JSON: invalid character ',' looking for beginning of object key string; check the commas, brackets and quotes near this line"},
		{"B-38 env tag", "", doc("x: !env HOME"), at5(`the tag "!env" is not supported; remove it; nothing is expanded, neither variables nor files`)},
		{"several in line order", "", "---\nnull\n---\n" + head + "---\nx: .inf\n---\n" + head,
			"a.yaml:2: the document is null and not a mapping; write an object with apiVersion, kind and metadata, or remove it\n" +
				"a.yaml:9: the number .inf is not finite; quote it if text is meant\n" +
				"a.yaml:11: ConfigMap/a is declared a second time, first at a.yaml:4; keep one of them"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			file := c.file
			if file == "" {
				file = "a.yaml"
			}
			objects, err := manifest.Decode(file, []byte(c.text), manifest.Limits{})
			if err == nil {
				t.Fatalf("accepted as %v", objects)
			}
			if objects != nil {
				t.Errorf("row B-34: objects %v came with an error", objects)
			}
			if d := cmp.Diff(c.want, err.Error()); d != "" {
				t.Error(d)
			}
			var one *manifest.Error
			if !errors.As(err, &one) || one.Path != file {
				t.Errorf("no *manifest.Error for %s inside %T", file, err)
			}
		})
	}
}

// Row B-30: comments and separators make no documents.
func TestDecodeEmptyDocuments(t *testing.T) {
	for _, text := range []string{"", "\n\n", "---\n", "---\n---\n--- # x\n", "# a\n---\n# b\n...\n# c\n", "\xef\xbb\xbf", "...\n...\n", " \t\n"} {
		if got := decode(t, text); len(got) != 0 {
			t.Errorf("%q gives %v", text, got)
		}
	}
}

// Row B-30: as many objects come out as documents went in, whatever stands
// between them, and one bad document takes all others with it.
func TestDecodeCountsDocuments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 6).Draw(t, "documents")
		gap := rapid.SampledFrom([]string{"---\n", "---\n---\n", "...\n", "...\n---\n", "---\n# c\n\n---\n", "--- # c\n", "---\t\n"})
		var b strings.Builder
		b.WriteString(rapid.SampledFrom([]string{"", "# c\n", "---\n", "\xef\xbb\xbf---\n"}).Draw(t, "start"))
		bad := rapid.IntRange(-20, n-1).Draw(t, "bad")
		for i := range n {
			if i > 0 {
				b.WriteString(gap.Draw(t, "gap"))
			}
			fmt.Fprintf(&b, "apiVersion: v1\nkind: A\nmetadata: {name: x%d}\ndata: |\n  --- \n  ---\n", i)
			if i == bad {
				b.WriteString("kind: B\n")
			}
		}
		text := b.String()
		if rapid.Bool().Draw(t, "crlf") {
			text = strings.ReplaceAll(text, "\n", "\r\n")
		}
		objects, err := manifest.Decode("a.yaml", []byte(text), manifest.Limits{})
		if bad >= 0 && (err == nil || objects != nil) {
			t.Fatalf("document %d is bad, got %v, %v", bad, objects, err)
		}
		if bad < 0 && (err != nil || len(objects) != n) {
			t.Fatalf("%d documents gave %v, %v from %q", n, objects, err, text)
		}
	})
}

// Row B-31: scalars mean what they mean to kubectl, digit for digit.
func TestDecodeScalarsAsKubectl(t *testing.T) {
	for _, s := range strings.Fields(`no NO No n N off on y Y yes true True TRUE false null Null ~ 0644 0o644 0b11 -0b11 0x1F
		1.10 22:22 1:30:00 9007199254740993 -9007199254740993 9223372036854775807 -9223372036854775808 1_000 +1 -0 0 1e3 1E3 -1.5e-3
		.5 5. 1.0 1e400 0x1p3 2001-01-01 2001-01-01T00:00:00Z 1.2.3 v1 = ! "012" '1' !!str|1 !!int|"7" !!float|1 ${HOME} $HOME {{x}} [] [1,no]`) {
		s = strings.ReplaceAll(s, "|", " ")
		t.Run(s, func(t *testing.T) {
			text := "apiVersion: v1\nkind: A\nmetadata: {name: a}\nx: " + s + "\n"
			if s == "{{x}}" { // a mapping as key, to YAML
				if _, err := manifest.Decode("a.yaml", []byte(text), manifest.Limits{}); err == nil {
					t.Fatal("accepted")
				}
				return
			}
			want, err := sigsyaml.YAMLToJSONStrict([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			o := decode(t, text)[0]
			viaJSON, err := manifest.Decode("a.json", want, manifest.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if string(manifest.Canonical(o.Content())) != string(manifest.Canonical(viaJSON[0].Content())) {
				t.Errorf("%s reads as %s, kubectl reads %s", s, manifest.Canonical(o.Content()), want)
			}
			if o.Hash() != viaJSON[0].Hash() {
				t.Error("the hash depends on the form of the file")
			}
		})
	}
	// Written as floats they are floats, also where JSON spells them in digits.
	for literal, want := range map[string]any{"1e20": 1e20, "12345678901234567890.5": 12345678901234567890.5, "-1E19": -1e19, "1e15": int64(1e15)} {
		if got := decode(t, head+"x: "+literal+"\n")[0].Content()["x"]; got != want {
			t.Errorf("%s became %v", literal, got)
		}
	}
	o := decode(t, head+"x: 9007199254740993\n")[0]
	if got := o.Content()["x"]; got != int64(9007199254740993) {
		t.Errorf("2^53+1 became %v", got)
	}
}

// Row B-32: a byte order mark and CRLF are normalised once, everywhere.
func TestDecodeNormalisesOnce(t *testing.T) {
	plain := head + "data:\n  a: |\n    x\n    y\n"
	crlf := "\xef\xbb\xbf" + strings.ReplaceAll(plain, "\n", "\r\n")
	if a, b := decode(t, plain)[0], decode(t, crlf)[0]; a.Hash() != b.Hash() || a.Origin() != b.Origin() {
		t.Errorf("%s is not %s", manifest.Canonical(a.Content()), manifest.Canonical(b.Content()))
	}
	escaped := decode(t, head+`x: "\e[1m \u202e \r\n \ufeff \U0001F600 é"`+"\n")[0]
	if got := escaped.Content()["x"]; got != "\x1b[1m \u202e \r\n \ufeff 😀 é" {
		t.Errorf("escapes gave %q", got)
	}
}

// Row B-32: every character that deceives, each by itself.
func TestDecodeRefusesHiddenCharacters(t *testing.T) {
	hidden := []rune{0x061c, 0x200e, 0x200f, 0x2028, 0x2029, 0xfeff, 0xfffe, 0xffff, 0x7f}
	for _, r := range [][2]rune{{0x202a, 0x202e}, {0x2066, 0x2069}, {0x80, 0x9f}, {1, 8}, {0x0b, 0x1f}} {
		for c := r[0]; c <= r[1]; c++ {
			hidden = append(hidden, c)
		}
	}
	for _, r := range hidden {
		_, err := manifest.Decode("a.yaml", []byte(head+"x: a"+string(r)+"b\n"), manifest.Limits{})
		if err == nil || !strings.HasPrefix(err.Error(), "a.yaml:5: ") || !strings.Contains(err.Error(), fmt.Sprintf("U+%04X", r)) {
			t.Errorf("U+%04X: %v", r, err)
		}
		o := decode(t, head+fmt.Sprintf("x: \"a\\u%04xb\"\n", r))[0]
		if got := o.Content()["x"]; got != "a"+string(r)+"b" || strings.ContainsRune(string(manifest.Canonical(got)), r) {
			t.Errorf("U+%04X by escape: %q, shown as %s", r, got, manifest.Canonical(got))
		}
	}
}

// Row B-37: a JSON text is the same object in every form of file.
func TestDecodeJSONAsYAML(t *testing.T) {
	text := "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"A\", \"metadata\": {\"name\": \"a\"},\n\t\"x\": [1, 1.5, -2e2, true, null, \"no\", \"a\\u00e9\"]}\n"
	var hashes []manifest.Hash
	for _, file := range []string{"a.json", "a.JSON", "a.yaml", "a.YML"} {
		objects, err := manifest.Decode(file, []byte(text), manifest.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, objects[0].Hash())
		if line := objects[0].Origin().Line; line != 1 {
			t.Errorf("%s: line %d", file, line)
		}
	}
	for _, h := range hashes {
		if h != hashes[0] {
			t.Errorf("hashes differ: %v", hashes)
		}
	}
	emoji, err := manifest.Decode("a.json", []byte(`{"apiVersion":"v1","kind":"A","metadata":{"name":"a"},"x":"\/\ud83d\ude00"}`), manifest.Limits{})
	if err != nil || emoji[0].Content()["x"] != "/😀" {
		t.Errorf("surrogate pair: %v %v", emoji, err)
	}
}

// Row B-37: which names are manifests.
func TestIsManifest(t *testing.T) {
	for name, want := range map[string]bool{"a.yaml": true, "a.YAML": true, "b/a.yml": true, "a.Yml": true, "a.json": true, "a.JSON": true,
		"a.yaml.tmpl": false, "yaml": false, "README.md": false, "a.jsonnet": false, "": false} {
		if got := manifest.IsManifest(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// Row B-38: nothing comes from the environment of the process.
func TestDecodeExpandsNothing(t *testing.T) {
	t.Setenv("GITOPSD_CANARY", "canary-4711")
	text := head + "data: {a: '${GITOPSD_CANARY}', b: $GITOPSD_CANARY, c: '{{ env \"GITOPSD_CANARY\" }}', d: '$(GITOPSD_CANARY)', e: '%GITOPSD_CANARY%'}\n"
	got := string(manifest.Canonical(decode(t, text)[0].Content()))
	if strings.Contains(got, "canary-4711") || !strings.Contains(got, "${GITOPSD_CANARY}") {
		t.Error(got)
	}
}

func TestFieldLine(t *testing.T) {
	text := "---\n# c\n" + head + "spec:\n  a:\n    - x: 1\n    - y: 2\n  b: &b\n    c: 1\n  d: *b\n---\n" + strings.ReplaceAll(head, "name: a", "name: b") + "spec: 1\n"
	for _, c := range []struct {
		start int
		p     manifest.Pointer
		want  int
	}{
		{3, "", 3}, {3, "/spec", 7}, {3, "/spec/a/1/y", 10}, {3, "/spec/a/7", 8}, {3, "/spec/b/c", 12}, {3, "/spec/d/c", 12},
		{3, "/spec/none", 7}, {15, "/spec", 19}, {99, "/spec", 99},
	} {
		if got := manifest.FieldLine("a.yaml", []byte(text), c.start, c.p); got != c.want {
			t.Errorf("%s of the document at %d: line %d, want %d", c.p, c.start, got, c.want)
		}
	}
	if got := manifest.FieldLine("a.json", []byte("{\"a\":\n{\"b\":\n1}}"), 1, "/a/b"); got != 2 {
		t.Errorf("JSON: line %d", got)
	}
}

func FuzzDecode(f *testing.F) {
	seeds, err := filepath.Glob("testdata/seeds/*")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, seed := range seeds {
		data, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(filepath.Ext(seed) == ".json", data)
	}
	limits := manifest.Limits{FileBytes: 64 << 10, ObjectBytes: 32 << 10, Documents: 50, Values: 2000}
	f.Fuzz(func(t *testing.T, json bool, data []byte) {
		file := "a.yaml"
		if json {
			file = "a.json"
		}
		objects, err := manifest.Decode(file, data, limits)
		if err != nil {
			if objects != nil || err.Error() == "" {
				t.Fatalf("row B-34: %v with %v", objects, err)
			}
			return
		}
		for _, o := range objects {
			again, err := manifest.Decode("again.json", manifest.Canonical(o.Content()), manifest.Limits{})
			if err != nil || len(again) != 1 || again[0].Hash() != o.Hash() {
				t.Fatalf("%s does not read back: %v", manifest.Canonical(o.Content()), err)
			}
			if line := manifest.FieldLine(file, data, o.Origin().Line, "/metadata/name"); line < o.Origin().Line || line > 1+bytes.Count(data, []byte("\n")) {
				t.Fatalf("the name of %s is on line %d of %q", o, line, data)
			}
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "---\napiVersion: host.gitopsd.io/v1alpha1\nkind: File\nmetadata:\n  name: file-%d\n  labels: {app: web, tier: front}\nspec:\n  path: /etc/app/%d.conf\n  mode: \"0644\"\n  content: |\n    port = %d\n    host = localhost\n", i, i, i)
		}
		data := []byte(text.String())
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := manifest.Decode("a.yaml", data, manifest.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
