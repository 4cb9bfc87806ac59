package main

import (
	"bufio"
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
			"of the accepted one if it came to a plan: one that does not render, or that a rule about objects denies, did not.",
		Example:           "  gitopsd diff web\n  gitopsd diff web --exit-code && echo in sync",
		Args:              arguments(0, -1, "[APP...]"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				res, err := ask(cmd.Context(), c, (*api.Client).GetStatus, &pb.GetStatusRequest{})
				if err != nil {
					return err
				}
				for _, a := range res.Applications {
					args = append(args, a.Application)
				}
			}
			for _, app := range args {
				plan, err := ask(cmd.Context(), c, (*api.Client).GetPlan, &pb.GetPlanRequest{Application: app, Full: full})
				if err != nil {
					return err
				}
				if exitCode && !plan.Empty {
					c.code = exitOutOfSync
				}
				if err := c.printPlan(format, app, plan, len(args) > 1); err != nil {
					return err
				}
			}
			return nil
		},
	}
	formatFlag(cmd, &format, "text", "json")
	cmd.Flags().BoolVar(&full, "full", false, "show values whole, however long, and what changes only the records")
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with code 2 when there is a difference, or a revision that is not accepted")
	return cmd
}

func (c *cli) printPlan(format, app string, plan *pb.GetPlanResponse, many bool) error {
	if format == "json" {
		if plan.PlanJson == "" {
			plan.PlanJson = "null"
		}
		return printJSON(c.out, "json", []byte(plan.PlanJson))
	}
	if many || plan.Candidate {
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
