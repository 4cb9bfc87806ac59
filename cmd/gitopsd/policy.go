package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gitopsd/gitopsd/policies/opa"
)

func (c *cli) policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Work with policies", Args: c.unknownSubcommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.policyTestCommand())
	return cmd
}

func (c *cli) policyTestCommand() *cobra.Command {
	var format string
	var builtins []string
	var timeout time.Duration
	var coverage float64
	cmd := &cobra.Command{
		Use:   "test DIR",
		Short: "Run the tests of a policy directory",
		Long: "Run every rule named test_* in the Rego files under DIR, with the same limits as in the daemon. The exit code is 1\n" +
			"when a test fails, when there is none, or when less than --min-coverage percent of the lines was evaluated.",
		Args: arguments(1, 1, "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := readPolicyFiles(args[0])
			if err != nil {
				return hinted(err, "name a directory with .rego files")
			}
			modules, data := opa.Split(files)
			report, err := opa.RunTests(cmd.Context(), opa.Options{Modules: modules, Data: data, AllowBuiltins: builtins, Timeout: timeout})
			if errors.Is(err, opa.ErrNoTests) {
				return hinted(err, "write rules named test_* in files ending in _test.rego")
			}
			if err != nil {
				return err
			}
			if format == "json" {
				if err := printValue(c.out, testsJSON(report)); err != nil {
					return err
				}
			} else {
				c.printTests(report)
			}
			switch {
			case !report.Passed():
				return errSilent
			case report.Percent() < coverage:
				return hinted(fmt.Errorf("the tests evaluate %.1f%% of the lines, less than %.1f%%", report.Percent(), coverage), "the lines not covered are listed above")
			}
			return nil
		},
	}
	formatFlag(cmd, &format, "text", "json")
	cmd.Flags().StringArrayVar(&builtins, "allow-builtin", nil, "Rego built-in to allow, as allowBuiltins of a PolicySet (may be repeated)")
	cmd.Flags().DurationVar(&timeout, "timeout", opa.DefaultTimeout, "longest time of one test")
	cmd.Flags().Float64Var(&coverage, "min-coverage", 0, "least part of the lines, in percent, that the tests have to evaluate")
	return cmd
}

// testsJSON is the report in the form of -o json.
func testsJSON(r *opa.TestReport) any {
	type object = map[string]any
	tests, files := []any{}, []any{}
	for _, t := range r.Tests {
		tests = append(tests, object{"name": t.Name, "file": t.File, "line": t.Line, "outcome": t.Outcome,
			"message": t.Message, "output": t.Output, "seconds": t.Duration.Seconds()})
	}
	for _, f := range r.Coverage {
		files = append(files, object{"file": f.File, "covered": f.Covered, "total": f.Total, "notCovered": append([]int{}, f.NotCovered...)})
	}
	return object{"passed": r.Passed(), "tests": tests, "coverage": object{"percent": r.Percent(), "files": files}}
}

func (c *cli) printTests(r *opa.TestReport) {
	counts := map[string]int{}
	for _, t := range r.Tests {
		counts[t.Outcome]++
		col := map[string]color{opa.TestPass: green, opa.TestFail: red, opa.TestError: red, opa.TestSkip: yellow}[t.Outcome]
		fmt.Fprintf(c.out, "%s %s (%s:%d)\n", c.outPaint(col, strings.ToUpper(t.Outcome)), safe(t.Name), safe(t.File), t.Line)
		if t.Message != "" {
			block(c.out, "    ", t.Message)
		}
		if t.Output != "" && t.Outcome != opa.TestPass {
			block(c.out, "    | ", t.Output)
		}
	}
	for _, f := range r.Coverage {
		if len(f.NotCovered) > 0 {
			fmt.Fprintf(c.out, "not covered: %s, lines %s\n", safe(f.File), strings.Trim(fmt.Sprint(f.NotCovered), "[]"))
		}
	}
	fmt.Fprintf(c.out, "%d passed, %d failed, %d skipped; %.1f%% of the lines covered\n",
		counts[opa.TestPass], counts[opa.TestFail]+counts[opa.TestError], counts[opa.TestSkip], r.Percent())
}
