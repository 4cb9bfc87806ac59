package file

import (
	"fmt"
	"os"
)

// childEnv makes the test binary run a scenario in a process of its own.
const childEnv = "GITOPSD_TEST_FILE_CHILD"

func runChild(scenario string) int {
	fmt.Fprintln(os.Stderr, "unknown scenario", scenario)
	return 2
}
