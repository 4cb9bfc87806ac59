package plan

import (
	"fmt"
	"strings"
)

// maxCells bounds the table of the line comparison (16 MiB): beyond it the
// differing middle is shown as removed and added as a whole.
const maxCells = 4 << 20

// contextLines is how many unchanged lines stand around a difference.
const contextLines = 3

// lineDiff returns the lines of a unified diff of two texts: "@@ ... @@" before
// each part, then lines that begin with " ", "-" or "+". A missing newline at
// the end is told apart, as one more line that says so.
func lineDiff(before, after string) []string {
	a, b := lines(before), lines(after)
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	edits := make([]edit, 0, len(a)+len(b))
	for _, l := range a[:head] {
		edits = append(edits, edit{' ', l})
	}
	edits = append(edits, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, l := range a[len(a)-tail:] {
		edits = append(edits, edit{' ', l})
	}
	return hunks(edits)
}

type edit struct {
	op   byte
	line string
}

const noNewline = "\\ no newline at the end"

// lines splits a text; noNewline stands in for a newline that is missing.
func lines(s string) []string {
	if s == "" {
		return nil
	}
	ls := strings.Split(s, "\n")
	if ls[len(ls)-1] == "" {
		return ls[:len(ls)-1]
	}
	return append(ls, noNewline)
}

// middle compares by the longest common subsequence.
func middle(a, b []string) []edit {
	var edits []edit
	n, m := len(a), len(b)
	if n == 0 || m == 0 || n*m > maxCells {
		for _, l := range a {
			edits = append(edits, edit{'-', l})
		}
		for _, l := range b {
			edits = append(edits, edit{'+', l})
		}
		return edits
	}
	// common[i*(m+1)+j] is the length for a[i:] and b[j:].
	common := make([]int32, (n+1)*(m+1))
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			if at := i*(m+1) + j; a[i] == b[j] {
				common[at] = common[at+m+2] + 1
			} else {
				common[at] = max(common[at+m+1], common[at+1])
			}
		}
	}
	i, j := 0, 0
	for i < n || j < m {
		switch at := i*(m+1) + j; {
		case i < n && j < m && a[i] == b[j]:
			edits = append(edits, edit{' ', a[i]})
			i, j = i+1, j+1
		case j == m || i < n && common[at+m+1] >= common[at+1]:
			edits = append(edits, edit{'-', a[i]})
			i++
		default:
			edits = append(edits, edit{'+', b[j]})
			j++
		}
	}
	return edits
}

// hunks cuts edits into parts with a few unchanged lines around each.
func hunks(edits []edit) []string {
	var out []string
	oldLine, newLine := 1, 1
	for i := 0; i < len(edits); {
		end := i
		for end < len(edits) && edits[end].op == ' ' {
			end++
		}
		if end == len(edits) {
			break
		}
		skip := max(0, end-i-contextLines)
		oldLine, newLine, i = oldLine+skip, newLine+skip, i+skip
		start := i
		for quiet := 0; end < len(edits) && quiet <= 2*contextLines; end++ {
			quiet++
			if edits[end].op != ' ' {
				quiet = 0
			}
		}
		last := end // cut the unchanged lines at its end down to the context
		for last > start && edits[last-1].op == ' ' {
			last--
		}
		last = min(last+contextLines, end)
		olds, news := 0, 0
		var body []string
		for _, e := range edits[start:last] {
			if e.op != '+' {
				olds++
			}
			if e.op != '-' {
				news++
			}
			body = append(body, string(e.op)+e.line)
		}
		out = append(out, fmt.Sprintf("@@ -%d,%d +%d,%d @@", oldLine, olds, newLine, news))
		out = append(out, body...)
		oldLine, newLine, i = oldLine+olds, newLine+news, last
	}
	return out
}
