package opa_test

import (
	"strings"
	"testing"
)

// The cases hold what conftest documents of rule names, result shapes,
// exceptions, data and namespaces, in both ages of the syntax.
func TestConftestConformance(t *testing.T) {
	for _, tt := range []struct {
		name, policy, want string
		namespaces         []string
	}{
		{name: "three kinds of rules", policy: `
package main
deny contains "no" if input.kind == "File"
violation contains {"msg": "bad"} if input.kind == "File"
warn contains "careful" if input.kind == "File"
deny contains "other kind" if input.kind == "Directory"`,
			want: "deny main.deny: no\ndeny main.violation: bad\nwarn main.warn: careful\n"},
		{name: "suffixes, and names that only look alike", policy: `
package main
deny_a contains "a"
deny_a_b contains "b"
violation_1 contains {"msg": "c"}
warn_x contains "d"
denyx contains "no rule"
warning contains "no rule"
deny_ contains "no rule"`,
			want: "deny main.deny_a: a\ndeny main.deny_a_b: b\ndeny main.violation_1: c\nwarn main.warn_x: d\n"},
		{name: "members beside msg", policy: `
package main
violation contains {"msg": m, "details": {"mode": input.spec.mode}, "severity": 3} if m := "mode"
warn contains {"msg": "plain"}`,
			want: "deny main.violation: mode map[details:map[mode:0644] severity:3]\nwarn main.warn: plain\n"},
		{name: "one rule of many bodies gives a sorted set", policy: `
package main
deny contains "zebra"
deny contains "apple"
deny contains {"msg": "object"}`,
			want: "deny main.deny: apple\ndeny main.deny: zebra\ndeny main.deny: object\n"},
		{name: "complete rules with sets and lists", policy: `
package main
deny := {"set"}
warn := ["second", "first"]
default violation := []
violation := ["x"] if input.kind == "Directory"`,
			want: "deny main.deny: set\nwarn main.warn: second\nwarn main.warn: first\n"},
		{name: "Rego v0", policy: `
package main
deny[msg] {
  input.kind == "File"
  msg = sprintf("%v of %s", [input.spec.count, input.metadata.name])
}
warn_old[{"msg": msg}] { all([true]); msg := "old" }`,
			want: "deny main.deny: 3 of motd\nwarn main.warn_old: old\n"},
		{name: "Rego v0 with deprecated built-ins and no bodies", policy: `
package main
ok = any([true])
deny = ["no"] { ok }`,
			want: "deny main.deny: no\n"},
		{name: "Rego v0 with future keywords and with rego.v1", policy: `
-- a.rego --
package main
import future.keywords
deny contains "a" if { "x" in ["x"] }
old[x] { x := 1 }
-- b.rego --
package main
import rego.v1
deny contains "b" if true`,
			want: "deny main.deny: a\ndeny main.deny: b\n"},
		{name: "both ages in one package", policy: `
-- new.rego --
package main
deny contains "new" if helper
-- old.rego --
package main
helper { input.kind == "File" }
deny["old"] { helper }`,
			want: "deny main.deny: new\ndeny main.deny: old\n"},
		{name: "an exception takes out the named rules and no others", policy: `
package main
deny_root contains "root"
violation_root contains {"msg": "v"}
warn_root contains "w"
deny_other contains "other"
exception contains rules if {
  input.metadata.name == "motd"
  rules := ["root"]
}`,
			want: "deny main.deny_other: other\n"},
		{name: "an exception that does not match", policy: `
package main
deny_root contains "root"
exception contains ["root"] if input.metadata.name == "issue"`,
			want: "deny main.deny_root: root\n"},
		{name: "the empty exception means rules without a suffix", policy: `
package main
deny contains "plain"
deny_root contains "root"
exception contains [""]`,
			want: "deny main.deny_root: root\n"},
		{name: "the bare name as exception, as v0", policy: `
package main
deny["plain"] { true }
warn["w"] { true }
exception[["deny"]] { true }`,
			want: "warn main.warn: w\n"},
		{name: "an exception counts in its own package", policy: `
-- a.rego --
package a
deny_x contains "a"
exception contains ["x"]
-- b.rego --
package b
deny_x contains "b"`,
			want: "deny b.deny_x: b\n"},
		{name: "data files merge at the root, whatever their directory", policy: `
-- main.rego --
package main
deny contains msg if { some p in data.ports; msg := sprintf("%d %v", [p, data.team.a]) }
warn contains "b" if data.team.b == false
-- deep/er/ports.yaml --
ports: [22, 9007199254740993]
team: {a: 1}
-- team.json --
{"team": {"b": false}}`,
			want: "deny main.deny: 22 1\ndeny main.deny: 9007199254740993 1\nwarn main.warn: b\n"},
		{name: "all packages by default, but not tests", policy: `
-- a.rego --
package a.b
deny contains "a"
-- main.rego --
package main
import data.lib.helper
deny contains "main" if helper
-- lib.rego --
package lib
helper := true
-- t.rego --
package main_test
deny contains "test"
-- main_test.rego --
package main
test_it if deny["main"]`,
			want: "deny a.b.deny: a\ndeny main.deny: main\n"},
		{name: "chosen namespaces", namespaces: []string{"main"}, policy: `
-- a.rego --
package a
deny contains "a"
-- main.rego --
package main
deny contains "main"`,
			want: "deny main.deny: main\n"},
		{name: "package names that need quotes", policy: `
package team["my-host"]
deny contains "no"
exception contains ["x"]`,
			want: "deny team[\"my-host\"].deny: no\n"},
		{name: "helper functions may have such names", policy: `
package main
deny_text(x) := sprintf("no %s", [x])
deny contains deny_text("go")`,
			want: "deny main.deny: no go\n"},
		{name: "print is for tests", policy: `
package main
deny contains "no" if print("seen", input.kind)`,
			want: "deny main.deny: no\n"},
		{name: "metadata of rules", policy: `
# METADATA
# title: Host rules
package main

# METADATA
# title: No files
deny contains {"msg": rego.metadata.rule().title}`,
			want: "deny main.deny: No files\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := judge(t, load(t, tt.policy, tt.namespaces...), file(t, "motd", "0644"))
			if got != tt.want {
				t.Errorf("got:\n%swant:\n%s", got, tt.want)
			}
		})
	}
}

func TestInputIsTheObjectAndNothingElse(t *testing.T) {
	e := load(t, `
package main
deny contains msg if { some k, _ in input; msg := k }`)
	want := "deny main.deny: apiVersion\ndeny main.deny: kind\ndeny main.deny: metadata\ndeny main.deny: spec\n"
	if got := judge(t, e, file(t, "motd", "0644")); got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestRulesAreListed(t *testing.T) {
	objects, changes := load(t, `
-- a.rego --
package main
warn contains "x"
deny contains "x"
-- b.rego --
package gitopsd.change.deletes
deny contains "x"`).Rules()
	if got := strings.Join(objects, " ") + "|" + strings.Join(changes, " "); got != "main.deny main.warn|gitopsd.change.deletes.deny" {
		t.Error(got)
	}
}
