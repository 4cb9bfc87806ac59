// Package library holds the Rego that ships with gitopsd: named sets of rules
// about objects, written so that conftest can run them too, with their tests.
package library

import (
	"embed"
	"io/fs"
	"path"
	"strings"
)

//go:embed */*.rego
var sets embed.FS

// Names returns the names of the sets, sorted.
func Names() []string {
	entries, err := sets.ReadDir(".")
	if err != nil { // the root of an embedded tree is always there
		panic(err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Files returns the modules of a set without their tests, by path
// ("host-files/modes.rego"), or nil when there is no such set. The caller may
// keep and change the map.
func Files(name string) map[string][]byte {
	return files(name, func(path string) bool { return !isTest(path) })
}

// Tests returns the tests of a set, by path, or nil when there is no such set.
func Tests(name string) map[string][]byte { return files(name, isTest) }

func isTest(path string) bool { return strings.HasSuffix(path, "_test.rego") }

func files(name string, want func(path string) bool) map[string][]byte {
	if !fs.ValidPath(name) || name == "." || strings.Contains(name, "/") {
		return nil
	}
	entries, err := sets.ReadDir(name)
	if err != nil {
		return nil
	}
	out := map[string][]byte{}
	for _, e := range entries {
		p := path.Join(name, e.Name())
		if !want(p) {
			continue
		}
		content, err := sets.ReadFile(p)
		if err != nil { // listed in an embedded tree
			panic(err)
		}
		out[p] = content
	}
	return out
}
