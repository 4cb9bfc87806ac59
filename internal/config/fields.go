package config

import (
	"reflect"
	"strconv"
	"strings"
)

// Patterns of strings with a form of their own.
const (
	// durationPattern is a subset of what time.ParseDuration reads, so small that
	// nothing overflows.
	durationPattern = `^([0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m)|[0-9]{1,5}(\.[0-9]{1,3})?h){1,4}$`
	kindPattern     = `^([a-z0-9][-a-z0-9.]*/)?[A-Z][A-Za-z0-9]*$`
	kindsPattern    = `^([a-z0-9][-a-z0-9.]*/)?([A-Z][A-Za-z0-9]*|\*)$` // may also match many
)

// field is what the tags of one struct field say. Decoder, schema and
// documentation all work from it, so that they cannot disagree.
type field struct {
	name     string
	index    int
	typ      reflect.Type
	required bool
	oneof    bool     // exactly one field with this mark is set in the struct
	also     bool     // is set in place of the fields marked oneof, or beside one of them
	def      string   // default, in the form in which it is written
	enum     []string // allowed values
	pattern  string   // regular expression of the string, or of each string of a list
	isPath   bool     // a path on the host, relative to the directory of the configuration
	isTree   bool     // a path in a source
	mustTrue bool
	min, max *int64
	minItems int
	doc      string
	example  string
}

func fieldsOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		f := field{
			name: name, index: i, typ: sf.Type,
			required: sf.Tag.Get("required") != "",
			oneof:    sf.Tag.Get("oneof") == "1",
			also:     sf.Tag.Get("oneof") == "also",
			def:      sf.Tag.Get("default"),
			pattern:  sf.Tag.Get("pattern"),
			isPath:   sf.Tag.Get("path") != "",
			isTree:   sf.Tag.Get("tree") != "",
			mustTrue: sf.Tag.Get("const") == "true",
			min:      number(sf.Tag.Get("min")),
			max:      number(sf.Tag.Get("max")),
			doc:      sf.Tag.Get("doc"),
			example:  sf.Tag.Get("example"),
		}
		if enum := sf.Tag.Get("enum"); enum != "" {
			f.enum = strings.Split(enum, ",")
		}
		switch sf.Tag.Get("kind") {
		case "one":
			f.pattern, f.example = kindPattern, "apps/Deployment"
		case "many":
			f.pattern, f.example = kindsPattern, "apps/Deployment or apps/*"
		}
		if n := number(sf.Tag.Get("minItems")); n != nil {
			f.minItems = int(*n)
		}
		fields = append(fields, f)
	}
	return fields
}

func number(s string) *int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}
