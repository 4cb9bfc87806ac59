package config

import (
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// decoder fills structs from the generic values of an object, strictly: it
// notes every problem and goes on. Strings are never shown in a problem unless
// they come from a field with a closed set of values, because a secret may have
// been written in the wrong place.
type decoder struct {
	// base is the directory that relative host paths start from.
	base     string
	problems []fieldProblem
}

type fieldProblem struct {
	at        manifest.Pointer
	msg, hint string
}

func (d *decoder) problem(at manifest.Pointer, hint, format string, args ...any) {
	d.problems = append(d.problems, fieldProblem{at, fmt.Sprintf(format, args...), hint})
}

// object decodes a mapping into a struct and fills in defaults.
func (d *decoder) object(at manifest.Pointer, in any, out reflect.Value) {
	m, ok := in.(map[string]any)
	if !ok {
		if out.Type() == reflect.TypeFor[SecretRef]() {
			d.problem(at, "name it as {env: NAME}, {file: PATH} or {credential: NAME}",
				"want a reference to a secret; the secret itself never stands in the configuration")
			return
		}
		d.problem(at, "", "want a mapping, have %s", typeName(in))
		return
	}
	fields := fieldsOf(out.Type())
	d.unknown(at, m, fields)
	d.exclusive(at, m, fields)
	for _, f := range fields {
		d.field(at.Child(f.name), m, f, out.Field(f.index))
	}
}

func (d *decoder) unknown(at manifest.Pointer, m map[string]any, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(names, key) {
			d.problem(at.Child(key), didYouMean(key, names), "unknown field")
		}
	}
}

// exclusive checks that exactly one of the alternatives is there, or none beside
// a field that can take their place.
func (d *decoder) exclusive(at manifest.Pointer, m map[string]any, fields []field) {
	var all, set []string
	replaced := false
	for _, f := range fields {
		if !f.oneof && !f.also {
			continue
		}
		all = append(all, f.name)
		_, ok := m[f.name]
		switch {
		case ok && f.also:
			replaced = true
		case ok:
			set = append(set, f.name)
		}
	}
	switch {
	case len(all) == 0 || len(set) == 1 || len(set) == 0 && replaced:
	case len(set) == 0:
		d.problem(at, "", "one of %s is required", strings.Join(all, ", "))
	default:
		d.problem(at, "keep one", "%s exclude each other", strings.Join(set, " and "))
	}
}

func (d *decoder) field(at manifest.Pointer, m map[string]any, f field, out reflect.Value) {
	in, present := m[f.name]
	switch {
	case present && in == nil:
		d.problem(at, "give it a value or remove it", "is empty")
	case present:
		d.value(at, in, f, out)
	case f.required:
		d.problem(at, "", "is required")
	case out.Kind() == reflect.Struct:
		d.object(at, map[string]any{}, out)
	case f.def != "":
		d.value(at, defaultValue(f), f, out)
	}
}

// defaultValue gives a default the type that the decoder expects of a document.
func defaultValue(f field) any {
	switch f.typ.Kind() {
	case reflect.Bool:
		return f.def == "true"
	case reflect.Int64:
		if f.typ == reflect.TypeFor[Duration]() {
			return f.def
		}
		n, _ := strconv.ParseInt(f.def, 10, 64)
		return n
	default:
		return f.def
	}
}

func (d *decoder) value(at manifest.Pointer, in any, f field, out reflect.Value) {
	if out.Type() == reflect.TypeFor[Duration]() {
		d.duration(at, in, out)
		return
	}
	switch out.Kind() {
	case reflect.Pointer:
		v := reflect.New(out.Type().Elem())
		d.value(at, in, f, v.Elem())
		out.Set(v)
	case reflect.Struct:
		d.object(at, in, out)
	case reflect.String:
		d.text(at, in, f, out)
	case reflect.Bool:
		if v, ok := in.(bool); !ok {
			d.problem(at, "", "want true or false, have %s", typeName(in))
		} else if f.mustTrue && !v {
			d.problem(at, "remove it", "can only be true")
		} else {
			out.SetBool(v)
		}
	case reflect.Int64:
		d.integer(at, in, f, out)
	case reflect.Slice:
		d.list(at, in, f, out)
	case reflect.Map:
		d.mapping(at, in, out)
	default:
		panic("config: no decoder for " + out.Type().String())
	}
}

