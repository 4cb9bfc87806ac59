package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// SchemaBase is the directory that the schemas name themselves by.
const SchemaBase = "https://gitopsd.io/schema/"

// Schemas returns the JSON Schema (draft 2020-12) of each kind, and of a file
// that holds any of them, by file name.
func Schemas() map[string][]byte {
	specs := map[string]map[string]any{
		KindSource:      structSchema(reflect.TypeFor[SourceSpec]()),
		KindPolicySet:   structSchema(reflect.TypeFor[PolicySetSpec]()),
		KindApplication: structSchema(reflect.TypeFor[ApplicationSpec]()),
		KindTarget: {
			"type": "object", "minProperties": 1, "maxProperties": 1,
			"description":          "One key, the kind of target, and its section, which the target checks itself.",
			"additionalProperties": map[string]any{"type": "object"},
		},
	}
	out := map[string][]byte{}
	var refs []any
	for _, kind := range []string{KindSource, KindPolicySet, KindTarget, KindApplication} {
		file := "config-" + strings.ToLower(kind) + ".json"
		refs = append(refs, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"kind": map[string]any{"const": kind}}},
			"then": map[string]any{"$ref": file},
		})
		out[file] = marshalSchema(file, map[string]any{
			"title": kind, "type": "object", "additionalProperties": false,
			"required": []string{"apiVersion", "kind", "metadata", "spec"},
			"properties": map[string]any{
				"apiVersion": map[string]any{"const": APIVersion},
				"kind":       map[string]any{"const": kind},
				"metadata":   metadataSchema(),
				"spec":       specs[kind],
			},
		})
	}
	out["config.json"] = marshalSchema("config.json", map[string]any{
		"title": "gitopsd configuration", "type": "object", "required": []string{"kind"},
		"properties": map[string]any{"kind": map[string]any{"enum": []string{KindSource, KindPolicySet, KindTarget, KindApplication}}},
		"allOf":      refs,
	})
	return out
}

func marshalSchema(file string, schema map[string]any) []byte {
	schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	schema["$id"] = SchemaBase + file
	data, err := json.MarshalIndent(schema, "", "  ")
	if err != nil { // maps of strings and numbers marshal
		panic(err)
	}
	return append(data, '\n')
}

func metadataSchema() map[string]any {
	texts := map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}
	return map[string]any{
		"type": "object", "additionalProperties": false, "required": []string{"name"},
		"properties": map[string]any{
			"name": map[string]any{
				"type": "string", "pattern": `^[A-Za-z0-9]([-A-Za-z0-9_.:@]{0,251}[A-Za-z0-9])?$`,
				"description": "Name of the object, unique in its kind.",
			},
			"labels": texts, "annotations": texts,
		},
	}
}

func structSchema(t reflect.Type) map[string]any {
	properties := map[string]any{}
	var required []string
	var alternatives, alone []any
	for _, f := range fieldsOf(t) {
		schema := typeSchema(f.typ, f)
		schema["description"] = f.doc
		if f.def != "" {
			schema["default"] = defaultValue(f)
		}
		properties[f.name] = schema
		if f.required {
			required = append(required, f.name)
		}
		if f.oneof {
			alternatives = append(alternatives, map[string]any{"required": []string{f.name}})
		}
		if f.also {
			alone = append(alone, map[string]any{"required": []string{f.name}})
		}
	}
	if alone != nil {
		alternatives = append(slices.Clip(alternatives), map[string]any{"anyOf": alone, "not": map[string]any{"anyOf": alternatives}})
	}
	s := map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	if required != nil {
		s["required"] = required
	}
	if alternatives != nil {
		s["oneOf"] = alternatives
	}
	return s
}

func typeSchema(t reflect.Type, f field) map[string]any {
	if t == reflect.TypeFor[Duration]() {
		return map[string]any{"type": "string", "pattern": durationPattern}
	}
	s := map[string]any{}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem(), f)
	case reflect.Struct:
		return structSchema(t)
	case reflect.String:
		s["type"], s["minLength"] = "string", 1
		if f.pattern != "" {
			s["pattern"] = f.pattern
		}
		if f.enum != nil {
			s["enum"] = f.enum
		}
	case reflect.Bool:
		s["type"] = "boolean"
		if f.mustTrue {
			s["const"] = true
		}
	case reflect.Int64:
		s["type"] = "integer"
		if f.min != nil {
			s["minimum"] = *f.min
		}
		if f.max != nil {
			s["maximum"] = *f.max
		}
	case reflect.Slice:
		s["type"], s["items"] = "array", typeSchema(t.Elem(), f)
		if f.minItems > 0 {
			s["minItems"] = f.minItems
		}
	case reflect.Map:
		s["type"] = "object"
		if t.Elem().Kind() == reflect.String {
			s["additionalProperties"] = map[string]any{"type": "string"}
		} else {
			s["additionalProperties"] = map[string]any{"not": map[string]any{"type": "null"}}
		}
	}
	return s
}
