package file

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

// The reference shows objects that resolve, on the target it shows, and names
// every field there is.
func TestReferenceIsTrue(t *testing.T) {
	b, err := os.ReadFile("../../docs/reference-host.md")
	if err != nil {
		t.Fatal(err)
	}
	var target appliers.Applier
	shown := map[string]int{}
	for i, block := range strings.Split(string(b), "```yaml\n")[1:] {
		text, _, _ := strings.Cut(block, "```")
		var content map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &content); err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		obj, err := manifest.New(content, manifest.Origin{})
		if err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		kind := obj.ID().Kind
		shown[kind]++
		if kind == "Target" {
			config, err := json.Marshal(obj.Spec()["file"])
			if err != nil {
				t.Fatal(err)
			}
			sealer, err := manifest.NewSealer(make([]byte, 32))
			if err != nil {
				t.Fatal(err)
			}
			if target, err = Factory(nil)(appliers.Env{Target: obj.ID().Name, Config: config, Sealer: sealer}); err != nil {
				t.Fatalf("block %d: %v", i, err)
			}
			continue
		}
		if _, err := target.Resolve(obj); err != nil {
			t.Errorf("block %d: %v", i, err)
		}
	}
	for kind, fields := range kinds {
		if shown[kind] == 0 {
			t.Errorf("no example of a %s", kind)
		}
		_, section, _ := strings.Cut(string(b), "\n## "+kind+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		for _, f := range fields {
			if !strings.Contains(section, "`"+f+"`") {
				t.Errorf("%s: field %s is not described", kind, f)
			}
		}
	}
}
