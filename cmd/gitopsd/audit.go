package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/reconciler"
)

func (c *cli) auditCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Read and verify the audit log", Args: c.unknownSubcommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(c.auditQueryCommand(), c.auditVerifyCommand())
	return cmd
}

// unknownSubcommand is for commands that only hold others.
func (c *cli) unknownSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return hinted(fmt.Errorf("%s has no command %q", cmd.CommandPath(), args[0]), "%s --help lists them", cmd.CommandPath())
}

func (c *cli) auditQueryCommand() *cobra.Command {
	var format string
	var limit int32
	req := &pb.QueryAuditRequest{}
	cmd := &cobra.Command{
		Use:   "query",
		Short: "List audit records, newest first",
		Long:  "List audit records, newest first. The kinds are " + strings.Join(auditKinds(), ", ") + ".",
		Args:  arguments(0, 0, "[--app APP] [--kind KIND]"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			req.Limit = limit
			res, err := ask(cmd.Context(), c, (*api.Client).QueryAudit, req)
			if err != nil {
				return err
			}
			if format != "table" {
				return printMessage(c.out, format, res)
			}
			if len(res.Records) == 0 {
				fmt.Fprintln(c.out, "no such record")
				return nil
			}
			t := &table{}
			t.header("SEQ", "AT", "KIND", "APPLICATION", "BY", "MESSAGE")
			for _, r := range res.Records {
				t.row(cell{text: fmt.Sprint(r.Seq)}, cell{text: stampText(r.At.AsTime())}, cell{text: r.Kind},
					cell{text: r.Application}, cell{text: r.Principal}, cell{text: r.Message})
			}
			c.show(t)
			return nil
		},
	}
	formatFlag(cmd, &format, "table", "json", "yaml")
	cmd.Flags().StringVar(&req.Application, "app", "", "only this application")
	cmd.Flags().StringVar(&req.Kind, "kind", "", "only records of this kind, as in Approved")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(auditKinds(), cobra.ShellCompDirectiveNoFileComp)) // fails for unknown flags only
	_ = cmd.RegisterFlagCompletionFunc("app", c.applicationNames)                                                        // likewise
	cmd.Flags().Int32VarP(&limit, "limit", "n", 50, "at most so many")
	return cmd
}

// auditKinds are the kinds of records, sorted.
func auditKinds() []string {
	var names []string
	for _, k := range reconciler.EventKinds {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return names
}

func (c *cli) auditVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Check the hash chain of the audit log",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := ask(cmd.Context(), c, (*api.Client).VerifyAudit, &pb.VerifyAuditRequest{})
			if err != nil {
				return err
			}
			if res.Error != "" {
				return hinted(fmt.Errorf("the audit log does not hold: %s", res.Error),
					"records were changed or lost; keep the state directory as evidence before anything else")
			}
			fmt.Fprintf(c.out, "the chain holds: %s, the newest has hash %s\n", plural(int(res.Records), "record"), safe(res.Head))
			return nil
		},
	}
}
