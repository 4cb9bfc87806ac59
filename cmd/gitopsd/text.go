package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// color is an ANSI sequence; "" paints nothing.
type color string

const (
	red    color = "\x1b[31m"
	green  color = "\x1b[32m"
	yellow color = "\x1b[33m"
	cyan   color = "\x1b[36m"
	plain  color = ""
	reset        = "\x1b[0m"
)

func (c *cli) colors(terminal bool) bool {
	return terminal && c.getenv("NO_COLOR") == "" && c.getenv("TERM") != "dumb"
}

func (c *cli) errPaint(col color, s string) string { return paint(c.colors(c.errTerminal), col, s) }
func (c *cli) outPaint(col color, s string) string { return paint(c.colors(c.outTerminal), col, s) }

func paint(on bool, col color, s string) string {
	if !on || col == plain {
		return s
	}
	return string(col) + s + reset
}

// safe returns s with everything spelt out that does not print: control
// characters, line breaks, escapes, marks that change the direction of text,
// and bytes that are no UTF-8. It keeps to one line.
func safe(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(utf8.RuneError)):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// cell is one field of a table.
type cell struct {
	text  string
	color color
}

// table prints rows in columns. Cells are made safe here, so no caller can forget.
type table struct{ rows [][]cell }

func (t *table) row(cells ...cell) { t.rows = append(t.rows, cells) }

func (t *table) header(names ...string) {
	cells := make([]cell, len(names))
	for i, name := range names {
		cells[i] = cell{text: name}
	}
	t.row(cells...)
}

// leastLast is how much of the last column stays, however narrow the terminal is.
const leastLast = 20

// show prints a table; on a terminal the last column is cut to its width.
func (c *cli) show(t *table) {
	width := 0
	if c.outTerminal && c.width != nil {
		width = c.width()
	}
	t.print(c.out, c.colors(c.outTerminal), width)
}

// print writes the rows, at most width wide unless that is 0.
func (t *table) print(w io.Writer, colors bool, width int) {
	var widths []int
	for _, row := range t.rows {
		for i := range row {
			row[i].text = safe(row[i].text)
			if row[i].text == "" {
				row[i].text = "-"
			}
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	last := width
	for _, n := range widths[:max(0, len(widths)-1)] {
		last -= n + 2
	}
	for _, row := range t.rows {
		var b strings.Builder
		for i, c := range row {
			if width > 0 && i == len(widths)-1 {
				c.text = cut(c.text, max(last, leastLast))
			}
			b.WriteString(paint(colors, c.color, c.text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		fmt.Fprintln(w, b.String())
	}
}

// cut shortens text to at most n runes, and shows that it did.
func cut(text string, n int) string {
	if r := []rune(text); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}

// age writes a length of time in its two largest units: 45s, 3m20s, 2h5m, 3d4h.
func age(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	units := []struct {
		name string
		size time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}}
	first := slices.IndexFunc(units, func(u struct {
		name string
		size time.Duration
	}) bool {
		return d >= u.size
	})
	if first < 0 {
		return "0s"
	}
	out := fmt.Sprintf("%d%s", d/units[first].size, units[first].name)
	if first+1 < len(units) {
		if rest := d % units[first].size / units[first+1].size; rest > 0 {
			out += fmt.Sprintf("%d%s", rest, units[first+1].name)
		}
	}
	return out
}

// short cuts a commit ID to the length that people read.
func short(revision string) string {
	if len(revision) >= 40 && strings.Trim(revision, "0123456789abcdef") == "" {
		return revision[:12]
	}
	return revision
}

// block prints text that may have several lines, each made safe and indented so
// that none can pass for a line of the report.
func block(w io.Writer, indent, text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintln(w, indent+safe(line))
	}
}

// plural writes a count with its word, as in "1 object" and "2 objects".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
