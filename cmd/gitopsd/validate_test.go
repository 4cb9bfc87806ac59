package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/api/apitest"
	"github.com/gitopsd/gitopsd/internal/config"
)

func TestValidateGolden(t *testing.T) {
	s := newSession(t, apitest.Sample())
	s.run("validate", "testdata/validate/tree")
	s.run("validate", "testdata/validate/tree/web/good.yaml")
	s.run("validate", "testdata/validate/broken")
	s.run("validate", "testdata/validate/none")
	s.run("validate")
	s.run("validate", "testdata/validate/tree", "--policy", "testdata/validate/policies")
	s.run("validate", "testdata/validate/tree/web/good.yaml", "--policy", "testdata/validate/policies", "--fail-on-warn")
	s.run("validate", "--config", "testdata/validate/gitopsd.yaml")
	s.run("validate", "testdata/validate/tree", "--config", "testdata/validate/gitopsd.yaml")
	s.run("validate", "testdata/validate/tree", "--config", "testdata/validate/gitopsd.yaml", "--source", "rules")
	s.run("validate", "testdata/validate/tree", "--config", "../../internal/config/testdata/broken/unknown-field.yaml")
	s.run("validate", "testdata/validate/tree", "--config", "testdata/validate/gitopsd.yaml", "--var", "a=1")
	s.run("validate", "testdata/validate/tree", "--library", "none")
	s.run("validate", "testdata/validate/tree", "--policy", "testdata/validate/none")
	s.compare("validate")
}

// TestValidateFormats: what other tools read, with hostile text inside.
func TestValidateFormats(t *testing.T) {
	s := newSession(t, apitest.Sample())
	for _, format := range []string{"json", "junit", "sarif", "github"} {
		out, errOut, code := runCLI(t, s.streams, "validate", "testdata/validate/tree", "--config", "testdata/validate/gitopsd.yaml", "-o", format)
		if code != exitError || errOut != "" {
			t.Errorf("%s: exit %d: %s", format, code, errOut)
		}
		valid(t, format, out)
		s.run("validate", "testdata/validate/tree", "--config", "testdata/validate/gitopsd.yaml", "-o", format)
	}
	s.run("validate", "--config", "testdata/validate/gitopsd.yaml", "-o", "github") // a note
	s.run("validate", "--config", "testdata/validate/gitopsd.yaml", "-o", "json")
	s.hide = strings.NewReplacer(`"version": "`+release()+`"`, `"version": "VERSION"`)
	s.compare("formats")
	for line := range strings.Lines(s.text.String()) {
		if strings.HasPrefix(line, "::error::forged") {
			t.Error("a policy message forged a workflow command")
		}
	}
}

func TestParseVariables(t *testing.T) {
	got, err := parseVariables([]string{"n=4", `s="4"`, "t=true", "e=", "x=a=b", "f=1.5"})
	want := map[string]any{"n": int64(4), "s": "4", "t": true, "e": "", "x": "a=b", "f": 1.5}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v, %v", got, err)
	}
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: %#v, want %#v", k, got[k], v)
		}
	}
	if _, err := parseVariables([]string{"x"}); err == nil {
		t.Error("x was taken")
	}
}

