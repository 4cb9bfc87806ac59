package opa_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/policies/opa"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files makes one module "policy.rego" of a text, or several of "-- path --" sections.
func files(text string) map[string][]byte {
	out := map[string][]byte{}
	path := "policy.rego"
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok {
			path = strings.TrimSuffix(name, " --")
			out[path] = nil
			continue
		}
		if path != "policy.rego" || strings.TrimSpace(line) != "" || len(out) > 0 {
			out[path] = append(out[path], line...)
		}
	}
	return out
}

func load(t testing.TB, text string, namespaces ...string) *opa.Engine {
	t.Helper()
	modules, data := opa.Split(files(text))
	e, err := opa.Load(t.Context(), opa.Options{Modules: modules, Data: data, Namespaces: namespaces})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func loadError(t testing.TB, o opa.Options) error {
	t.Helper()
	e, err := opa.Load(t.Context(), o)
	if err == nil {
		t.Fatalf("the policy loaded: %v", e)
	}
	if e != nil {
		t.Fatal("an engine came with an error")
	}
	return err
}

func object(t testing.TB, text string) *manifest.Object {
	t.Helper()
	var content map[string]any
	if err := yaml.Unmarshal([]byte(text), &content); err != nil {
		t.Fatal(err)
	}
	o, err := manifest.New(content, manifest.Origin{Path: "files/motd.yaml", Line: 3})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func file(t testing.TB, name, mode string) *manifest.Object {
	t.Helper()
	return object(t, fmt.Sprintf(`{apiVersion: host.gitopsd.io/v1alpha1, kind: File,
metadata: {name: %s}, spec: {path: /etc/%s, mode: %q, count: 3}}`, name, name, mode))
}

// judge prints the verdict on one object: one line a finding.
func judge(t testing.TB, p policies.Policy, o *manifest.Object) string {
	t.Helper()
	verdicts, err := p.Objects(context.Background(), []*manifest.Object{o})
	if err != nil {
		t.Fatal(err)
	}
	return show(verdicts[0])
}

func show(v policies.Verdict) string {
	var b strings.Builder
	line := func(kind string, findings []policies.Finding) {
		for _, f := range findings {
			fmt.Fprintf(&b, "%s %s: %s", kind, f.Rule, f.Msg)
			if f.Details != nil {
				fmt.Fprintf(&b, " %v", f.Details)
			}
			b.WriteByte('\n')
		}
	}
	line("deny", v.Deny)
	line("warn", v.Warn)
	return b.String()
}

func wantError(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q:\n%v", part, err)
		}
	}
}
