package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/appliers/file"
	"github.com/gitopsd/gitopsd/internal/config"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/policies/library"
	"github.com/gitopsd/gitopsd/policies/opa"
	"github.com/gitopsd/gitopsd/reconciler"
	"github.com/gitopsd/gitopsd/sources"
	"github.com/gitopsd/gitopsd/sources/dir"
	"github.com/gitopsd/gitopsd/sources/git"
)

// verdictsKept is how many verdicts on objects a policy set remembers.
const verdictsKept = 200_000

// applierFactories lists every kind of target.
func (w *wiring) applierFactories() map[string]appliers.Factory {
	return map[string]appliers.Factory{
		"file": file.Factory(w.locks, w.protected...),
	}
}

// wiring turns a configuration into what the loop works with. It is immutable
// and may be used for one configuration after the other.
type wiring struct {
	stateDir  string
	store     store.Store
	sealer    *manifest.Sealer
	log       *slog.Logger
	seam      effect.Seam
	epoch     uint64
	protected []string // paths of the daemon itself, which no target may write
	locks     *file.Locks
}

// reconcilerConfig opens nothing: each part says how to open itself.
func (w *wiring) reconcilerConfig(c *config.Config) (reconciler.Config, error) {
	var out reconciler.Config
	for _, s := range c.Sources {
		out.Sources = append(out.Sources, w.source(s))
	}
	for _, t := range c.Targets {
		target, err := w.target(t)
		if err != nil {
			return out, err
		}
		out.Targets = append(out.Targets, target)
	}
	for _, p := range c.PolicySets {
		set, source, err := w.policySet(p)
		if err != nil {
			return out, err
		}
		out.PolicySets = append(out.PolicySets, set)
		if source != nil {
			out.Sources = append(out.Sources, *source)
		}
	}
	for _, a := range c.Applications {
		out.Applications = append(out.Applications, application(a))
	}
	return out, nil
}

func (w *wiring) target(t config.Target) (reconciler.TargetConfig, error) {
	factories := w.applierFactories()
	factory, ok := factories[t.Kind]
	if !ok {
		return reconciler.TargetConfig{}, fmt.Errorf("%s: target %s: there is no kind %q; this build has %s",
			t.Origin, t.Name, t.Kind, strings.Join(slices.Sorted(maps.Keys(factories)), ", "))
	}
	env := appliers.Env{
		Target: t.Name, Config: t.Config, KV: store.Namespace(w.store, "target/"+t.Name, func() uint64 { return w.epoch }),
		Log: w.log.With("target", t.Name), Now: time.Now, Effect: w.seam, Sealer: w.sealer,
	}
	return reconciler.TargetConfig{Name: t.Name, Digest: t.Digest, Open: func() (appliers.Applier, error) { return factory(env) }}, nil
}

func (w *wiring) source(s config.Source) reconciler.SourceConfig {
	if d := s.Spec.Dir; d != nil {
		return w.dirSource(s.Name, s.Digest, d.Path, time.Duration(d.Settle))
	}
	g := s.Spec.Git
	return reconciler.SourceConfig{
		Name: s.Name, Digest: s.Digest, Host: hostOf(g.URL),
		Identity: digest(g.URL, g.Branch, g.Tag, g.Commit),
		Open: func() (*sources.Source, error) {
			repo, err := git.Open(w.gitOptions(g))
			if err != nil {
				return nil, err
			}
			return &sources.Source{
				Name: s.Name, Repository: repo, Ref: g.Ref(), Trust: sources.Trust{AllowRewrite: g.AllowRewrite},
				Interval: time.Duration(g.Interval), Timeout: time.Duration(g.Timeout),
			}, nil
		},
	}
}

func (w *wiring) dirSource(name, sourceDigest, path string, settle time.Duration) reconciler.SourceConfig {
	return reconciler.SourceConfig{
		Name: name, Digest: sourceDigest, Identity: digest("dir", path),
		Open: func() (*sources.Source, error) {
			repo, err := dir.Open(dir.Options{Path: path, Settle: settle, Log: w.log.With("source", name)})
			if err != nil {
				return nil, err
			}
			return &sources.Source{Name: name, Repository: repo}, nil
		},
	}
}

func (w *wiring) gitOptions(g *config.GitSource) git.Options {
	o := git.Options{
		URL: g.URL, Dir: filepath.Join(w.stateDir, "mirrors"), Proxy: git.Proxy{URL: g.Proxy}, Seam: w.seam,
		Child: []string{ownProgram, fetchProcess},
		Limits: git.Limits{
			ObjectBytes: g.Limits.ObjectMiB << 20, PackBytes: g.Limits.PackMiB << 20,
			UnpackedBytes: g.Limits.UnpackedMiB << 20, MemoryBytes: g.Limits.MemoryMiB << 20,
		},
	}
	if g.CAFile != "" {
		o.CA = git.File(g.CAFile)
	}
	if c := g.ClientCert; c != nil {
		o.Auth.ClientCert, o.Auth.ClientKey = git.File(c.CertFile), git.File(c.KeyFile)
	}
	if g.Auth == nil {
		return o
	}
	switch a := g.Auth; {
	case a.Basic != nil:
		o.Auth.Username, o.Auth.Password = a.Basic.Username, secret(&a.Basic.PasswordFrom)
	case a.Bearer != nil:
		o.Auth.Token = secret(&a.Bearer.TokenFrom)
	case a.SSH != nil:
		o.KnownHosts = knownHosts(a.SSH.KnownHostsFile)
		o.Auth.SSHKey, o.Auth.SSHPassphrase = secret(a.SSH.KeyFrom), secret(a.SSH.PassphraseFrom)
		if a.SSH.Agent != nil {
			o.Auth.SSHAgent = "env"
		}
	}
	return o
}

