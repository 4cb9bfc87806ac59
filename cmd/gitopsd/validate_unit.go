package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/config"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/render"
	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/sources"
	"github.com/gitopsd/gitopsd/sources/dir"
)

// unit is one path to render and judge: an application, or what was named on the
// command line.
type unit struct {
	application string // "" without a configuration
	path        string
	variables   map[string]any
	routes      []appliers.Route // none: objects are not routed
	targets     map[string]appliers.Applier
	policies    []policies.Policy
}

// openTree opens a directory, or the directory of a file together with its name.
// root is what paths of the tree are relative to.
func openTree(ctx context.Context, path string) (tree sources.Tree, root, file string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", "", hinted(err, "name a file or directory that exists")
	}
	root = path
	if !info.IsDir() {
		root, file = filepath.Dir(path), filepath.Base(path)
	}
	repo, err := dir.Open(dir.Options{Path: root, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, "", "", err
	}
	tree, err = newestTree(ctx, &sources.Source{Name: root, Repository: repo})
	return tree, root, file, errors.Join(err, repo.Close())
}

// openTargets makes the appliers of a configuration, with no way to any target:
// only what they say about objects is asked.
func openTargets(cfg *config.Config, r *report) map[string]appliers.Applier {
	targets := map[string]appliers.Applier{}
	for _, t := range cfg.Targets {
		applier, err := openTarget(t)
		if err != nil {
			r.add(finding{Level: levelError, Rule: "target", Path: t.Origin.Path, Line: t.Origin.Line, Message: err.Error()})
			continue
		}
		targets[t.Name] = applier
	}
	return targets
}

func openTarget(t config.Target) (appliers.Applier, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	sealer, err := manifest.NewSealer(key)
	if err != nil {
		return nil, err
	}
	factories := (&wiring{}).applierFactories()
	factory, ok := factories[t.Kind]
	if !ok {
		return nil, fmt.Errorf("target %s: there is no kind %q; this build has %s", t.Name, t.Kind, strings.Join(slices.Sorted(maps.Keys(factories)), ", "))
	}
	return factory(appliers.Env{
		Target: t.Name, Config: t.Config, KV: nothing{}, Log: slog.New(slog.DiscardHandler), Now: time.Now, Sealer: sealer,
		Effect: func(name effect.Name, key string, _ func() error) error {
			return fmt.Errorf("%s of %s: validate changes nothing", name, key)
		},
	})
}

// nothing is the durable map of an applier that keeps nothing.
type nothing struct{}

func (nothing) Get(context.Context, string) ([]byte, bool, error)       { return nil, false, nil }
func (nothing) Put(context.Context, string, []byte) error               { return nil }
func (nothing) List(context.Context, string) (map[string][]byte, error) { return nil, nil }

// check renders and judges one unit into the report.
func (u *unit) check(ctx context.Context, tree sources.Tree, root string, r *report) error {
	state, _, err := (&render.Renderer{}).Render(ctx, tree, render.Spec{Path: u.path, Variables: u.variables}, nil)
	var problems manifest.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			if u.application == "" && p.Hint == render.UndeclaredHint {
				p.Hint = "give it with --var NAME=VALUE, or take the variables of the applications with --config"
			}
			r.problem(root, "render", u.application, p)
		}
		return nil
	}
	if err != nil {
		return err
	}
	var objects []*manifest.Object
	for o := range state.All() {
		objects = append(objects, o)
		r.object(u.application, root, o)
	}
	if len(objects) == 0 {
		r.add(finding{Level: levelWarning, Rule: "render", Application: u.application, Path: relative(root, u.path),
			Message: "holds no object", Hint: "the daemon would take it for an emptied source and hold it"})
	}
	u.route(root, objects, r)
	for _, p := range u.policies {
		verdicts, err := p.Objects(ctx, objects)
		if err != nil {
			return err
		}
		for i, v := range verdicts {
			for _, f := range v.Deny {
				r.verdict(levelError, u.application, root, objects[i], f)
			}
			for _, f := range v.Warn {
				r.verdict(levelWarning, u.application, root, objects[i], f)
			}
		}
	}
	return nil
}

// route asks where each object goes and whether its target understands it.
func (u *unit) route(root string, objects []*manifest.Object, r *report) {
	if u.routes == nil {
		return
	}
	router, err := appliers.NewRouter(u.routes)
	if err != nil {
		r.add(finding{Level: levelError, Rule: "route", Application: u.application, Message: err.Error()})
		return
	}
	taken := map[string]*manifest.Object{}
	for _, o := range objects {
		rule := "route"
		name, err := router.Route(o)
		if target, ok := u.targets[name]; err == nil && ok {
			rule = "target"
			err = resolve(target, name, o, taken)
		}
		if err == nil {
			continue
		}
		msg := strings.TrimPrefix(err.Error(), o.Origin().String()+": ")
		msg = strings.TrimLeft(strings.TrimPrefix(msg, o.ID().String()), ": ")
		r.add(finding{Level: levelError, Rule: rule, Application: u.application, Object: o.ID().String(),
			Path: relative(root, o.Origin().Path), Line: o.Origin().Line, Message: msg})
	}
}

// resolve reports why a target could not take an object.
func resolve(target appliers.Applier, name string, o *manifest.Object, taken map[string]*manifest.Object) error {
	if answer, err := target.Takes(o.ID().GroupKind()); answer == appliers.No {
		return fmt.Errorf("target %s does not take %s; route it to another", name, o.ID().GroupKind())
	} else if answer == appliers.Unknown {
		return err // known only with the target at hand, and no error without a reason
	}
	resolved, err := target.Resolve(o)
	if err != nil {
		return err
	}
	at := name + ":" + resolved.Locator
	if first, ok := taken[at]; ok {
		return fmt.Errorf("is the same thing on the target (%s) as %s at %s; keep one of them", resolved.Locator, first.ID(), first.Origin())
	}
	taken[at] = o
	return nil
}

// maxPolicyFile is the largest policy or data file that is read.
const maxPolicyFile = 10 << 20

// readPolicyFiles reads the Rego, JSON and YAML files of a directory by their
// path in it. Hidden files and directories are left out.
func readPolicyFiles(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path != root && strings.HasPrefix(e.Name(), ".") {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || (filepath.Ext(path) != ".rego" && !manifest.IsManifest(path)) {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Size() > maxPolicyFile {
			return fmt.Errorf("%s has %d bytes (at most %d)", path, info.Size(), maxPolicyFile)
		}
		files[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	for path := range files {
		if filepath.Ext(path) == ".rego" {
			return files, nil
		}
	}
	return nil, fmt.Errorf("%s holds no .rego file", root)
}
