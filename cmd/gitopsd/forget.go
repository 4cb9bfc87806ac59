package main

import (
	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) forgetCommand() *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "forget APP [OBJECT...]",
		Short: "Take orphaned objects off the record",
		Long: "Take objects that an application left behind off the record. They stay as they are; from then on nobody lists\n" +
			"them, and an application that declares one of them has to adopt it. OBJECT is a key as status --diff prints it,\n" +
			"or any part of one that names only one object; without OBJECT all that the application left behind are meant.\n" +
			"An object that is not orphaned is refused.",
		Example:           "  gitopsd forget old-site --why 'the host is rented out'\n  gitopsd forget web File/motd --why 'kept by hand from now on'",
		Args:              arguments(1, -1, "APP [OBJECT...]"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needReason(why); err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c, (*api.Client).Forget, &pb.ForgetRequest{Application: args[0], Objects: args[1:], Why: why})
			if err != nil {
				return err
			}
			c.sayEach(res.Objects, "forgotten")
			return nil
		},
	}
	cmd.Flags().StringVar(&why, "why", "", "reason, kept in history and audit (required)")
	return cmd
}
