package opa_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies/opa"
)

// Row C-40: what depends on network, environment, clock or chance does not
// compile, neither called nor named as the target or the value of `with`.
func TestC40RestrictedBuiltins(t *testing.T) {
	uses := map[string]string{
		"http.send":              `http.send({"url": "http://127.0.0.1:1", "method": "get"})`,
		"net.lookup_ip_addr":     `net.lookup_ip_addr("localhost")`,
		"json.match_schema":      `json.match_schema({}, {"$ref": "http://127.0.0.1:1"})`,
		"json.verify_schema":     `json.verify_schema({})`,
		"opa.runtime":            `opa.runtime()`,
		"time.now_ns":            `time.now_ns()`,
		"io.jwt.decode_verify":   `io.jwt.decode_verify("", {})`,
		"rand.intn":              `rand.intn("x", 9)`,
		"uuid.rfc4122":           `uuid.rfc4122("x")`,
		"io.jwt.encode_sign":     `io.jwt.encode_sign({}, {}, {})`,
		"io.jwt.encode_sign_raw": `io.jwt.encode_sign_raw("", "", "")`,
		"crypto.x509.parse_and_verify_certificates":              `crypto.x509.parse_and_verify_certificates("")`,
		"crypto.x509.parse_and_verify_certificates_with_options": `crypto.x509.parse_and_verify_certificates_with_options("", {})`,
	}
	for _, name := range opa.Restricted() {
		use, ok := uses[name]
		if !ok {
			t.Errorf("no case for %s", name)
			continue
		}
		for kind, text := range map[string]string{
			"call":   "package main\ndeny contains \"x\" if {\n  y := " + use + "; y\n}",
			"v0":     "package main\ndeny[\"x\"] {\n  y := " + use + "; y\n}",
			"target": "package main\nf(_) := 1\ndeny contains \"x\" if {\n  upper(\"x\") == \"X\" with " + name + " as f\n}",
			"value":  "package main\ndeny contains \"x\" if {\n  upper(\"x\") == \"X\" with upper as " + name + "\n}",
		} {
			err := loadError(t, opa.Options{Modules: map[string][]byte{"policy.rego": []byte(text)}})
			wantError(t, err, "policy.rego:")
			if kind == "call" || kind == "v0" {
				wantError(t, err, name, "unless the operator allows it by name")
			}
		}
	}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		if b.IsNondeterministic() && !slices.Contains(opa.Restricted(), b.Name) {
			t.Errorf("%s is nondeterministic and not in the table", b.Name)
		}
	}
}

