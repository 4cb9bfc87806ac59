package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) diffCommand() *cobra.Command {
	var format string
	var exitCode, full bool
	cmd := &cobra.Command{
		Use:   "diff [APP...]",
		Short: "Show what would change, field by field",
		Long: "Show the difference between what is desired and what was last observed, with the cause of each field:\n" +
			"intended, drifted, or both. A revision that is not accepted is named first, with the reason, and shown in place\n" +
			"of the accepted one if it came to a plan: one that does not render, or that a rule about objects denies, did not.\n" +
			"What was not observed, or too long ago, is said to be not known, with the reason.",
		Example:           "  gitopsd diff web\n  gitopsd diff web --exit-code && echo in sync",
		Args:              arguments(0, -1, "[APP...]"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			one := len(args) == 1
			if len(args) == 0 {
				res, err := ask(cmd.Context(), c, (*api.Client).GetStatus, &pb.GetStatusRequest{})
				if err != nil {
					return err
				}
				for _, a := range res.Applications {
					args = append(args, a.Application)
				}
			}
			documents := make([]json.RawMessage, 0, len(args))
			for _, app := range args {
				plan, err := ask(cmd.Context(), c, (*api.Client).GetPlan, &pb.GetPlanRequest{Application: app, Full: full})
				if err != nil {
					return err
				}
				if exitCode {
					c.code = diffCode(c.code, plan)
				}
				if format == "json" {
					documents = append(documents, planDocument(app, plan))
					continue
				}
				if err := c.printPlan(app, plan, len(args) > 1); err != nil {
					return err
				}
			}
			switch {
			case format != "json":
				return nil
			case one:
				return printJSON(c.out, "json", documents[0])
			default:
				return printValue(c.out, map[string]any{"applications": documents})
			}
		},
	}
	formatFlag(cmd, &format, "text", "json")
	cmd.Flags().BoolVar(&full, "full", false, "show values whole, however long, and what changes only the records")
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with code 2 when there is a difference, or a revision that is not accepted, and 3 when it is not known")
	return cmd
}

// diffCode is the exit code after one more application: that of the worst, as for
// the status.
func diffCode(code int, plan *pb.GetPlanResponse) int {
	switch {
	case plan.Sync == "Stale" || plan.Sync == "Unknown":
		return exitStale
	case code == exitOK && !plan.Empty:
		return exitOutOfSync
	default:
		return code
	}
}

// planDocument is the plan as JSON. An application that is not configured any more
// has none.
func planDocument(app string, plan *pb.GetPlanResponse) json.RawMessage {
	if plan.PlanJson != "" {
		return json.RawMessage(plan.PlanJson)
	}
	name, _ := json.Marshal(app) // a string always has a form
	return fmt.Appendf(nil, `{"application": %s, "empty": true, "changes": [], "gates": []}`, name)
}

func (c *cli) printPlan(app string, plan *pb.GetPlanResponse, many bool) error {
	switch {
	case many && plan.Revision == "": // nothing was compared
		fmt.Fprintf(c.out, "%s:\n", safe(app))
	case many || plan.Candidate:
		kind := "revision"
		if plan.Candidate {
			kind = "candidate"
		}
		fmt.Fprintf(c.out, "%s, %s %s:\n", safe(app), kind, safe(short(plan.Revision)))
	}
	if plan.Empty && plan.Text == "" {
		fmt.Fprintln(c.out, "no difference")
		return nil
	}
	lines := bufio.NewScanner(strings.NewReader(plan.Text))
	lines.Buffer(nil, api.MaxResponse)
	for lines.Scan() {
		fmt.Fprintln(c.out, c.outPaint(planColor(lines.Text()), safe(lines.Text())))
	}
	return lines.Err()
}

// planColor is the colour of one line of a plan, by the sign it starts with.
func planColor(line string) color {
	line = strings.TrimLeft(line, " ")
	switch {
	case strings.HasPrefix(line, "+"):
		return green
	case strings.HasPrefix(line, "-"), strings.HasPrefix(line, "!"):
		return red
	case strings.HasPrefix(line, "~"), strings.HasPrefix(line, "? "), strings.HasPrefix(line, "Needs approval"):
		return yellow
	case strings.HasPrefix(line, "@@"):
		return cyan
	default:
		return plain
	}
}