// TestInitIsValid: what init writes loads, renders, passes its policy and its test.
func TestInitIsValid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	if out, errOut, code := runCLI(t, streams{}, "init", dir); code != 0 || !strings.Contains(out, "next: gitopsd validate") || !strings.Contains(out, "which stands for the host") {
		t.Fatalf("exit %d: %s%s", code, out, errOut)
	}
	path := filepath.Join(dir, "gitopsd.yaml")
	if _, err := config.LoadPath(path); err != nil {
		t.Error(err)
	}
	out, errOut, code := runCLI(t, streams{}, "validate", filepath.Join(dir, "manifests"), "--config", path)
	if code != 0 || out != "1 object, 0 errors, 0 warnings\n" {
		t.Errorf("validate: exit %d: %s%s", code, out, errOut)
	}
	_, errOut, code = runCLI(t, streams{}, "validate", dir, "--config", path)
	if code != exitError || !strings.Contains(errOut, "error: "+dir+" is not the directory of source site, which is ") ||
		!strings.Contains(errOut, filepath.Join(dir, "manifests")+" --config "+path) {
		t.Errorf("the folder around: exit %d: %s", code, errOut)
	}
	if err := os.Mkdir(filepath.Join(dir, "manifests", "more"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code = runCLI(t, streams{}, "validate", filepath.Join(dir, "manifests", "more"), "--config", path); code != exitError || !strings.Contains(errOut, "is not the directory of source site") {
		t.Errorf("a folder inside: exit %d: %s", code, errOut)
	}
	if out, _, code := runCLI(t, streams{}, "validate", filepath.Join(dir, "gitopsd.yaml"), "--config", path); code != exitError ||
		!strings.Contains(out, "gitopsd.io/Source/site: gitopsd.io/Source configures gitopsd and is no desired state; keep it out of the path of an application [target]") {
		t.Errorf("the configuration: exit %d: %s", code, out)
	}
	if out, errOut, code := runCLI(t, streams{}, "policy", "test", filepath.Join(dir, "policies"), "--min-coverage", "100"); code != 0 {
		t.Errorf("policy test: exit %d: %s%s", code, out, errOut)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "manifests", "greeting.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := runCLI(t, streams{}, "init", dir); code != exitError || !strings.Contains(errOut, "nothing was written") {
		t.Errorf("a second init: exit %d: %s", code, errOut)
	}
	if _, err := os.Stat(filepath.Join(dir, "manifests", "greeting.yaml")); err == nil {
		t.Error("a refused init wrote a file")
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("init changed a file: %v", err)
	}
}

func TestPolicyTestFails(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.rego":      "package main\n\ndeny contains \"x\" if input.x\n\nwarn contains \"y\" if input.y\n",
		"a_test.rego": "package main_test\n\nimport data.main\n\ntest_wrong if {\n\tcount(main.deny) == 1 with input as {}\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _, code := runCLI(t, streams{}, "policy", "test", dir)
	if code != exitError || !strings.Contains(out, "FAIL main_test.test_wrong") || !strings.Contains(out, "0 passed, 1 failed") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if out, _, code := runCLI(t, streams{}, "policy", "test", dir, "-o", "json"); code != exitError || !strings.Contains(out, `"outcome": "fail"`) {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if _, errOut, code := runCLI(t, streams{}, "policy", "test", "testdata/validate/policies"); code != exitError || !strings.Contains(errOut, "hint: write rules named test_*") {
		t.Errorf("no tests: exit %d: %s", code, errOut)
	}
}

func TestDoctor(t *testing.T) {
	dir := t.TempDir()
	socket := apitest.Serve(t, apitest.Sample(), approvers())
	conf := filepath.Join(dir, "gitopsd.yaml")
	source := filepath.Join(dir, "site")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	text := `
apiVersion: gitopsd.io/v1alpha1
kind: Source
metadata: {name: local}
spec: {dir: {path: site}}
---
apiVersion: gitopsd.io/v1alpha1
kind: Source
metadata: {name: remote}
spec: {git: {url: "https://127.0.0.1:1/x.git", branch: main, auth: {bearer: {tokenFrom: {file: token}}}}}
---
apiVersion: gitopsd.io/v1alpha1
kind: Target
metadata: {name: host}
spec: {file: {roots: [/srv/www]}}
---
apiVersion: gitopsd.io/v1alpha1
kind: Application
metadata: {name: web}
spec: {source: local, targets: [{name: host}]}
`
	if err := os.WriteFile(conf, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(conf, 0o666); err != nil {
		t.Fatal(err)
	}
	doctor := func() (string, int) {
		out, errOut, code := runCLI(t, streams{}, "doctor", "--config", conf, "--state-dir", dir, "--socket", socket, "--timeout", "5s")
		return out + errOut, code
	}
	expect := func(out string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(out, line) {
				t.Errorf("no %q in:\n%s", line, out)
			}
		}
	}
	out, code := doctor()
	if code != exitError {
		t.Errorf("exit %d", code)
	}
	expect(out, "OK   configuration "+conf+": 2 sources, 0 policy sets, 1 target, 1 application", "WARN configuration "+conf+": everybody may write it",
		"OK   source local: answers", "FAIL source remote, secret", "WARN target host: root is not available", "WARN state directory "+dir+": is open to others",
		"OK   daemon on "+socket+": version v0.0.0-test, up 1h", "WARN daemon on", "FAIL source rules in the daemon")
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("CANARY"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ = doctor()
	expect(out, "OK   source remote, secret", "is readable for others (mode 0644)", "FAIL source remote: ")
	if strings.Contains(out, "CANARY") {
		t.Error("doctor shows a secret")
	}
	if err := os.WriteFile(conf, []byte("kind: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = doctor()
	expect(out, "FAIL configuration "+conf+": "+conf+":1: ")
}
