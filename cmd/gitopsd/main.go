// Command gitopsd is the daemon and its command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/gitopsd/gitopsd/sources/git"
)

// fetchProcess is the argument with which the daemon starts itself for a fetch,
// and ownProgram the file: the one that runs, also after it was replaced on disk.
const (
	fetchProcess = "fetch-process"
	ownProgram   = "/proc/self/exe"
)

func main() { os.Exit(process()) }

// process runs the command of this process and returns its exit code.
func process() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == fetchProcess {
		return git.ServeFetch(ctx, os.Stdin, os.Stdout)
	}
	return execute(ctx, standardStreams(), os.Args[1:])
}