func TestC40AllowedByName(t *testing.T) {
	o := opa.Options{
		Modules:       files("package main\ndeny contains \"late\" if time.now_ns() > 0"),
		AllowBuiltins: []string{"time.now_ns"},
	}
	e, err := opa.Load(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := judge(t, e, file(t, "motd", "0644")); got != "deny main.deny: late\n" || !e.Volatile() {
		t.Errorf("got %q, volatile %v", got, e.Volatile())
	}
	o.AllowBuiltins = []string{"time.now_ns", "time.now"}
	wantError(t, loadError(t, o), `"time.now"`, "remove it from the list")
	o.AllowBuiltins = []string{"upper"}
	wantError(t, loadError(t, o), `"upper"`)
}

// Row C-41: an expression that fails is an error about that object, not "no denial".
func TestC41RuntimeErrors(t *testing.T) {
	for name, body := range map[string]string{
		"division":   `input.spec.count / 0 == 1`,
		"conversion": `to_number(input.metadata.name) == 1`,
		"regex":      `regex.match("[", input.metadata.name)`,
		"json":       `json.unmarshal("{")`,
		"base64":     `base64.decode("%") == ""`,
		"in warn":    `1 / 0 == 1`,
	} {
		rule := "deny"
		if name == "in warn" {
			rule = "warn"
		}
		e := load(t, fmt.Sprintf("package main\ndeny contains \"never\" if false\n%s contains \"x\" if {\n  %s\n}", rule, body))
		v, err := e.Objects(t.Context(), []*manifest.Object{file(t, "motd", "0644")})
		wantError(t, err, "host.gitopsd.io/File/motd (files/motd.yaml:3)", "policy.rego:4", "nothing is allowed")
		if v != nil {
			t.Errorf("%s: verdicts came with an error: %v", name, v)
		}
	}
}

// Row C-42: a policy that would judge nothing does not load.
func TestC42NotEffective(t *testing.T) {
	for name, tt := range map[string]struct {
		policy     string
		namespaces []string
		want       string
	}{
		"empty set":            {"", nil, "packages found: none"},
		"package renamed":      {"package mian\ndeny contains \"x\"", []string{"main"}, "namespace main"},
		"one namespace of two": {"package main\ndeny contains \"x\"", []string{"main", "extra"}, "namespace extra"},
		"rule renamed":         {"package main\ndenied contains \"x\"", nil, "no rule named deny"},
		"only tests":           {"package main_test\ndeny contains \"x\"", nil, "packages found: main_test"},
		"only in a test file":  {"-- a_test.rego --\npackage main\ndeny contains \"x\"\n-- b.rego --\npackage main\nwarn contains \"x\"", nil, "a_test.rego:2"},
		"function":             {"package main\ndeny(x) := [x]", nil, "is a function"},
		"v1 partial object":    {"package main\ndeny[msg] if msg := \"x\"", nil, "policy.rego:2"},
		"nested name":          {"package main\ndeny.root contains \"x\"", nil, "makes an object"},
		"reserved package":     {"package gitopsd.changes\ndeny contains \"x\"", nil, "gitopsd.change"},
		"reserved for later":   {"package gitopsd.plan\ndeny contains \"x\"\n", nil, "reserved"},
	} {
		t.Run(name, func(t *testing.T) {
			err := loadError(t, opa.Options{Modules: files(tt.policy), Namespaces: tt.namespaces})
			wantError(t, err, tt.want)
			if !errors.Is(err, opa.ErrNotEffective) {
				t.Errorf("not ErrNotEffective: %v", err)
			}
		})
	}
}

// Row C-42: a value that is no set of messages is an error about that object.
func TestC42WrongResult(t *testing.T) {
	for _, tt := range []struct {
		rule string
		is   error
		want string
	}{
		{`deny := true`, opa.ErrResultType, "main.deny: wrong result type: boolean"},
		{`deny := "text"`, opa.ErrResultType, "string"},
		{`deny := {"msg": "x"}`, opa.ErrResultType, "object"},
		{`deny := 7`, opa.ErrResultType, "number"},
		{`deny := null`, opa.ErrResultType, "null"},
		{`deny contains 7`, opa.ErrResultType, "the set holds a number"},
		{`deny contains ["x"]`, opa.ErrResultType, "the set holds a list"},
		{`deny contains {"message": "x"}`, opa.ErrResultType, "without a string member msg"},
		{`deny contains {"msg": 3}`, opa.ErrResultType, "without a string member msg"},
		{`deny contains ""`, opa.ErrResultType, "empty message"},
		{`warn contains 7`, opa.ErrResultType, "main.warn"},
		{`deny := ["x"] if input.kind == "Directory"`, opa.ErrUndefined, "main.deny: rule is undefined"},
		{`default deny := false`, opa.ErrResultType, "boolean"},
	} {
		e := load(t, "package main\nviolation contains \"x\" if false\n"+tt.rule)
		_, err := e.Objects(t.Context(), []*manifest.Object{file(t, "motd", "0644")})
		wantError(t, err, tt.want, "File/motd")
		if !errors.Is(err, tt.is) {
			t.Errorf("%s: not %q: %v", tt.rule, tt.is, err)
		}
	}
}

// A library judges beside rules of one's own, whatever the namespaces; it does
// not hide that these do nothing (row C-42).
func TestC42LibraryBeside(t *testing.T) {
	library := files("package shipped\n\ndeny_mode contains \"shipped\" if input.spec.mode == \"0777\"")
	own := "package main\n\ndeny contains \"own\"\n-- more.rego --\npackage shipped\n\nexception contains [\"mode\"] if input.metadata.name == \"drop\""
	for _, namespaces := range [][]string{nil, {"main"}, {"main", "shipped"}} {
		e, err := opa.Load(t.Context(), opa.Options{Modules: files(own), Library: library, Namespaces: namespaces})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"motd": "deny main.deny: own\ndeny shipped.deny_mode: shipped\n", "drop": "deny main.deny: own\n"} {
			if got := judge(t, e, file(t, name, "0777")); got != want {
				t.Errorf("namespaces %v, %s:\n%s", namespaces, name, got)
			}
		}
	}
	if _, err := opa.Load(t.Context(), opa.Options{Library: library}); err != nil {
		t.Errorf("alone: %v", err)
	}
	for name, text := range map[string]string{
		"rule renamed": "package main\n\ndenied contains \"x\"", "namespace renamed": "package mian\n\ndeny contains \"x\"", "helpers": "package main\n\nx := 1",
	} {
		err := loadError(t, opa.Options{Modules: files(text), Library: library, Namespaces: []string{"main"}})
		if !errors.Is(err, opa.ErrNotEffective) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Row C-43: a decision that flaps is no decision.
func TestC43Flapping(t *testing.T) {
	e, err := opa.Load(t.Context(), opa.Options{
		Modules:       files(`package main` + "\n" + `deny contains sprintf("%d", [rand.intn("x", 1000000000)])`),
		AllowBuiltins: []string{"rand.intn"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = e.Objects(t.Context(), []*manifest.Object{file(t, "motd", "0644")}); !errors.Is(err, opa.ErrFlapping) {
		t.Errorf("got %v", err)
	}
}

// Row C-39, as far as the engine goes: an evaluation without end is cut off.
func TestC39Timeout(t *testing.T) {
	e, err := opa.Load(t.Context(), opa.Options{
		Modules: files("package main\nn := numbers.range(1, 20000)\ndeny contains \"x\" if { some a in n; some b in n; a * b == -1 }"),
		Timeout: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = e.Objects(t.Context(), []*manifest.Object{file(t, "motd", "0644")})
	if !errors.Is(err, opa.ErrTimeout) || time.Since(start) > 5*time.Second {
		t.Errorf("after %s: %v", time.Since(start), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = e.Objects(ctx, []*manifest.Object{file(t, "motd", "0644")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// Rows C-44 and C-45: loading is a function of the files handed over, and one
// that fails leaves the engine before it as it was.
func TestC45FailedLoadKeepsTheOldEngine(t *testing.T) {
	modules := files("package main\ndeny contains \"old\" if input.kind == \"File\"")
	old, err := opa.Load(t.Context(), opa.Options{Modules: modules})
	if err != nil {
		t.Fatal(err)
	}
	digest := old.Digest()
	for name, tt := range map[string]struct{ policy, want string }{
		"v1 syntax":         {"package main\nimport rego.v1\n\ndeny contains if {", "policy.rego:4"},
		"v0 syntax":         {"package main\n\ndeny[msg] { msg = }", "policy.rego:3"},
		"unsafe variable":   {"package main\ndeny contains msg if input.kind", "policy.rego:2"},
		"type":              {"package main\ndeny contains \"x\" if\n  upper(7)", "policy.rego:3"},
		"conflict":          {"package main\ndeny contains \"x\"\ndeny := 1", "policy.rego:2"},
		"empty file":        {"-- empty.rego --\n", "empty.rego"},
		"two METADATA":      {"-- a.rego --\n# METADATA\n# title: a\npackage main\ndeny contains \"x\"\n-- b.rego --\n# METADATA\n# title: b\npackage main\nwarn contains \"x\"", ".rego:"},
		"broken test":       {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- a_test.rego --\npackage main\ntest_x if {", "a_test.rego:"},
		"broken data":       {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- d/x.yaml --\na: [", "policy data d/x.yaml"},
		"two documents":     {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- x.yaml --\na: 1\n---\nb: 1", "more than one document"},
		"duplicate key":     {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- x.yaml --\na: 1\na: 2", "x.yaml"},
		"data list":         {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- x.json --\n[1]", "want one mapping"},
		"data nothing":      {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- x.yaml --\n# nothing\n", "holds nothing"},
		"data against data": {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- x.yaml --\na: {b: 1}\n-- y.yaml --\na: {b: 2}", "y.yaml: data.a.b already has a value"},
		"data against rule": {"-- a.rego --\npackage main\ndeny contains \"x\"\n-- x.yaml --\nmain: {deny: []}", "a.rego:2"},
	} {
		t.Run(name, func(t *testing.T) {
			m, d := opa.Split(files(tt.policy))
			wantError(t, loadError(t, opa.Options{Modules: m, Data: d}), tt.want)
		})
	}
	modules["policy.rego"][0] = 'X' // the caller may reuse its buffers
	if got := judge(t, old, file(t, "motd", "0644")); got != "deny main.deny: old\n" || old.Digest() != digest {
		t.Errorf("the old engine changed: %q", got)
	}
}

func TestDigestCoversWhatVerdictsDependOn(t *testing.T) {
	base := func() opa.Options {
		return opa.Options{
			Modules: map[string][]byte{"a.rego": []byte("package main\ndeny contains \"x\""), "a_test.rego": []byte("package main_test\n")},
			Data:    map[string][]byte{"d.yaml": []byte("a: 1")},
		}
	}
	digest := func(change func(*opa.Options)) string {
		o := base()
		change(&o)
		e, err := opa.Load(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		return e.Digest()
	}
	same := digest(func(*opa.Options) {})
	seen := map[string]string{same: "base"}
	for name, change := range map[string]func(*opa.Options){
		"module":     func(o *opa.Options) { o.Modules["a.rego"] = []byte("package main\ndeny contains \"y\"") },
		"new module": func(o *opa.Options) { o.Modules["b.rego"] = []byte("package main\nwarn contains \"y\"") },
		"library":    func(o *opa.Options) { o.Library = files("package shipped\ndeny contains \"x\"") },
		"data":       func(o *opa.Options) { o.Data["d.yaml"] = []byte("a: 2") },
		"namespaces": func(o *opa.Options) { o.Namespaces = []string{"main"} },
		"builtins":   func(o *opa.Options) { o.AllowBuiltins = []string{"time.now_ns"} },
	} {
		d := digest(change)
		if other, ok := seen[d]; ok {
			t.Errorf("%s has the digest of %s", name, other)
		}
		seen[d] = name
	}
	for name, change := range map[string]func(*opa.Options){
		"tests":   func(o *opa.Options) { delete(o.Modules, "a_test.rego") },
		"timeout": func(o *opa.Options) { o.Timeout = time.Minute },
		"again":   func(*opa.Options) {},
	} {
		if digest(change) != same {
			t.Errorf("%s changes the digest", name)
		}
	}
}
