// Package opa judges by Rego, through the Go API of Open Policy Agent.
//
// Rules have the names and shapes that conftest reads: deny, violation and
// warn, alone or with a suffix (deny_setuid), sets or lists of messages or of
// objects with a member msg; exception rules take rules out. Rules about
// objects see the object itself as input; rules in package gitopsd.change see
// one change (docs/policy-input.md). Files are read as Rego v1 and, where that
// fails, as Rego v0, each for itself.
//
// The package does no I/O: modules and data come from the caller, who must read
// them from somewhere other than the commit being judged - a PolicySet at a
// pinned or protected ref - because a commit that brings its own policy would
// be judged by itself.
package opa

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gitopsd/gitopsd/policies"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/version"
)

// DefaultTimeout bounds the evaluation of one object or change. One evaluation
// of an ordinary set takes well under a millisecond; what needs seconds is a mistake.
const DefaultTimeout = 5 * time.Second

// libraryPrefix keeps the paths of Options.Library apart from those of Modules.
const libraryPrefix = "library:"

// Options are what an engine is made of. Split makes Modules and Data of the
// files of a directory.
type Options struct {
	// Modules are Rego files by path. Paths are what errors name. Files ending
	// in _test.rego are parsed and otherwise left out; RunTests runs them.
	Modules map[string][]byte
	// Data are YAML or JSON files by path, all merged into the root of `data`.
	Data map[string][]byte
	// Library are Rego files that judge beside Modules, by path, whatever
	// Namespaces says. Modules may add rules and exceptions to their packages.
	Library map[string][]byte
	// Namespaces are the packages whose rules judge objects, as with conftest's
	// --namespace. Empty means every package that is not reserved (gitopsd.*)
	// and not named *_test. Rules in gitopsd.change always judge changes.
	Namespaces []string
	// AllowBuiltins names members of Restricted that policies may use. With any
	// of them verdicts are Volatile, and each is evaluated twice and must agree.
	AllowBuiltins []string
	// Timeout bounds one evaluation of one object or change; 0 means DefaultTimeout.
	Timeout time.Duration
}

// Engine is a compiled policy. It is immutable, does not refer to the Options
// it was made of, needs no closing and is safe for concurrent use; a failed
// Load of a newer policy leaves it as it is.
type Engine struct {
	digest   string
	timeout  time.Duration
	volatile bool
	rules    ruleSet
	objects  *rego.PreparedEvalQuery // nil when no rule judges objects
	changes  *rego.PreparedEvalQuery // nil when no rule judges changes
	judged   atomic.Uint64
}

var (
	_ policies.Policy   = (*Engine)(nil)
	_ policies.Volatile = (*Engine)(nil)
)

// Load compiles a policy once, for any number of objects. Every error names
// file and line where there is one, and means that there is no engine: also
// when the policy would judge nothing (ErrNotEffective).
func Load(ctx context.Context, o Options) (*Engine, error) {
	if o.Timeout < 0 {
		return nil, fmt.Errorf("policy timeout %s: want more than 0", o.Timeout)
	}
	caps, err := capabilities(o.AllowBuiltins)
	if err != nil {
		return nil, err
	}
	modules, rules, err := loadRules(o, caps)
	if err != nil {
		return nil, err
	}
	data, err := mergeData(o.Data)
	if err != nil {
		return nil, err
	}
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	compiler, err := compile(ctx, modules, caps, store)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		digest: digest(o, caps), timeout: o.Timeout, volatile: len(o.AllowBuiltins) > 0, rules: rules,
	}
	if e.timeout == 0 {
		e.timeout = DefaultTimeout
	}
	if e.objects, err = prepare(ctx, compiler, store, rules.objects); err != nil {
		return nil, err
	}
	e.changes, err = prepare(ctx, compiler, store, rules.changes)
	return e, err
}

