package render

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/sources"
)

// fileKind is the one kind whose content render makes.
var fileKind = manifest.GroupKind{Group: "host.gitopsd.io", Kind: "File"}

// fromField is the field that render replaces by the content itself.
const fromField = manifest.Pointer("/spec/contentFrom")

// unit is one object on its way: as it was decoded, and as everybody after render
// sees it.
type unit struct {
	raw, out *manifest.Object
	read     FileRead // the file referred to; zero if there is none
	size     int64    // bytes of the content that was made
}

// complaint is a problem of an object or a file before its place is known. It is
// shared by the objects that refer to one file, and not changed once it is found.
type complaint struct {
	msg, hint string
	field     manifest.Pointer // "" is the object or file as a whole
}

func complain(msg, hint string) *complaint { return &complaint{msg: msg, hint: hint} }

// of returns the complaint as one about a field.
func (c *complaint) of(field manifest.Pointer) *complaint {
	return &complaint{c.msg, c.hint, field}
}

func (c *complaint) at(o manifest.Origin) *manifest.Error {
	return &manifest.Error{Path: o.Path, Line: o.Line, Msg: c.msg, Hint: c.hint}
}

// expand makes the content of a File. The second result is a problem of the
// object, the third a failure to find out.
func (r *round) expand(ctx context.Context, o *manifest.Object) (unit, *complaint, error) {
	u := unit{raw: o, out: o}
	if o.ID().GroupKind() != fileKind {
		return u, nil, nil
	}
	spec := o.Spec()
	count, last := 0, manifest.Pointer("")
	for _, field := range []string{"content", "contentBase64", "contentFrom"} {
		if _, ok := spec[field]; ok {
			count, last = count+1, manifest.Pointer("/spec").Child(field)
		}
	}
	switch {
	case count == 0:
		for _, field := range slices.Sorted(maps.Keys(spec)) { // no other field of a File begins like these
			if strings.HasPrefix(strings.ToLower(field), "co") {
				return u, complain(fmt.Sprintf("%s: spec.%s: unknown field", o.ID(), field), "did you mean content, contentBase64 or contentFrom?").of(manifest.Pointer("/spec").Child(field)), nil
			}
		}
		return u, complain(fmt.Sprintf("%s has no content", o.ID()), "set one of content, contentBase64 and contentFrom under spec").of("/spec"), nil
	case count > 1:
		return u, complain(fmt.Sprintf("%s sets %d of content, contentBase64 and contentFrom", o.ID(), count), "set exactly one of them under spec").of(last), nil
	}
	from, ok := spec["contentFrom"]
	if !ok {
		return u, nil, nil
	}
	kind, value, problem := oneField(from)
	if problem != nil {
		return u, problem, nil
	}
	text, problem, err := r.content(ctx, &u, kind, value)
	if problem != nil {
		return u, problem.of(fromField.Child(kind)), nil
	}
	if err != nil {
		return u, nil, err
	}
	r.expanded.Add(1)
	u.size = int64(len(text))
	field, content := manifest.Pointer("/spec/content"), text
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		field, content = "/spec/contentBase64", base64.StdEncoding.EncodeToString([]byte(text))
	}
	made := manifest.With(manifest.Without(o.Content(), fromField), field, content)
	if u.out, err = manifest.New(made, o.Origin()); err != nil {
		return u, complain(err.Error(), ""), nil
	}
	return u, nil, nil
}

func oneField(from any) (kind, value string, problem *complaint) {
	const hint = "write one of {file: PATH}, {template: PATH} and {inlineTemplate: TEXT}"
	m, ok := from.(map[string]any)
	if !ok || len(m) != 1 {
		return "", "", complain("spec.contentFrom names not exactly one origin", hint).of(fromField)
	}
	for kind, v := range m {
		value, ok := v.(string)
		switch {
		case kind != "file" && kind != "template" && kind != "inlineTemplate":
			return "", "", complain(fmt.Sprintf("spec.contentFrom has the unknown field %q", kind), hint).of(fromField.Child(kind))
		case !ok || (value == "" && kind != "inlineTemplate"):
			return "", "", complain(fmt.Sprintf("spec.contentFrom.%s is not a text", kind), hint).of(fromField.Child(kind))
		}
		return kind, value, nil
	}
	return "", "", nil
}

// content returns the text that a contentFrom stands for.
func (r *round) content(ctx context.Context, u *unit, kind, value string) (string, *complaint, error) {
	if kind == "inlineTemplate" {
		t, err := r.compile("inlineTemplate", value)
		return r.fill(ctx, t, err)
	}
	p, problem := resolve(u.raw.Origin().Path, value)
	if problem != nil {
		return "", problem, nil
	}
	ref, err := r.reference(p)
	if err != nil {
		return "", nil, err
	}
	if ref.problem != nil {
		return "", ref.problem, nil
	}
	u.read = FileRead{Path: p, Hash: ref.hash}
	if kind == "file" {
		return ref.data, nil, nil
	}
	ref.parse.Do(func() { ref.template, ref.parseErr = r.compile(p, ref.data) })
	return r.fill(ctx, ref.template, ref.parseErr)
}

// compile checks a text within the limits.
func (r *round) compile(name, text string) (compiled, error) {
	switch {
	case int64(len(text)) > r.limits.TemplateBytes:
		return compiled{}, fmt.Errorf("%s: %d bytes are more than the limit of %d for a template", name, len(text), r.limits.TemplateBytes)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return compiled{}, fmt.Errorf("%s: is not UTF-8 text", name)
	}
	return compile(name, text)
}

