package opa

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// Split sorts the files of a policy directory into modules (.rego) and data
// (.yaml, .yml, .json); other files belong to neither. Paths are kept.
func Split(files map[string][]byte) (modules, data map[string][]byte) {
	modules, data = map[string][]byte{}, map[string][]byte{}
	for p, content := range files {
		switch path.Ext(p) {
		case ".rego":
			modules[p] = content
		case ".yaml", ".yml", ".json":
			data[p] = content
		}
	}
	return modules, data
}

// mergeData makes the `data` document. As in conftest, every file is merged at
// the root, whatever directory it lies in: mappings merge, and two files that
// give one path a value are an error.
func mergeData(files map[string][]byte) (map[string]any, error) {
	merged := map[string]any{}
	for _, p := range slices.Sorted(maps.Keys(files)) {
		doc, err := decodeData(p, files[p])
		if err != nil {
			return nil, fmt.Errorf("policy data %s: %w", p, err)
		}
		if at, ok := mergeInto(merged, doc, "data"); !ok {
			return nil, fmt.Errorf("policy data %s: %s already has a value from another file; all data files share one root, so rename the key or remove one", p, at)
		}
	}
	return merged, nil
}

// mergeInto adds src to dst and reports the first path that both claim.
func mergeInto(dst, src map[string]any, at string) (string, bool) {
	for _, k := range slices.Sorted(maps.Keys(src)) {
		old, exists := dst[k]
		if !exists {
			dst[k] = src[k]
			continue
		}
		oldMap, ok1 := old.(map[string]any)
		newMap, ok2 := src[k].(map[string]any)
		if !ok1 || !ok2 {
			return at + "." + k, false
		}
		if where, ok := mergeInto(oldMap, newMap, at+"."+k); !ok {
			return where, false
		}
	}
	return "", true
}

// decodeData reads one data file as OPA does (YAML 1.1 words, exact numbers),
// but refuses duplicate keys and a second document instead of dropping them.
func decodeData(name string, content []byte) (map[string]any, error) {
	if path.Ext(name) != ".json" {
		if err := oneDocument(content); err != nil {
			return nil, err
		}
		asJSON, err := yaml.YAMLToJSONStrict(content)
		if err != nil {
			return nil, err
		}
		content = asJSON
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	var doc map[string]any
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("want one mapping: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the first document; keep one a file")
	}
	if doc == nil {
		return nil, errors.New("want one mapping, the file holds nothing; remove it or write {}")
	}
	return doc, nil
}

func oneDocument(content []byte) error {
	dec := yamlv3.NewDecoder(bytes.NewReader(content))
	var node yamlv3.Node
	if err := dec.Decode(&node); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := dec.Decode(&node); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one document; keep one a file")
	}
	return nil
}
