package manifest

import (
	"slices"
	"strings"
)

// maxWord is the longest word that is compared: no field or name is longer.
const maxWord = 253

// Nearest returns the candidate most like word, or "" when none is alike: at
// most a third of the letters may differ, and upper case does not count.
func Nearest(word string, candidates []string) string {
	best, bestAt := "", 1+max(1, len(word)/3)
	if len(word) > maxWord {
		return ""
	}
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		w, lower := strings.ToLower(word), strings.ToLower(c)
		d := distance(w, lower)
		if len(w) > 3 && strings.HasPrefix(lower, w) {
			d = 1
		}
		if d < bestAt {
			best, bestAt = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour that turn a into b.
func distance(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
