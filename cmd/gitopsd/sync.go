package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) syncCommand() *cobra.Command {
	var wait bool
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "sync [APP]",
		Short: "Poll and reconcile now",
		Long: "Poll the source and look at every object now, instead of at the next interval. Without APP all applications\n" +
			"are synced. It changes nothing that the next round would not change.\n\n" +
			"With --wait the command ends when that round has ended, and moves between applications with it, with the exit\n" +
			"code of status --exit-code.",
		Args:              arguments(0, 1, "[APP]"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &pb.SyncRequest{Wait: wait}
			var names []string
			if len(args) == 1 {
				req.Application, names = args[0], args
			}
			if wait {
				c.timeout = patience
				defer c.progress(cmd.Context(), names)()
			}
			res, err := ask(cmd.Context(), c, (*api.Client).Sync, req)
			if err != nil {
				return err
			}
			if wait {
				c.code = statusCode(res.Applications)
				return c.printStatus(&statusFlags{format: "table"}, res, res.Applications)
			}
			for _, a := range res.Applications {
				fmt.Fprintf(c.out, "%s: sync requested\n", safe(a.Application))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the round that this starts has ended")
	cmd.Flags().DurationVar(&patience, "timeout", 10*time.Minute, "with --wait: longest time to wait; the round goes on without the command")
	return cmd
}

// progress shows on a terminal what applications are doing, in one line that is
// written again and again, until the returned function is called.
func (c *cli) progress(ctx context.Context, names []string) (stop func()) {
	if !c.errTerminal {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var shown sync.WaitGroup
	shown.Go(func() {
		client, err := c.client(ctx)
		if err != nil {
			return // the call that is waited for says so
		}
		defer client.Close()
		stream, err := client.WatchStatus(ctx, connect.NewRequest(&pb.WatchStatusRequest{Applications: names}))
		if err != nil {
			return
		}
		defer stream.Close()
		var known watched
		for stream.Receive() {
			known.take(stream.Msg())
			busy, line := 0, ""
			for _, a := range known.list() {
				switch a.Phase {
				case "Rendering", "Observing", "Planning", "Applying", "Verifying":
					busy++
					line = a.Application + ": " + a.Phase
				}
			}
			if busy > 1 {
				line = fmt.Sprintf("%s, and %d more", line, busy-1)
			}
			fmt.Fprintf(c.err, "\r\x1b[K%s", safe(line))
		}
	})
	return func() {
		cancel()
		shown.Wait()
		fmt.Fprint(c.err, "\r\x1b[K")
	}
}