// loadRules parses everything but the tests and finds the rules to judge by.
func loadRules(o Options, caps *ast.Capabilities) (map[string]*ast.Module, ruleSet, error) {
	modules, err := parseModules(o.Modules, caps)
	if err != nil {
		return nil, ruleSet{}, err
	}
	if err := checkTestFiles(modules); err != nil {
		return nil, ruleSet{}, err
	}
	maps.DeleteFunc(modules, func(path string, _ *ast.Module) bool { return isTestFile(path) })
	if len(modules) > 0 && len(o.Library) > 0 {
		if err := addsSomething(modules); err != nil {
			return nil, ruleSet{}, err
		}
	}
	library, err := parseModules(o.Library, caps)
	if err != nil {
		return nil, ruleSet{}, err
	}
	namespaces := slices.Clone(o.Namespaces)
	for path, m := range library {
		modules[libraryPrefix+path] = m
		if pkg := packageName(m); len(o.Namespaces) > 0 && !slices.Contains(namespaces, pkg) {
			namespaces = append(namespaces, pkg)
		}
	}
	rules, err := collect(modules, namespaces)
	return modules, rules, err
}

func compile(ctx context.Context, modules map[string]*ast.Module, caps *ast.Capabilities, store storage.Store) (*ast.Compiler, error) {
	compiler := newCompiler(caps)
	err := storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		compiler.WithPathConflictsCheck(storage.NonEmpty(ctx, store, txn)).Compile(modules)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read policy data: %w", err)
	}
	if compiler.Failed() {
		return nil, explain(compiler.Errors)
	}
	return compiler, nil
}

func newCompiler(caps *ast.Capabilities) *ast.Compiler {
	return ast.NewCompiler().WithCapabilities(caps).WithDefaultRegoVersion(ast.RegoV1)
}

// prepare makes one query that asks every rule. Each answer is wrapped in a
// list, so that an undefined rule is an empty list and not an empty result.
func prepare(ctx context.Context, c *ast.Compiler, store storage.Store, rules []rule) (*rego.PreparedEvalQuery, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	var body ast.Body
	for i, r := range rules {
		exprs, err := ast.ParseBody(ruleQuery(i, r))
		if err != nil {
			return nil, fmt.Errorf("policy rule %s: %w", r, err)
		}
		for _, expr := range exprs {
			body.Append(expr)
		}
	}
	q, err := rego.New(
		rego.ParsedQuery(body), rego.Compiler(c), rego.Store(store), rego.StrictBuiltinErrors(true),
	).PrepareForEval(ctx)
	if err != nil {
		var errs ast.Errors
		if errors.As(err, &errs) {
			err = explain(errs)
		}
		return nil, fmt.Errorf("prepare policy: %w", err)
	}
	return &q, nil
}

func ruleQuery(i int, r rule) string {
	exceptions := "[]"
	if r.exceptions != nil {
		exceptions = fmt.Sprintf("[n | n = %s[_][_]]", r.exceptions)
	}
	return fmt.Sprintf("%s = [v | v = %s]; %s = %s", valueVar(i), r.ref, exceptionVar(i), exceptions)
}

func valueVar(i int) string     { return "value" + strconv.Itoa(i) }
func exceptionVar(i int) string { return "exempt" + strconv.Itoa(i) }

// Digest returns the SHA-256 of all that verdicts depend on beside the input:
// modules without tests, data, capabilities, options and the version of OPA.
func (e *Engine) Digest() string { return e.digest }

// Volatile reports whether verdicts may depend on clock, network or chance,
// because the operator allowed such built-ins.
func (e *Engine) Volatile() bool { return e.volatile }

// ObjectsJudged returns how many objects have been evaluated so far.
func (e *Engine) ObjectsJudged() uint64 { return e.judged.Load() }

// Rules returns the full names of the rules that judge objects and changes, sorted.
func (e *Engine) Rules() (objects, changes []string) {
	for _, r := range e.rules.objects {
		objects = append(objects, r.String())
	}
	for _, r := range e.rules.changes {
		changes = append(changes, r.String())
	}
	return objects, changes
}

func digest(o Options, caps *ast.Capabilities) string {
	h := sha256.New()
	files := func(kind string, m map[string][]byte) {
		for _, path := range slices.Sorted(maps.Keys(m)) {
			if !isTestFile(path) {
				part(h, kind, path, string(m[path]))
			}
		}
	}
	part(h, "opa", version.Version)
	files("module", o.Modules)
	files("library", o.Library)
	files("data", o.Data)
	for _, b := range caps.Builtins {
		part(h, "builtin", b.Name)
	}
	for _, ns := range slices.Sorted(slices.Values(o.Namespaces)) {
		part(h, "namespace", ns)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// part hashes strings so that no two lists of them run together.
func part(h hash.Hash, parts ...string) {
	for _, p := range parts {
		io.WriteString(h, strconv.Itoa(len(p))+":"+p+",")
	}
}
