package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A value of an object is one of nil, bool, int64, float64, string (valid
// UTF-8), Sensitive, []any and map[string]any, nested. A whole number that fits
// 64 bits is always an int64, however it was written. Everything else is refused
// when an Object is made, so no reader needs another case.

// Canonical returns the canonical JSON of v: map keys sorted by bytes, no
// white space, integers without exponent, floats in their shortest form,
// Sensitive values as their Mask. Equal values have equal canonical forms. What
// could deceive a reader (control and direction characters) is escaped.
func Canonical(v any) []byte {
	var b bytes.Buffer
	writeCanonical(&b, v, masked)
	return b.Bytes()
}

// secretForm is how a secret appears in a canonical form: masked for people and
// policies, or by a tag byte that JSON never starts with and its digest, where
// different secrets must differ.
type secretForm bool

const (
	masked   secretForm = false
	byDigest secretForm = true
)

func writeCanonical(b *bytes.Buffer, v any, form secretForm) {
	switch v := v.(type) {
	case map[string]any:
		b.WriteByte('{')
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				b.WriteByte(',')
			}
			writeString(b, k, form)
			b.WriteByte(':')
			writeCanonical(b, v[k], form)
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			writeCanonical(b, e, form)
		}
		b.WriteByte(']')
	case string:
		writeString(b, v, form)
	case Sensitive:
		if form == byDigest {
			b.WriteString(`!"` + string(v.digest) + `"`)
		} else {
			b.WriteString(`"` + Mask + `"`)
		}
	case int64:
		b.Write(strconv.AppendInt(b.AvailableBuffer(), v, 10))
	case float64:
		if i, ok := wholeNumber(v); ok {
			b.Write(strconv.AppendInt(b.AvailableBuffer(), i, 10))
		} else {
			b.Write(strconv.AppendFloat(b.AvailableBuffer(), v, 'g', -1, 64))
		}
	case bool:
		b.Write(strconv.AppendBool(b.AvailableBuffer(), v))
	case nil:
		b.WriteString("null")
	default:
		panic(fmt.Sprintf("manifest: value of type %T reached the canonical form unchecked", v))
	}
}

// writeString writes s as a JSON string that a YAML reader takes too. Bytes that
// are no UTF-8 have no JSON form: shown as the replacement character, and kept
// apart by a tag where different values must differ.
func writeString(b *bytes.Buffer, s string, form secretForm) {
	if form == byDigest && !utf8.ValidString(s) {
		fmt.Fprintf(b, "!%q", s)
		return
	}
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteByte(byte(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r >= ' ' && r < 0x7f:
			b.WriteByte(byte(r))
		case mustEscape(r):
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
}

// Equal reports whether two values are the same. An int64 and a float64 of the
// same number are equal, as they are in JSON.
func Equal(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		bm, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, bm, Equal)
	case []any:
		bl, ok := b.([]any)
		return ok && slices.EqualFunc(a, bl, Equal)
	case Sensitive:
		bs, ok := b.(Sensitive)
		return ok && a.Equal(bs)
	case int64:
		if bf, ok := b.(float64); ok {
			bi, whole := wholeNumber(bf)
			return whole && a == bi
		}
		return a == b
	case float64:
		if bi, ok := b.(int64); ok {
			return Equal(bi, a)
		}
		return a == b
	default:
		return a == b
	}
}

// Clone returns a deep copy of a value.
func Clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = Clone(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = Clone(e)
		}
		return c
	default:
		return v
	}
}

// wholeNumber returns f as an int64 if it is exactly one.
func wholeNumber(f float64) (int64, bool) {
	// Both bounds are powers of two, hence exact; the upper one is already outside.
	if f != math.Trunc(f) || f < -(1<<63) || f >= 1<<63 {
		return 0, false
	}
	return int64(f), true
}

// normalize brings v into the model and returns an error that names the path of
// the first value outside it. Maps and lists are changed in place, and written
// to only where a value changes: content that was normalized before may be
// shared with readers.
func normalize(v any, at Pointer) (n any, changed bool, err *FieldError) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if !utf8.ValidString(k) {
				return nil, false, outside(at, fmt.Sprintf("the key %q is not UTF-8", k))
			}
			n, changed, err := normalize(e, at.Child(k))
			if err != nil {
				return nil, false, err
			}
			if changed {
				v[k] = n
			}
		}
		return v, false, nil
	case []any:
		for i, e := range v {
			n, changed, err := normalize(e, at.Child(strconv.Itoa(i)))
			if err != nil {
				return nil, false, err
			}
			if changed {
				v[i] = n
			}
		}
		return v, false, nil
	case string:
		if !utf8.ValidString(v) {
			return nil, false, outside(at, "the text is not UTF-8; use a base64 field")
		}
		return v, false, nil
	case int:
		return int64(v), true, nil
	case json.Number:
		n, err := number(v.String())
		if err != nil {
			return nil, false, outside(at, err.Error())
		}
		return n, true, nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, false, outside(at, "number is not finite")
		}
		if i, ok := wholeNumber(v); ok {
			return i, true, nil
		}
		return v, false, nil
	case nil, bool, int64, Sensitive:
		return v, false, nil
	default:
		return nil, false, outside(at, fmt.Sprintf("values of type %T are not supported", v))
	}
}

// outside is the error of a value at a place that the model does not have.
func outside(at Pointer, msg string) *FieldError {
	return &FieldError{At: at, Msg: string(at) + ": " + msg}
}

// number reads a JSON number without losing digits of a whole one. A number
// written with a point or an exponent is a float and has a float's precision.
func number(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	if !strings.ContainsAny(s, ".eE") {
		return nil, fmt.Errorf("the whole number %s does not fit 64 bits and would lose digits", shorten(s))
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, fmt.Errorf("number %s is out of range", shorten(s))
	}
	if i, ok := wholeNumber(f); ok {
		return i, nil
	}
	return f, nil
}

func shorten(s string) string { return shortenTo(s, 40) }
