// Package layering holds the test that keeps the rooms of the house apart: who
// may import whom. The table is that of CONTRIBUTING.md.
package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gitopsd/gitopsd/"

// allowed lists, for each package or subtree ("x/..."), the project packages
// that it may reach, directly or not. The first row that fits counts; cmd sees
// everything.
var allowed = []struct {
	pkg  string
	may  []string
	test []string // in addition, for its tests
}{
	{pkg: "internal/manifest"},
	{pkg: "internal/effect"},
	{pkg: "internal/layering"},
	{pkg: "internal/plan", may: []string{"internal/manifest"}},
	{pkg: "internal/store/storetest", may: []string{"internal/store"}},
	{pkg: "internal/store/...", may: []string{"internal/store", "internal/effect"}, test: []string{"internal/store/..."}},
	{pkg: "internal/store", test: []string{"internal/store/...", "appliers", "internal/effect", "internal/manifest", "internal/plan"}},
	{pkg: "internal/audit", may: []string{"internal/store"}, test: []string{"internal/store/...", "internal/effect", "internal/manifest"}},
	{pkg: "internal/config", may: []string{"internal/manifest", "sources"}},
	{pkg: "internal/render", may: []string{"internal/manifest", "sources"}},
	{pkg: "internal/gittest"},
	{pkg: "sources/sourcetest", may: []string{"sources"}},
	{pkg: "sources/...", may: []string{"sources", "internal/effect"}, test: []string{"sources/sourcetest", "internal/gittest"}},
	{pkg: "sources", may: []string{}},
	{pkg: "policies/library", may: []string{}, test: []string{"policies", "policies/opa", "internal/manifest", "internal/plan"}},
	{pkg: "policies/...", may: []string{"policies", "internal/manifest", "internal/plan"}},
	{pkg: "policies", may: []string{"internal/manifest", "internal/plan"}},
	{pkg: "appliers/applytest", may: []string{"appliers", "internal/manifest", "internal/plan", "internal/effect"}},
	{
		pkg: "appliers/...", may: []string{"appliers", "internal/manifest", "internal/plan", "internal/effect"},
		test: []string{"appliers/applytest", "internal/store", "internal/store/memory"},
	},
	{pkg: "appliers", may: []string{"internal/manifest", "internal/plan", "internal/effect"}},
	{
		pkg:  "reconciler",
		may:  []string{"appliers", "policies", "sources", "internal/manifest", "internal/plan", "internal/render", "internal/store", "internal/effect"},
		test: []string{"appliers/memory", "sources/memory", "internal/store/memory", "policies/opa"},
	},
	{pkg: "api/...", may: []string{"api/..."}},
	{
		pkg: "internal/api/apitest",
		may: []string{
			"internal/api", "api/...", "reconciler", "appliers", "policies", "sources", "internal/manifest", "internal/plan", "internal/render",
			"internal/store", "internal/effect", "internal/audit",
		},
	},
	{
		pkg: "internal/api",
		may: []string{
			"api/...", "reconciler", "appliers", "policies", "sources", "internal/manifest", "internal/plan", "internal/render",
			"internal/store", "internal/effect", "internal/audit",
		},
		test: []string{"internal/api/apitest", "internal/store/memory"},
	},
	{pkg: "cmd/...", may: []string{"..."}},
	{pkg: "testdata/...", may: []string{"..."}},
	{pkg: "examples/...", may: []string{"..."}},
}

type goPackage struct {
	ImportPath                string
	Deps                      []string
	TestImports, XTestImports []string
}

func fits(pattern, pkg string) bool {
	if tree, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(pkg, tree)
	}
	return pattern == pkg
}

// violations returns the imports of p that the table does not allow.
func violations(p goPackage) []string {
	name := strings.TrimPrefix(p.ImportPath, module)
	row := slices.IndexFunc(allowed, func(r struct {
		pkg       string
		may, test []string
	}) bool {
		return fits(r.pkg, name)
	})
	if row < 0 {
		return []string{name + " has no row in the table of layers"}
	}
	var out []string
	check := func(what string, imports, may []string) {
		for _, path := range imports {
			dep, ours := strings.CutPrefix(path, module)
			if !ours || dep == name || slices.ContainsFunc(may, func(m string) bool { return fits(m, dep) }) {
				continue
			}
			out = append(out, name+" "+what+" "+dep)
		}
	}
	check("reaches", p.Deps, allowed[row].may)
	check("tests with", append(p.TestImports, p.XTestImports...), append(slices.Clone(allowed[row].may), allowed[row].test...))
	return out
}

func TestLayers(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Deps,TestImports,XTestImports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	n := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; n++ {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		for _, v := range violations(p) {
			t.Error(v)
		}
	}
	if n < 10 {
		t.Fatalf("go list found %d packages; the test looked at nothing", n)
	}
}

// TestGuardBites sees the guard fail: an import against the table is found.
func TestGuardBites(t *testing.T) {
	for _, p := range []goPackage{
		{ImportPath: module + "internal/plan", Deps: []string{module + "internal/store"}},
		{ImportPath: module + "reconciler", Deps: []string{module + "sources/git"}},
		{ImportPath: module + "appliers/file", TestImports: []string{module + "reconciler"}},
		{ImportPath: module + "somewhere/new"},
	} {
		if len(violations(p)) == 0 {
			t.Errorf("%s: its imports were not found to break the table", p.ImportPath)
		}
	}
}
