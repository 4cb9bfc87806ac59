package plan

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// TextOptions say how a plan is printed.
type TextOptions struct {
	// Verbose also lists what only changes the records, and shows values in full.
	Verbose bool
	// MaxLines limits the lines shown of one value; default 20.
	MaxLines int
}

const (
	defaultMaxLines = 20
	maxValue        = 120 // runes of a value on one line
)

// Text prints the plan for people: one block for each change, then the gates,
// then one line that sums up, and one more when not all is known. Nothing in
// names, values and reasons can move the cursor or change colours: what does not
// print is escaped.
func (p *Plan) Text(w io.Writer, opts TextOptions) error {
	opts.MaxLines = cmp.Or(opts.MaxLines, defaultMaxLines)
	t := &printer{TextOptions: opts}
	for i := range p.Changes {
		t.change(&p.Changes[i])
	}
	for _, g := range p.Gates {
		t.line("", "Needs approval (%s): %s.", clean(string(g.Kind)), clean(g.Text()))
		shown := len(g.Changes)
		if !opts.Verbose {
			shown = min(shown, opts.MaxLines)
		}
		for _, c := range g.Changes[:shown] {
			t.line("  ", "%s", clean(c.String()))
		}
		t.more(len(g.Changes)-shown, "  ")
	}
	if t.buf.Len() > 0 {
		t.buf.WriteByte('\n')
	}
	t.line("", "%s", p.Summary())
	if p.Unknown != "" && p.Counts != (Counts{}) {
		t.line("", "It is not known whether anything else differs: %s", clean(p.Unknown))
	}
	_, err := w.Write(t.buf.Bytes())
	return err
}

// Summary is the last line of the text: what a plan comes to, in one sentence.
func (p *Plan) Summary() string {
	n := p.Counts
	if n == (Counts{}) && p.Unknown != "" {
		return "It is not known whether anything differs: " + clean(p.Unknown)
	}
	if n == (Counts{}) {
		return "No changes. What is observed is as desired."
	}
	does := []string{fmt.Sprintf("%d to create, %d to change", n.Create, n.Update)}
	if n.Adopt > 0 {
		does = append(does, fmt.Sprintf("%d to adopt", n.Adopt))
	}
	does = append(does, fmt.Sprintf("%d to delete", n.Delete))
	if n.Remove > 0 {
		does = append(does, fmt.Sprintf("%d undeclared to remove", n.Remove))
	}
	if n.Forget > 0 {
		does = append(does, fmt.Sprintf("%d to forget", n.Forget))
	}
	var also []string
	if n.Blocked > 0 {
		also = append(also, fmt.Sprintf("%d blocked", n.Blocked))
	}
	if n.Drifted > 0 {
		also = append(also, fmt.Sprintf("%d drifted", n.Drifted))
	}
	s := "Plan: " + strings.Join(does, ", ")
	if len(also) > 0 {
		s += "; " + strings.Join(also, ", ")
	}
	return s + "."
}

type printer struct {
	TextOptions
	buf bytes.Buffer
}

// line prints one line. Everything of foreign origin in args is cleaned already.
func (t *printer) line(indent, format string, args ...any) {
	t.buf.WriteString(indent)
	fmt.Fprintf(&t.buf, format, args...)
	t.buf.WriteByte('\n')
}

func (t *printer) more(n int, indent string) {
	if n > 0 {
		t.line(indent, "... %d more lines", n)
	}
}

// symbol returns the sign and the words of a change.
func symbol(c *Change) (sign, words string) {
	switch {
	case c.Action == Create && c.Cause == Drift:
		return "+", "create again (it was deleted on the target)"
	case c.Action == Create:
		return "+", "create"
	case c.Action == Update && c.Adopting:
		return "~", "take over and change (what is there is kept)"
	case c.Action == Update && len(c.Fields) == 0:
		return "~", "finish"
	case c.Action == Update:
		return "~", "change"
	case c.Action == Adopt:
		return "=", "adopt"
	case c.Action == Delete:
		return "-", "delete"
	case c.Action == Forget && c.Live == nil:
		return "x", "forget (it is gone)"
	case c.Action == Forget:
		return "x", "forget (it stays, under another name or owner)"
	case len(c.Reported) > 0:
		return "?", "drifted"
	case c.Record:
		return "=", "record"
	default:
		return "!", "hold"
	}
}

