package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/api/apitest"
	"github.com/gitopsd/gitopsd/reconciler"
)

var updateGolden = flag.Bool("update", false, "rewrite golden files")

// runCLI runs one command line as a process would and returns what it wrote.
func runCLI(t *testing.T, s streams, args ...string) (out, errOut string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	s.out, s.err = &stdout, &stderr
	if s.in == nil {
		s.in = strings.NewReader("")
	}
	if s.getenv == nil {
		s.getenv = func(string) string { return "" }
	}
	s.now = apitest.Now
	code = execute(context.Background(), s, args)
	return stdout.String(), stderr.String(), code
}

// approvers lets whoever runs the tests do everything.
func approvers() api.Roles {
	return api.Roles{Users: map[uint32]api.Role{uint32(os.Geteuid()): api.RoleApprover}}
}

// session is a golden file: command lines with what they print.
type session struct {
	t      *testing.T
	socket string
	hide   *strings.Replacer
	text   strings.Builder
	streams
}

func newSession(t *testing.T, b *apitest.Backend, hide ...string) *session {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	socket := apitest.Serve(t, b, approvers())
	return &session{t: t, socket: socket, hide: strings.NewReplacer(append([]string{socket, "SOCKET"}, hide...)...)}
}

var ownName = regexp.MustCompile(`[a-z0-9_-]+ \(uid \d+\)|uid \d+`)

func (s *session) run(args ...string) {
	s.t.Helper()
	out, errOut, code := runCLI(s.t, s.streams, append(slices.Clone(args), "--socket", s.socket)...)
	fmt.Fprintf(&s.text, "$ gitopsd %s\n%s", strings.Join(args, " "), out)
	if errOut != "" {
		fmt.Fprintf(&s.text, "(stderr)\n%s", errOut)
	}
	fmt.Fprintf(&s.text, "(exit %d)\n\n", code)
}

func (s *session) compare(name string) {
	s.t.Helper()
	got := s.hide.Replace(s.text.String())
	path := filepath.Join("testdata", "cli", name+".txt")
	if *updateGolden {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		s.t.Errorf("%s (-want +got):\n%s", path, diff)
	}
	if i := strings.IndexFunc(got, func(r rune) bool { return r != '\n' && (r < ' ' || (r >= 0x7f && r <= 0x9f) || r == 0x202e) }); i >= 0 && !s.outTerminal {
		s.t.Errorf("%s: byte %d is a control character (row F-101)", path, i)
	}
}

// TestStatusGolden: rows F-101 (hostile texts) and the exit codes of --exit-code.
func TestStatusGolden(t *testing.T) {
	s := newSession(t, apitest.Sample())
	s.run("status")
	s.run("status", "-o", "wide")
	s.run("status", "--diff")
	s.run("status", "web", "--exit-code")
	s.run("status", "drifted", "--exit-code")
	s.run("status", "web", "refused", "drifted", "--exit-code")
	s.run("status", "old", "--exit-code")
	s.run("status", "refused", "-o", "json")
	s.run("status", "refused", "-o", "yaml")
	s.run("status", "none")
	s.run("status", "-o", "xml")
	s.compare("status")
}

func TestStatusColors(t *testing.T) {
	s := newSession(t, apitest.Sample())
	s.outTerminal, s.errTerminal, s.width = true, true, func() int { return 100 }
	s.run("status", "web", "drifted")
	s.run("diff", "held")
	s.run("status", "none")
	s.compare("colors")
	for _, variable := range []string{"NO_COLOR", "TERM"} {
		plain := s.streams
		plain.getenv = func(name string) string { return map[string]string{variable: "dumb"}[name] }
		if out, _, _ := runCLI(t, plain, "status", "--socket", s.socket); strings.Contains(out, "\x1b") {
			t.Errorf("colours in spite of %s", variable)
		}
	}
}

