// Package render turns the files of a tree into objects: it walks one path,
// decodes what changed since the last time, expands the contents of files, and
// returns the whole result as an immutable State with the Delta to the one
// before. It reads nothing but the tree: no environment, clock, host or network.
package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// version is part of every digest: a renderer that gives other objects for the
// same files gets another one.
const version = "gitopsd.io/render/1"

// Limits bound what one application may contain. A zero field means its default.
type Limits struct {
	Manifest      manifest.Limits // of each file and object
	Files         int             // files read below the path; default 200,000
	Dirs          int             // directories below the path; default 100,000
	TotalBytes    int64           // of these files and of all expanded contents; default 64 MiB
	Depth         int             // directories below each other; default 50
	TemplateBytes int64           // of one template; default 256 KiB
	TemplateSteps int             // nodes executed by one expansion; default 1,000,000
	TemplateTime  time.Duration   // of one expansion; default 5 s
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Manifest:      l.Manifest.WithDefaults(),
		Files:         cmp.Or(l.Files, 200_000),
		Dirs:          cmp.Or(l.Dirs, 100_000),
		TotalBytes:    cmp.Or(l.TotalBytes, 64<<20),
		Depth:         cmp.Or(l.Depth, 50),
		TemplateBytes: cmp.Or(l.TemplateBytes, 256<<10),
		TemplateSteps: cmp.Or(l.TemplateSteps, 1_000_000),
		TemplateTime:  cmp.Or(l.TemplateTime, 5*time.Second),
	}
}

// maxVariableBytes bounds the canonical form of all variables of one application.
const maxVariableBytes = 64 << 10

// Spec says what to render.
type Spec struct {
	// Path is a directory or a single file of the tree, slash-separated; "" or
	// "." is the whole tree.
	Path string
	// Variables are what templates may use, as the application declares them:
	// values of the object model without null and without secrets, at most 64 KiB.
	Variables map[string]any
	// Limits are no part of the Digest: they decide whether there is a result,
	// not which.
	Limits Limits
}

// Digest identifies the parameters and the version of the renderer.
func (s Spec) Digest() string {
	h := sha256.New()
	writeParts(h.Write, version, clean(s.Path), string(manifest.Canonical(s.variables())))
	return hex.EncodeToString(h.Sum(nil))
}

// variables returns the variables in a form of which every value has one.
func (s Spec) variables() map[string]any {
	v, err := model(s.Variables)
	if err != nil {
		return nil // validate says why
	}
	return v.(map[string]any)
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

// validate checks the parameters. Its errors name the field, not a file.
func (s Spec) validate() error {
	if p := s.Path; strings.HasPrefix(p, "/") || strings.ContainsAny(p, "\\\x00") || slices.Contains(strings.Split(p, "/"), "..") {
		return fmt.Errorf("path %q: want a path inside the source, relative to its root", p)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Variables)) {
		if !variableName.MatchString(name) {
			return fmt.Errorf("variable %q: want a name of letters, digits and underscores", name)
		}
		if _, err := model(s.Variables[name]); err != nil {
			return fmt.Errorf("variable %s: %w", name, err)
		}
	}
	if n := len(manifest.Canonical(s.variables())); n > maxVariableBytes {
		return fmt.Errorf("variables: %d bytes are more than the limit of %d; large content belongs into a file", n, maxVariableBytes)
	}
	return nil
}

// model returns a copy of a variable's value in the types of the object model.
func model(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			n, err := model(e)
			if err != nil {
				return nil, err
			}
			c[k] = n
		}
		return c, nil
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			n, err := model(e)
			if err != nil {
				return nil, err
			}
			c[i] = n
		}
		return c, nil
	case int:
		return int64(v), nil
	case string:
		if !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
			return nil, errors.New("is not UTF-8 text")
		}
		return v, nil
	case bool, int64:
		return v, nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, errors.New("is not finite")
		}
		return v, nil
	case manifest.Sensitive:
		return nil, errors.New("is a secret; policies see what templates write, so refer to a secret by its reference")
	case nil:
		return nil, errors.New("is null; give it a value")
	default:
		return nil, fmt.Errorf("is of type %T; want text, a number, a boolean, a list or a mapping", v)
	}
}

// clean returns a tree path in its one form; the root is "".
func clean(p string) string {
	if p = path.Clean(p); p == "." {
		return ""
	}
	return p
}

// writeParts feeds texts to a hash so that no two lists of texts look alike.
func writeParts(write func([]byte) (int, error), parts ...string) {
	for _, p := range parts {
		_, _ = write(fmt.Appendf(nil, "%d:%s", len(p), p))
	}
}
