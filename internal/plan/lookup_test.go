package plan

import (
	"reflect"
	"slices"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// TestLookupsFromScope: without lookups by locator the scope stands in for them.
func TestLookupsFromScope(t *testing.T) {
	for name, set := range map[string]func(*world){
		"rename": func(w *world) { w.want("a", specN(1)).applied().drop("a").wantAt("z", path("a"), specN(2)) },
		"same":   func(w *world) { w.wantAt("a", "/srv/x", specN(1)).wantAt("b", "/srv/x", specN(1)) },
		"plain":  func(w *world) { w.want("a", specN(1)).want("b", specN(1)).applied().drop("a") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			set(w)
			in := w.input()
			in.ByLocator, in.DesiredAt = nil, nil
			p, err := Build(in, w.keys(), w.options())
			if err != nil {
				t.Fatal(err)
			}
			if want := w.build(t); !reflect.DeepEqual(p, want) {
				t.Errorf("got\n%s\nwant\n%s", story(t, p), story(t, want))
			}
		})
	}
}

// TestScopeCloses: asked for one side of a hand-over, Build looks at both (row D-55).
func TestScopeCloses(t *testing.T) {
	for _, asked := range []string{"a", "z"} {
		w := newWorld().want("a", specN(1)).applied().drop("a").wantAt("z", path("a"), specN(1))
		p, err := Build(w.input(), []Key{file(asked)}, w.options())
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Changes) != 1 || p.Changes[0].TransferFrom == nil {
			t.Errorf("asked for %s:\n%s", asked, story(t, p))
		}
	}
}

func TestFields(t *testing.T) {
	d := Desired{Object: object(file("a"), m{"mode": "1", "size": m{"min": 1}})}
	e := Entry{Applied: Applied{"/spec/mode": "x", "/spec/old": "x"}, Writing: Applied{"/spec/new": "x"}}
	want := []manifest.Pointer{"/spec/mode", "/spec/new", "/spec/old", "/spec/size/min"}
	if got := Fields(&d, &e); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Fields(nil, nil); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
}

func TestParseKey(t *testing.T) {
	k := file("a")
	if got, err := ParseKey(k.String()); err != nil || got != k {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := ParseKey("nonsense"); err == nil {
		t.Error("want an error")
	}
}

// TestReplacedFields: a mapping that becomes a value, and a value that becomes
// a mapping, are each one difference.
func TestReplacedFields(t *testing.T) {
	for name, c := range map[string]struct {
		was, now m
		want     []manifest.Pointer
	}{
		"to a value":   {m{"x": m{"a": "1", "b": "2"}}, m{"x": "1"}, []manifest.Pointer{"/spec/x"}},
		"to a mapping": {m{"x": "1"}, m{"x": m{"a": "1"}}, []manifest.Pointer{"/spec/x/a"}},
		"to empty":     {m{"x": m{"a": "1"}}, m{"x": m{}}, []manifest.Pointer{"/spec/x"}},
		"gone":         {m{"x": m{"a": "1", "b": "2"}}, m{"x": m{"a": "1"}}, []manifest.Pointer{"/spec/x/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld().want("a", c.was).applied().want("a", c.now)
			p := w.build(t)
			var got []manifest.Pointer
			for _, f := range p.Changes[0].Fields {
				got = append(got, f.Path)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			w.apply(p)
			if p := w.build(t); len(p.Changes) > 0 {
				t.Errorf("not converged:\n%s", story(t, p))
			}
		})
	}
}

// TestContentlessAnswer: present without content is no answer (row D-52).
func TestContentlessAnswer(t *testing.T) {
	w := newWorld().want("a", specN(1))
	in := w.input()
	in.Observed = func(Key) Observed { return Observed{Presence: Present} }
	p, err := Build(in, w.keys(), w.options())
	if err != nil || p.Changes[0].Action != None || p.Changes[0].Blocked == "" {
		t.Errorf("%v\n%s", err, story(t, p))
	}
}
