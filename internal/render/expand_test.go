package render_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/render"
)

func TestExpandContents(t *testing.T) {
	f := texts("conf/site.conf", "listen 80\r\n", "conf/bin", "\x00\x01", "conf/latin1", "caf\xe9", "conf/empty", "", "top.tmpl", "{{ .name | upper }}={{ .port }}\n",
		"other/app/x", "x", "app/local", "here")
	vars := map[string]any{"name": "web", "port": 8080, "tls": true, "ratio": 1.5, "hosts": []any{"a", "b"}, "map": map[string]any{"k": "v", "n": []any{1, 2}}}
	for _, c := range []struct{ spec, want string }{
		{"content: as it is", `"content":"as it is"`},
		{"contentBase64: AAE=", `"contentBase64":"AAE="`},
		{"contentFrom: {file: ../conf/site.conf}", `"content":"listen 80\u000d\n"`},
		{"contentFrom: {file: ../conf/bin}", `"contentBase64":"AAE="`},
		{"contentFrom: {file: ../conf/latin1}", `"contentBase64":"Y2Fm6Q=="`},
		{"contentFrom: {file: ../conf/empty}", `"content":""`},
		{"contentFrom: {file: ./local}", `"content":"here"`},
		{"contentFrom: {file: ../app/../other/app/x}", `"content":"x"`},
		{"contentFrom: {template: ../top.tmpl}", `"content":"WEB=8080\n"`},
		{"contentFrom: {inlineTemplate: ''}", `"content":""`},
		{"contentFrom: {inlineTemplate: 'no actions'}", `"content":"no actions"`},
		{`contentFrom: {inlineTemplate: '{{ .name | quote }} {{ quote .tls }} {{ "A" | lower }} {{ join "," .hosts }} {{ .ratio }}'}`, `"content":"\"web\" \"true\" a a,b 1.5"`},
		{`contentFrom: {inlineTemplate: "{{ indent 2 \"a\\nb\" }}"}`, `"content":"  a\n  b"`},
		{`contentFrom: {inlineTemplate: '{{ range $i, $h := .hosts }}{{ $i }}{{ $h }};{{ else }}none{{ end }}'}`, `"content":"0a;1b;"`},
		{`contentFrom: {inlineTemplate: '{{ range .hosts }}{{ if eq . "b" }}{{ break }}{{ end }}{{ . }}{{ end }}'}`, `"content":"a"`},
		{`contentFrom: {inlineTemplate: '{{ if and .tls (gt .port 1000) }}{{ len .hosts }}{{ end }}{{ with .map }}{{ .k }}{{ index .n 1 }}{{ end }}{{ index .map "k" }}'}`, `"content":"2v2v"`},
		{`contentFrom: {inlineTemplate: '{{ $x := .port }}{{ $x }}{{- /* c */ -}} {{ or .tls false }}{{ not .tls }}'}`, `"content":"8080truefalse"`},
		// Row B-38: what is no template stays text.
		{"contentFrom: {file: ../top.tmpl}", `"content":"{{ .name | upper }}={{ .port }}\n"`},
		{"content: '${HOME} {{ .name }}'", `"content":"${HOME} {{ .name }}"`},
	} {
		s, _ := mustRender(t, tree("r", f.with("app/f.yaml", hostFile("f", c.spec))), render.Spec{Path: "app", Variables: vars}, nil)
		want := "host.gitopsd.io/File/f (app/f.yaml:1) {" + c.want + ",\"path\":\"/etc/f\"}\n"
		if got := show(s); got != want {
			t.Errorf("%s\n got %swant %s", c.spec, got, want)
		}
	}
	// Other kinds are left alone, whatever their fields are called.
	s, _ := mustRender(t, tree("r", texts("a.yaml", object("a", "spec: {contentFrom: {file: x}}\n"))), render.Spec{}, nil)
	if got := show(s); got != "A/a (a.yaml:1) {\"contentFrom\":{\"file\":\"x\"}}\n" {
		t.Error(got)
	}
}