func TestLookGolden(t *testing.T) {
	s := newSession(t, apitest.Sample())
	s.run("diff", "held")
	s.run("diff", "web", "--exit-code")
	s.run("diff", "held", "--exit-code", "-o", "json")
	s.run("diff", "old", "--exit-code")
	s.run("diff", "old", "held", "web", "--exit-code", "-o", "json")
	s.run("diff", "--exit-code")
	s.run("diff", "none")
	s.run("get", "web", "File/motd")
	s.run("get", "web", "File/motd", "-o", "yaml")
	s.run("get", "web", "none")
	s.run("get", "web")
	s.run("get", "web", "-o", "json")
	s.run("get", "none")
	s.run("get")
	s.run("history", "web")
	s.run("history", "web", "-n", "1", "-o", "json")
	s.run("history", "held")
	s.run("audit", "query")
	s.run("audit", "query", "--app", "old", "--kind", "Suspended", "-o", "json")
	s.run("audit", "verify")
	s.run("audit", "veryfi")
	s.compare("look")
}

func TestAuditVerifyFails(t *testing.T) {
	b := apitest.Sample()
	b.Verdict.Problem = "record 2 was changed"
	s := newSession(t, b)
	s.run("audit", "verify")
	s.compare("audit-broken")
}

func TestSteerGolden(t *testing.T) {
	b := apitest.Sample()
	s := newSession(t, b)
	s.run("sync")
	s.run("sync", "web", "--wait")
	s.run("sync", "drifted", "--wait")
	s.run("suspend", "web", "--why", "repair", "--for", "2h")
	s.run("suspend", "--all", "--why", "repair", "--until", "2026-01-03T00:00:00Z")
	s.run("suspend", "--all", "--why", "repair", "--until", "tomorrow")
	s.run("suspend", "--all", "--why", "repair", "--until", "2020-01-01T00:00:00Z")
	s.run("suspend", "--all", "--why", "repair", "--until", "2026-01-03T00:00:00Z", "--for", "1h")
	s.run("suspend", "web")
	s.run("suspend", "--why", "repair")
	s.run("suspend", "web", "--all", "--why", "repair")
	s.run("resume", "web")
	s.run("resume", "--all", "--why", "done")
	s.run("approve", "held", "--why", "looked")
	s.run("approve", "held", "--why", "looked", "--digest", "5f1c0ffee", "--for", "1h")
	s.run("approve", "web", "--why", "looked")
	s.run("approve", "held")
	s.run("accept-history", "web", "--why", "rebased")
	s.run("accept-history", "web")
	s.run("forget", "web", "--why", "kept by hand")
	s.run("forget", "web", "File/left", "--why", "kept by hand")
	s.run("forget", "web")
	s.run("forget", "--why", "x")
	s.compare("steer")
	var calls []string
	for _, call := range b.Calls() {
		calls = append(calls, ownName.ReplaceAllString(call, "ME"))
	}
	want := []string{
		`Sync "" wait=false by ME`, `Sync "web" wait=true by ME`, `Sync "drifted" wait=true by ME`,
		`Suspend "web" all=false why="repair" until=2026-01-02T14:00:00Z by ME`,
		`Suspend "" all=true why="repair" until=2026-01-03T00:00:00Z by ME`,
		`Resume "web" all=false why="" by ME`, `Resume "" all=true why="done" by ME`,
		`Approve "held" digest=5f1c0ffee why="looked" for=1h0m0s by ME`,
		`AcceptHistory "web" revision="" why="rebased" by ME`,
		`Forget "web" [] why="kept by hand" by ME`, `Forget "web" [File/left] why="kept by hand" by ME`,
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// TestApproveAsks: on a terminal the changes are shown first, and only a yes
// approves them.
func TestApproveAsks(t *testing.T) {
	for answer, approved := range map[string]bool{"y\n": true, "Y\n": true, "n\n": false, "\n": false, "": false} {
		b := apitest.Sample()
		socket := apitest.Serve(t, b, approvers())
		out, _, code := runCLI(t, streams{in: strings.NewReader(answer), inTerminal: true}, "approve", "held", "--why", "x", "--socket", socket)
		if !strings.Contains(out, "delete host:host.gitopsd.io/File/motd") || (code == 0) != approved || (len(b.Calls()) == 1) != approved {
			t.Errorf("%q: exit %d, calls %v\n%s", answer, code, b.Calls(), out)
		}
	}
}

// TestApproveInterrupted: an interrupt ends the question, although nobody answers.
func TestApproveInterrupted(t *testing.T) {
	b := apitest.Sample()
	socket := apitest.Serve(t, b, approvers())
	in, answer := io.Pipe()
	defer answer.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var out, errOut lockedBuffer
	code := make(chan int, 1)
	go func() {
		s := streams{in: in, inTerminal: true, out: &out, err: &errOut, getenv: func(string) string { return "" }, now: apitest.Now}
		code <- execute(ctx, s, []string{"approve", "held", "--why", "x", "--socket", socket})
	}()
	waitFor(t, "the question", func() bool { return strings.Contains(out.String(), "[y/N]") })
	cancel()
	if got := <-code; got != exitInterrupts || len(b.Calls()) != 0 {
		t.Errorf("exit %d, calls %v: %s", got, b.Calls(), errOut.String())
	}
}

// TestErrorsGolden: an error is one line, a hint another, and a stable exit code.
func TestErrorsGolden(t *testing.T) {
	b := apitest.Sample()
	s := newSession(t, b)
	s.run("statsu")
	s.run("nonsense")
	s.run("status", "--nonsense")
	s.run("history")
	s.run("get", "web", "motd", "more")
	s.run("version", "more")
	s.run("history", "web", "-n", "0")
	s.run("policy", "tset")
	s.run("completion", "tcsh")
	s.run("help", "nonsense")
	s.run("help", "policy", "test")
	s.socket = filepath.Join(t.TempDir(), "none")
	s.hide = strings.NewReplacer(s.socket, "NONE")
	s.run("status")
	s.compare("errors")
}

func TestViewerIsTold(t *testing.T) {
	viewer := api.Roles{Users: map[uint32]api.Role{uint32(os.Geteuid()): api.RoleViewer}}
	socket := apitest.Serve(t, apitest.Sample(), viewer)
	_, errOut, code := runCLI(t, streams{}, "sync", "--socket", socket)
	if code != exitDenied || !strings.Contains(errOut, "has role viewer and this needs operator\n") ||
		!strings.Contains(errOut, "\nhint: ask who runs the daemon to grant it (gitopsd run --operator-user or --operator-group)\n") {
		t.Errorf("exit %d: %s", code, errOut)
	}
}

// TestHintOfTheDaemon: the daemon's own hint is printed as one, and a message that
// only looks as if it held advice does not keep the general one away.
func TestHintOfTheDaemon(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&reconciler.HintError{Err: fmt.Errorf("application web: %w: it moved", reconciler.ErrPrecondition), Hint: "look again with: gitopsd diff web"},
			"error: application web: not possible now: it moved\nhint: look again with: gitopsd diff web\n"},
		{fmt.Errorf("application web: %w: it moved; twice", reconciler.ErrPrecondition),
			"error: application web: not possible now: it moved; twice\nhint: gitopsd status shows where things stand\n"},
	} {
		b := apitest.Sample()
		b.Err = tt.err
		socket := apitest.Serve(t, b, approvers())
		if _, errOut, code := runCLI(t, streams{}, "accept-history", "web", "--why", "x", "--socket", socket); code != exitNotNow || errOut != tt.want {
			t.Errorf("exit %d: %s\nwant %s", code, errOut, tt.want)
		}
	}
}

