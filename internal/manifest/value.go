package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
)

// A value of an object is one of nil, bool, int64, float64, string, Sensitive,
// []any and map[string]any, nested. Everything else is refused when an Object
// is made, so no reader needs another case.

// Canonical returns the canonical JSON of v: map keys sorted by bytes, no
// white space, integers without exponent, floats in their shortest form,
// Sensitive values as their Mask. Equal values have equal canonical forms.
func Canonical(v any) []byte {
	var b bytes.Buffer
	writeCanonical(&b, v, masked)
	return b.Bytes()
}

// masked and byDigest are the two ways a secret appears in a canonical form: as
// text for people and policies, or by a tag byte that JSON never starts with and
// its digest, where different secrets must differ.
func masked(Sensitive) string     { return `"` + Mask + `"` }
func byDigest(s Sensitive) string { return `!"` + string(s.digest) + `"` }

func writeCanonical(w io.Writer, v any, secret func(Sensitive) string) {
	switch v := v.(type) {
	case map[string]any:
		io.WriteString(w, "{")
		for i, k := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				io.WriteString(w, ",")
			}
			writeString(w, k)
			io.WriteString(w, ":")
			writeCanonical(w, v[k], secret)
		}
		io.WriteString(w, "}")
	case []any:
		io.WriteString(w, "[")
		for i, e := range v {
			if i > 0 {
				io.WriteString(w, ",")
			}
			writeCanonical(w, e, secret)
		}
		io.WriteString(w, "]")
	case string:
		writeString(w, v)
	case Sensitive:
		io.WriteString(w, secret(v))
	case int64:
		io.WriteString(w, strconv.FormatInt(v, 10))
	case float64:
		io.WriteString(w, strconv.FormatFloat(v, 'g', -1, 64))
	case bool:
		io.WriteString(w, strconv.FormatBool(v))
	case nil:
		io.WriteString(w, "null")
	default:
		panic(fmt.Sprintf("manifest: value of type %T reached the canonical form unchecked", v))
	}
}

func writeString(w io.Writer, s string) {
	b, err := json.Marshal(s)
	if err != nil { // strings always marshal
		panic(err)
	}
	w.Write(b)
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
			return float64(a) == bf
		}
		return a == b
	case float64:
		if bi, ok := b.(int64); ok {
			return a == float64(bi)
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

// normalize returns v with every number as int64 or float64, and an error that
// names the path of the first value outside the model.
func normalize(v any, at Pointer) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			n, err := normalize(e, at.Child(k))
			if err != nil {
				return nil, err
			}
			v[k] = n
		}
		return v, nil
	case []any:
		for i, e := range v {
			n, err := normalize(e, at.Child(strconv.Itoa(i)))
			if err != nil {
				return nil, err
			}
			v[i] = n
		}
		return v, nil
	case int:
		return int64(v), nil
	case json.Number:
		if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return i, nil
		}
		f, err := v.Float64()
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
			return nil, fmt.Errorf("%s: number %s is out of range", at, v)
		}
		return f, nil
	case float64:
		if math.IsInf(v, 0) || math.IsNaN(v) {
			return nil, fmt.Errorf("%s: number is not finite", at)
		}
		return v, nil
	case nil, bool, int64, string, Sensitive:
		return v, nil
	default:
		return nil, fmt.Errorf("%s: values of type %T are not supported", at, v)
	}
}
