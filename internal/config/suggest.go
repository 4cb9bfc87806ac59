package config

import (
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// didYouMean returns the hint for a word that is none of the candidates.
func didYouMean(word string, candidates []string) string {
	if near := manifest.Nearest(word, candidates); near != "" {
		return "did you mean " + near + "?"
	}
	if len(candidates) == 0 {
		return ""
	}
	return "known: " + strings.Join(slices.Sorted(slices.Values(candidates)), ", ")
}