func TestDefaultPaths(t *testing.T) {
	env := func(vars map[string]string) func(string) string {
		return func(name string) string { return vars[name] }
	}
	for _, c := range []struct {
		vars map[string]string
		uid  int
		want string
	}{
		{map[string]string{"GITOPSD_SOCKET": "/s", "XDG_RUNTIME_DIR": "/run/user/1"}, 1, "/s"},
		{map[string]string{"XDG_RUNTIME_DIR": "/run/user/1"}, 1, "/run/user/1/gitopsd.sock"},
		{map[string]string{"XDG_RUNTIME_DIR": "/run/user/0"}, 0, systemSocket},
		{nil, 1, systemSocket},
	} {
		if got := defaultSocket(env(c.vars), c.uid); got != c.want {
			t.Errorf("%v uid %d: %s, want %s", c.vars, c.uid, got, c.want)
		}
	}
	home := env(map[string]string{"HOME": "/home/ana"})
	if got := defaultConfig(home, 1); got != "/home/ana/.config/gitopsd/gitopsd.yaml" {
		t.Error(got)
	}
	if got := defaultStateDir(home, 0); got != systemStateDir {
		t.Error(got)
	}
}

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcödé 漢": "plain ünïcödé 漢", "a\nb": `a\nb`, "\x1b[31m": `\x1b[31m`, "\u202e": `\u202e`, "\u0085": `\u0085`,
		"\xff": `\xff`, "\ufffd": "\ufffd", "\u2028": `\u2028`, "\x00\x7f": `\x00\x7f`, "\U000e0001": `\U000e0001`,
	} {
		if got := safe(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzSafe: whatever an object is called, its name stays on its line.
func FuzzSafe(f *testing.F) {
	f.Add(apitest.Hostile)
	f.Add("\xf0\x9f\x98")
	f.Fuzz(func(t *testing.T, s string) {
		if i := strings.IndexFunc(safe(s), func(r rune) bool { return r < ' ' || (r >= 0x7f && r < 0xa0) }); i >= 0 {
			t.Fatalf("%q: control character at %d", s, i)
		}
		raw, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var before, after string
		if err := json.Unmarshal(raw, &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(escapeJSON(raw), &after); err != nil || before != after {
			t.Fatalf("%q became %q: %v", before, after, err)
		}
	})
}

// TestEveryCommandIsDocumented: docs/cli.md names every command and flag.
func TestEveryCommandIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	c := &cli{streams: streams{getenv: func(string) string { return "" }}}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		section := documented(string(doc), cmd.CommandPath())
		if section == "" {
			t.Errorf("docs/cli.md has no section for %s", cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(section, "`--"+f.Name) {
				t.Errorf("docs/cli.md: %s does not mention --%s", cmd.CommandPath(), f.Name)
			}
		})
		for _, sub := range cmd.Commands() {
			if !sub.Hidden && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk(c.rootCommand())
}

// documented returns the section whose heading is the command.
func documented(doc, command string) string {
	_, rest, found := strings.Cut(doc, "# `"+command+"`\n")
	if !found {
		return ""
	}
	section, _, _ := strings.Cut(rest, "\n#")
	return section + "\n"
}

func TestManAndVersion(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if _, errOut, code := runCLI(t, streams{}, "man", dir); code != 0 {
		t.Fatal(errOut)
	}
	page, err := os.ReadFile(filepath.Join(dir, "gitopsd-status.1"))
	if err != nil || !strings.Contains(string(page), "exit-code") {
		t.Errorf("%v: %.200s", err, page)
	}
	if out, _, code := runCLI(t, streams{}, "version"); code != 0 || !strings.HasPrefix(out, "gitopsd "+release()) {
		t.Errorf("version: %s", out)
	}
	if out, _, code := runCLI(t, streams{}, "completion", "bash"); code != 0 || !strings.Contains(out, "gitopsd") {
		t.Errorf("completion: exit %d", code)
	}
}

func TestCompletion(t *testing.T) {
	socket := apitest.Serve(t, apitest.Sample(), approvers())
	env := func(name string) string { return map[string]string{"GITOPSD_SOCKET": socket}[name] }
	out, _, _ := runCLI(t, streams{getenv: env}, "__complete", "suspend", "")
	if !strings.Contains(out, "web\n") || !strings.Contains(out, "held\n") {
		t.Errorf("got %s", out)
	}
}

func valid(t *testing.T, format, out string) {
	t.Helper()
	var err error
	switch format {
	case "json", "sarif":
		var v any
		err = json.Unmarshal([]byte(out), &v)
	case "junit":
		var v struct{}
		err = xml.Unmarshal([]byte(out), &v)
	}
	if err != nil {
		t.Errorf("%s: %v", format, err)
	}
}
