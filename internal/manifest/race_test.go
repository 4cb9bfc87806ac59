//go:build race

package manifest_test

// slowdown widens bounds on time where the race detector runs.
const slowdown = 10
