package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/gitopsd/gitopsd/internal/config"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
)

type validateFlags struct {
	config, source      string
	policies, libraries []string
	namespaces, data    []string
	variables           []string
	format              string
	failOnWarn          bool
}

func (c *cli) validateCommand() *cobra.Command {
	var f validateFlags
	cmd := &cobra.Command{
		Use:   "validate [PATH]",
		Short: "Check manifests and configuration without a daemon",
		Long: "Decode and render the manifests under PATH, a file or a working tree, and judge them by policies, exactly as the\n" +
			"daemon would before it looks at any target. Nothing is contacted and nothing is written.\n\n" +
			"With --config the configuration is checked too. PATH is then the working tree of one of its sources, and every\n" +
			"application of that source is rendered with its own path, variables, routes and policies.\n\n" +
			"The exit code is 1 when there is any error, and with --fail-on-warn when there is any warning.",
		Example: "  gitopsd validate .\n  gitopsd validate apps/web --policy policies --library host-files\n" +
			"  gitopsd validate . --config /etc/gitopsd/gitopsd.yaml -o sarif > findings.sarif",
		Args: arguments(0, 1, "[PATH]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && f.config == "" {
				return hinted(errors.New("there is nothing to check"), "name a PATH, or a configuration with --config")
			}
			r := &report{}
			if err := f.run(cmd.Context(), strings.Join(args, ""), r); err != nil {
				return err
			}
			if err := r.print(c, f.format); err != nil {
				return err
			}
			if r.count(levelError) > 0 || (f.failOnWarn && r.count(levelWarning) > 0) {
				return errSilent
			}
			return nil
		},
	}
	formatFlag(cmd, &f.format, "text", "json", "junit", "sarif", "github")
	cmd.Flags().StringVar(&f.config, "config", "", "configuration file or directory to check, and to take applications from")
	cmd.Flags().StringVar(&f.source, "source", "", "with --config: the source that PATH is the working tree of (default: the only one)")
	cmd.Flags().StringArrayVar(&f.policies, "policy", nil, "directory of Rego policies and data to judge by (may be repeated)")
	cmd.Flags().StringArrayVar(&f.libraries, "library", nil, "policy of the library to judge by (may be repeated)")
	cmd.Flags().StringArrayVar(&f.namespaces, "namespace", nil, "Rego package whose rules judge, for --policy (may be repeated; default: all)")
	cmd.Flags().StringArrayVar(&f.data, "data", nil, "YAML or JSON file with data for --policy and --library, as data of a PolicySet (may be repeated)")
	cmd.Flags().StringArrayVar(&f.variables, "var", nil, "variable for templates, as in workers=4 (may be repeated; not with --config)")
	cmd.Flags().BoolVar(&f.failOnWarn, "fail-on-warn", false, "count warnings as errors in the exit code")
	return cmd
}

// run fills the report. An error means that something could not be checked.
func (f *validateFlags) run(ctx context.Context, path string, r *report) error {
	extra, err := f.flagPolicies(ctx)
	if err != nil {
		return err
	}
	units := []unit{}
	if f.config != "" {
		if len(f.variables) > 0 {
			return hinted(errors.New("--var does not go with --config"), "the variables of each application are used")
		}
		if units, err = f.configured(ctx, path, r); err != nil {
			return err
		}
	} else {
		variables, err := parseVariables(f.variables)
		if err != nil {
			return err
		}
		units = append(units, unit{path: ".", variables: variables})
	}
	if path == "" || len(units) == 0 {
		return nil
	}
	tree, root, file, err := openTree(ctx, path)
	if err != nil {
		return err
	}
	for _, u := range units {
		if file != "" {
			u.path = file
		}
		u.policies = append(u.policies, extra...)
		if err := u.check(ctx, tree, root, r); err != nil {
			return err
		}
	}
	r.sort()
	return nil
}

// parseVariables reads name=value; a value is what it is in YAML, so that 4 is a
// number and "4" a string.
func parseVariables(list []string) (map[string]any, error) {
	out := map[string]any{}
	for _, entry := range list {
		name, text, found := strings.Cut(entry, "=")
		if !found || name == "" {
			return nil, hinted(fmt.Errorf("--var %q has no value", entry), "write it as name=value")
		}
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil || value == nil {
			value = text
		}
		if n, ok := value.(float64); ok && n == float64(int64(n)) {
			value = int64(n)
		}
		out[name] = value
	}
	return out, nil
}

