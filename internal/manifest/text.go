package manifest

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// bom is the byte order mark as UTF-8.
const bom = "\xef\xbb\xbf"

// normalizeText checks that data is text a person can trust to read as the
// parser does, and returns it without a leading byte order mark and with LF line
// ends. Everything else that is unusual is refused rather than repaired: a file
// has one meaning. Problems come in line order.
func normalizeText(data []byte) ([]byte, []*Error) {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return nil, []*Error{{Line: 1, Msg: "the file is UTF-16", Hint: "save it as UTF-8"}}
	}
	data = bytes.TrimPrefix(data, []byte(bom))
	if bytes.IndexByte(data, '\r') >= 0 {
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	}
	var problems []*Error
	line, reported := 1, 0
	note := func(msg, hint string) {
		if line != reported {
			problems = append(problems, &Error{Line: line, Msg: msg, Hint: hint})
		}
		reported = line
	}
	for i := 0; i < len(data) && len(problems) < maxErrors; {
		c := data[i]
		if c >= ' ' && c < 0x7f || c == '\t' {
			i++
			continue
		}
		if c == '\n' {
			i++
			line++
			continue
		}
		r, size := utf8.DecodeRune(data[i:])
		i += size
		switch {
		case r == utf8.RuneError && size == 1:
			note("the file is not UTF-8", "save it as UTF-8; binary content goes into a base64 field or a file of its own")
		case r == 0:
			note("NUL character", "save the file as UTF-8; binary content goes into a base64 field or a file of its own")
		case mustEscape(r):
			note(fmt.Sprintf("%s character U+%04X", kindOf(r), r),
				fmt.Sprintf(`remove it, or write it as "\u%04x" in double quotes`, r))
		}
	}
	return data, problems
}

// mustEscape reports whether a character may not stand in a file as itself:
// controls, the directional ones of Unicode (its property Bidi_Control), line
// ends that only some readers know, and what no YAML reader accepts.
func mustEscape(r rune) bool {
	switch {
	case r < ' ', r >= 0x7f && r < 0xa0:
		return true
	case r == 0x061c, r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	case r == 0x2028, r == 0x2029, r == 0xfeff, r == 0xfffe, r == 0xffff:
		return true
	}
	return false
}

func kindOf(r rune) string {
	switch {
	case r == '\r':
		return "stray carriage return"
	case r < ' ', r >= 0x7f && r < 0xa0:
		return "control"
	case r == 0x2028, r == 0x2029:
		return "line separator"
	case r == 0xfeff:
		return "misplaced byte order mark"
	case r == 0xfffe, r == 0xffff:
		return "undefined"
	default:
		return "invisible text direction"
	}
}
