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
	"github.com/gitopsd/gitopsd/reconciler"
	"github.com/gitopsd/gitopsd/sources"
	"github.com/gitopsd/gitopsd/sources/dir"
)

// unit is one path to render and judge: an application, or what was named on the
// command line.
type unit struct {
	app      reconciler.Application // without a configuration only what is rendered is set
	part     bool                   // a file of it only, so what it depends on may be missing
	check    *reconciler.Check      // nil without a configuration: objects go nowhere
	policies []policies.Policy
}

// openTree opens a directory, or the directory of a file together with its name.
// root is what paths of the tree are relative to. Nothing is read yet: the daemon
// does not read what no application asks for either.
func openTree(path string) (tree *dir.Live, root, file string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", "", hinted(err, "name a file or directory that exists")
	}
	root = path
	if !info.IsDir() {
		root, file = filepath.Dir(path), filepath.Base(path)
	}
	tree, err = dir.OpenLive(root)
	return tree, root, file, err
}

// openCheck opens the targets of a configuration, with no way to any of them: only
// what they say about objects is asked. It returns nil when one cannot be opened.
func openCheck(cfg *config.Config, r *report) (*reconciler.Check, error) {
	sealer, err := newSealer()
	if err != nil {
		return nil, err
	}
	targets := map[string]appliers.Applier{}
	for _, t := range cfg.Targets {
		applier, err := openTarget(t, sealer)
		if err != nil {
			r.add(finding{Level: levelError, Rule: "target", Path: t.Origin.Path, Line: t.Origin.Line, Message: err.Error()})
			continue
		}
		targets[t.Name] = applier
	}
	if len(targets) < len(cfg.Targets) {
		return nil, nil
	}
	return reconciler.NewCheck(targets, sealer), nil
}

// newSealer seals for this process only.
func newSealer() (*manifest.Sealer, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return manifest.NewSealer(key)
}

func openTarget(t config.Target, sealer *manifest.Sealer) (appliers.Applier, error) {
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

// judge renders and judges one unit into the report.
func (u *unit) judge(ctx context.Context, tree sources.Tree, root string, r *report) error {
	application := u.app.Name
	state, delta, err := (&render.Renderer{}).Render(ctx, tree, render.Spec{Path: u.app.Path, Variables: u.app.Variables}, nil)
	var problems manifest.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			if application == "" && p.Hint == render.UndeclaredHint {
				p.Hint = "give it with --var NAME=VALUE, or take the variables of the applications with --config"
			}
			r.problem(root, "render", application, p)
		}
		return nil
	}
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err != nil { // what cannot be read is as much of a fault as what is wrong in it
		f := finding{Level: levelError, Rule: "render", Application: application, Path: relative(root, u.app.Path), Message: err.Error()}
		if errors.Is(err, sources.ErrRefused) {
			f.Hint = "take it out of the folder, or name a PATH without it"
		}
		r.add(f)
		return nil
	}
	var objects []*manifest.Object
	for o := range state.All() {
		objects = append(objects, o)
		r.object(application, root, o)
	}
	if len(objects) == 0 {
		r.add(finding{Level: levelWarning, Rule: "render", Application: application, Path: relative(root, u.app.Path),
			Message: "holds no object", Hint: "the daemon would take it for an emptied source and hold it"})
	}
	if err := u.declared(root, tree, state, delta, r); err != nil {
		return err
	}
	for _, p := range u.policies {
		verdicts, err := p.Objects(ctx, objects)
		if err != nil && ctx.Err() != nil {
			return err
		}
		if err != nil { // without a verdict nothing is accepted
			r.add(finding{Level: levelError, Rule: "policy", Application: application, Path: relative(root, u.app.Path), Message: err.Error()})
			continue
		}
		for i, v := range verdicts {
			for _, f := range v.Deny {
				r.verdict(levelError, application, root, objects[i], f)
			}
			for _, f := range v.Warn {
				r.verdict(levelWarning, application, root, objects[i], f)
			}
		}
	}
	return nil
}

// declared asks of the objects of an application what the loop would refuse.
func (u *unit) declared(root string, tree sources.Tree, state *render.State, delta *render.Delta, r *report) error {
	if u.check == nil {
		return nil
	}
	problems, err := u.check.Application(u.app, tree, state, delta)
	if err != nil {
		return err
	}
	if u.part {
		problems = slices.DeleteFunc(problems, func(p reconciler.Problem) bool { return p.Rule == reconciler.RuleDepends })
	}
	r.refused(root, problems)
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