// flagPolicies loads what --policy and --library name.
func (f *validateFlags) flagPolicies(ctx context.Context) ([]policies.Policy, error) {
	var out []policies.Policy
	data, err := readData(f.data)
	if err != nil {
		return nil, err
	}
	for _, dir := range f.policies {
		p, err := loadPolicySet(ctx, config.PolicySet{
			Meta: config.Meta{Name: dir}, Spec: config.PolicySetSpec{Dir: dir, Namespaces: f.namespaces, Data: data},
		})
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	if len(f.libraries) > 0 {
		p, err := loadPolicySet(ctx, config.PolicySet{
			Meta: config.Meta{Name: "library", Origin: manifest.Origin{Path: "--library"}}, Spec: config.PolicySetSpec{Library: f.libraries, Data: data},
		})
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// readData reads files of policy data; a later one may not repeat a key of an
// earlier one at the top.
func readData(paths []string) (map[string]any, error) {
	out := map[string]any{}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
		var values map[string]any
		if err := yaml.UnmarshalStrict(raw, &values); err != nil {
			return nil, hinted(fmt.Errorf("--data %s: %w", path, err), "write one YAML or JSON mapping, as under data of a PolicySet")
		}
		for key, value := range values {
			if _, twice := out[key]; twice {
				return nil, hinted(fmt.Errorf("--data %s: %s was given by a file before", path, key), "put all of it into one file")
			}
			out[key] = value
		}
	}
	return out, nil
}

// loadPolicySet compiles a policy set that this host has.
func loadPolicySet(ctx context.Context, p config.PolicySet) (policies.Policy, error) {
	load, err := policyLoader(p)
	if err != nil {
		return nil, err
	}
	var files map[string][]byte
	if p.Spec.Dir != "" {
		if files, err = readPolicyFiles(p.Spec.Dir); err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.Name, err)
		}
	}
	policy, err := load(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	return policy, nil
}

// configured checks the configuration and returns its applications of the source
// that path is the working tree of.
func (f *validateFlags) configured(ctx context.Context, path string, r *report) ([]unit, error) {
	cfg, err := config.LoadPath(f.config)
	var problems manifest.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			r.problem("", "config", "", p)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	targets := openTargets(cfg, r)
	sets := map[string]policies.Policy{}
	for _, p := range cfg.PolicySets {
		if p.Spec.Source != nil {
			r.add(finding{Level: levelNote, Rule: "policy", Path: p.Origin.Path, Line: p.Origin.Line,
				Message: fmt.Sprintf("policy set %s is read from source %s and did not judge here", p.Name, p.Spec.Source.Name),
				Hint:    "add --policy with a working tree of it"})
			continue
		}
		if sets[p.Name], err = loadPolicySet(ctx, p); err != nil {
			r.add(finding{Level: levelError, Rule: "policy", Path: p.Origin.Path, Line: p.Origin.Line, Message: err.Error()})
			delete(sets, p.Name)
		}
	}
	if path == "" {
		r.checkedConfig = configSummary(cfg)
		return nil, nil
	}
	source, err := f.pickSource(cfg)
	if err != nil {
		return nil, err
	}
	var units []unit
	for _, a := range cfg.Applications {
		if a.Spec.Source != source {
			continue
		}
		u := unit{application: a.Name, path: a.Spec.Path, variables: a.Spec.Variables, routes: application(a).Routes, targets: targets}
		for _, name := range a.Spec.Policies {
			if set, ok := sets[name]; ok {
				u.policies = append(u.policies, set)
			}
		}
		units = append(units, u)
	}
	return units, nil
}

func (f *validateFlags) pickSource(cfg *config.Config) (string, error) {
	used := map[string]bool{}
	for _, a := range cfg.Applications {
		used[a.Spec.Source] = true
	}
	names := slices.Sorted(maps.Keys(used))
	switch {
	case f.source != "" && !used[f.source]:
		return "", hinted(fmt.Errorf("no application uses source %q", f.source), "choose one of %s", strings.Join(names, ", "))
	case f.source != "":
		return f.source, nil
	case len(names) != 1:
		return "", hinted(fmt.Errorf("the applications use %d sources", len(names)), "say with --source which one PATH is of: %s", strings.Join(names, ", "))
	}
	return names[0], nil
}

// relative returns path as people who stand in the current directory write it.
func relative(root, path string) string { return filepath.Join(root, filepath.FromSlash(path)) }
