package opa

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// ErrNotEffective means that a policy would judge nothing: no rule of a name
// that is looked for, in no package that is looked into.
var ErrNotEffective = errors.New("policy not effective")

// changePackage is where rules about changes live; its sub-packages too.
const changePackage = "gitopsd.change"

// reservedPrefix keeps packages for input that is wrapped by gitopsd.
const reservedPrefix = "gitopsd."

// judged matches the rule names that conftest looks for.
var judged = regexp.MustCompile(`^(deny|violation|warn)(_[a-zA-Z0-9]+)*$`)

// rule is one name in one package: what all rules of that name there say together.
type rule struct {
	pkg  string  // as in "main"
	name string  // as in "deny_setuid"
	ref  ast.Ref // data.main.deny_setuid
	// exceptions is data.main.exception, or nil when the package has none.
	exceptions ast.Ref
}

func (r rule) String() string { return r.pkg + "." + r.name }

func (r rule) warns() bool { return strings.HasPrefix(r.name, "warn") }

// exempt lists the names under which an exception means this rule: the name
// without its prefix, and for a rule without suffix also the empty string.
func (r rule) exempt() []string {
	short := r.name
	for _, prefix := range []string{"violation_", "deny_", "warn_"} {
		short = strings.TrimPrefix(short, prefix)
	}
	if !strings.Contains(r.name, "_") {
		return []string{short, ""}
	}
	return []string{short}
}

// isTestFile tells files of tests by OPA's convention.
func isTestFile(path string) bool { return strings.HasSuffix(path, "_test.rego") }

// parseModules parses every file; see parseModule.
func parseModules(files map[string][]byte, caps *ast.Capabilities) (map[string]*ast.Module, error) {
	modules := make(map[string]*ast.Module, len(files))
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(files)) {
		m, err := parseModule(path, string(files[path]), caps)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		modules[path] = m
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("parse policy: %w", err)
	}
	return modules, nil
}

// parseModule reads one file as Rego v1 and, if that fails, as Rego v0, so that
// policies of both ages load side by side. When neither reading works the
// error is that of v1, unless the file can only have been meant as v0.
func parseModule(path, text string, caps *ast.Capabilities) (*ast.Module, error) {
	v1, errV1 := parseAs(ast.RegoV1, path, text, caps)
	if errV1 == nil && len(ast.CheckRegoV1(v1)) == 0 {
		return v1, nil
	}
	v0, errV0 := parseAs(ast.RegoV0, path, text, caps)
	switch {
	case errV0 == nil:
		return v0, nil
	case errV1 == nil:
		return v1, nil // the compiler says what CheckRegoV1 found
	case v1Only.MatchString(text):
		return nil, errV1
	default:
		return nil, fmt.Errorf("%w\n(as Rego v0: %w)", errV1, errV0)
	}
}

// v1Only matches what a file of Rego v0 does not hold.
var v1Only = regexp.MustCompile(`(?m)^\s*import rego\.v1\s*$|\bcontains\b.*\bif\b`)

func parseAs(version ast.RegoVersion, path, text string, caps *ast.Capabilities) (*ast.Module, error) {
	c := *caps
	if version == ast.RegoV0 {
		c.FutureKeywords = ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(version)).FutureKeywords
		c.Features = ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(version)).Features
	}
	m, err := ast.ParseModuleWithOpts(path, text, ast.ParserOptions{
		RegoVersion: version, Capabilities: &c, ProcessAnnotation: true,
	})
	if err == nil && m == nil {
		err = fmt.Errorf("%s: the file is empty; give it a package or remove it", path)
	}
	return m, eachLine(err)
}

// eachLine leaves out the count that comes before several errors of OPA: the
// first line is often all that is shown, and has to name the place.
func eachLine(err error) error {
	var errs ast.Errors
	if !errors.As(err, &errs) {
		return err
	}
	lines := make([]string, 0, len(errs))
	for _, e := range errs {
		lines = append(lines, e.Error())
	}
	return errors.New(strings.Join(lines, "\n"))
}

func packageName(m *ast.Module) string {
	return strings.TrimPrefix(m.Package.Path.String(), "data.")
}

// ruleSet is what an engine judges by, sorted by package and name.
type ruleSet struct {
	objects, changes []rule
}