func TestExpandRefuses(t *testing.T) {
	t.Setenv("GITOPSD_CANARY", "canary-4711")
	f := texts("conf/bad.tmpl", "ok\n{{ .name }}\n{{ .missing }}\n", "conf/syntax.tmpl", "a\n{{ if }}\n", "conf/bin.tmpl", "\x00{{", "conf/dir/x", "", "secret", "canary-4711",
		"conf/long", strings.Repeat("x", 2<<20))
	// The line of the first field behind path, unless it is another that is wrong.
	elsewhere := map[string]int{"mode: x": 5, "content: x\n  contentBase64: eA==": 8, "content: x\n  contentFrom: {file: ../secret}": 8}
	const origin = "; write one of {file: PATH}, {template: PATH} and {inlineTemplate: TEXT}"
	const funcs = " is not available; there are quote, lower, upper, join, indent, index, len, comparisons, and, or, not; repair the template"
	for _, c := range []struct{ spec, want string }{
		{"mode: x", "host.gitopsd.io/File/f has no content; set one of content, contentBase64 and contentFrom under spec"},
		{"contnet: x", "host.gitopsd.io/File/f: spec.contnet: unknown field; did you mean content, contentBase64 or contentFrom?"},
		{"Content: x", "host.gitopsd.io/File/f: spec.Content: unknown field; did you mean content, contentBase64 or contentFrom?"},
		{"content: x\n  contentBase64: eA==", "host.gitopsd.io/File/f sets 2 of content, contentBase64 and contentFrom; set exactly one of them under spec"},
		{"content: x\n  contentFrom: {file: ../secret}", "host.gitopsd.io/File/f sets 2 of content, contentBase64 and contentFrom; set exactly one of them under spec"},
		{"contentFrom: x", "spec.contentFrom names not exactly one origin" + origin},
		{"contentFrom:", "spec.contentFrom names not exactly one origin" + origin},
		{"contentFrom: {}", "spec.contentFrom names not exactly one origin" + origin},
		{"contentFrom: {file: a, template: b}", "spec.contentFrom names not exactly one origin" + origin},
		{"contentFrom: {url: 'http://x'}", `spec.contentFrom has the unknown field "url"` + origin},
		{"contentFrom: {file: 1}", "spec.contentFrom.file is not a text" + origin},
		{"contentFrom: {file: ''}", "spec.contentFrom.file is not a text" + origin},
		{"contentFrom: {file: ../../secret}", `the path "../../secret" leads out of the source; refer to files of the same source only`},
		{"contentFrom: {file: ../../../etc/passwd}", `the path "../../../etc/passwd" leads out of the source; refer to files of the same source only`},
		{"contentFrom: {file: /etc/passwd}", `the path "/etc/passwd" is not relative to the manifest; write it relative to the directory of the manifest, with slashes`},
		{`contentFrom: {file: '..\secret'}`, `the path "..\\secret" is not relative to the manifest; write it relative to the directory of the manifest, with slashes`},
		{"contentFrom: {file: ../conf/dir}", "conf/dir is a directory; refer to a file"},
		{"contentFrom: {file: ../conf/none}", "the file it refers to, conf/none, does not exist at revision r; check the path; it is relative to the directory of the manifest"},
		{"contentFrom: {file: ../conf/long}", "conf/long: the file has 2097152 bytes, more than the limit of 1048576; shorten it: an object with its content has at most that much"},
		{"contentFrom: {file: ..}", `the path ".." leads out of the source; refer to files of the same source only`},
		{"contentFrom: {template: ../conf/bad.tmpl}", `conf/bad.tmpl:3:3: .missing has no value; declare the variable in the Application`},
		{"contentFrom: {template: ../conf/syntax.tmpl}", "conf/syntax.tmpl:2: missing value for if; repair the template"},
		{"contentFrom: {template: ../conf/bin.tmpl}", "conf/bin.tmpl: is not UTF-8 text; repair the template"},
		{"contentFrom: {inlineTemplate: '{{ .map.none }}'}", `inlineTemplate:1:7: .map.none has no value; declare the variable in the Application`},
		{`contentFrom: {inlineTemplate: '{{ index .map "none" }}'}`, `inlineTemplate:1:3: executing "inlineTemplate" at <index .map "none">: error calling index: there is no entry "none"; repair the template`},
		// Row B-38: no way to the environment, the clock, files or the host.
		{`contentFrom: {inlineTemplate: '{{ env "GITOPSD_CANARY" }}'}`, `inlineTemplate:1: function "env" not defined; repair the template`},
		{`contentFrom: {inlineTemplate: '{{ now }}'}`, `inlineTemplate:1: function "now" not defined; repair the template`},
		{`contentFrom: {inlineTemplate: '{{ .name | default "x" }}'}`, `inlineTemplate:1: function "default" not defined; repair the template`},
		{`contentFrom: {inlineTemplate: '{{ printf "%1000000d" 1 }}'}`, "inlineTemplate:1:3: the function printf" + funcs},
		{`contentFrom: {inlineTemplate: '{{ if (call .x) }}{{ end }}'}`, "inlineTemplate:1:7: the function call" + funcs},
		{`contentFrom: {inlineTemplate: '{{ range .hosts }}{{ else }}{{ (js "x").y }}{{ end }}'}`, "inlineTemplate:1:32: the function js" + funcs},
		{`contentFrom: {inlineTemplate: '{{ $x := html "a" }}'}`, "inlineTemplate:1:9: the function html" + funcs},
		{`contentFrom: {inlineTemplate: '{{ _tick -1000000 }}'}`, "inlineTemplate:1:3: the function _tick" + funcs},
		{`contentFrom: {inlineTemplate: '{{ block "x" . }}{{ end }}'}`, "inlineTemplate: define and block are not available; use one template a file; repair the template"},
		{`contentFrom: {inlineTemplate: '{{ template "inlineTemplate" . }}'}`, "inlineTemplate:1:12: template and block are not available; use one template a file; repair the template"},
	} {
		spec := render.Spec{Path: "app", Variables: map[string]any{"name": "n", "map": map[string]any{}, "hosts": []any{}, "x": "f"}}
		got := renderErr(t, tree("r", f.with("app/f.yaml", "# c\n"+hostFile("f", c.spec))), spec, nil)
		if want := fmt.Sprintf("app/f.yaml:%d: %s", cmp.Or(elsewhere[c.spec], 7), c.want); got != want {
			t.Errorf("%s\n%s", c.spec, gocmp.Diff(want, got))
		}
		if strings.Contains(got, "canary") {
			t.Errorf("leaks: %s", got)
		}
	}
}

