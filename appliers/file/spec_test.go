package file

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

const testCommands = `, "commands": {"validate": {"run": ["true", "{file}"]}, "reload": {"run": ["true"], "timeout": "5s"}}`

func TestResolveDefaults(t *testing.T) {
	h := newHost(t, testCommands)
	binary := base64.StdEncoding.EncodeToString([]byte("a\x00b"))
	tests := []struct {
		name, kind string
		spec, want map[string]any
	}{
		{"file", kindFile, map[string]any{"content": "x"}, map[string]any{"content": "x", "mode": "0644"}},
		{"mode of three digits", kindFile, map[string]any{"content": "", "mode": "600"}, map[string]any{"content": "", "mode": "0600"}},
		{"owner by number", kindFile, map[string]any{"content": "", "owner": int64(0), "group": "00"}, map[string]any{"content": "", "mode": "0644", "owner": "0", "group": "0"}},
		{"text in base64", kindFile, map[string]any{"contentBase64": "eA=="}, map[string]any{"content": "x", "mode": "0644"}},
		{"binary", kindFile, map[string]any{"contentBase64": binary},
			map[string]any{"contentBase64": binary, "sha256": "b08b4d9058f4b95c0f97bbf9a34ac2bfae8153862fbd6df7dbc2d61f1faf5c41", "mode": "0644"}},
		{"delete is the default", kindFile, map[string]any{"content": "x", "onPrune": "delete"}, map[string]any{"content": "x", "mode": "0644"}},
		{"commands", kindFile, map[string]any{"content": "x", "check": "validate", "onChange": "reload", "onPrune": "leave"},
			map[string]any{"content": "x", "mode": "0644", "check": "validate", "onChange": "reload", "onPrune": "leave"}},
		{"directory", kindDirectory, map[string]any{}, map[string]any{"mode": "0755"}},
		{"exclusive reported", kindDirectory, map[string]any{"exclusive": true}, map[string]any{"mode": "0755", "exclusive": true}},
		{"exclusive removed", kindDirectory, map[string]any{"exclusive": map[string]any{"remove": true}},
			map[string]any{"mode": "0755", "exclusive": map[string]any{"remove": true}, "strangers": []any{}}},
		{"not exclusive", kindDirectory, map[string]any{"exclusive": false, "mode": "2750"}, map[string]any{"mode": "2750"}},
		{"symlink", kindSymlink, map[string]any{"target": "../x"}, map[string]any{"target": "../x"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec, want := maps.Clone(tt.spec), maps.Clone(tt.want)
			spec["path"], want["path"] = h.path("x"), h.path("x")
			r := h.resolve(t, object(t, tt.kind, "x", spec))
			if tt.name == "binary" {
				want["sha256"] = r.Object.Spec()["sha256"]
				if s, ok := want["sha256"].(string); !ok || len(s) != 64 {
					t.Errorf("sha256 = %v", want["sha256"])
				}
			}
			if !manifest.Equal(r.Object.Spec(), want) || r.Locator != h.path("x") {
				t.Errorf("%s\nwant %s", manifest.Canonical(r.Object.Spec()), manifest.Canonical(want))
			}
		})
	}
}

