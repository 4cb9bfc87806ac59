// Command fetcher is the fetching process of the tests: what gitopsd is when it
// is started as one, and nothing else.
package main

import (
	"context"
	"os"

	"github.com/gitopsd/gitopsd/sources/git"
)

func main() { os.Exit(git.ServeFetch(context.Background(), os.Stdin, os.Stdout)) }