func (t *printer) change(c *Change) {
	quiet := c.Action == Forget || c.Action == None && len(c.Reported) == 0
	if quiet && c.Blocked == "" && c.TransferFrom == nil && !t.Verbose {
		return
	}
	sign, words := symbol(c)
	if c.Blocked != "" {
		sign = "!"
	}
	where := ""
	if o := c.Origin.String(); o != "" {
		where = "  (" + clean(o) + ")"
	}
	t.line("", "%s %s %s%s", sign, clean(c.Key.String()), words, where)
	if c.TransferFrom != nil {
		t.line("    ", "in place of %s, at %s", clean(c.TransferFrom.String()), clean(c.Entry.Locator))
	}
	if c.Blocked != "" {
		t.line("    ", "blocked: %s", clean(c.Blocked))
	}
	if c.Unfinished != "" {
		t.line("    ", "%s", clean(c.Unfinished))
	}
	for _, f := range c.Fields {
		t.field(f, c.Action != Create, "")
	}
	t.removes(c.Removes)
	for _, f := range c.Reported {
		t.field(f, true, ", left as it is")
	}
}

// removes lists what a change removes besides.
func (t *printer) removes(addresses []string) {
	switch len(addresses) {
	case 0:
		return
	case 1:
		t.line("    ", "removes 1 undeclared entry:")
	default:
		t.line("    ", "removes %d undeclared entries:", len(addresses))
	}
	ls := make([]string, len(addresses))
	for i, a := range addresses {
		ls[i] = "- " + a
	}
	t.block(ls)
}

// field prints one difference; why says whether its cause is of interest.
func (t *printer) field(f FieldChange, why bool, left string) {
	note := left
	if why {
		switch f.Cause {
		case Drift:
			note = "  # drifted" + left
		case Both:
			note = "  # changed in Git and on the target" + left
		}
	}
	path := clean(string(f.Path))
	switch {
	case f.Path == "":
		t.line("    ", "deleted on the target%s", left)
	case f.Op == FieldAdd && multiline(f.After):
		t.line("    ", "+ %s:%s", path, note)
		t.block(prefixed("| ", f.After))
	case f.Op == FieldAdd:
		t.line("    ", "+ %s: %s%s", path, t.value(f.After), note)
	case f.Op == FieldRemove:
		t.line("    ", "- %s: %s%s", path, t.value(f.Before), note)
	case multiline(f.Before) && text(f.After) || text(f.Before) && multiline(f.After):
		t.line("    ", "~ %s:%s", path, note)
		t.block(lineDiff(f.Before.(string), f.After.(string)))
	default:
		t.line("    ", "~ %s: %s -> %s%s", path, t.value(f.Before), t.value(f.After), note)
	}
}

func text(v any) bool { _, ok := v.(string); return ok }

func multiline(v any) bool {
	s, ok := v.(string)
	return ok && strings.Contains(strings.TrimSuffix(s, "\n"), "\n")
}

func prefixed(prefix string, v any) []string {
	ls := lines(v.(string))
	for i := range ls {
		ls[i] = prefix + ls[i]
	}
	return ls
}

// block prints lines of content, and says how many it left out.
func (t *printer) block(ls []string) {
	shown := len(ls)
	if !t.Verbose {
		shown = min(shown, t.MaxLines)
	}
	for _, l := range ls[:shown] {
		t.line("        ", "%s", t.cut(clean(l)))
	}
	t.more(len(ls)-shown, "        ")
}

// value returns a value on one line: strings quoted, the rest as JSON, secrets masked.
func (t *printer) value(v any) string {
	switch v := v.(type) {
	case manifest.Sensitive:
		return v.String()
	case string:
		if !t.Verbose {
			if r := []rune(v); len(r) > maxValue {
				return fmt.Sprintf("%s... (%d bytes)", strconv.Quote(string(r[:maxValue])), len(v))
			}
		}
		return strconv.Quote(v)
	default:
		return t.cut(clean(string(manifest.Canonical(v))))
	}
}

func (t *printer) cut(s string) string {
	if r := []rune(s); !t.Verbose && len(r) > maxValue {
		return fmt.Sprintf("%s... (%d bytes)", string(r[:maxValue]), len(s))
	}
	return s
}

// clean escapes what does not print: control characters, ANSI sequences, marks
// that change the direction of writing, bytes that are not UTF-8. The result is
// one line. A tab stays legible as \t.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == '\uFFFD' }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\uFFFD' && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}