func TestResolveRefuses(t *testing.T) {
	h := newHost(t, testCommands+`, "protected": ["/var/lib/gitopsd"]`)
	h.roots = append(h.roots, &root{path: "/"})
	x := h.path("x")
	tests := []struct {
		name, kind string
		spec       map[string]any
		want       string // in the error
	}{
		{"no path", kindFile, map[string]any{"content": ""}, "spec.path: is missing"},
		{"misspelt", kindFile, map[string]any{"path": x, "content": "", "onChanged": "reload"}, "spec.onChanged: unknown field; did you mean onChange?"},
		{"field of another kind", kindSymlink, map[string]any{"path": x, "target": "y", "mode": "0644"}, "spec.mode: unknown field; known are path, target"},
		{"mode as a number", kindFile, map[string]any{"path": x, "content": "", "mode": int64(644)}, `spec.mode: quote it, as in "0644"`},
		{"mode in decimal", kindFile, map[string]any{"path": x, "content": "", "mode": "0899"}, "spec.mode"},
		{"mode too long", kindFile, map[string]any{"path": x, "content": "", "mode": "100644"}, "spec.mode"},
		{"no content", kindFile, map[string]any{"path": x}, "spec.content: is missing"},
		{"both contents", kindFile, map[string]any{"path": x, "content": "", "contentBase64": ""}, "spec.contentBase64: give content or"},
		{"broken base64", kindFile, map[string]any{"path": x, "contentBase64": "CANARY!"}, "spec.contentBase64: is not base64"},
		{"unexpanded", kindFile, map[string]any{"path": x, "contentFrom": map[string]any{"file": "a"}}, "spec.contentFrom"},
		{"content as a number", kindFile, map[string]any{"path": x, "content": int64(1)}, "spec.content: want a string, have a number; quote it"},
		{"no such command", kindFile, map[string]any{"path": x, "content": "", "onChange": "relaod"}, "spec.onChange: the target has no command \"relaod\"; did you mean reload?"},
		{"a reload as check", kindFile, map[string]any{"path": x, "content": "", "check": "reload"}, "spec.check: command \"reload\" has no {file}"},
		{"a check as reload", kindFile, map[string]any{"path": x, "content": "", "onChange": "validate"}, "spec.onChange: command \"validate\" takes a {file}"},
		{"onPrune", kindFile, map[string]any{"path": x, "content": "", "onPrune": "keep"}, "spec.onPrune: want delete, restore or leave"},
		{"owner", kindFile, map[string]any{"path": x, "content": "", "owner": "a:b"}, "spec.owner"},
		{"exclusive", kindDirectory, map[string]any{"path": x, "exclusive": map[string]any{"delete": true}}, "spec.exclusive"},
		{"target", kindSymlink, map[string]any{"path": x}, "spec.target: is missing"},
		{"a secret path", kindSymlink, map[string]any{"path": x, "target": h.env.Sealer.Seal("CANARY")}, "spec.target: a secret"},
		{"all at once", kindFile, map[string]any{"contnet": "", "mode": int64(644), "owner": "a:b", "check": "a", "onChange": "b"},
			"spec.contnet: unknown field; did you mean content?; spec.path: is missing; spec.content: is missing; an empty file is content: \"\"; " +
				"spec.mode: quote it, as in \"0644\": without quotes it is a number, and YAML readers differ about which; " +
				"spec.owner: \"a:b\" is not the name of a user or group; " +
				"spec.check: the target has no command \"a\"; known are reload, validate; " +
				"spec.onChange: the target has no command \"b\"; known are reload, validate"},
		// Rows D2-60 and D2-62.
		{"relative", kindFile, map[string]any{"path": "etc/x", "content": ""}, "spec.path"},
		{"dots", kindFile, map[string]any{"path": h.root + "/../x", "content": ""}, ".. is not allowed"},
		{"double slash", kindFile, map[string]any{"path": h.root + "//x", "content": ""}, "write it as"},
		{"trailing slash", kindDirectory, map[string]any{"path": x + "/"}, "write it as"},
		{"NUL", kindFile, map[string]any{"path": x + "\x00", "content": ""}, "control characters"},
		{"newline", kindFile, map[string]any{"path": x + "\n", "content": ""}, "control characters"},
		{"long name", kindFile, map[string]any{"path": x + strings.Repeat("y", 300), "content": ""}, "at most 255"},
		{"the root itself", kindDirectory, map[string]any{"path": "/"}, "spec.path"},
		{"proc", kindFile, map[string]any{"path": "/proc/self/root/etc/x", "content": ""}, "is protected"},
		{"sys", kindFile, map[string]any{"path": "/sys/x", "content": ""}, "is protected"},
		{"dev", kindFile, map[string]any{"path": "/dev/sda", "content": ""}, "is protected"},
		{"own state", kindFile, map[string]any{"path": "/var/lib/gitopsd/state.db", "content": ""}, "is protected"},
		{"own state directory", kindDirectory, map[string]any{"path": "/var/lib/gitopsd"}, "is protected"},
		{"own ledger", kindFile, map[string]any{"path": h.path(".gitopsd/ledger"), "content": ""}, "is protected"},
		{"a temporary name", kindFile, map[string]any{"path": h.path(".gitopsd-tmp-0123456789abcdef"), "content": ""}, "is protected"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := h.Resolve(object(t, tt.kind, "x", tt.spec))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%v\nwant %q", err, tt.want)
			}
		})
	}
	outside := newHost(t, "")
	if _, err := outside.Resolve(file(t, "/etc/motd", "")); err == nil || !strings.Contains(err.Error(), "add its directory to the target's roots") {
		t.Errorf("outside: %v", err)
	}
	other, err := manifest.New(map[string]any{"apiVersion": "host.gitopsd.io/v2", "kind": "File", "metadata": map[string]any{"name": "x"}, "spec": map[string]any{}}, manifest.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Resolve(other); err == nil || !strings.Contains(err.Error(), "apiVersion") {
		t.Errorf("version: %v", err)
	}
}

func TestConfigRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ config, want string }{
		"nothing":          {``, "roots: name at least one"},
		"misspelt":         {`{"root": ["/etc"]}`, "root: unknown field; did you mean roots?"},
		"relative root":    {`{"roots": ["etc"]}`, `roots[0]: path "etc": want an absolute path; it is not`},
		"relative prefix":  {`{"prefix": "./image", "roots": ["/etc"]}`, `prefix: path "./image": want an absolute path`},
		"relative program": {`{"roots": ["/etc"], "commands": {"a": {"run": ["bin/check", "{file}"]}}}`, `commands.a: run: program "bin/check": want an absolute path`},
		"root twice":       {`{"roots": ["/etc", "/etc"]}`, "listed twice"},
		"command field":    {`{"roots": ["/etc"], "commands": {"a": {"cmd": ["x"]}}}`, "commands.a.cmd: unknown field"},
		"empty command":    {`{"roots": ["/etc"], "commands": {"a": {"run": []}}}`, "commands.a: run"},
		"command as text":  {`{"roots": ["/etc"], "commands": {"a": {"run": "x y"}}}`, "run"},
		"timeout":          {`{"roots": ["/etc"], "commands": {"a": {"run": ["x"], "timeout": "30"}}}`, "commands.a: timeout"},
		"environment":      {`{"roots": ["/etc"], "commands": {"a": {"run": ["x"], "env": ["PATH"]}}}`, "commands.a: env"},
		"protected":        {`{"roots": ["/etc"], "protected": ["x"]}`, `protected[0]: path "x": want an absolute path`},
		"not a mapping":    {`[]`, "file target"},
		"a list for a map": {`{"roots": ["/etc"], "commands": []}`, "commands"},
	} {
		_, err := Factory(nil)(appliers.Env{Target: "host", Config: json.RawMessage(tt.config)})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "target host") {
			t.Errorf("%s: %v\nwant %q", name, err, tt.want)
		}
	}
}

