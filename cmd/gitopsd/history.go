package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) historyCommand() *cobra.Command {
	var format string
	var limit int32
	cmd := &cobra.Command{
		Use:               "history APP",
		Short:             "List the revisions of an application",
		Args:              arguments(1, 1, "APP"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c, (*api.Client).GetHistory, &pb.GetHistoryRequest{Application: args[0], Limit: limit})
			if err != nil {
				return err
			}
			if format != "table" {
				return printMessage(c.out, format, res)
			}
			if len(res.Entries) == 0 {
				fmt.Fprintln(c.out, "no revision yet")
				return nil
			}
			t := &table{}
			t.header("SEQ", "REVISION", "OUTCOME", "STARTED", "TOOK", "PLANNED", "APPROVED BY", "MESSAGE")
			for _, e := range res.Entries {
				t.row(cell{text: fmt.Sprint(e.Seq)}, cell{text: short(e.Revision)}, cell{e.Outcome, outcomeColor(e.Outcome)},
					cell{text: stampText(e.Started.AsTime())}, cell{text: e.Finished.AsTime().Sub(e.Started.AsTime()).Round(time.Millisecond).String()},
					cell{text: countsText(e.Counts)}, cell{text: e.Approver}, cell{text: subject(e)})
			}
			c.show(t)
			return nil
		},
	}
	formatFlag(cmd, &format, "table", "json", "yaml")
	cmd.Flags().Int32VarP(&limit, "limit", "n", 20, "at most so many, newest first")
	return cmd
}

// checkLimit refuses 0, which the daemon would take for its default.
func checkLimit(limit int32) error {
	if limit < 1 {
		return hinted(fmt.Errorf("--limit %d shows nothing", limit), "give the number of lines to show, as in -n 20")
	}
	return nil
}

func outcomeColor(outcome string) color {
	switch outcome {
	case "Synced":
		return green
	case "Refused":
		return red
	default:
		return yellow
	}
}

// subject is why a revision did not go through, or what its commit says of it.
func subject(e *pb.HistoryEntry) string {
	if e.Reason != "" {
		return e.Reason
	}
	first, _, _ := strings.Cut(e.GetCommit().GetMessage(), "\n")
	return first
}

func countsText(n *pb.Counts) string {
	var parts []string
	for _, p := range []struct {
		n    int32
		sign string
	}{{n.GetCreate(), "+"}, {n.GetUpdate(), "~"}, {n.GetAdopt(), "="}, {n.GetDelete(), "-"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%s%d", p.sign, p.n))
		}
	}
	return strings.Join(parts, " ")
}

func stampText(t time.Time) string {
	if t.Unix() <= 0 {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
