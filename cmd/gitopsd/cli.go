package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

// streams is what a command may touch of the world around it.
type streams struct {
	in       io.Reader
	out, err io.Writer
	getenv   func(string) string
	now      func() time.Time
	// outTerminal and errTerminal say that a person is watching.
	inTerminal, outTerminal, errTerminal bool
	// width is that of the terminal of out, in columns; 0 and nil say that it is
	// not known.
	width func() int
}

func standardStreams() streams {
	return streams{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, getenv: os.Getenv, now: time.Now,
		inTerminal:  term.IsTerminal(int(os.Stdin.Fd())),
		outTerminal: term.IsTerminal(int(os.Stdout.Fd())),
		errTerminal: term.IsTerminal(int(os.Stderr.Fd())),
		width: func() int {
			columns, _, err := term.GetSize(int(os.Stdout.Fd()))
			if err != nil {
				return 0
			}
			return columns
		},
	}
}

// cli is one run of the command line. Each command is made by a method of it, in
// a file of its own.
type cli struct {
	streams
	socket  string
	timeout time.Duration // of one call to the daemon
	code    int           // exit code of a command that succeeded
	// interrupted says that whoever started the command has ended it.
	interrupted func() bool
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, s streams, args []string) int {
	c := &cli{streams: s, interrupted: func() bool { return ctx.Err() != nil }}
	root := c.rootCommand()
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		return c.fail(err)
	}
	return c.code
}

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "gitopsd",
		Short: "Keep hosts in step with Git",
		Long: "gitopsd pulls declarative YAML from Git, refuses what policies deny, shows and applies the difference,\n" +
			"and heals what drifts. Most commands speak to the running daemon through its socket; run, validate,\n" +
			"policy, init and doctor need none.",
		Version:                    release(),
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
		SilenceErrors:              true,
		Args:                       c.unknownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	// Before the helpers are added: they keep what they find.
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetVersionTemplate(versionText() + "\n")
	root.PersistentFlags().StringVar(&c.socket, "socket", "", "socket of the daemon (default: $GITOPSD_SOCKET, or for a user $XDG_RUNTIME_DIR/gitopsd.sock, or "+systemSocket+")")
	root.PersistentFlags().DurationVar(&c.timeout, "timeout", 30*time.Second, "longest time to wait for an answer of the daemon")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return hinted(err, "%s --help lists the flags", cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupSteer, Title: "Steer:"},
		&cobra.Group{ID: groupLocal, Title: "Without a daemon:"},
	)
	for id, commands := range map[string][]*cobra.Command{
		groupLook:  {c.statusCommand(), c.diffCommand(), c.getCommand(), c.historyCommand(), c.auditCommand()},
		groupSteer: {c.syncCommand(), c.approveCommand(), c.suspendCommand(), c.resumeCommand(), c.acceptHistoryCommand(), c.forgetCommand()},
		groupLocal: {c.runCommand(), c.validateCommand(), c.policyCommand(), c.initCommand(), c.doctorCommand()},
		"":         {c.versionCommand(), c.manCommand()},
	} {
		for _, cmd := range commands {
			cmd.GroupID = id
			root.AddCommand(cmd)
		}
	}
	c.strictHelpers(root)
	return root
}

// strictHelpers makes the commands that cobra brings refuse what they do not
// know; by themselves they would print a help text and succeed.
func (c *cli) strictHelpers(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		switch cmd.Name() {
		case "completion":
			cmd.Args = c.unknownSubcommand
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		case "help":
			cmd.Run, cmd.RunE = nil, func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err != nil || len(rest) > 0 {
					return hinted(fmt.Errorf("there is no command %q", strings.Join(args, " ")), "gitopsd --help lists the commands")
				}
				about.InitDefaultHelpFlag()
				return about.Help()
			}
		}
	}
}

// The groups of commands in the help text.
const (
	groupLook  = "look"
	groupSteer = "steer"
	groupLocal = "local"
)

func (c *cli) unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("there is no command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return hinted(err, "did you mean gitopsd %s?", near[0])
	}
	return hinted(err, "gitopsd --help lists the commands")
}

// arguments holds a command to a number of arguments.
func arguments(least, most int, usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		var err error
		switch {
		case len(args) < least:
			err = fmt.Errorf("%s is missing", strings.Join(strings.Fields(usage)[len(args):least], " and "))
		case most == 0 && len(args) > 0:
			err = fmt.Errorf("%s takes no argument, and got %q", cmd.CommandPath(), args[0])
		case most >= 0 && len(args) > most:
			err = fmt.Errorf("%q is one argument too many", args[most])
		default:
			return nil
		}
		return hinted(err, "usage: %s", strings.TrimSpace(cmd.CommandPath()+" "+usage))
	}
}

// client connects to the daemon. The caller closes it.
func (c *cli) client(ctx context.Context) (*api.Client, error) {
	path := c.socketPath()
	client, err := api.Dial(ctx, path)
	if c.socket == "" && c.getenv("GITOPSD_SOCKET") == "" && path != systemSocket && errors.Is(err, fs.ErrNotExist) {
		// The user has no daemon; the host may have one.
		if host, hostErr := api.Dial(ctx, systemSocket); hostErr == nil || !errors.Is(hostErr, fs.ErrNotExist) {
			return host, hostErr
		}
	}
	return client, err
}

// socketPath is --socket or its default.
func (c *cli) socketPath() string {
	if c.socket != "" {
		return c.socket
	}
	return defaultSocket(c.getenv, os.Geteuid())
}

// ask makes one call to the daemon, which may take as long as --timeout says:
// call is a method expression, as in (*api.Client).GetStatus.
func ask[Req, Res any](ctx context.Context, c *cli, call func(*api.Client, context.Context, *connect.Request[Req]) (*connect.Response[Res], error), req *Req) (*Res, error) {
	client, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	res, err := call(client, ctx, connect.NewRequest(req))
	if err != nil {
		return nil, client.Silence(err)
	}
	return res.Msg, nil
}

// applicationNames completes the names of applications from the daemon.
func (c *cli) applicationNames(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	res, err := ask(ctx, c, (*api.Client).GetStatus, &pb.GetStatusRequest{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, a := range res.Applications {
		names = append(names, a.Application)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// errSilent ends a command with code 1 after it has said everything itself.
var errSilent = errors.New("")
