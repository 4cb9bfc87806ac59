package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
)

func (c *cli) runCommand() *cobra.Command {
	var o daemonOptions
	var logFormat, logLevel string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon",
		Long: "Run the daemon until it is told to stop (SIGTERM, Ctrl-C). Stopping changes nothing on any target; the next\n" +
			"start goes on where this one ended.\n\n" +
			"The configuration is a file or a directory of YAML, taken up again whenever it changes; one that is not valid\n" +
			"is refused, and the running one stays.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := c.logger(logFormat, logLevel)
			if err != nil {
				return err
			}
			o.socket = c.socketPath()
			return runDaemon(cmd.Context(), o, log)
		},
	}
	uid := os.Geteuid()
	f := cmd.Flags()
	f.StringVar(&o.config, "config", defaultConfig(c.getenv, uid), "configuration: a YAML file, or a directory of them")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir(c.getenv, uid), "where the daemon keeps its store, mirrors and key")
	f.StringVar(&o.group, "socket-group", "", "group whose members may open the socket, as viewers unless they have another role; without it and without roles only the daemon's user may")
	o.roles.register(f)
	f.StringVar(&o.metrics, "metrics-address", "127.0.0.1:9464", "address of /metrics, /healthz and /readyz; empty serves none")
	f.StringVar(&logFormat, "log-format", "text", "text or json")
	f.StringVar(&logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func (c *cli) logger(format, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, hinted(fmt.Errorf("--log-level %q is not a level", level), "use debug, info, warn or error")
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: l})), nil
	case "json":
		return slog.New(slog.NewJSONHandler(c.err, &slog.HandlerOptions{Level: l})), nil
	default:
		return nil, hinted(fmt.Errorf("--log-format %q is not a format", format), "use text or json")
	}
}
