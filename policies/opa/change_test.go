package opa_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/policies/opa"
)

const canary = "canary-7f3a91-hunter2"

// secretChange holds the canary wherever a change can hold a value.
func secretChange(t testing.TB) policies.Change {
	t.Helper()
	sealer, err := manifest.NewSealer([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	secret := sealer.Seal(canary)
	with := func(o *manifest.Object) *manifest.Object {
		c := manifest.With(o.Content(), "/spec/content", secret)
		c = manifest.With(c, "/spec/list", []any{map[string]any{"deep": secret}})
		c, _ = manifest.Clone(c).(map[string]any)
		out, err := manifest.New(c, o.Origin())
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	signer := "SHA256:abc"
	return policies.Change{
		Application: "web",
		Change: &plan.Change{
			Key:    plan.Key{Target: "host", ID: file(t, "motd", "0644").ID()},
			Action: plan.Update, Cause: plan.Both,
			Desired: with(file(t, "motd", "0644")), Live: with(file(t, "motd", "0600")),
			Fields: []plan.FieldChange{
				{Path: "/spec/content", Op: plan.FieldReplace, Before: secret, After: []any{secret}, Cause: plan.Intended},
				{Path: "/spec/mode", Op: plan.FieldReplace, Before: "0600", After: "0644", Cause: plan.Drift},
			},
			Origin: manifest.Origin{Path: "files/motd.yaml", Line: 3},
		},
		Commit: &policies.Commit{
			ID: strings.Repeat("a", 40), Author: "Ada <ada@example.org>", Message: "Open motd",
			When: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Signer: &signer,
		},
		LastApplied: plan.Applied{"/spec/mode": "d1", "/spec/content": "d2"},
	}
}

func deleteChange(t testing.TB) policies.Change {
	t.Helper()
	return policies.Change{
		Application: "web",
		Change: &plan.Change{
			Key:    plan.Key{Target: "host", ID: manifest.ID{Group: "host.gitopsd.io", Kind: "File", Name: "motd"}},
			Action: plan.Delete, Live: file(t, "motd", "0644"),
			Entry: plan.Entry{Origin: manifest.Origin{Path: "files/old.yaml"}},
		},
	}
}

func TestChangeRules(t *testing.T) {
	e := load(t, `
-- change.rego --
package gitopsd.change
deny contains msg if {
  input.version == "v1"
  input.operation == "delete"
  input.desired == null; input.commit == null; input.cause == null; input.lastApplied == null
  msg := sprintf("%s of %s %s from %v", [input.operation, input.key.kind, input.live.spec.path, input.paths])
}
warn contains {"msg": "mode changes", "field": f} if {
  some f in input.fields
  f.path == "/spec/mode"
}
-- authors.rego --
package gitopsd.change.authors
deny contains sprintf("%s may not (%s)", [input.commit.author, input.commit.when]) if input.commit.signer == "SHA256:abc"
exception contains ["x"]
-- main.rego --
package main
deny contains "objects only"`)
	verdicts, err := e.Changes(t.Context(), []policies.Change{
		deleteChange(t), secretChange(t), {Change: &plan.Change{Action: plan.None}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"deny gitopsd.change.deny: delete of File /etc/motd from [\"files/old.yaml\"]\n",
		"deny gitopsd.change.authors.deny: Ada <ada@example.org> may not (2026-01-02T03:04:05Z)\n" +
			"warn gitopsd.change.warn: mode changes map[field:map[after:0644 before:0600 cause:drift op:replace path:/spec/mode]]\n",
		"",
	} {
		if got := show(verdicts[i]); got != want {
			t.Errorf("change %d: got:\n%swant:\n%s", i, got, want)
		}
	}
}

// Rows C-41 and C-42 for changes: an error judges nothing.
func TestC41ChangeErrors(t *testing.T) {
	e := load(t, "package gitopsd.change\ndeny contains \"x\" if 1 / 0 == 1")
	_, err := e.Changes(t.Context(), []policies.Change{deleteChange(t)})
	wantError(t, err, "judge change delete host:host.gitopsd.io/File/motd", "policy.rego:2")
	e = load(t, "package gitopsd.change\ndeny := false")
	_, err = e.Changes(t.Context(), []policies.Change{deleteChange(t)})
	wantError(t, err, "wrong result type")
}

// A secret reaches neither rules about changes nor rules about objects.
func TestSecretsAreMasked(t *testing.T) {
	e := load(t, `
-- change.rego --
package gitopsd.change
deny contains json.marshal(input)
-- main.rego --
package main
deny contains json.marshal(input)`)
	c := secretChange(t)
	changes, err := e.Changes(t.Context(), []policies.Change{c})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := e.Objects(t.Context(), []*manifest.Object{c.Change.Desired})
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(opa.ChangeInput(c))
	if err != nil {
		t.Fatal(err)
	}
	for name, seen := range map[string]string{
		"change": changes[0].Deny[0].Msg, "object": objects[0].Deny[0].Msg, "ChangeInput": string(asJSON),
	} {
		if strings.Contains(seen, canary) {
			t.Errorf("%s: the secret is in the input", name)
		}
		if !strings.Contains(seen, manifest.Mask) {
			t.Errorf("%s: no mask in %s", name, seen)
		}
	}
}

// Row C-46: rules judge the canonical object, no more, no less.
func TestC46InputIsTheCanonicalObject(t *testing.T) {
	e := load(t, "package main\ndeny contains json.marshal(input)")
	o := object(t, `
apiVersion: host.gitopsd.io/v1alpha1
kind: File
metadata: {name: motd, labels: {"a/b": "yes"}}
spec: {path: /etc/motd, mode: "0644", big: 9007199254740993, half: 0.5, none: null, no: [on, "", {}], text: "<é\n>"}`)
	dec := json.NewDecoder(strings.NewReader(strings.TrimPrefix(judge(t, e, o), "deny main.deny: ")))
	dec.UseNumber()
	var content map[string]any
	if err := dec.Decode(&content); err != nil {
		t.Fatal(err)
	}
	seen, err := manifest.New(content, manifest.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	if seen.Hash() != o.Hash() {
		t.Errorf("rules see:\n%s\nwritten is:\n%s", manifest.Canonical(seen.Content()), manifest.Canonical(o.Content()))
	}
}

func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile("../../docs/schema/change-input.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(s *jsonschema.Schema, input map[string]any) error {
	asJSON, err := json.Marshal(input)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(string(asJSON)))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// Every input that is built fits the published schema, and the schema refuses
// an input that lacks, adds or misspells something.
func TestChangeInputFitsTheSchema(t *testing.T) {
	s := schema(t)
	secret, gone := secretChange(t), deleteChange(t)
	rapid.Check(t, func(r *rapid.T) {
		c := policies.Change{
			Application: rapid.StringMatching(`[a-z]{1,9}`).Draw(r, "application"),
			Change: &plan.Change{
				Key:    plan.Key{Target: "host", ID: secret.Change.Desired.ID()},
				Action: rapid.SampledFrom([]plan.Action{plan.Create, plan.Update, plan.Adopt, plan.Delete, plan.Forget}).Draw(r, "action"),
				Cause:  rapid.SampledFrom([]plan.Cause{"", plan.Intended, plan.Drift, plan.Both}).Draw(r, "cause"),
				Fields: rapid.SampledFrom([][]plan.FieldChange{nil, secret.Change.Fields}).Draw(r, "fields"),
			},
			Commit:      rapid.SampledFrom([]*policies.Commit{nil, secret.Commit, {ID: "x"}}).Draw(r, "commit"),
			LastApplied: rapid.SampledFrom([]plan.Applied{nil, {}, secret.LastApplied}).Draw(r, "applied"),
		}
		c.Change.Desired = rapid.SampledFrom([]*manifest.Object{nil, secret.Change.Desired, gone.Change.Live}).Draw(r, "desired")
		c.Change.Live = rapid.SampledFrom([]*manifest.Object{nil, secret.Change.Live}).Draw(r, "live")
		c.Change.Origin.Path = rapid.SampledFrom([]string{"", "a.yaml"}).Draw(r, "path")
		if err := validate(s, opa.ChangeInput(c)); err != nil {
			r.Fatal(err)
		}
	})
	for name, spoil := range map[string]func(map[string]any){
		"missing":   func(in map[string]any) { delete(in, "commit") },
		"extra":     func(in map[string]any) { in["extra"] = 1 },
		"operation": func(in map[string]any) { in["operation"] = "none" },
		"version":   func(in map[string]any) { in["version"] = "v2" },
		"key":       func(in map[string]any) { in["key"] = "host:File/motd" },
		"when":      func(in map[string]any) { in["commit"].(map[string]any)["when"] = "yesterday" },
		"field":     func(in map[string]any) { in["fields"].([]any)[0].(map[string]any)["op"] = "move" },
	} {
		in := opa.ChangeInput(secret)
		spoil(in)
		if validate(s, in) == nil {
			t.Errorf("%s: the schema lets it pass", name)
		}
	}
}

// A signer is null until it was verified, and null is not false: a rule has to ask
// for the type.
func TestSignerIsNullUntilVerified(t *testing.T) {
	e := load(t, `package gitopsd.change

deny contains "unsigned" if not signed

signed if is_string(input.commit.signer)
`)
	verdicts, err := e.Changes(t.Context(), []policies.Change{deleteChange(t), secretChange(t)})
	if err != nil || verdicts[0].Allowed() || !verdicts[1].Allowed() {
		t.Errorf("signed commits: %v, %v", verdicts, err)
	}
}

// The Rego in the documentation loads, and every field it names is in the schema.
func TestDocumentation(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy-input.md")
	if err != nil {
		t.Fatal(err)
	}
	snippets := regexp.MustCompile("(?s)```rego\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(snippets) < 3 {
		t.Fatalf("%d snippets, want at least 3", len(snippets))
	}
	for _, s := range snippets {
		load(t, s[1])
	}
	inputs := regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(inputs) != 1 {
		t.Fatalf("%d example inputs, want 1", len(inputs))
	}
	var in map[string]any
	if err := json.Unmarshal([]byte(inputs[0][1]), &in); err != nil {
		t.Fatal(err)
	}
	if err := validate(schema(t), in); err != nil {
		t.Error(err)
	}
	for field := range opa.ChangeInput(deleteChange(t)) {
		if !strings.Contains(string(text), "`"+field+"`") {
			t.Errorf("field %s is not described", field)
		}
	}
}