// UndeclaredHint is what to do about a variable that a template uses and nobody
// declared. Who renders without an Application says something else in its place.
const UndeclaredHint = "declare the variable in the Application"

// noValue is how text/template speaks of a variable that nobody declared.
var noValue = regexp.MustCompile(`^(\S+): executing "[^"]*" at <(.*)>: map has no entry for key ".*"$`)

func (r *round) fill(ctx context.Context, t compiled, err error) (string, *complaint, error) {
	var text string
	if err == nil {
		text, err = t.execute(ctx, r.vars, r.limits)
	}
	switch {
	case ctx.Err() != nil:
		return "", nil, ctx.Err()
	case err != nil && strings.Contains(err.Error(), "map has no entry for key"):
		return "", complain(noValue.ReplaceAllString(err.Error(), "$1: $2 has no value"), UndeclaredHint), nil
	case err != nil:
		return "", complain(err.Error(), "repair the template"), nil
	}
	return text, nil, nil
}

// resolve returns the path of a file that a manifest refers to relative to its
// own directory.
func resolve(manifestPath, ref string) (string, *complaint) {
	if strings.HasPrefix(ref, "/") || strings.ContainsAny(ref, "\\\x00") || strings.HasSuffix(ref, "/") {
		return "", complain(fmt.Sprintf("the path %q is not relative to the manifest", ref), "write it relative to the directory of the manifest, with slashes")
	}
	p := path.Join(parent(manifestPath), ref)
	if p == ".." || strings.HasPrefix(p, "../") || p == "." {
		return "", complain(fmt.Sprintf("the path %q leads out of the source", ref), "refer to files of the same source only")
	}
	return p, nil
}

// reference is a file that objects refer to, read once a round however many do.
type reference struct {
	once     sync.Once
	hash     sources.Hash
	data     string
	problem  *complaint
	err      error
	parse    sync.Once
	template compiled
	parseErr error
}

func (r *round) reference(p string) (*reference, error) {
	r.mu.Lock()
	ref := r.references[p]
	if ref == nil {
		ref = &reference{}
		r.references[p] = ref
	}
	r.mu.Unlock()
	ref.once.Do(func() { ref.problem, ref.err = r.load(p, ref) })
	return ref, ref.err
}

// load reads a referenced file, by way of directories and regular files only.
func (r *round) load(p string, ref *reference) (*complaint, error) {
	problem, err := r.plainPath(p, "the file it refers to")
	if problem != nil || err != nil {
		return problem, err
	}
	e, err := r.tree.Stat(p)
	if err != nil {
		return nil, err
	}
	if e.Mode == sources.ModeDir {
		return complain(fmt.Sprintf("%s is a directory", p), "refer to a file"), nil
	}
	data, problem, err := r.read(p, r.limits.Manifest.ObjectBytes, "shorten it: an object with its content has at most that much")
	if problem != nil {
		problem.msg = p + ": " + problem.msg
	}
	ref.hash, ref.data = e.Hash, string(data)
	return problem, err
}

// place says where in time a tree is: one without a revision is a folder as it is.
func place(tree sources.Tree) string {
	if tree.Revision() == "" {
		return "in the folder"
	}
	return "at revision " + tree.Revision()
}

// plainPath refuses a path that is missing or has a link or a submodule in it.
func (r *round) plainPath(p, what string) (*complaint, error) {
	for _, step := range append(ancestors(p), p) {
		if step == "" {
			continue
		}
		e, err := r.tree.Stat(step)
		if errors.Is(err, fs.ErrNotExist) {
			return complain(fmt.Sprintf("%s, %s, does not exist %s", what, p, place(r.tree)), "check the path; it is relative to the directory of the manifest"), nil
		}
		if err != nil {
			return nil, err
		}
		switch {
		case e.Mode == sources.ModeSymlink || e.Mode == sources.ModeSubmodule:
			return complain(fmt.Sprintf("%s, %s, leads through %s, which is a %s", what, p, step, e.Mode), "refer to the file itself"), nil
		case e.Mode != sources.ModeDir && step != p:
			return complain(fmt.Sprintf("%s, %s, leads through %s, which is a %s", what, p, step, e.Mode), "check the path"), nil
		}
	}
	return nil, nil
}

// read reads a file within the limits of one file and of the whole round. larger
// is what to do about one that has more.
func (r *round) read(p string, limit int64, larger string) ([]byte, *complaint, error) {
	data, err := r.tree.ReadFile(p, limit)
	if large := new(sources.TooLargeError); errors.As(err, &large) {
		return nil, complain(fmt.Sprintf("the file has %d bytes, more than the limit of %d", large.Size, large.Limit), larger), nil
	}
	if errors.Is(err, sources.ErrRefused) {
		return nil, complain(fmt.Sprintf("the file cannot be read: %v", err), "put a regular file there"), nil
	}
	if err != nil {
		return nil, nil, err
	}
	r.filesRead.Add(1)
	if what := replaced(data); what != "" {
		return nil, complain(fmt.Sprintf("the file is %s and not the content itself", what), "commit the content, without a filter on this path in .gitattributes"), nil
	}
	return data, nil, nil
}

// replaced names what stands in the place of the content, if something does: a
// filter of Git is not run here, so the commit holds what the filter left.
func replaced(data []byte) string {
	text := string(data[:min(len(data), 64)])
	switch {
	case len(data) < 1024 && (strings.HasPrefix(text, "version https://git-lfs.github.com/spec/") || strings.HasPrefix(text, "version https://hawser.github.com/spec/")):
		return "a Git LFS pointer"
	case strings.HasPrefix(text, "\x00GITCRYPT\x00"):
		return "encrypted by git-crypt"
	}
	return ""
}