// collect finds the rules to judge by. namespaces empty means every package
// except the reserved ones and those named *_test.
func collect(modules map[string]*ast.Module, namespaces []string) (ruleSet, error) {
	found := map[string]rule{}
	exceptions := map[string]ast.Ref{}
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		m := modules[path]
		pkg := packageName(m)
		for _, r := range m.Rules {
			name, err := ruleName(r)
			if err != nil {
				return ruleSet{}, err
			}
			ref := m.Package.Path.Append(ast.StringTerm(name))
			switch {
			case name == "exception":
				exceptions[pkg] = ref
			case name != "":
				found[pkg+"."+name] = rule{pkg: pkg, name: name, ref: ref}
			}
		}
	}
	var set ruleSet
	for _, key := range slices.Sorted(maps.Keys(found)) {
		r := found[key]
		r.exceptions = exceptions[r.pkg]
		switch {
		case r.pkg == changePackage || strings.HasPrefix(r.pkg, changePackage+"."):
			set.changes = append(set.changes, r)
		case strings.HasPrefix(r.pkg, reservedPrefix):
			return ruleSet{}, fmt.Errorf("%w: rule %s: packages under %s are reserved, and this one is not evaluated; use %s for changes or another name for objects",
				ErrNotEffective, r, strings.TrimSuffix(reservedPrefix, "."), changePackage)
		case len(namespaces) == 0 && strings.HasSuffix(r.pkg, "_test"):
		case len(namespaces) == 0 || slices.Contains(namespaces, r.pkg):
			set.objects = append(set.objects, r)
		}
	}
	return set, set.effective(modules, namespaces)
}

// effective refuses a set that would let everything pass for want of a rule.
func (s ruleSet) effective(modules map[string]*ast.Module, namespaces []string) error {
	const look = "no rule named deny, violation or warn (alone or with _suffix)"
	for _, ns := range namespaces {
		if !slices.ContainsFunc(s.objects, func(r rule) bool { return r.pkg == ns }) {
			return fmt.Errorf("%w: namespace %s has %s; packages found: %s", ErrNotEffective, ns, look, packages(modules))
		}
	}
	if len(s.objects)+len(s.changes) == 0 {
		return fmt.Errorf("%w: %s; packages found: %s", ErrNotEffective, look, packages(modules))
	}
	return nil
}

// addsSomething refuses modules beside a library that neither judge nor exempt:
// the rules of the library would hide that these do nothing.
func addsSomething(modules map[string]*ast.Module) error {
	for _, m := range modules {
		for _, r := range m.Rules {
			if name, err := ruleName(r); err != nil || name != "" {
				return err
			}
		}
	}
	return fmt.Errorf("%w: beside the library there is no rule named deny, violation, warn (alone or with _suffix) or exception; packages found: %s", ErrNotEffective, packages(modules))
}

func packages(modules map[string]*ast.Module) string {
	names := map[string]bool{}
	for _, m := range modules {
		names[packageName(m)] = true
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// ruleName returns the name of a rule to judge by, "exception", or "" for any
// other rule. Shapes that conftest passes over in silence are refused.
func ruleName(r *ast.Rule) (string, error) {
	ref := r.Head.Ref()
	head, ok := ref[0].Value.(ast.Var)
	if !ok {
		return "", nil
	}
	name := string(head)
	if name == "exception" && len(r.Head.Args) == 0 {
		return name, nil
	}
	if !judged.MatchString(name) {
		return "", nil
	}
	if len(r.Head.Args) > 0 {
		if strings.Contains(name, "_") {
			return "", nil // a helper function
		}
		return "", fmt.Errorf("%s: %w: %s is a function and would never be asked; write `%s contains msg if { ... }`", r.Location, ErrNotEffective, name, name)
	}
	if len(ref) > 1 {
		return "", fmt.Errorf("%s: %w: %s makes an object, not a set of messages; write `%s contains msg if { ... }`", r.Location, ErrNotEffective, ref, name)
	}
	return name, nil
}

// checkTestFiles refuses rules to judge by in files that are not loaded because
// they hold tests.
func checkTestFiles(modules map[string]*ast.Module) error {
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		m := modules[path]
		if !isTestFile(path) || strings.HasSuffix(packageName(m), "_test") {
			continue
		}
		for _, r := range m.Rules {
			if name, err := ruleName(r); err == nil && name != "" {
				return fmt.Errorf("%s: %w: rule %s.%s is in a file of tests, which is not evaluated; move it to a file that does not end in _test.rego",
					r.Location, ErrNotEffective, packageName(m), name)
			}
		}
	}
	return nil
}
