package file

import (
	"encoding/json"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

// TestPrefixStandsForTheRoot puts every path below the prefix, and lets none
// climb out of it.
func TestPrefixStandsForTheRoot(t *testing.T) {
	a, err := Factory(nil)(appliers.Env{Target: "image", Config: json.RawMessage(`{"prefix": "/mnt/image", "roots": ["/etc"]}`)})
	if err != nil {
		t.Fatal(err)
	}
	resolve := func(path string) (appliers.Resolved, error) {
		o, err := manifest.New(map[string]any{
			"apiVersion": "host.gitopsd.io/v1alpha1", "kind": "Directory", "metadata": map[string]any{"name": "d"},
			"spec": map[string]any{"path": path},
		}, manifest.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		return a.Resolve(o)
	}
	if r, err := resolve("/etc/app"); err != nil || r.Locator != "/mnt/image/etc/app" {
		t.Errorf("locator %q, %v; want /mnt/image/etc/app", r.Locator, err)
	}
	for _, p := range []string{"/etc/../../etc/shadow", "/srv/app", "etc/app", "/etc/../srv"} {
		if r, err := resolve(p); err == nil {
			t.Errorf("%s was resolved to %s", p, r.Locator)
		}
	}
}