// A template that does too much is stopped, by steps, by size or by time, before
// it takes memory.
func TestExpandStopsBombs(t *testing.T) {
	limits := render.Limits{TemplateSteps: 100_000, TemplateTime: time.Minute}
	nested := strings.Repeat("{{ range 1000000 }}", 6) + strings.Repeat("{{ end }}", 6)
	fan := strings.Repeat("{{ if true }}{{ end }}", 4000)
	twice := "{{ $x := .text }}" + strings.Repeat(`{{ $x = $x | quote }}`, 40)
	cases := []struct {
		name, template, want string
		limits               render.Limits
	}{
		{"nested empty range", nested, "takes more than 100000 steps", limits},
		{"one long range", "{{ range 1000000000000 }}{{ end }}", "takes more than 100000 steps", limits},
		{"wide body", "{{ range 1000000000 }}" + fan + "{{ end }}", "takes more than 100000 steps", limits},
		{"output", "{{ range 100000 }}" + strings.Repeat("x", 1000) + "{{ end }}", "gives more than 1048576 bytes", limits},
		{"the whole of the variables", "{{ range 100000 }}{{ $ }}{{ end }}", "gives more than 1048576 bytes", limits},
		{"growing by quotes", twice, "takes more than 100000 steps", limits},
		{"growing by join", `{{ range 1000000 }}{{ $y := join $.text $.list }}{{ end }}`, "takes more than 100000 steps", limits},
		{"growing by indent", `{{ range 1000000 }}{{ $y := indent 100 $.text }}{{ end }}`, "takes more than 100000 steps", limits},
		{"continue", "{{ range 1000000000 }}{{ continue }}{{ end }}", "takes more than 100000 steps", limits},
		{"range in else", "{{ if false }}{{ else }}{{ range 1000000000 }}{{ end }}{{ end }}", "takes more than 100000 steps", limits},
		{"time", nested, "takes longer than 30ms", render.Limits{TemplateSteps: 1 << 60, TemplateTime: 30 * time.Millisecond}},
		{"long template", strings.Repeat("x", 256<<10+1), "262145 bytes are more than the limit of 262144 for a template", limits},
		{"deep template", strings.Repeat("{{if 1}}", 32<<10), "unexpected EOF", limits},
		{"deep template that ends", strings.Repeat("{{if 1}}", 15<<10) + strings.Repeat("{{end}}", 15<<10), "", limits},
		{"deep expression", "{{" + strings.Repeat("(", 200<<10), "max expression depth", limits},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			spec := render.Spec{Variables: map[string]any{"text": strings.Repeat("\"\n", 1000), "list": []any{"a", "b", strings.Repeat("x", 1000)}}, Limits: c.limits}
			tr := tree("r", texts("f.yaml", hostFile("f", "contentFrom: {template: t}"), "t", c.template))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _, err := new(render.Renderer).Render(context.Background(), tr, spec, nil)
			runtime.ReadMemStats(&after)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q, got %.300v", c.want, err)
			}
			if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 512 {
				t.Errorf("allocated %d MB", mb)
			}
		})
	}
}

func TestExpandEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	tr := tree("r", texts("f.yaml", hostFile("f", "contentFrom: {inlineTemplate: '{{ range 1000000000 }}{{ end }}'}")))
	spec := render.Spec{Limits: render.Limits{TemplateSteps: 1 << 60, TemplateTime: time.Hour}}
	_, _, err := new(render.Renderer).Render(ctx, tr, spec, nil)
	var problems manifest.Errors
	if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &problems) {
		t.Error(err)
	}
}

func TestSpecRefuses(t *testing.T) {
	sealer, err := manifest.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for want, vars := range map[string]map[string]any{
		"variable a-b: ":                 {"a-b": 1},
		`variable "": `:                  {"": 1},
		"variable x: is null":            {"x": nil},
		"variable y: is null":            {"y": []any{map[string]any{"z": nil}}},
		"variable x: is a secret":        {"x": sealer.Seal("canary")},
		"variable x: is of type []strin": {"x": []string{"a"}},
		"variable x: is not UTF-8":       {"x": "\xff"},
		"variables: 65545 bytes are mor": {"x": strings.Repeat("x", 64<<10+1)},
	} {
		got := renderErr(t, tree("r", texts("a", "")), render.Spec{Variables: vars}, nil)
		if !strings.Contains(strings.ReplaceAll(got, `"a-b"`, "a-b"), want) || strings.Contains(got, "canary") {
			t.Errorf("want %q, got %s", want, got)
		}
	}
	a := render.Spec{Path: "x", Variables: map[string]any{"n": 1}}
	b := render.Spec{Path: "./x/", Variables: map[string]any{"n": int64(1)}}
	if a.Digest() != b.Digest() || a.Digest() == (render.Spec{Path: "x"}).Digest() || a.Digest() == (render.Spec{Path: "y", Variables: a.Variables}).Digest() {
		t.Error("the digest of a spec")
	}
	if fmt.Sprint(len(a.Digest())) != "64" {
		t.Error(a.Digest())
	}
}
