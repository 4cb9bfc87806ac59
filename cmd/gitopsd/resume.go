package main

import (
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) resumeCommand() *cobra.Command {
	var all bool
	var why string
	cmd := &cobra.Command{
		Use:               "resume (APP | --all)",
		Short:             "End a suspension",
		Args:              arguments(0, 1, "(APP | --all)"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			app, err := scope(args, all)
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c, (*api.Client).Resume, &pb.ResumeRequest{Application: app, All: all, Why: why})
			if err != nil {
				return err
			}
			if len(res.Applications) == 0 {
				fmt.Fprintln(c.out, "no application is suspended")
			}
			c.sayEach(res.Applications, "resumed")
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all applications")
	cmd.Flags().StringVar(&why, "why", "", "reason, kept in the audit log")
	return cmd
}
