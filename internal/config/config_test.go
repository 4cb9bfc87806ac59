package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gitopsd/gitopsd/internal/config"
)

var update = flag.Bool("update", false, "rewrite golden files, schemas and generated tables")

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(names), err)
	}
	return names
}

// header returns the values of comment lines "# key: value".
func header(data []byte, key string) []string {
	var values []string
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "# "+key+": "); ok {
			values = append(values, v)
		}
	}
	return values
}

// TestBroken holds every broken configuration to its messages, word for word
// (rows, B-35, B-36, C-44).
func TestBroken(t *testing.T) {
	for _, name := range files(t, "testdata/broken/*.yaml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data := read(t, name)
			_, err := config.Load(map[string][]byte{"bad.yaml": data})
			if err == nil {
				t.Fatal("loaded")
			}
			var want []string
			for _, line := range header(data, "want") {
				want = append(want, "bad.yaml:"+line)
			}
			got := strings.Split(err.Error(), "\n")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Error("a message repeats a secret")
			}
		})
	}
}

func TestValid(t *testing.T) {
	for _, name := range files(t, "testdata/valid/*.yaml") {
		if _, err := config.LoadPath(name); err != nil {
			t.Error(err)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := config.LoadPath("testdata/valid/least.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := config.ApplicationSpec{
		Source: "site", Path: ".", Targets: []config.Route{{Name: "host"}},
		Prune: config.Prune{Enabled: true, MaxCount: 10, MaxPercent: 20},
		Adopt: "identical", Drift: config.Drift{Mode: "heal"},
		Interval: minutes(5), StaleAfter: minutes(15), Retry: config.Retry{Max: minutes(5)},
		Protect:        config.DefaultProtect(),
		Contention:     config.Contention{Threshold: 3, Window: minutes(10), Cooldown: minutes(30)},
		DeletionPolicy: "Orphan",
	}
	if diff := cmp.Diff(want, c.Applications[0].Spec); diff != "" {
		t.Errorf("application (-want +got):\n%s", diff)
	}
	git := c.Sources[0].Spec.Git
	if git.Interval != config.Duration(30*time.Second) || git.Timeout != config.Duration(time.Minute) || git.AllowRewrite {
		t.Errorf("source: %+v", git)
	}
	if c.Targets[0].Kind != "file" || string(c.Targets[0].Config) != "{}" {
		t.Errorf("target: %+v", c.Targets[0])
	}
}

func minutes(n int) config.Duration { return config.Duration(time.Duration(n) * time.Minute) }

func TestRelativePathsStartAtTheFile(t *testing.T) {
	data := read(t, "testdata/valid/full.yaml")
	c, err := config.Load(map[string][]byte{"/etc/gitopsd/conf/full.yaml": data})
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]config.SourceSpec{}
	for _, s := range c.Sources {
		byName[s.Name] = s.Spec
	}
	got := []string{
		byName["local"].Dir.Path, byName["site"].Git.CAFile, byName["site"].Git.ClientCert.KeyFile,
		byName["rules"].Git.Auth.SSH.KeyFrom.File, byName["rules"].Git.Auth.SSH.KnownHostsFile,
	}
	want := []string{
		"/etc/gitopsd/site", "/etc/gitopsd/conf/tls/ca.pem", "/etc/gitopsd/conf/tls/client.key",
		"/etc/gitopsd/conf/keys/deploy", "/etc/gitopsd/known_hosts",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
}

func TestDigestFollowsMeaning(t *testing.T) {
	load := func(s string) *config.Config {
		c, err := config.Load(map[string][]byte{"a.yaml": []byte(s)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	base := string(read(t, "testdata/valid/least.yaml"))
	a := load(base)
	same := load("# a comment\n" + strings.Replace(base, "{source: site,", "{source: site, adopt: identical,", 1))
	other := load(strings.Replace(base, "{source: site,", "{source: site, adopt: never,", 1))
	if a.Digest != same.Digest {
		t.Error("a default written out changes the digest")
	}
	if a.Digest == other.Digest || a.Applications[0].Digest == other.Applications[0].Digest {
		t.Error("a changed field does not change the digest")
	}
	if a.Sources[0].Digest != other.Sources[0].Digest {
		t.Error("a change of one object changes the digest of another")
	}
}

// TestEmptyIsAnError: an emptied configuration must not read as the wish to
// stop managing everything (row D-61).
func TestEmptyIsAnError(t *testing.T) {
	for _, data := range []string{"", "# nothing\n", "---\n---\n"} {
		if _, err := config.Load(map[string][]byte{"a.yaml": []byte(data)}); err == nil {
			t.Errorf("%q: loaded", data)
		}
	}
	if _, err := config.Load(nil); !errors.Is(err, config.ErrEmpty) {
		t.Errorf("no files: %v", err)
	}
}

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"a.yaml": "a: 1", "b.YML": "b: 1", ".hidden.yaml": "x", "notes.txt": "x", "c.json": "{}"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := config.ReadFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for path := range got {
		names = append(names, filepath.Base(path))
	}
	slices.Sort(names)
	if diff := cmp.Diff([]string{"a.yaml", "b.YML", "c.json"}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if _, err := config.ReadFiles(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "gitopsd init") {
		t.Errorf("missing: %v", err)
	}
	if _, err := config.ReadFiles(t.TempDir()); err == nil {
		t.Error("a directory without files was read")
	}
}

// TestDuplicateAcrossFiles: both places are named (row B-36).
func TestDuplicateAcrossFiles(t *testing.T) {
	target := "apiVersion: gitopsd.io/v1alpha1\nkind: Target\nmetadata: {name: host}\nspec: {file: {}}\n"
	_, err := config.Load(map[string][]byte{"a.yaml": []byte(target), "b.yaml": []byte("# second\n" + target)})
	want := "b.yaml:4: Target host: metadata.name: is declared twice, first at a.yaml:1; rename or remove one"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
