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
	"github.com/gitopsd/gitopsd/reconciler"
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
			"daemon would before it looks at any target. No target is contacted and nothing is written.\n\n" +
			"With --config the configuration is checked too. PATH is then the working tree of one of its sources, and every\n" +
			"application of that source is rendered with its own path, variables, routes and policies. Policy sets of a source are\n" +
			"read from it, with its credentials, unless --policy SET=DIR names a folder that holds their rules. A set that cannot be\n" +
			"read is an error.\n\n" +
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
	cmd.Flags().StringArrayVar(&f.policies, "policy", nil, "directory of Rego policies and data to judge by; SET=DIR: in place of the rules of that policy set (may be repeated)")
	cmd.Flags().StringArrayVar(&f.libraries, "library", nil, "policy of the library to judge by (may be repeated)")
	cmd.Flags().StringArrayVar(&f.namespaces, "namespace", nil, "Rego package whose rules judge, for --policy (may be repeated; default: all)")
	cmd.Flags().StringArrayVar(&f.data, "data", nil, "YAML or JSON file with data for --policy and --library, as data of a PolicySet (may be repeated)")
	cmd.Flags().StringArrayVar(&f.variables, "var", nil, "variable for templates, as in workers=4 (may be repeated; not with --config)")
	cmd.Flags().BoolVar(&f.failOnWarn, "fail-on-warn", false, "count warnings as errors in the exit code")
	return cmd
}

// run fills the report. An error means that something could not be checked.
func (f *validateFlags) run(ctx context.Context, path string, r *report) (err error) {
	cfg, err := f.loadConfig(r)
	if err != nil || r.count(levelError) > 0 {
		return err
	}
	flags, err := f.policyFlags(cfg)
	if err != nil {
		return err
	}
	extra, err := f.extraPolicies(ctx, flags)
	if err != nil {
		return err
	}
	var units []unit
	if cfg != nil {
		if units, err = f.configured(ctx, cfg, flags, path, r); err != nil {
			return err
		}
	} else {
		variables, err := parseVariables(f.variables)
		if err != nil {
			return err
		}
		units = append(units, unit{app: reconciler.Application{Path: ".", Variables: variables}})
	}
	if path == "" || len(units) == 0 {
		return nil
	}
	tree, root, file, err := openTree(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	for _, u := range units {
		if file != "" {
			u.app.Path, u.part = file, true
		}
		u.policies = append(u.policies, extra...)
		if err := u.judge(ctx, tree, root, r); err != nil {
			return err
		}
	}
	if check := units[0].check; check != nil && file == "" { // a file alone is taken for part of each
		r.refused(root, check.Rivals())
	}
	r.sort()
	return nil
}

// loadConfig reads the configuration, if one is named. Its mistakes go to the report.
func (f *validateFlags) loadConfig(r *report) (*config.Config, error) {
	if f.config == "" {
		return nil, nil
	}
	if len(f.variables) > 0 {
		return nil, hinted(errors.New("--var does not go with --config"), "the variables of each application are used")
	}
	cfg, err := config.LoadPath(f.config)
	var problems manifest.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			r.problem("", "config", "", p)
		}
		return nil, nil
	}
	return cfg, err
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

// configured checks the configuration and returns its applications of the source
// that path is the working tree of.
func (f *validateFlags) configured(ctx context.Context, cfg *config.Config, flags []policyFlag, path string, r *report) ([]unit, error) {
	check, err := openCheck(cfg, r)
	if err != nil {
		return nil, err
	}
	if path == "" {
		policySets(ctx, cfg, flags, nil, r)
		r.checkedConfig = countConfig(cfg)
		return nil, nil
	}
	source, err := f.pickSource(cfg)
	if err != nil {
		return nil, err
	}
	if err := f.isTree(cfg, source, path); err != nil {
		return nil, err
	}
	apps := slices.DeleteFunc(slices.Clone(cfg.Applications), func(a config.Application) bool { return a.Spec.Source != source })
	sets := policySets(ctx, cfg, flags, func(set string) bool {
		return slices.ContainsFunc(apps, func(a config.Application) bool { return slices.Contains(a.Spec.Policies, set) })
	}, r)
	var units []unit
	for _, a := range apps {
		u := unit{app: application(a), check: check}
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

// isTree refuses a path around or inside the directory of a source, which then is
// another one than the paths of applications are relative to. A directory
// elsewhere may be a copy.
func (f *validateFlags) isTree(cfg *config.Config, source, path string) error {
	i := slices.IndexFunc(cfg.Sources, func(s config.Source) bool { return s.Name == source })
	info, err := os.Stat(path)
	if i < 0 || cfg.Sources[i].Spec.Dir == nil || err != nil || !info.IsDir() {
		return nil // what is wrong is said where it is used
	}
	dir := cfg.Sources[i].Spec.Dir.Path
	have, err := realPath(path)
	want, wantErr := realPath(dir)
	if err != nil || wantErr != nil || have == want || !within(have, want) && !within(want, have) {
		return nil
	}
	if here, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(here, want); err == nil && filepath.IsLocal(short) {
			dir = short
		}
	}
	return hinted(fmt.Errorf("%s is not the directory of source %s, which is %s", path, source, want), "gitopsd validate %s --config %s", dir, f.config)
}

func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// within reports whether path lies below dir; both are real.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// relative returns path as people who stand in the current directory write it.
func relative(root, path string) string { return filepath.Join(root, filepath.FromSlash(path)) }