func secret(ref *config.SecretRef) git.Resolver {
	switch {
	case ref == nil:
		return nil
	case ref.Env != "":
		return git.Env(ref.Env)
	case ref.File != "":
		return git.File(ref.File)
	default:
		return git.Systemd(ref.Credential)
	}
}

// policySet returns a policy set and, for a directory of this host, the source
// that watches it.
func (w *wiring) policySet(p config.PolicySet) (reconciler.PolicySetConfig, *reconciler.SourceConfig, error) {
	load, err := policyLoader(p)
	if err != nil {
		return reconciler.PolicySetConfig{}, nil, err
	}
	set := reconciler.PolicySetConfig{Name: p.Name, Digest: p.Digest, Load: load}
	switch {
	case p.Spec.Source != nil:
		set.Source, set.Path = p.Spec.Source.Name, p.Spec.Source.Path
	case p.Spec.Dir != "":
		// A name that no Source of the configuration can have.
		source := w.dirSource("policyset/"+p.Name, p.Digest, p.Spec.Dir, 0)
		set.Source, set.Path = source.Name, "."
		return set, &source, nil
	}
	return set, nil, nil
}

// policyLoader compiles a policy set from the files of its source, nil when it
// has none, and from the library that ships with gitopsd.
func policyLoader(p config.PolicySet) (func(context.Context, map[string][]byte) (policies.Policy, error), error) {
	shipped := map[string][]byte{}
	for _, name := range p.Spec.Library {
		files := library.Files(name)
		if files == nil {
			return nil, fmt.Errorf("%s: policy set %s: the library has no %q; it has %s", p.Origin, p.Name, name, strings.Join(library.Names(), ", "))
		}
		maps.Copy(shipped, files)
	}
	inline, err := json.Marshal(p.Spec.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: policy set %s: spec.data: %w", p.Origin, p.Name, err)
	}
	return func(ctx context.Context, files map[string][]byte) (policies.Policy, error) {
		modules, data := opa.Split(files)
		if len(modules) == 0 && files != nil && len(shipped) > 0 {
			// The rules of the library must not hide that the set's own are gone.
			return nil, fmt.Errorf("%w: beside the library the set names a directory, and it holds no .rego file; put rules there, or data alone under spec.data", opa.ErrNotEffective)
		}
		if len(p.Spec.Data) > 0 {
			data["spec.data"] = inline
		}
		engine, err := opa.Load(ctx, opa.Options{
			Modules: modules, Library: shipped, Data: data, Namespaces: p.Spec.Namespaces, AllowBuiltins: p.Spec.AllowBuiltins,
			Timeout: time.Duration(p.Spec.Timeout),
		})
		if err != nil {
			return nil, err
		}
		return policies.Named(p.Name, policies.Cached(engine, verdictsKept)), nil
	}, nil
}

func application(a config.Application) reconciler.Application {
	s := a.Spec
	out := reconciler.Application{
		Name: a.Name, RenamedFrom: a.RenamedFrom, Digest: a.Digest, Source: s.Source, Path: s.Path, Variables: s.Variables,
		Policies: s.Policies, DependsOn: s.DependsOn, Prune: s.Prune.Enabled, AllowAuthor: s.Approval.AllowAuthor,
		Budget: plan.Budget{MaxCount: int(s.Prune.MaxCount), MaxPercent: int(s.Prune.MaxPercent)},
		Adopt:  plan.AdoptMode(s.Adopt), Interval: time.Duration(s.Interval), StaleAfter: time.Duration(s.StaleAfter),
		DeletionPolicy: reconciler.DeletionPolicy(s.DeletionPolicy),
		RetryMax:       time.Duration(s.Retry.Max), Suspend: s.Suspend,
		Contention: reconciler.Contention{
			Threshold: int(s.Contention.Threshold), Window: time.Duration(s.Contention.Window), Cooldown: time.Duration(s.Contention.Cooldown),
		},
	}
	for _, r := range s.Targets {
		out.Routes = append(out.Routes, appliers.Route{Target: r.Name, Kinds: r.Kinds, Namespaces: r.Namespaces, Labels: r.Labels})
	}
	out.Drift = append(out.Drift, plan.DriftRule{Mode: plan.DriftMode(s.Drift.Mode)})
	for _, r := range s.Drift.Rules {
		rule := plan.DriftRule{Path: manifest.Pointer(r.Path), Mode: plan.DriftMode(r.Mode)}
		if r.Kind != "" {
			gk := config.ParseKind(r.Kind)
			rule.GroupKind = &gk
		}
		out.Drift = append(out.Drift, rule)
	}
	for _, kind := range s.Protect {
		out.Protect = append(out.Protect, config.ParseKind(kind))
	}
	return out
}

// hostOf returns the host that requests to a repository are counted against, ""
// for a local one.
func hostOf(address string) string {
	if u, err := url.Parse(address); err == nil && u.Scheme != "" {
		return u.Hostname()
	}
	if host, _, found := strings.Cut(address, ":"); found && !strings.HasPrefix(address, "/") {
		return host[strings.LastIndexByte(host, '@')+1:]
	}
	return ""
}

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}

// knownHosts returns the files of host keys to trust: the configured one, or
// those of the user and the system that are there.
func knownHosts(configured string) []string {
	if configured != "" {
		return []string{configured}
	}
	var files []string
	if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".ssh", "known_hosts"))
	}
	files = append(files, "/etc/ssh/ssh_known_hosts")
	return slices.DeleteFunc(files, func(path string) bool {
		_, err := os.Stat(path)
		return err != nil
	})
}
