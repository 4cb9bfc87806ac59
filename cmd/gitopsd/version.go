package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version and commit are set by the linker (-X main.version=v1.2.3), as make
// build does. Read them with release and sourceCommit.
var version, commit string

// release is the version of this binary: what was linked in, else what the
// toolchain recorded, else "dev".
func release() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "(devel)" {
		return cmp.Or(version, info.Main.Version, "dev")
	}
	return cmp.Or(version, "dev")
}

// sourceCommit is the commit that this binary was built from; "" when neither
// linker nor toolchain were told.
func sourceCommit() string {
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return commit
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show what this is",
		Args:  arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.out, versionText())
			return err
		},
	}
}

// versionText is what gitopsd version and --version print.
func versionText() string {
	built := fmt.Sprintf("%s %s/%s", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if commit := sourceCommit(); commit != "" {
		built = "commit " + short(commit) + ", " + built
	}
	return fmt.Sprintf("gitopsd %s (%s)", release(), built)
}
