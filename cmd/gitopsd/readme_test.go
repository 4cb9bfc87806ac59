package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestReadme runs what the README tells people to type: the quick start as it
// stands, in an empty folder; of the make commands, that they exist.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	played := 0
	for _, block := range shellBlock.FindAllStringSubmatch(string(readme), -1) {
		script := block[1]
		if strings.HasPrefix(script, "make ") {
			for line := range strings.Lines(script) {
				if target := strings.TrimPrefix(strings.TrimSpace(line), "make "); !strings.Contains(string(makefile), "\n"+target+":") {
					t.Errorf("README says %q, and the Makefile has no such target", strings.TrimSpace(line))
				}
			}
			continue
		}
		played++
		t.Run("quick start", func(t *testing.T) { playReadme(t, script) })
	}
	if played != 1 {
		t.Errorf("%d scripts of the README were played, want 1", played)
	}
}

func playReadme(t *testing.T, script string) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	work := filepath.Join(dir, "w")
	for _, d := range []string{bin, work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(self, filepath.Join(bin, "gitopsd")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	script = "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n" + script
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = work
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+work,
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.org", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(work, "gitopsd.log"))
		t.Fatalf("%v\n%s\nlog of the daemon:\n%s", err, out, log)
	}
	for _, want := range []string{"Synced", "Kept in step with Git."} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the quick start does not end with %q:\n%s", want, out)
		}
	}
}
