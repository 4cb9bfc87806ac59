package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/internal/config"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/reconciler"
	"github.com/gitopsd/gitopsd/sources"
)

// policyFetchTimeout bounds the reading of a source that sets no time itself.
const policyFetchTimeout = time.Minute

// policyFlag is what one --policy says.
type policyFlag struct {
	set string // the policy set of the configuration that dir stands in for, or "" to judge beside
	dir string
}

// policyFlags tells SET=DIR from a DIR. cfg is nil without a configuration.
func (f *validateFlags) policyFlags(cfg *config.Config) ([]policyFlag, error) {
	var sets []config.PolicySet
	if cfg != nil {
		sets = cfg.PolicySets
	}
	var out []policyFlag
	for _, entry := range f.policies {
		name, dir, found := strings.Cut(entry, "=")
		i := slices.IndexFunc(sets, func(p config.PolicySet) bool { return found && p.Name == name })
		switch _, err := os.Stat(entry); {
		case i >= 0 && sets[i].Spec.Dir == "" && sets[i].Spec.Source == nil:
			return nil, hinted(fmt.Errorf("--policy %s: policy set %s is of the library and has no rules of its own to stand in for", entry, name), "judge by %s as well with --policy %s", dir, dir)
		case i >= 0:
			out = append(out, policyFlag{set: name, dir: dir})
		case found && err != nil && cfg == nil:
			return nil, hinted(fmt.Errorf("--policy %s: only a configuration has policy sets to stand in for", entry), "add --config, or write --policy %s", dir)
		case found && err != nil:
			return nil, hinted(fmt.Errorf("--policy %s: the configuration has no policy set %q", entry, name), "choose one of %s", strings.Join(setNames(sets), ", "))
		default:
			out = append(out, policyFlag{dir: entry})
		}
	}
	return out, nil
}

func setNames(sets []config.PolicySet) []string {
	names := []string{}
	for _, p := range sets {
		names = append(names, p.Name)
	}
	return names
}

// extraPolicies loads what --policy and --library name to judge by besides the
// sets of the configuration.
func (f *validateFlags) extraPolicies(ctx context.Context, flags []policyFlag) ([]policies.Policy, error) {
	var out []policies.Policy
	data, err := readData(f.data)
	if err != nil {
		return nil, err
	}
	for _, flag := range flags {
		if flag.set != "" {
			continue
		}
		p, err := loadPolicySet(ctx, config.PolicySet{
			Meta: config.Meta{Name: flag.dir}, Spec: config.PolicySetSpec{Dir: flag.dir, Namespaces: f.namespaces, Data: data},
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

// loadPolicySet compiles a policy set that needs no source.
func loadPolicySet(ctx context.Context, p config.PolicySet) (policies.Policy, error) {
	var files map[string][]byte
	if p.Spec.Dir != "" {
		var err error
		if files, err = readPolicyFiles(p.Spec.Dir); err != nil {
			return nil, fmt.Errorf("policy %s: %w", p.Name, err)
		}
	}
	return compilePolicySet(ctx, p, files)
}

func compilePolicySet(ctx context.Context, p config.PolicySet, files map[string][]byte) (policies.Policy, error) {
	load, err := policyLoader(p)
	if err != nil {
		return nil, err
	}
	policy, err := load(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	return policy, nil
}

// policySets loads the sets of a configuration. Those of a source are read only
// when they are needed; needed is nil when there is nothing to judge. A set that cannot be loaded is an error in the report:
// a check must not pass because nobody judged.
func policySets(ctx context.Context, cfg *config.Config, flags []policyFlag, needed func(set string) bool, r *report) map[string]policies.Policy {
	loaded := map[string]policies.Policy{}
	for _, p := range cfg.PolicySets {
		if i := slices.IndexFunc(flags, func(f policyFlag) bool { return f.set == p.Name }); i >= 0 {
			p.Spec.Dir, p.Spec.Source = flags[i].dir, nil
		}
		var policy policies.Policy
		var err error
		hint := ""
		switch {
		case p.Spec.Source == nil:
			policy, err = loadPolicySet(ctx, p)
		case needed == nil:
			r.add(finding{Level: levelNote, Rule: "policy", Path: p.Origin.Path, Line: p.Origin.Line,
				Message: fmt.Sprintf("policy set %s is in source %s and was not read", p.Name, p.Spec.Source.Name), Hint: "name a PATH to judge by it"})
			continue
		case needed(p.Name):
			hint = fmt.Sprintf("see what gitopsd doctor says of source %s, or name a folder with its rules: --policy %s=DIR", p.Spec.Source.Name, p.Name)
			policy, err = fetchPolicySet(ctx, cfg, p)
		default:
			continue
		}
		if err != nil {
			r.add(finding{Level: levelError, Rule: "policy", Path: p.Origin.Path, Line: p.Origin.Line, Message: err.Error(), Hint: hint})
			continue
		}
		loaded[p.Name] = policy
	}
	return loaded
}

// fetchPolicySet reads a set from its source as the daemon does, by way of a
// folder that is removed again.
func fetchPolicySet(ctx context.Context, cfg *config.Config, p config.PolicySet) (policies.Policy, error) {
	files, _, err := fetchPolicyFiles(ctx, cfg, p.Spec.Source)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", p.Name, err)
	}
	return compilePolicySet(ctx, p, files)
}

// fetchPolicyFiles reads the files of a set at the revision that its source has now.
func fetchPolicyFiles(ctx context.Context, cfg *config.Config, from *config.PolicySource) (files map[string][]byte, revision string, err error) {
	i := slices.IndexFunc(cfg.Sources, func(s config.Source) bool { return s.Name == from.Name })
	if i < 0 {
		return nil, "", fmt.Errorf("there is no source %q", from.Name)
	}
	scratch, err := os.MkdirTemp("", "gitopsd-policy-")
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	w := &wiring{stateDir: scratch, log: slog.New(slog.DiscardHandler), seam: effect.Direct}
	source, err := w.source(cfg.Sources[i]).Open()
	if err != nil {
		return nil, "", err
	}
	defer func() { err = errors.Join(err, source.Repository.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(source.Timeout, policyFetchTimeout))
	defer cancel()
	tree, err := newestTree(ctx, source)
	if err != nil {
		return nil, "", err
	}
	files, err = reconciler.ReadPolicies(tree, from.Path)
	return files, tree.Revision(), err
}

// newestTree opens the revision that a source has now.
func newestTree(ctx context.Context, source *sources.Source) (sources.Tree, error) {
	ref, revision, err := source.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	if err := source.Repository.Fetch(ctx, ref, revision); err != nil {
		return nil, err
	}
	return source.Repository.Open(ctx, revision)
}