// A secret is in no text that leaves the process: not in the resolved object,
// not in what is observed, not in the output of a command that repeats it.
func TestSecretsStayInside(t *testing.T) {
	h := newHost(t, `, "commands": {"validate": {"run": ["sh", "-c", "cat {file}; echo 'near line 1: unknown'; exit 3"]}}`)
	secret := object(t, kindFile, "x", map[string]any{
		"path": h.path("x"), "content": "password=CANARY-1234\n", "sensitive": true, "check": "validate", "mode": "0600",
	})
	r := h.apply(h.op(t, "create", secret))[0]
	if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Stop || !strings.Contains(r.Err.Error(), "near line 1") {
		t.Errorf("check: %v %v", r.Outcome, r.Err)
	}
	plain := object(t, kindFile, "x", map[string]any{"path": h.path("x"), "content": "password=CANARY-1234\n", "sensitive": true, "mode": "0600"})
	h.must(t, h.op(t, "create", plain))
	h.converged(t, plain)
	other := object(t, kindFile, "x", map[string]any{"path": h.path("x"), "content": "changed", "mode": "0600"})
	unwanted := query(key(plain), h.resolve(t, plain))
	unwanted.Desired = nil
	for name, v := range map[string]any{
		"error": r.Err, "resolved": h.resolve(t, plain).Object, "live": h.see(t, plain).Object,
		"live, declared plain": h.see(t, other).Object, "live, not declared": h.ask(t, unwanted).Object,
	} {
		out, err := json.Marshal(v)
		if s := fmt.Sprintf("%v %+v %s %v", v, v, out, err); strings.Contains(s, "CANARY") {
			t.Errorf("%s: %s", name, s)
		}
	}
	if s := h.content(t, "x"); !strings.Contains(s, "CANARY") {
		t.Errorf("the file itself: %q", s)
	}
}

// Somebody else's file that others may not read is not shown either.
func TestForeignPrivateFileIsNotShown(t *testing.T) {
	h := newHost(t, "")
	byHand(t, object(t, kindFile, "x", map[string]any{"path": h.path("x"), "content": "CANARY", "mode": "0600"}))
	same := object(t, kindFile, "x", map[string]any{"path": h.path("x"), "content": "CANARY", "mode": "0600"})
	h.converged(t, same) // identical content may still be adopted
	if got := text(h.see(t, object(t, kindFile, "x", map[string]any{"path": h.path("x"), "content": "other"})).Object); strings.Contains(got, "CANARY") {
		t.Errorf("%s", got)
	}
}

// Text stays readable in a diff, other content is told by its digest, and
// neither is ever written in the place of content.
func TestBinaryContent(t *testing.T) {
	h := newHost(t, "")
	big := strings.Repeat("line\n", maxText)
	for name, content := range map[string]string{"binary": "a\x00b\xff", "big": big} {
		obj := object(t, kindFile, name, map[string]any{"path": h.path(name), "contentBase64": base64.StdEncoding.EncodeToString([]byte(content))})
		h.must(t, h.op(t, "create", obj))
		h.converged(t, obj)
		if h.content(t, name) != content {
			t.Errorf("%s: other content was written", name)
		}
		h.put(t, name, "by hand")
		o := h.see(t, obj)
		want := h.resolve(t, obj).Object.Spec()
		if o.Object.Spec()["sha256"] == want["sha256"] || o.Object.Spec()["contentBase64"] != want["contentBase64"] {
			t.Errorf("%s: drift is not told by the digest alone: %.300s", name, text(o.Object))
		}
		// A rule leaves the drift alone: the digest is the live one, only the mode is written.
		left := h.op(t, "update", obj)
		content := manifest.With(left.Change.Desired.Content(), "/spec/sha256", o.Object.Spec()["sha256"])
		content = manifest.With(content, "/spec/mode", "0600")
		desired, err := manifest.New(content, manifest.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		left.Change.Desired = desired
		h.must(t, left)
		if h.content(t, name) != "by hand" {
			t.Errorf("%s: content that was to be left was written", name)
		}
	}
	textual := file(t, h.path("text"), "text\n")
	h.must(t, h.op(t, "create", textual))
	h.put(t, "text", "a\x00b")
	live := h.see(t, textual).Object
	if s, ok := live.Spec()["content"].(string); !ok || !stoodFor.MatchString(s) {
		t.Errorf("live binary in the place of text: %s", text(live))
	}
	left := h.op(t, "update", textual)
	left.Change.Desired = live
	h.must(t, left)
	if h.content(t, "text") != "a\x00b" {
		t.Errorf("what stands for content was written as content")
	}
}
