//go:build !failpoint

package main

import "github.com/gitopsd/gitopsd/internal/effect"

// newSeam returns the seam of production: an effect is run and nothing else. A
// build with the tag failpoint has another, at which tests end the process.
func newSeam() (effect.Seam, error) { return effect.Direct, nil }
