package appliers_test

import (
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

func routed(t *testing.T, apiVersion, kind, namespace string, labels, annotations map[string]any) *manifest.Object {
	t.Helper()
	meta := map[string]any{"name": "x", "labels": labels, "annotations": annotations}
	if namespace != "" {
		meta["namespace"] = namespace
	}
	o, err := manifest.New(map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": meta}, manifest.Origin{Path: "web/x.yaml", Line: 12})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRouter(t *testing.T) {
	host := appliers.Route{Target: "host", Kinds: []string{"host.gitopsd.io/*"}}
	cluster := appliers.Route{Target: "cluster", Kinds: []string{"apps/Deployment", "Service"}}
	prod := appliers.Route{Target: "prod", Namespaces: []string{"prod", "pay"}, Labels: map[string]string{"tier": "web"}}
	file := routed(t, "host.gitopsd.io/v1alpha1", "File", "", nil, nil)
	service := routed(t, "v1", "Service", "prod", map[string]any{"tier": "web", "x": "y"}, nil)
	annotated := func(target string) *manifest.Object {
		return routed(t, "v1", "Service", "", nil, map[string]any{appliers.TargetAnnotation: target})
	}
	tests := []struct {
		name   string
		routes []appliers.Route
		obj    *manifest.Object
		want   string
		err    []string
	}{
		{"one target takes all", []appliers.Route{{Target: "only"}}, service, "only", nil},
		{"group pattern", []appliers.Route{host, cluster}, file, "host", nil},
		{"core kind", []appliers.Route{host, cluster}, service, "cluster", nil},
		{"namespace and label", []appliers.Route{host, prod}, service, "prod", nil},
		{"other group of the same kind", []appliers.Route{{Target: "a", Kinds: []string{"Deployment"}}},
			routed(t, "apps/v1", "Deployment", "", nil, nil), "", []string{"apps/Deployment"}},
		{"label differs", []appliers.Route{prod}, routed(t, "v1", "Service", "prod", map[string]any{"tier": "db"}, nil), "", []string{"goes to no target"}},
		{"namespace differs", []appliers.Route{prod}, routed(t, "v1", "Service", "dev", map[string]any{"tier": "web"}, nil), "", []string{"goes to no target"}},
		{"no match", []appliers.Route{cluster}, file, "", []string{"web/x.yaml:12", "host.gitopsd.io/File/x", "(cluster)", "add host.gitopsd.io/File"}},
		{"two match", []appliers.Route{cluster, prod}, service, "", []string{"web/x.yaml:12", "Service/prod/x", "cluster, prod", "annotation gitopsd.io/target"}},
		{"two routes to one target", []appliers.Route{cluster, {Target: "cluster"}}, service, "cluster", nil},
		{"annotation wins", []appliers.Route{host, cluster}, annotated("host"), "host", nil},
		{"annotation settles two", []appliers.Route{cluster, {Target: "b"}}, annotated("b"), "b", nil},
		{"annotation to elsewhere", []appliers.Route{host, cluster}, annotated("other"), "", []string{"web/x.yaml:12", `"other"`, "cluster, host"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := appliers.NewRouter(tt.routes)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.Route(tt.obj)
			if got != tt.want || (err != nil) != (len(tt.err) > 0) {
				t.Fatalf("Route = %q, %v; want %q", got, err, tt.want)
			}
			for _, part := range tt.err {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q lacks %q", err, part)
				}
			}
		})
	}
}

func TestRouterRefusesBrokenRules(t *testing.T) {
	for name, routes := range map[string][]appliers.Route{
		"no targets":     nil,
		"no name":        {{}},
		"lower case":     {{Target: "a", Kinds: []string{"deployment"}}},
		"part of a name": {{Target: "a", Kinds: []string{"apps/Dep*"}}},
		"empty group":    {{Target: "a", Kinds: []string{"/Pod"}}},
		"empty":          {{Target: "a", Kinds: []string{""}}},
	} {
		if _, err := appliers.NewRouter(routes); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
