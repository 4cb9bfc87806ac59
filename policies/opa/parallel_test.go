package opa_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/policies/opa"
)

// Verdict i is about object i, and many objects give the same answers each time.
func TestObjectsInParallel(t *testing.T) {
	e := load(t, `
-- main.rego --
package main
deny contains msg if { some i, _ in data.letters; msg := sprintf("%s %s", [i, input.metadata.name]) }
warn contains "odd" if endswith(input.metadata.name, "1")
-- letters.yaml --
letters: {c: {x: 1}, a: {x: 2}, b: {x: 3}}`)
	objects := make([]*manifest.Object, 200)
	for i := range objects {
		objects[i] = file(t, fmt.Sprintf("o%d", i), "0644")
	}
	for range 3 {
		verdicts, err := e.Objects(t.Context(), objects)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range verdicts {
			name := objects[i].ID().Name
			want := fmt.Sprintf("deny main.deny: a %[1]s\ndeny main.deny: b %[1]s\ndeny main.deny: c %[1]s\n", name)
			if strings.HasSuffix(name, "1") {
				want += "warn main.warn: odd\n"
			}
			if got := show(v); got != want {
				t.Fatalf("object %d: got:\n%s", i, got)
			}
		}
	}
	if e.ObjectsJudged() != 600 {
		t.Errorf("%d objects judged, want 600", e.ObjectsJudged())
	}
}

// The first failing object is named, in every run.
func TestErrorsAreStable(t *testing.T) {
	e := load(t, "package main\ndeny contains \"x\" if 1 / (to_number(trim_prefix(input.metadata.name, \"o\")) % 7 - 3) == 2")
	objects := make([]*manifest.Object, 100)
	for i := range objects {
		objects[i] = file(t, fmt.Sprintf("o%d", i+4), "0644")
	}
	for range 20 {
		_, err := e.Objects(t.Context(), objects)
		wantError(t, err, "File/o10 ")
	}
}

// A panic while judging is an error, not the end of the process.
func TestPanicIsAnError(t *testing.T) {
	e := load(t, "package main\ndeny contains \"x\" if false")
	v, err := e.Objects(t.Context(), []*manifest.Object{file(t, "motd", "0644"), nil})
	if wantError(t, err, "panicked", "nothing is allowed"); v != nil {
		t.Errorf("verdicts came with an error: %v", v)
	}
}

func TestNothingToJudge(t *testing.T) {
	e := load(t, "package gitopsd.change\ndeny contains \"x\"")
	v, err := e.Objects(t.Context(), []*manifest.Object{file(t, "motd", "0644")})
	if err != nil || len(v) != 1 || !v[0].Allowed() || e.ObjectsJudged() != 0 {
		t.Errorf("objects without rules: %v, %v", v, err)
	}
	e = load(t, "package main\ndeny contains \"x\"")
	if v, err = e.Changes(t.Context(), []policies.Change{deleteChange(t)}); err != nil || !v[0].Allowed() {
		t.Errorf("changes without rules: %v, %v", v, err)
	}
	if v, err = e.Objects(t.Context(), nil); err != nil || len(v) != 0 {
		t.Errorf("no objects: %v, %v", v, err)
	}
}

// tenRules are of the kinds that real sets have: a look at one field, a walk
// over the object, a pattern, data.
const tenRules = `
package main
deny_mode contains "world-writable" if endswith(input.spec.mode, "7")
deny_path contains msg if { not startswith(input.spec.path, "/etc/"); msg := sprintf("%s is outside", [input.spec.path]) }
deny_owner contains "owner" if input.spec.owner == "nobody"
deny_name contains "name" if not regex.match("^[a-z0-9.-]+$", input.metadata.name)
deny_kind contains "kind" if not input.kind in data.kinds
deny_key contains "key" if contains(input.spec.content, "PRIVATE KEY")
deny_line contains msg if { some i, line in split(input.spec.content, "\n"); count(line) > 200; msg := sprintf("line %d", [i]) }
deny_deep contains "null" if { walk(input, [_, v]); v == null }
violation_label contains {"msg": "team", "team": input.metadata.labels.team} if not input.metadata.labels.team in data.teams
warn_group contains "root group" if input.spec.group == "root"
`

func BenchmarkObjects(b *testing.B) {
	modules := files(tenRules)
	data := map[string][]byte{"data.yaml": []byte("kinds: [File, Directory]\nteams: [web, db]\n")}
	for _, n := range []int{400, 4000} {
		objects := make([]*manifest.Object, n)
		for i := range objects {
			objects[i] = benchObject(b, i, "v1")
		}
		engine := func() *opa.Engine {
			e, err := opa.Load(b.Context(), opa.Options{Modules: modules, Data: data})
			if err != nil {
				b.Fatal(err)
			}
			return e
		}
		run := func(p policies.Policy) {
			if _, err := p.Objects(b.Context(), objects); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("%d/cold", n), func(b *testing.B) {
			for b.Loop() {
				run(policies.Cached(engine(), n))
			}
		})
		b.Run(fmt.Sprintf("%d/warm", n), func(b *testing.B) {
			p := policies.Cached(engine(), n)
			run(p)
			for b.Loop() {
				run(p)
			}
		})
		b.Run(fmt.Sprintf("%d/one-changed", n), func(b *testing.B) {
			p := policies.Cached(engine(), n+1)
			run(p)
			for i := 0; b.Loop(); i++ {
				objects[n/2] = benchObject(b, n/2, fmt.Sprintf("v%d", i))
				run(p)
			}
		})
	}
}

func benchObject(b *testing.B, i int, version string) *manifest.Object {
	o, err := manifest.New(map[string]any{
		"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "File",
		"metadata": map[string]any{"name": fmt.Sprintf("file-%d", i), "labels": map[string]any{"team": "web"}},
		"spec": map[string]any{
			"path": fmt.Sprintf("/etc/app/file-%d.conf", i), "mode": "0644", "owner": "root", "group": "root",
			"content": "version=" + version + "\n" + strings.Repeat("listen = 0.0.0.0:8080 # the port\n", 20),
		},
	}, manifest.Origin{})
	if err != nil {
		b.Fatal(err)
	}
	return o
}
