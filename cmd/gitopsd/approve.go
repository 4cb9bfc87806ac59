package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) approveCommand() *cobra.Command {
	var digest, why string
	var validFor time.Duration
	cmd := &cobra.Command{
		Use:   "approve APP",
		Short: "Let a held plan go ahead",
		Long: "Let a plan go ahead that was held because it deletes too much, or something protected. An approval is for\n" +
			"exactly the changes that were looked at: --digest names them, as gitopsd diff prints it. Without\n" +
			"--digest the changes are shown on the terminal, with a question.\n\n" +
			"Whoever wrote the commit that is held does not approve it, unless approval.allowAuthor of the application is set.",
		Example:           "  gitopsd approve web --why 'old vhosts are gone for good'",
		Args:              arguments(1, 1, "APP"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needReason(why); err != nil {
				return err
			}
			if digest == "" {
				var err error
				if digest, err = c.lookAndAsk(cmd.Context(), args[0]); err != nil {
					return err
				}
			}
			res, err := ask(cmd.Context(), c, (*api.Client).Approve, &pb.ApproveRequest{
				Application: args[0], Digest: digest, Why: why, ValidFor: durationpb.New(validFor),
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(c.out, "%s: approved until %s\n", safe(args[0]), stampText(res.Expires.AsTime()))
			return nil
		},
	}
	cmd.Flags().StringVar(&digest, "digest", "", "the set of changes to approve, as status --diff prints it")
	cmd.Flags().StringVar(&why, "why", "", "reason, kept in history and audit (required)")
	cmd.Flags().DurationVar(&validFor, "for", 24*time.Hour, "how long the approval is valid")
	return cmd
}

func needReason(why string) error {
	if strings.TrimSpace(why) == "" {
		return hinted(errors.New("a reason is missing"), "add --why 'REASON'; it is kept in the audit log")
	}
	return nil
}

// lookAndAsk shows what is held and returns its digest after a yes.
func (c *cli) lookAndAsk(ctx context.Context, app string) (string, error) {
	res, err := ask(ctx, c, (*api.Client).GetStatus, &pb.GetStatusRequest{Applications: []string{app}})
	if err != nil {
		return "", err
	}
	candidate := res.Applications[0].GetCandidate()
	if candidate.GetDigest() == "" {
		return "", hinted(connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("nothing of %s waits for an approval", app)),
			"gitopsd status %s shows what it does", app)
	}
	if !c.inTerminal {
		return "", hinted(errors.New("without a terminal the changes have to be named"),
			"look with gitopsd diff %s, then add --digest %s", app, candidate.Digest)
	}
	fmt.Fprint(c.out, c.statusDetails(res.Applications[0]))
	fmt.Fprint(c.out, "Approve these changes? [y/N] ")
	answer, err := c.readLine(ctx)
	if err != nil {
		return "", err
	}
	if !strings.EqualFold(strings.TrimSpace(answer), "y") {
		return "", hinted(errors.New("not approved"), "nothing was changed; the plan goes on waiting")
	}
	return candidate.Digest, nil
}

// readLine reads one line of the terminal; the end of the input is an empty
// answer. An interrupt ends it: the read itself cannot be interrupted, and is
// left behind in a process that is about to end.
func (c *cli) readLine(ctx context.Context) (string, error) {
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(c.in).ReadString('\n')
		line <- text
	}()
	select {
	case text := <-line:
		return text, nil
	case <-ctx.Done():
		fmt.Fprintln(c.out)
		return "", ctx.Err()
	}
}
