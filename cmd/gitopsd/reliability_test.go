package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	rowName  = regexp.MustCompile(`\b(?:(?:A|B|C|D[2-4]?|E|F|G)-\d{1,3}|GR-[A-Z]+\d+|S\d{1,2})\b`)
	rowLine  = regexp.MustCompile(`(?m)^\| ([A-Z]\S*) \| [^|]+ \| [^|]* \| ([^|]+) \|$`)
	rowProof = regexp.MustCompile("`([^`]+)`")
)

// TestReliabilityPage: a row of docs/reliability.md and the tests that name it
// lead to each other.
func TestReliabilityPage(t *testing.T) {
	page := pages(t)["docs/reliability.md"]
	planned := map[string]bool{}
	for _, row := range rowLine.FindAllStringSubmatch(page, -1) {
		if _, twice := planned[row[1]]; twice {
			t.Errorf("row %s stands twice", row[1])
		}
		planned[row[1]] = row[2] == "*planned*"
		if !planned[row[1]] {
			checkProof(t, row[1], row[2])
		}
	}
	if len(planned) < 100 {
		t.Errorf("the page has %d rows", len(planned))
	}
	named := 0
	for path, text := range testTexts(t) {
		for _, row := range rowName.FindAllString(text, -1) {
			named++
			if isPlanned, known := planned[row]; !known || isPlanned {
				t.Errorf("%s names row %s, which docs/reliability.md does not have, or has as planned", path, row)
			}
		}
	}
	if named < 200 {
		t.Errorf("only %d mentions of rows were found", named)
	}
}

// checkProof reads "`TestA`, `TestB` in `file`; `story`": files that there are,
// with tests of these names.
func checkProof(t *testing.T, row, text string) {
	for place := range strings.SplitSeq(text, "; ") {
		names := rowProof.FindAllStringSubmatch(place, -1)
		if len(names) == 0 {
			t.Errorf("row %s names no test: %q", row, place)
			continue
		}
		path := names[len(names)-1][1]
		content, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Errorf("row %s: %v", row, err)
		}
		for _, name := range names[:len(names)-1] {
			if !strings.Contains(string(content), "\nfunc "+name[1]+"(") {
				t.Errorf("row %s: %s has no %s", row, path, name[1])
			}
		}
	}
}

// testTexts reads every test, conformance suite and story, by path.
func testTexts(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && path != "../.." && strings.HasPrefix(e.Name(), "."):
			return fs.SkipDir
		case strings.HasSuffix(path, "_test.go"), strings.HasSuffix(path, ".txtar"), strings.HasSuffix(path, ".go") && strings.HasSuffix(filepath.Dir(path), "test"):
			text, err := os.ReadFile(path)
			out[strings.TrimPrefix(path, "../../")] = string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
