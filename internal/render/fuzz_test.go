package render

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/sources"
)

// FuzzTemplate: a template is filled in from its variables alone, the same each
// time, within its limits, or refused.
func FuzzTemplate(f *testing.F) {
	for _, s := range []string{
		"{{ .name }}", "{{ range .list }}{{ . }},{{ end }}", "{{ if .on }}a{{ else }}b{{ end }}", `{{ index .map "k" }}`, "{{ .none }}", "{{ printf \"%1000000d\" 1 }}",
		"{{ define \"x\" }}{{ end }}", "{{ range .list }}{{ range $.list }}{{ range $.list }}x{{ end }}{{ end }}{{ end }}", "{{ env \"HOME\" }}", "${HOME}",
		"{{ quote .name | upper | indent 4 }}", "{{ join \", \" .list }}", "{{ with .map }}{{ .k }}{{ end }}", "{{ .name.x }}", "{{", "{{ $x := .list }}{{ len $x }}", "{{ _tick }}",
	} {
		f.Add(s)
	}
	f.Add("{{ range .list }}{{ range $.list }}" + strings.Repeat("x", 2000) + "{{ end }}{{ end }}")
	f.Setenv("HOME", "canary-4711")
	limits := Limits{}.withDefaults()
	limits.Manifest.ObjectBytes, limits.TemplateSteps, limits.TemplateTime = 16<<10, 20_000, time.Minute
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4<<10 || strings.Contains(text, "canary") {
			return
		}
		vars := func() map[string]any {
			return map[string]any{"name": "motd", "on": true, "n": int64(3), "list": []any{"a", int64(2), true}, "map": map[string]any{"k": "v"}}
		}
		c, err := compile("t", text)
		if err != nil {
			return
		}
		first, err := c.execute(context.Background(), vars(), limits)
		if strings.Contains(first, "canary-4711") || err != nil && (first != "" || strings.Contains(err.Error(), "canary-4711")) {
			t.Fatalf("%q gives %q, %v", text, first, err)
		}
		if int64(len(first)) > limits.Manifest.ObjectBytes {
			t.Fatalf("%q makes %d bytes", text, len(first))
		}
		second, err2 := c.execute(context.Background(), vars(), limits)
		if (err == nil) != (err2 == nil) || first != second {
			t.Fatalf("%q gives %q, %v and then %q, %v", text, first, err, second, err2)
		}
	})
}

// FuzzResolve: a file that a manifest refers to lies in the source.
func FuzzResolve(f *testing.F) {
	for _, s := range []string{"a", "../a", "../../a", "./a", "/etc/passwd", "a/../../b", "..", ".", "", "a\x00", `a\b`, "a/", "....//a"} {
		f.Add("apps/web/a.yaml", s)
		f.Add("a.yaml", s)
	}
	f.Fuzz(func(t *testing.T, manifest, ref string) {
		if ref == "" {
			return // refused before: contentFrom names something
		}
		for _, step := range strings.Split(manifest, "/") {
			if sources.ValidName(step) != nil {
				return
			}
		}
		p, problem := resolve(manifest, ref)
		if problem != nil {
			if p != "" || problem.hint == "" {
				t.Fatalf("%q of %q: %q with %+v", ref, manifest, p, problem)
			}
			return
		}
		for _, step := range strings.Split(p, "/") {
			if step == "" || step == "." || step == ".." || strings.ContainsAny(step, "\\\x00") {
				t.Fatalf("%q of %q is %q", ref, manifest, p)
			}
		}
	})
}

// FuzzIgnore: comments, blank lines and line ends mean nothing, and a directory's
// rules say nothing about what lies beside it.
func FuzzIgnore(f *testing.F) {
	for _, s := range []string{"*.yaml\n!a.yaml\n", "/b/\n", "#x\n", "\\#x", "a/**/b", "[", "!!", "/", "**", " ", "a\\ ", "[a-", "*.{yaml,yml}"} {
		f.Add(s, "app/sub/a.yaml", false)
		f.Add(s, "app/b", true)
		f.Add(s, "other/a.yaml", false)
	}
	f.Fuzz(func(t *testing.T, text, path string, dir bool) {
		for _, step := range strings.Split(path, "/") {
			if sources.ValidName(step) != nil {
				return
			}
		}
		if len(text) > 1<<10 || strings.ContainsRune(text, '\r') {
			return
		}
		e := sources.Entry{Path: path, Mode: sources.ModeFile}
		if dir {
			e.Mode = sources.ModeDir
		}
		in := func(text string) bool {
			var none *rules
			return none.with("app", sources.Entry{Path: "app/" + IgnoreFile}, []byte(text)).ignores(e)
		}
		ignored := in(text)
		if ignored && !strings.HasPrefix(path, "app/") {
			t.Fatalf("rules of app leave out %q: %q", path, text)
		}
		if again := in("# a comment\n\n" + strings.ReplaceAll(text, "\n", "\r\n# more\r\n \r\n") + "\n#\n"); again != ignored {
			t.Fatalf("comments change what %q says of %q from %v to %v", text, path, ignored, again)
		}
	})
}
