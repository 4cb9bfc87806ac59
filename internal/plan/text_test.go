package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// busy returns a plan with something of everything.
func busy(t *testing.T) *Plan {
	w := newWorld()
	var long, longer strings.Builder
	for i := range 60 {
		fmt.Fprintf(&long, "line %d\n", i)
		fmt.Fprintf(&longer, "line %d%s\n", i, strings.Repeat("!", i%2))
	}
	secret := testSealer().Seal
	w.want("change", m{"content": long.String(), "list": []any{"a", int64(1)}, "text": strings.Repeat("x", 200)})
	w.want("secret", m{"token": secret("canary-1"), "tokens": []any{secret("canary-2")}, "plain": secret("canary-3")})
	w.want("drifted", m{"mode": "1", "owner": nil, "ok": true})
	w.want("old", m{"mode": "1"}).want("gone", m{"mode": "1"}).want("renamed", m{"mode": "1"}).want("held", m{"mode": "1"})
	w.applied()
	w.want("change", m{"content": longer.String(), "list": []any{"a", int64(2), m{"k": 1.5}}, "text": strings.Repeat("y", 200)})
	w.want("secret", m{"token": secret("canary-4"), "tokens": []any{secret("canary-5")}, "plain": secret("canary-6")})
	w.there("secret", m{"token": secret("canary-1"), "tokens": []any{"canary-7"}, "plain": "canary-8"})
	w.there("drifted", m{"mode": "2\x1b[2J", "owner": "x", "ok": false}).gone("gone")
	w.drop("old", "gone", "renamed").wantAt("new", path("renamed"), m{"mode": "2"})
	w.want("create", m{"content": "- a\n- b\n", "token": secret("canary-9")}).want("taken", m{"mode": "1"}).there("taken", m{"mode": "1"})
	w.opts.Drift = heal(DriftReport, "/spec/owner")
	w.opts.Foreign = map[Key]string{file("held"): "shop"}
	return w.build(t)
}

func printed(t *testing.T, p *Plan, opts TextOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.Text(&b, opts); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	p := busy(t)
	golden(t, "text", printed(t, p, TextOptions{}))
	golden(t, "text-cut", printed(t, p, TextOptions{MaxLines: 4}))
	golden(t, "text-verbose", printed(t, p, TextOptions{Verbose: true}))
}

func TestJSON(t *testing.T) {
	raw, err := json.MarshalIndent(busy(t), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "json", string(raw)+"\n")
	empty, err := json.Marshal(newWorld().build(t))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "json-empty", string(empty)+"\n")
}

// TestSecretsStayMasked looks for canaries in every form of a plan, also where
// the target answered in plain text (row G-102).
func TestSecretsStayMasked(t *testing.T) {
	p := busy(t)
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	gates, err := json.Marshal(p.Gates)
	if err != nil {
		t.Fatal(err)
	}
	for _, sink := range []string{printed(t, p, TextOptions{Verbose: true}), string(raw), string(gates)} {
		if strings.Contains(sink, "canary") {
			t.Errorf("a secret is in\n%s", sink)
		}
	}
	for i := range p.Changes {
		for _, f := range p.Changes[i].Fields {
			if s := fmt.Sprintf("%v %+v %#v", f.Before, f.After, f.Before); strings.Contains(s, "canary") {
				t.Errorf("%s: %s", f.Path, s)
			}
		}
	}
}

