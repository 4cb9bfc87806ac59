package config_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/config"
)

// FuzzLoad: a configuration is taken whole, with a meaning that a comment does
// not change, or not at all, with each mistake at a line that there is.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/valid/*.yaml", "testdata/broken/*.yaml"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			f.Fatal("no seeds", err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("- a\n"))
	f.Add([]byte("\xff"))
	place := regexp.MustCompile(`(?m)^(?:\s*|.*\n)?a\.yaml:(\d+): `)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 {
			return
		}
		c, err := config.Load(map[string][]byte{"a.yaml": data})
		if err != nil {
			if c != nil {
				t.Fatalf("a configuration came with %v", err)
			}
			for _, m := range place.FindAllStringSubmatch(err.Error(), -1) {
				var line int
				if fmt.Sscan(m[1], &line); line < 1 || line > 1+bytes.Count(data, []byte("\n")) {
					t.Fatalf("there is no such line: %v", err)
				}
			}
			return
		}
		again, err := config.Load(map[string][]byte{"a.yaml": append([]byte("# a comment\n"), data...)})
		if strings.HasPrefix(string(data), "%") {
			return // a YAML directive, which stands first
		}
		if err != nil || again.Digest != c.Digest {
			t.Fatalf("a comment changes it: %v", err)
		}
		names := map[string]bool{}
		for _, s := range c.Sources {
			names[s.Name] = true
		}
		for _, a := range c.Applications {
			if !names[a.Spec.Source] || len(a.Spec.Targets) == 0 || a.Spec.Interval <= 0 || a.Spec.StaleAfter <= a.Spec.Interval || strings.HasPrefix(a.Spec.Path, "/") || strings.HasPrefix(a.Spec.Path, "..") {
				t.Fatalf("application %s is taken as %+v", a.Name, a.Spec)
			}
		}
	})
}
