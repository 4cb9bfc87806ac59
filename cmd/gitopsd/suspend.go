package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) suspendCommand() *cobra.Command {
	var all bool
	var why, until string
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "suspend (APP | --all)",
		Short: "Stop applying and healing for a while",
		Long: "Stop applying and healing: nothing is written until the application is resumed or the time has come. What runs\n" +
			"goes on running, and the status goes on being observed.",
		Example:           "  gitopsd suspend web --for 2h --why 'disk is being replaced'",
		Args:              arguments(0, 1, "(APP | --all)"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			app, err := scope(args, all)
			if err != nil {
				return err
			}
			if err := needReason(why); err != nil {
				return err
			}
			end, err := c.endOf(until, length)
			if err != nil {
				return err
			}
			res, err := ask(cmd.Context(), c, (*api.Client).Suspend, &pb.SuspendRequest{Application: app, All: all, Why: why, Until: end})
			if err != nil {
				return err
			}
			state := "suspended until resumed"
			if end != nil {
				state = "suspended until " + stampText(end.AsTime())
			}
			c.sayEach(res.Applications, state)
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all applications")
	cmd.Flags().StringVar(&why, "why", "", "reason, shown in status and kept in the audit log (required)")
	cmd.Flags().StringVar(&until, "until", "", "resume at this time (RFC 3339, as in 2026-01-02T15:04:05Z)")
	cmd.Flags().DurationVar(&length, "for", 0, "resume after this time (as in 2h30m)")
	return cmd
}

func scope(args []string, all bool) (app string, err error) {
	if (len(args) == 0) != all {
		return "", hinted(errors.New("name either one application or --all"), "gitopsd status lists the applications")
	}
	return strings.Join(args, ""), nil
}

func (c *cli) endOf(until string, length time.Duration) (*timestamppb.Timestamp, error) {
	switch {
	case until != "" && length != 0:
		return nil, hinted(errors.New("--until and --for exclude each other"), "give one of them")
	case length < 0:
		return nil, hinted(fmt.Errorf("--for %s is in the past", length), "give a time from now, as in 2h")
	case length > 0:
		return timestamppb.New(c.now().Add(length)), nil
	case until == "":
		return nil, nil
	}
	t, err := time.Parse(time.RFC3339, until)
	if err != nil {
		return nil, hinted(fmt.Errorf("--until %q is no time", until), "write it as in 2026-01-02T15:04:05Z, or use --for 2h")
	}
	return timestamppb.New(t), nil
}

func (c *cli) sayEach(names []string, state string) {
	if len(names) == 0 {
		fmt.Fprintln(c.out, "no application is concerned")
	}
	for _, name := range names {
		fmt.Fprintf(c.out, "%s: %s\n", safe(name), state)
	}
}