// TestTextIsInert: no value, name or reason brings an escape or a line of its
// own into the text (row F-101).
func TestTextIsInert(t *testing.T) {
	nasty := rapid.SampledFrom([]string{"\x1b[31m", "\x1b]0;t\a", "\r", "\u202e", "\u009b1m", "\x00", "\x7f", "\u2028", "\xff", "é", "a"})
	rapid.Check(t, func(t *rapid.T) {
		text := func(label string) string {
			return strings.Join(rapid.SliceOfN(nasty, 0, 4).Draw(t, label), "")
		}
		k := file("a" + text("name"))
		p := &Plan{
			Gates: []Gate{{Kind: GateKind(text("kind")), Message: text("message"), Changes: []GatedChange{{Key: k, Action: Delete}}}},
			Changes: []Change{{
				Key: k, Action: Update, Blocked: text("reason"), TransferFrom: &k, Entry: Entry{Locator: text("locator")},
				Origin: manifest.Origin{Path: text("origin")},
				Fields: []FieldChange{
					{Path: manifest.Pointer("/" + text("path")), Op: FieldAdd, After: text("after")},
					{Path: "/l", Op: FieldReplace, Before: []any{text("before")}, After: m{text("key"): text("value")}},
					{Path: "/m", Op: FieldReplace, Before: text("old") + "\nx\ny", After: text("new") + "\nx\nz"},
				},
			}},
		}
		for _, verbose := range []bool{false, true} {
			var b bytes.Buffer
			if err := p.Text(&b, TextOptions{Verbose: verbose}); err != nil {
				t.Fatal(err)
			}
			for _, r := range b.String() {
				if r != '\n' && !strconv.IsPrint(r) {
					t.Fatalf("%q is in the text:\n%q", r, b.String())
				}
			}
			if n := strings.Count(b.String(), "\n"); n != strings.Count(inert(t, p, verbose), "\n") {
				t.Fatalf("a value brought lines of its own:\n%s", b.String())
			}
		}
	})
}

// inert is the text of the same plan with nothing nasty in it.
func inert(t *rapid.T, p *Plan, verbose bool) string {
	c := p.Changes[0]
	if c.Blocked != "" {
		c.Blocked = "r"
	}
	c.Fields = slices.Clone(c.Fields)
	old, _, _ := strings.Cut(c.Fields[2].Before.(string), "\n")
	now, _, _ := strings.Cut(c.Fields[2].After.(string), "\n")
	c.Fields[2].Before, c.Fields[2].After = "old\nx\ny", "old\nx\nz"
	if old != now {
		c.Fields[2].After = "new\nx\nz"
	}
	var b bytes.Buffer
	if err := (&Plan{Changes: []Change{c}, Gates: p.Gates}).Text(&b, TextOptions{Verbose: verbose}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestLineDiff: what a diff says, done to the old text, gives the new one.
func TestLineDiff(t *testing.T) {
	line := rapid.SampledFrom([]string{"a", "b", "c", ""})
	rapid.Check(t, func(t *rapid.T) {
		a := strings.Join(rapid.SliceOfN(line, 0, 30).Draw(t, "a"), "\n")
		b := strings.Join(rapid.SliceOfN(line, 0, 30).Draw(t, "b"), "\n")
		got, old, at := []string{}, lines(a), 0
		for _, l := range lineDiff(a, b) {
			switch l[0] {
			case '@':
				var ol, on, nl, nn int
				if _, err := fmt.Sscanf(l, "@@ -%d,%d +%d,%d @@", &ol, &on, &nl, &nn); err != nil {
					t.Fatal(err)
				}
				for ; at < ol-1; at++ {
					got = append(got, old[at])
				}
				if nl != len(got)+1 {
					t.Fatalf("%q begins at new line %d, want %d", l, nl, len(got)+1)
				}
			case ' ', '-':
				if old[at] != l[1:] {
					t.Fatalf("%q is not old line %d, %q", l, at+1, old[at])
				}
				if l[0] == ' ' {
					got = append(got, old[at])
				}
				at++
			case '+':
				got = append(got, l[1:])
			}
		}
		got = append(got, old[at:]...)
		if !slices.Equal(got, lines(b)) {
			t.Fatalf("got %q, want %q", got, lines(b))
		}
	})
}

func TestLineDiffOfLargeTexts(t *testing.T) {
	a, b := strings.Repeat("a\n", 5000), strings.Repeat("b\n", 5000)
	if n := len(lineDiff(a+"same\n"+a, b+"same\n"+b)); n != 20003 {
		t.Errorf("%d lines: beyond the bound the middle is shown as a whole", n)
	}
}