func (d *decoder) duration(at manifest.Pointer, in any, out reflect.Value) {
	const hint = "write a number with its unit, as in 500ms, 30s or 1h30m"
	s, ok := in.(string)
	if !ok {
		d.problem(at, hint, "want a duration, have %s", typeName(in))
		return
	}
	v, err := time.ParseDuration(s)
	if err != nil || !regexp.MustCompile(durationPattern).MatchString(s) {
		d.problem(at, hint, "is no duration")
		return
	}
	out.SetInt(int64(v))
}

func (d *decoder) text(at manifest.Pointer, in any, f field, out reflect.Value) {
	s, ok := in.(string)
	switch {
	case !ok:
		d.problem(at, "quote it", "want a string, have %s", typeName(in))
	case s == "":
		d.problem(at, "give it a value or remove it", "is empty")
	case f.enum != nil && !slices.Contains(f.enum, s):
		hint := ""
		if near := manifest.Nearest(s, f.enum); near != "" {
			hint = "did you mean " + near + "?"
		}
		d.problem(at, hint, "want one of %s", strings.Join(f.enum, ", "))
	case f.pattern != "" && !regexp.MustCompile(f.pattern).MatchString(s):
		d.problem(at, "write it as in "+f.example, "is malformed")
	case f.isPath && d.base != "" && !filepath.IsAbs(s):
		out.SetString(filepath.Join(d.base, s))
	default:
		out.SetString(s)
	}
}

func (d *decoder) integer(at manifest.Pointer, in any, f field, out reflect.Value) {
	n, ok := in.(int64)
	if v, isFloat := in.(float64); isFloat && v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		n, ok = int64(v), true
	}
	switch {
	case !ok:
		d.problem(at, "", "want a whole number, have %s", typeName(in))
	case f.min != nil && n < *f.min:
		d.problem(at, "", "must be at least %d", *f.min)
	case f.max != nil && n > *f.max:
		d.problem(at, "", "must be at most %d", *f.max)
	default:
		out.SetInt(n)
	}
}

func (d *decoder) list(at manifest.Pointer, in any, f field, out reflect.Value) {
	items, ok := in.([]any)
	if !ok {
		d.problem(at, "write it as [a, b]", "want a list, have %s", typeName(in))
		return
	}
	if len(items) < f.minItems {
		d.problem(at, "", "want at least %d", f.minItems)
	}
	list := reflect.MakeSlice(out.Type(), len(items), len(items))
	for i, item := range items {
		d.value(at.Child(strconv.Itoa(i)), item, f, list.Index(i))
	}
	out.Set(list)
}

func (d *decoder) mapping(at manifest.Pointer, in any, out reflect.Value) {
	m, ok := in.(map[string]any)
	if !ok {
		d.problem(at, "", "want a mapping, have %s", typeName(in))
		return
	}
	v := reflect.MakeMapWithSize(out.Type(), len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		elem := m[key]
		if out.Type().Elem().Kind() == reflect.String {
			if _, ok := elem.(string); !ok {
				d.problem(at.Child(key), "quote it", "want a string, have %s", typeName(elem))
				continue
			}
		} else if elem == nil {
			d.problem(at.Child(key), "give it a value or remove it", "is empty")
			continue
		}
		v.SetMapIndex(reflect.ValueOf(key), reflect.ValueOf(elem))
	}
	out.Set(v)
}

func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case int64, float64:
		return "a number"
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	default:
		return "a hidden value"
	}
}
