package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// ErrEmpty is returned when there is no object in a configuration: an emptied
// file must not read as the wish to stop managing everything.
var ErrEmpty = errors.New("the configuration holds no object; write at least one Source, Target and Application (gitopsd init makes an example)")

// Load reads a configuration from the content of files by path. Relative host
// paths in it start at the directory of the file they stand in. It returns
// either a valid configuration or all problems as manifest.Errors, in order of
// path and line.
func Load(files map[string][]byte) (*Config, error) {
	l := loader{files: files, seen: map[string]manifest.Origin{}}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		objects, err := manifest.Decode(path, files[path], manifest.Limits{})
		var problems manifest.Errors
		if errors.As(err, &problems) {
			l.problems = append(l.problems, problems...)
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, obj := range objects {
			l.add(obj)
		}
	}
	if len(l.seen) == 0 && len(l.problems) == 0 {
		return nil, ErrEmpty
	}
	l.references()
	if err := manifest.Join(l.problems); err != nil {
		return nil, err
	}
	return l.finish()
}

type loader struct {
	files    map[string][]byte
	config   Config
	seen     map[string]manifest.Origin // by "Kind name"
	problems []*manifest.Error
}

// report notes a problem of the object that starts at origin.
func (l *loader) report(origin manifest.Origin, subject string, p fieldProblem) {
	msg := subject + ": "
	if p.at != "" {
		msg += fieldName(p.at) + ": "
	}
	l.problems = append(l.problems, &manifest.Error{
		Path: origin.Path, Line: manifest.FieldLine(origin.Path, l.files[origin.Path], origin.Line, p.at),
		Msg: msg + p.msg, Hint: p.hint,
	})
}

// fieldName writes a pointer as people do: spec.targets[0].name.
func fieldName(at manifest.Pointer) string {
	var b strings.Builder
	for _, token := range at.Tokens() {
		switch {
		case number(token) != nil:
			b.WriteString("[" + token + "]")
		case b.Len() == 0:
			b.WriteString(token)
		default:
			b.WriteString("." + token)
		}
	}
	return b.String()
}

func (l *loader) add(obj *manifest.Object) {
	id := obj.ID()
	subject := id.Kind + " " + id.Name
	if obj.APIVersion() != APIVersion {
		l.report(obj.Origin(), subject, fieldProblem{"/apiVersion", "is not " + APIVersion, "only configuration objects belong here; manifests belong in a source"})
		return
	}
	kinds := []string{KindSource, KindPolicySet, KindTarget, KindApplication}
	if !slices.Contains(kinds, id.Kind) {
		l.report(obj.Origin(), subject, fieldProblem{"/kind", "is no kind of configuration", didYouMean(id.Kind, kinds)})
		return
	}
	if first, dup := l.seen[subject]; dup {
		l.report(obj.Origin(), subject, fieldProblem{"/metadata/name", "is declared twice, first at " + first.String(), "rename or remove one"})
		return
	}
	l.seen[subject] = obj.Origin()
	for _, p := range l.decode(obj) {
		l.report(obj.Origin(), subject, p)
	}
}

// decode appends the object to the configuration and returns what is wrong with it.
func (l *loader) decode(obj *manifest.Object) []fieldProblem {
	d := decoder{base: filepath.Dir(obj.Origin().Path)}
	var c check
	meta := Meta{Name: obj.ID().Name, Origin: obj.Origin()}
	envelope(&d, obj)
	switch obj.ID().Kind {
	case KindSource:
		s := Source{Meta: meta}
		decodeSpec(&d, obj, &s.Spec, func() { c.source(&s.Spec) })
		s.Digest = digest(s.Spec)
		l.config.Sources = append(l.config.Sources, s)
	case KindPolicySet:
		p := PolicySet{Meta: meta}
		decodeSpec(&d, obj, &p.Spec, func() { c.policySet(&p.Spec) })
		p.Digest = digest(p.Spec)
		l.config.PolicySets = append(l.config.PolicySets, p)
	case KindTarget:
		t := Target{Meta: meta}
		t.Kind, t.Config = targetSection(&d, obj)
		t.Digest = digest(map[string]json.RawMessage{t.Kind: t.Config})
		l.config.Targets = append(l.config.Targets, t)
	case KindApplication:
		a := Application{Meta: meta, RenamedFrom: obj.Annotations()[AnnotationRenamedFrom]}
		decodeSpec(&d, obj, &a.Spec, func() { c.application(&a.Spec) })
		a.Digest = digest([]any{a.RenamedFrom, a.Spec})
		l.config.Applications = append(l.config.Applications, a)
	}
	return append(d.problems, c.problems...)
}

// envelope checks everything outside spec.
func envelope(d *decoder, obj *manifest.Object) {
	known := []field{{name: "apiVersion"}, {name: "kind"}, {name: "metadata"}, {name: "spec"}}
	d.unknown("", obj.Content(), known)
	meta, _ := obj.Content()["metadata"].(map[string]any)
	if _, ok := meta["namespace"]; ok {
		d.problem("/metadata/namespace", "remove it", "configuration objects have no namespace")
	}
	d.unknown("/metadata", meta, []field{{name: "name"}, {name: "namespace"}, {name: "labels"}, {name: "annotations"}})
}

// decodeSpec decodes spec and, when its form is right, checks its meaning.
func decodeSpec(d *decoder, obj *manifest.Object, spec any, meaning func()) {
	before := len(d.problems)
	if in, ok := obj.Content()["spec"]; !ok {
		d.problem("/spec", "", "is required")
	} else {
		d.object("/spec", in, reflect.ValueOf(spec).Elem())
	}
	if len(d.problems) == before {
		meaning()
	}
}

// targetSection returns the one key of a target's spec and the value under it.
func targetSection(d *decoder, obj *manifest.Object) (kind string, config json.RawMessage) {
	spec, ok := obj.Content()["spec"].(map[string]any)
	if !ok || len(spec) != 1 {
		d.problem("/spec", "the key is the kind of target, as in file: {}", "want exactly one key, have %d", len(spec))
		return "", nil
	}
	for key, section := range spec {
		if _, ok := section.(map[string]any); !ok {
			d.problem(manifest.Pointer("/spec").Child(key), "an empty one is written {}", "want a mapping, have %s", typeName(section))
		}
		kind, config = key, manifest.Canonical(section)
	}
	return kind, config
}

func (l *loader) finish() (*Config, error) {
	c := &l.config
	slices.SortFunc(c.Sources, func(a, b Source) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.PolicySets, func(a, b PolicySet) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Targets, func(a, b Target) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.Applications, func(a, b Application) int { return cmp.Compare(a.Name, b.Name) })
	var all [][2]string
	for _, s := range c.Sources {
		all = append(all, [2]string{KindSource + "/" + s.Name, s.Digest})
	}
	for _, p := range c.PolicySets {
		all = append(all, [2]string{KindPolicySet + "/" + p.Name, p.Digest})
	}
	for _, t := range c.Targets {
		all = append(all, [2]string{KindTarget + "/" + t.Name, t.Digest})
	}
	for _, a := range c.Applications {
		all = append(all, [2]string{KindApplication + "/" + a.Name, a.Digest})
	}
	c.Digest = digest(all)
	return c, nil
}

// digest names a value: 128 bits of the SHA-256 of its JSON.
func digest(v any) string {
	data, err := json.Marshal(v)
	if err != nil { // every type of this package marshals
		panic(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}
