package library_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/policies/library"
	"github.com/gitopsd/gitopsd/policies/opa"
)

func TestNames(t *testing.T) {
	if got := library.Names(); !slices.Equal(got, []string{"host-files"}) {
		t.Errorf("names: %v", got)
	}
	for _, name := range []string{"", ".", "..", "nothing", "host-files/modes.rego", "../library"} {
		if library.Files(name) != nil || library.Tests(name) != nil {
			t.Errorf("%q has files", name)
		}
	}
	files := library.Files("host-files")
	files["host-files/modes.rego"][0] = 'X'
	delete(files, "host-files/paths.rego")
	if again := library.Files("host-files"); again["host-files/modes.rego"][0] == 'X' || again["host-files/paths.rego"] == nil {
		t.Error("callers share the files")
	}
}

// Every set loads, its tests pass and reach every line of it.
func TestSetsPassTheirTests(t *testing.T) {
	for _, name := range library.Names() {
		modules := library.Files(name)
		maps.Copy(modules, library.Tests(name))
		report, err := opa.RunTests(t.Context(), opa.Options{Modules: modules})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range report.Tests {
			if r.Outcome != opa.TestPass {
				t.Errorf("%s:%d %s: %s %s\n%s", r.File, r.Line, r.Name, r.Outcome, r.Message, r.Output)
			}
		}
		for _, c := range report.Coverage {
			if c.Covered != c.Total {
				t.Errorf("%s: lines %v are never evaluated", c.File, c.NotCovered)
			}
		}
	}
}

// Every rule says what it is for and what to do about a finding.
func TestRulesHaveMetadata(t *testing.T) {
	for _, name := range library.Names() {
		for path, text := range library.Files(name) {
			m, err := ast.ParseModuleWithOpts(path, string(text), ast.ParserOptions{ProcessAnnotation: true})
			if err != nil {
				t.Fatal(err)
			}
			described := map[string]bool{}
			for _, a := range m.Annotations {
				if a.Scope == "package" {
					continue
				}
				rule := a.GetTargetPath().String()
				described[rule] = true
				if a.Title == "" || a.Description == "" || a.Custom["remediation"] == nil {
					t.Errorf("%s: %s lacks title, description or custom.remediation", path, rule)
				}
			}
			for _, r := range m.Rules {
				if strings.HasPrefix(string(r.Head.Name), "deny") && !described[r.Ref().GroundPrefix().String()] {
					t.Errorf("%s: %s has no METADATA", path, r.Head.Name)
				}
			}
		}
	}
}

// The documentation lists every rule.
func TestRulesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/policy-input.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range library.Names() {
		e, err := opa.Load(t.Context(), opa.Options{Modules: library.Files(name)})
		if err != nil {
			t.Fatal(err)
		}
		rules, _ := e.Rules()
		for _, r := range rules {
			if _, short, _ := strings.Cut(r, "."); !strings.Contains(string(text), "`"+short+"`") {
				t.Errorf("%s is not in docs/policy-input.md", r)
			}
		}
	}
}

func judge(t *testing.T, e *opa.Engine, kind string, spec map[string]any) []policies.Finding {
	t.Helper()
	o, err := manifest.New(map[string]any{
		"apiVersion": "host.gitopsd.io/v1alpha1", "kind": kind, "metadata": map[string]any{"name": "x"}, "spec": spec,
	}, manifest.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := e.Objects(t.Context(), []*manifest.Object{o})
	if err != nil {
		t.Fatal(err)
	}
	return v[0].Deny
}

// The set as it is used: with data, with an exception, and without data.
func TestHostFilesInTheEngine(t *testing.T) {
	modules := library.Files("host-files")
	modules["own.rego"] = []byte("package host_files\nexception contains [\"world_writable\"] if input.spec.path == \"/srv/drop\"")
	with, err := opa.Load(t.Context(), opa.Options{Modules: modules, Data: map[string][]byte{
		"roots.yaml": []byte("gitopsd: {host: {roots: [/srv]}}"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got := judge(t, with, "File", map[string]any{"path": "/srv/a", "mode": "0644", "content": "hello"}); len(got) != 0 {
		t.Errorf("a good file: %v", got)
	}
	if got := judge(t, with, "Directory", map[string]any{"path": "/srv/drop", "mode": "0777"}); len(got) != 0 {
		t.Errorf("an exempted directory: %v", got)
	}
	got := judge(t, with, "File", map[string]any{"path": "/etc/x", "mode": "4777", "content": "-----BEGIN PRIVATE KEY-----"})
	want := "[host_files.deny_path_outside_roots host_files.deny_plaintext_secret host_files.deny_special_mode_bits host_files.deny_world_writable]"
	if rules := fmt.Sprint(names(got)); rules != want {
		t.Errorf("a bad file: %s", rules)
	}
	without, err := opa.Load(t.Context(), opa.Options{Modules: library.Files("host-files")})
	if err != nil {
		t.Fatal(err)
	}
	got = judge(t, without, "File", map[string]any{"path": "/srv/a"})
	if len(got) != 1 || !strings.Contains(got[0].Msg, "data.gitopsd.host.roots") {
		t.Errorf("without data: %v", got)
	}
}

func names(findings []policies.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, f.Rule)
	}
	return out
}
