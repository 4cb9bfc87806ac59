package main

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) acceptHistoryCommand() *cobra.Command {
	var why, revision string
	cmd := &cobra.Command{
		Use:   "accept-history APP",
		Short: "Accept a rewritten branch once",
		Long: "Accept, once, that the branch of an application's source was rewritten. Until then the source stays at its last\n" +
			"accepted revision, because a rewrite looks just like a replay of an old state.",
		Args:              arguments(1, 1, "APP"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needReason(why); err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c, (*api.Client).AcceptHistory, &pb.AcceptHistoryRequest{Application: args[0], Revision: revision, Why: why})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.out, "source %s: accepted %s\n", safe(res.Source), safe(res.Revision))
			return nil
		},
	}
	cmd.Flags().StringVar(&revision, "revision", "", "the revision to accept; default: the one that was refused")
	cmd.Flags().StringVar(&why, "why", "", "reason, kept in the audit log (required)")
	return cmd
}
