package opa

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// ErrNoTests means that there was nothing to run, which is not a success.
var ErrNoTests = errors.New("no tests")

// TestReport says how the tests of a policy went.
type TestReport struct {
	// Tests are in the order of file and line.
	Tests []TestResult
	// Coverage is about files without tests, sorted by path.
	Coverage []FileCoverage
}

// TestResult is the outcome of one test rule.
type TestResult struct {
	Name string // package and rule, as in "main_test.test_mode"
	File string
	Line int
	// Outcome is TestPass, TestFail, TestError or TestSkip.
	Outcome string
	// Message says for a failure what failed: the error, or the cases of a
	// data-driven test. Empty when the rule was just not true.
	Message string
	// Output is what print wrote.
	Output   string
	Duration time.Duration
}

// The outcomes of a test. A rule whose name starts with todo_test_ is skipped.
const (
	TestPass  = "pass"
	TestFail  = "fail"
	TestError = "error"
	TestSkip  = "skip"
)

// FileCoverage says how much of a file the tests evaluated.
type FileCoverage struct {
	File    string
	Covered int // lines
	Total   int // lines that could be evaluated
	// NotCovered are the first lines of what was not evaluated, ascending.
	NotCovered []int
}

// Passed reports whether every test that ran passed.
func (r *TestReport) Passed() bool {
	return !slices.ContainsFunc(r.Tests, func(t TestResult) bool {
		return t.Outcome == TestFail || t.Outcome == TestError
	})
}

// Percent is the covered part of all lines, 0 to 100.
func (r *TestReport) Percent() float64 {
	covered, total := 0, 0
	for _, f := range r.Coverage {
		covered, total = covered+f.Covered, total+f.Total
	}
	if total == 0 {
		return 0
	}
	return 100 * float64(covered) / float64(total)
}

// RunTests runs every rule named test_* of the modules, under the same
// capabilities, data and strictness as Load, with one time limit for each test.
// Failing tests are in the report; an error means that none could be run.
func RunTests(ctx context.Context, o Options) (*TestReport, error) {
	caps, err := capabilities(o.AllowBuiltins)
	if err != nil {
		return nil, err
	}
	modules, err := parseModules(o.Modules, caps)
	if err != nil {
		return nil, err
	}
	data, err := mergeData(o.Data)
	if err != nil {
		return nil, err
	}
	report := &TestReport{}
	coverage := cover.New()
	runner := tester.NewRunner().
		SetCompiler(newCompiler(caps).WithEnablePrintStatements(true)).
		SetModules(modules).
		SetStore(inmem.NewFromObject(data)).
		SetTimeout(cmp.Or(o.Timeout, DefaultTimeout)).
		SetCoverageQueryTracer(coverage).SetCoverageRuns(nil).
		RaiseBuiltinErrors(true).CapturePrintOutput(true)
	results, err := runner.RunTests(ctx, nil) // without a transaction, each test opens its own
	var errs ast.Errors
	if errors.As(err, &errs) {
		return nil, explain(errs)
	}
	if err != nil {
		return nil, fmt.Errorf("run policy tests: %w", err)
	}
	for r := range results {
		report.Tests = append(report.Tests, testResult(r))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(report.Tests) == 0 {
		return nil, fmt.Errorf("%w: no rule named test_* in %d Rego files; write one in a file that ends in _test.rego", ErrNoTests, len(modules))
	}
	slices.SortFunc(report.Tests, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	})
	report.Coverage = fileCoverage(coverage, modules)
	return report, nil
}

func testResult(r *tester.Result) TestResult {
	t := TestResult{
		Name:    strings.TrimPrefix(r.Package, "data.") + "." + r.Name,
		Outcome: TestPass, Output: string(r.Output), Duration: r.Duration,
	}
	if r.Location != nil {
		t.File, t.Line = r.Location.File, r.Location.Row
	}
	switch {
	case r.Error != nil:
		t.Outcome, t.Message = TestError, r.Error.Error()
	case r.Skip:
		t.Outcome = TestSkip
	case r.Fail:
		t.Outcome, t.Message = TestFail, failedCases(r.SubResults)
	}
	return t
}

func failedCases(results tester.SubResultMap) string {
	var names []string
	for path, r := range results.Iter {
		if r.Fail && len(r.SubResults) == 0 {
			names = append(names, strings.Join(path, "/"))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "failed cases: " + strings.Join(names, ", ")
}

func fileCoverage(c *cover.Cover, modules map[string]*ast.Module) []FileCoverage {
	var out []FileCoverage
	report := c.Report(modules)
	for _, path := range slices.Sorted(maps.Keys(modules)) {
		f := report.Files[path]
		if isTestFile(path) || f == nil {
			continue
		}
		fc := FileCoverage{File: path, Covered: f.CoveredLines, Total: f.CoveredLines + f.NotCoveredLines}
		for _, r := range f.NotCovered {
			fc.NotCovered = append(fc.NotCovered, r.Start.Row)
		}
		slices.Sort(fc.NotCovered)
		fc.NotCovered = slices.Compact(fc.NotCovered)
		out = append(out, fc)
	}
	return out
}
