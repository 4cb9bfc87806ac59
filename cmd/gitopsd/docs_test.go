package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/config"
)

// pages reads everything that is written for people, by its path from the top.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			out[strings.TrimPrefix(path, "../../")] = string(text)
		}
	}
	if len(out) < 6 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}

// TestLinks: what a page links to in the repository is there.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	for page, text := range pages(t) {
		for _, to := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join("../..", filepath.Dir(page), to[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, to[1], err)
			}
		}
	}
}

var (
	fence    = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	codeSpan = regexp.MustCompile("`(gitopsd[^`]*)`")
)

// TestDocumentedCommands: every command line that a page shows has a command
// and flags that there are.
func TestDocumentedCommands(t *testing.T) {
	found := 0
	for page, text := range pages(t) {
		var lines []string
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			if block[1] == "yaml" || block[1] == "rego" || block[1] == "json" {
				continue
			}
			for line := range strings.Lines(block[2]) {
				if _, command, ok := strings.Cut(" "+line, " gitopsd "); ok {
					lines = append(lines, "gitopsd "+command)
				}
			}
		}
		for _, span := range codeSpan.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			lines = append(lines, span[1])
		}
		for _, line := range lines {
			words := strings.Fields(strings.ReplaceAll(line, "\n", " "))
			if words[0] != "gitopsd" {
				continue // a name, as of a metric
			}
			found++
			if err := checkCommandLine(words[1:]); err != nil {
				t.Errorf("%s: %q: %v", page, strings.TrimSpace(line), err)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d command lines were found", found)
	}
}

func checkCommandLine(words []string) error {
	if end := slices.IndexFunc(words, func(w string) bool { return strings.ContainsAny(w, ">|;&") || w == "2>/dev/null" }); end >= 0 {
		words = words[:end]
	}
	c := &cli{streams: streams{getenv: func(string) string { return "" }}}
	root := c.rootCommand()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if cmd == root && len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		return fmt.Errorf("there is no command %q", words[0])
	}
	for _, word := range rest {
		if !strings.HasPrefix(word, "-") || word == "-" {
			continue
		}
		if !hasFlag(cmd, word) {
			return fmt.Errorf("%s has no flag %s", cmd.CommandPath(), word)
		}
	}
	return nil
}

func hasFlag(cmd *cobra.Command, word string) bool {
	cmd.InitDefaultHelpFlag()
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	if !strings.HasPrefix(word, "--") {
		return cmd.Flags().ShorthandLookup(name[:1]) != nil
	}
	return cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil
}

// TestHealthOrderIsDocumented: docs/cli.md lists the words of health as the
// worst of several is chosen.
func TestHealthOrderIsDocumented(t *testing.T) {
	_, list, found := strings.Cut(pages(t)["docs/cli.md"], "from best to worst: ")
	list, _, _ = strings.Cut(list, ".")
	words := regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(list, -1)
	if !found || len(words) != 6 {
		t.Fatalf("the order of health is not there: %q", list)
	}
	for i := range words[1:] {
		better, worse := appliers.HealthStatus(words[i][1]), appliers.HealthStatus(words[i+1][1])
		if better == worse || appliers.Worst(better, worse) != worse || appliers.Worst(worse, better) != worse {
			t.Errorf("%s stands before %s, and %s is the worst of both", better, worse, appliers.Worst(better, worse))
		}
	}
}

// TestDocumentedSnippets: the YAML of every page loads as what it is, and there
// is no snippet that nothing looks at. Rego and JSON are held by policies/opa.
func TestDocumentedSnippets(t *testing.T) {
	for page, text := range pages(t) {
		var configuration []string
		for i, block := range fence.FindAllStringSubmatch(text, -1) {
			lang, body := block[1], block[2]
			name := fmt.Sprintf("%s, block %d", page, i+1)
			switch {
			case lang == "text", page == "docs/policy-input.md" && (lang == "rego" || lang == "json"), page == "README.md" && lang == "sh":
			case lang != "yaml":
				t.Errorf("%s: nothing runs a snippet of language %q", name, lang)
			case strings.Contains(body, "apiVersion: gitopsd.io/"):
				configuration = append(configuration, body)
			case strings.Contains(body, "apiVersion: host.gitopsd.io/"):
				validSnippet(t, name, body)
			case strings.Contains(body, "roots: [/etc/myapp, /srv/www]"):
				libraryData(t, name, body)
			default:
				t.Errorf("%s: nothing looks at this YAML:\n%s", name, body)
			}
		}
		if len(configuration) == 0 {
			continue
		}
		if _, err := config.LoadPath(write(t, "gitopsd.yaml", strings.Join(configuration, "---\n"))); err != nil {
			t.Errorf("%s: %v", page, err)
		}
	}
}

func validSnippet(t *testing.T, name, body string) {
	t.Helper()
	if out, errOut, code := runCLI(t, streams{}, "validate", write(t, "a.yaml", body), "--var", "domain=example.org"); code != exitOK {
		t.Errorf("%s: exit %d: %s%s", name, code, out, errOut)
	}
}

// libraryData: with the data shown, the rules of the library allow what lies
// below the roots and nothing else.
func libraryData(t *testing.T, name, data string) {
	t.Helper()
	path := write(t, "data.yaml", data)
	for place, want := range map[string]int{"/srv/www/index.html": exitOK, "/etc/shadow": exitError} {
		object := write(t, "a.yaml", "apiVersion: host.gitopsd.io/v1alpha1\nkind: File\nmetadata: {name: a}\nspec: {path: "+place+", content: x}\n")
		if out, errOut, code := runCLI(t, streams{}, "validate", object, "--library", "host-files", "--data", path); code != want {
			t.Errorf("%s: %s: exit %d: %s%s", name, place, code, out, errOut)
		}
	}
}

// write puts text into a file of a new directory.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
