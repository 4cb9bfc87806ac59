package opa_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/policies/opa"
)

const tested = `
-- mode.rego --
package main

deny contains "setuid" if {
	startswith(input.spec.mode, "4")
}

warn contains "never asked" if {
	input.spec.nobody
	data.limit > 3
}
-- limits.yaml --
limit: 5
-- mode_test.rego --
package main_test

import data.main

test_setuid if {
	print("mode", "4755", data.limit)
	main.deny["setuid"] with input as {"spec": {"mode": "4755"}}
}

test_fails if {
	main.deny["setuid"] with input as {"spec": {"mode": "0755"}}
}

test_error if 1 / 0 == 1

todo_test_later if false

test_cases[name] if {
	some name, mode in {"plain": "0644", "bits": "4755"}
	count(main.deny) == 0 with input as {"spec": {"mode": mode}}
}
`

func TestRunTests(t *testing.T) {
	modules, data := opa.Split(files(tested))
	report, err := opa.RunTests(t.Context(), opa.Options{Modules: modules, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, r := range report.Tests {
		fmt.Fprintf(&got, "%s:%d %s %s [%s] %s\n", r.File, r.Line, r.Name, r.Outcome, strings.TrimSpace(r.Output), r.Message)
	}
	for _, c := range report.Coverage {
		fmt.Fprintf(&got, "%s %d/%d not %v\n", c.File, c.Covered, c.Total, c.NotCovered)
	}
	want := `mode_test.rego:5 main_test.test_setuid pass [mode 4755 5] 
mode_test.rego:10 main_test.test_fails fail [] 
mode_test.rego:14 main_test.test_error error [] mode_test.rego:14: eval_builtin_error: div: divide by zero
mode_test.rego:16 main_test.todo_test_later skip [] 
mode_test.rego:18 main_test.test_cases fail [] failed cases: bits
mode.rego 2/5 not [7 8 9]
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", got.String(), want)
	}
	if report.Passed() || report.Percent() != 40 {
		t.Errorf("passed %v, %v %%", report.Passed(), report.Percent())
	}
}

func TestRunTestsThatCannotRun(t *testing.T) {
	_, err := opa.RunTests(t.Context(), opa.Options{Modules: files("package main\ndeny contains \"x\"")})
	if wantError(t, err, "1 Rego files"); !errors.Is(err, opa.ErrNoTests) {
		t.Errorf("got %v", err)
	}
	_, err = opa.RunTests(t.Context(), opa.Options{Modules: files("-- a_test.rego --\npackage main\ntest_x if {\n  time.now_ns() > 0\n}")})
	wantError(t, err, "a_test.rego:3", "time.now_ns", "unless the operator allows it")
	_, err = opa.RunTests(t.Context(), opa.Options{Modules: files("-- a_test.rego --\npackage main\ntest_x if {")})
	wantError(t, err, "a_test.rego:")
}
