package manifest_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

func ids() *rapid.Generator[manifest.ID] {
	return rapid.Custom(func(t *rapid.T) manifest.ID {
		return manifest.ID{
			Group:     rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z0-9]([-a-z0-9.]{0,9}[a-z0-9])?`)).Draw(t, "group"),
			Kind:      rapid.StringMatching(`[A-Z][A-Za-z0-9]{0,9}`).Draw(t, "kind"),
			Namespace: rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,9}[a-z0-9])?`)).Draw(t, "namespace"),
			Name:      rapid.StringMatching(`[A-Za-z0-9]([-A-Za-z0-9_.:@]{0,9}[A-Za-z0-9])?`).Draw(t, "name"),
		}
	})
}

func TestIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := ids().Draw(t, "a"), ids().Draw(t, "b")
		if got, err := manifest.ParseID(a.String()); err != nil || got != a {
			t.Fatalf("%q reads back as %#v, %v", a, got, err)
		}
		if (a.String() == b.String()) != (a == b) || (a.Compare(b) == 0) != (a == b) || a.Compare(b) != -b.Compare(a) {
			t.Fatalf("%q and %q: text, order and equality disagree", a, b)
		}
	})
}

func TestParseIDRefuses(t *testing.T) {
	for _, s := range []string{"", "/", "A", "A/", "/A/b", "a/b", "a/b/c", "A//b", "a/B/c/d/e", "A/b/c/d", "A/../x", "A/b c", "A/b\n", "é/A/b", "A/N/b", "x/A/" + strings.Repeat("n", 300)} {
		if id, err := manifest.ParseID(s); err == nil || id != (manifest.ID{}) {
			t.Errorf("%q is %#v, %v", s, id, err)
		} else if len(err.Error()) > 200 {
			t.Errorf("long error: %v", err)
		}
	}
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"host.gitopsd.io/File/motd", "ConfigMap/shop/web", "apps/Deployment/shop/web", "A/b", "a/B/c/d/e", "//", "A//b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := manifest.ParseID(s)
		if err != nil {
			return
		}
		if id.String() != s {
			t.Fatalf("%q is written %q", s, id)
		}
	})
}

func TestOriginString(t *testing.T) {
	if got := (manifest.Origin{Path: "a.yaml", Line: 3}).String() + " " + (manifest.Origin{Path: "a.yaml"}).String(); got != "a.yaml:3 a.yaml" {
		t.Error(got)
	}
}

func TestPointerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tokens := rapid.SliceOf(rapid.OneOf(rapid.String(), rapid.StringMatching(`[~/01]{0,4}`))).Draw(t, "tokens")
		var p manifest.Pointer
		content := any(int64(1))
		for _, token := range tokens {
			parent := p
			p = p.Child(token)
			if !parent.Covers(p) || p.Covers(parent) || !p.Covers(p) {
				t.Fatalf("%q and its parent %q", p, parent)
			}
		}
		for _, token := range slices.Backward(tokens) {
			content = map[string]any{token: content}
		}
		if !slices.Equal(p.Tokens(), tokens) {
			t.Fatalf("%q gives %q, want %q", p, p.Tokens(), tokens)
		}
		if parsed, err := manifest.ParsePointer(string(p)); err != nil || parsed != p {
			t.Fatalf("%q: %v", p, err)
		}
		m, ok := content.(map[string]any)
		if !ok {
			return
		}
		if v, ok := manifest.Lookup(m, p); !ok || v != int64(1) {
			t.Fatalf("%q not found", p)
		}
		if f := manifest.Fields(m); len(f) != 1 || f[0].Path != p {
			t.Fatalf("fields %v, want %q", f, p)
		}
		if _, ok := manifest.Lookup(manifest.Without(m, p), p); ok {
			t.Fatalf("%q is still there", p)
		}
		if v, ok := manifest.Lookup(manifest.With(m, p, "new"), p); !ok || v != "new" {
			t.Fatalf("%q is not set", p)
		}
		if v, _ := manifest.Lookup(m, p); v != int64(1) {
			t.Fatal("the argument was changed")
		}
	})
}

func TestPointerTable(t *testing.T) {
	content := map[string]any{"spec": map[string]any{"mode": "0644", "list": []any{map[string]any{"a": 1}}, "empty": map[string]any{}}}
	var paths []string
	for _, f := range manifest.Fields(content) {
		paths = append(paths, string(f.Path))
	}
	if got := strings.Join(paths, " "); got != "/spec/empty /spec/list /spec/mode" {
		t.Error(got)
	}
	for _, s := range []string{"spec", "a/b", "/a~", "/a~2", "/~~0"} {
		if p, err := manifest.ParsePointer(s); err == nil {
			t.Errorf("%q accepted as %q", s, p)
		}
	}
	if manifest.Pointer("/a").Covers("/ab") || !manifest.Pointer("").Covers("/a") {
		t.Error("Covers")
	}
	if _, ok := manifest.Lookup(content, "/spec/list/0"); ok {
		t.Error("Lookup goes into lists")
	}
	if got := manifest.Without(content, "/spec/none"); len(got) != 1 {
		t.Error(got)
	}
}

func FuzzPointer(f *testing.F) {
	for _, s := range []string{"", "/", "/spec/mode", "/metadata/labels/app.kubernetes.io~1name", "/a~01", "spec", "/~", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_ = manifest.Pointer(s).Tokens() // never panics, whatever it holds
		p, err := manifest.ParsePointer(s)
		if err != nil {
			return
		}
		var again manifest.Pointer
		for _, token := range p.Tokens() {
			again = again.Child(token)
		}
		if again != p {
			t.Fatalf("%q became %q", p, again)
		}
	})
}

func TestSet(t *testing.T) {
	var set manifest.Set
	a := newObject(t, nil).At(manifest.Origin{Path: "a.yaml", Line: 1})
	if err := set.Add(a); err != nil {
		t.Fatal(err)
	}
	// Row B-36: both places are named.
	err := set.Add(a.At(manifest.Origin{Path: "b.yaml", Line: 7}))
	if err == nil || err.Error() != "b.yaml:7: A/a is declared a second time, first at a.yaml:1; keep one of them" {
		t.Error(err)
	}
	if got, ok := set.Get(a.ID()); !ok || got != a || set.Len() != 1 {
		t.Error(got, set.Len())
	}
}

func TestErrorsAreSortedAndBounded(t *testing.T) {
	var problems []*manifest.Error
	for i := range 30 {
		problems = append(problems, &manifest.Error{Path: "b", Line: 30 - i, Msg: "m"})
	}
	problems = append(problems, &manifest.Error{Path: "a", Msg: "m", Hint: "h"})
	err := manifest.Join(problems)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 21 || lines[0] != "a: m; h" || lines[1] != "b:1: m" || lines[20] != "and 11 more problems" {
		t.Errorf("%q", lines)
	}
	if manifest.Join(nil) != nil {
		t.Error("no problems are an error")
	}
}
