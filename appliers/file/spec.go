package file

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// The kinds.
const (
	kindFile      = "File"
	kindDirectory = "Directory"
	kindSymlink   = "Symlink"
)

// kinds are the fields of each kind's spec.
var kinds = map[string][]string{
	kindFile:      {"path", "content", "contentBase64", "contentFrom", "mode", "owner", "group", "sensitive", "check", "onChange", "onPrune"},
	kindDirectory: {"path", "mode", "owner", "group", "exclusive"},
	kindSymlink:   {"path", "target"},
}

// What pruning does to a file.
const (
	pruneDelete  = "delete"
	pruneRestore = "restore"
	pruneLeave   = "leave"
)

// maxText is the longest content that is compared and shown as text; longer or
// binary content is compared and shown by its SHA-256.
const maxText = 128 << 10

// spec is a desired object in the form that is written.
type spec struct {
	kind      string
	path      string
	content   []byte
	sensitive bool
	// keep says that the content on disk stays as it is: a rule leaves its drift alone.
	keep     bool
	mode     uint32
	owner    string // "" is not managed
	group    string
	check    string
	onChange string
	onPrune  string // "" is delete
	target   string // of a symbolic link
	// exclusive and remove: entries that nobody declared are reported, or removed.
	exclusive, remove bool
}

func (s *spec) sum() [sha256.Size]byte { return sha256.Sum256(s.content) }

// decodeSpec reads an object as it was declared.
func (a *Applier) decodeSpec(obj *manifest.Object) (*spec, error) {
	id := obj.ID()
	fields, ok := kinds[id.Kind]
	if !ok || id.Group != Group {
		return nil, &manifest.FieldError{At: "/kind", Msg: fmt.Sprintf("kind: a file target takes %s kinds File, Directory and Symlink, not %s", Group, id.GroupKind())}
	}
	if v := obj.APIVersion(); v != Group+"/v1alpha1" {
		return nil, &manifest.FieldError{At: "/apiVersion", Msg: fmt.Sprintf("apiVersion: %s is not known", v), Hint: "write " + Group + "/v1alpha1"}
	}
	raw := obj.Spec()
	if raw == nil {
		return nil, &manifest.FieldError{At: "/spec", Msg: "spec is missing or not a mapping", Hint: "write path and what else belongs to it indented below it"}
	}
	d := &decoder{raw: raw}
	d.known(fields)
	s := &spec{kind: id.Kind, path: d.text("path", true)}
	switch id.Kind {
	case kindFile:
		a.decodeFile(d, s)
	case kindDirectory:
		s.mode, s.owner, s.group = d.mode(0o755), d.name("owner"), d.name("group")
		d.exclusive(s)
	case kindSymlink:
		s.target = d.text("target", true)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	if err := checkPath(s.path); err != nil { // before a prefix makes it look harmless
		return nil, wrongPath(err)
	}
	s.path = a.config.real(s.path)
	if _, err := a.allowed(s.path); err != nil {
		return nil, wrongPath(err)
	}
	return s, nil
}

func wrongPath(err error) error {
	return &manifest.FieldError{At: "/spec/path", Msg: "spec.path: " + err.Error(), Err: err}
}

func (a *Applier) decodeFile(d *decoder, s *spec) {
	s.content = d.content()
	if _, plain := d.raw["content"]; plain && stoodFor.Match(s.content) {
		d.fail("content", "use contentBase64 to write it all the same", "this text stands for content that is not shown")
	}
	s.mode, s.owner, s.group = d.mode(0o644), d.name("owner"), d.name("group")
	s.sensitive = d.flag("sensitive") || d.sealed
	s.check, s.onChange, s.onPrune = d.text("check", false), d.text("onChange", false), d.text("onPrune", false)
	switch s.onPrune {
	case "", pruneDelete, pruneRestore, pruneLeave:
	default:
		d.fail("onPrune", "", "want delete, restore or leave, have %q", s.onPrune)
	}
	for _, ref := range [][2]string{{"check", s.check}, {"onChange", s.onChange}} {
		field, name := ref[0], ref[1]
		cmd, ok := a.config.Commands[name]
		switch {
		case name == "":
		case !ok:
			names := make([]string, 0, len(a.config.Commands))
			for n := range a.config.Commands {
				names = append(names, n)
			}
			d.fail(field, suggest(name, names), "the target has no command %q", name)
		case cmd.checks() && field == "onChange":
			d.fail(field, "", "command %q takes a {file}: it is a check", name)
		case !cmd.checks() && field == "check":
			d.fail(field, "", "command %q has no {file} among its arguments, so it would not see the new content", name)
		}
	}
}

// decoder reads fields and keeps the first error of each.
type decoder struct {
	raw    map[string]any
	sealed bool
	failed map[string]bool
	faults manifest.FieldErrors // in the order they were found, which is the same every time
}

// fail notes what is wrong with a field. hint, what to do, may be empty.
func (d *decoder) fail(field, hint, format string, args ...any) {
	if d.failed[field] {
		return
	}
	if d.failed == nil {
		d.failed = map[string]bool{}
	}
	d.failed[field] = true
	d.faults = append(d.faults, &manifest.FieldError{
		At: manifest.Pointer("/spec").Child(field), Msg: fmt.Sprintf("spec.%s: %s", field, fmt.Sprintf(format, args...)), Hint: hint,
	})
}

// err is all that is wrong.
func (d *decoder) err() error {
	if len(d.faults) == 0 {
		return nil
	}
	return d.faults
}

func (d *decoder) known(fields []string) {
	for _, f := range manifest.Fields(d.raw) {
		top := f.Path.Tokens()[0]
		found := false
		for _, k := range fields {
			found = found || k == top
		}
		if !found {
			d.fail(top, suggest(top, fields), "unknown field")
		}
	}
}

// text reads a string. A Sensitive is revealed and remembered.
func (d *decoder) text(field string, required bool) string {
	switch v := d.raw[field].(type) {
	case nil:
		if required {
			d.fail(field, "", "is missing")
		}
	case string:
		if required && v == "" {
			d.fail(field, "", "is empty")
		}
		return v
	case manifest.Sensitive:
		if field != "content" && field != "contentBase64" && field != "sha256" {
			d.fail(field, "", "a secret may stand in content only")
			return ""
		}
		d.sealed = true
		return v.Reveal()
	default:
		d.fail(field, "quote it", "want a string, have %s", typeName(v))
	}
	return ""
}

func (d *decoder) flag(field string) bool {
	v, ok := d.raw[field].(bool)
	if !ok && d.raw[field] != nil {
		d.fail(field, "", "want true or false, have %s", typeName(d.raw[field]))
	}
	return v
}

// name reads a user or group: a name, or a number with or without quotes.
func (d *decoder) name(field string) string {
	if n, ok := d.raw[field].(int64); ok && n >= 0 && n < 1<<32-1 {
		return strconv.FormatInt(n, 10)
	}
	s := d.text(field, false)
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return strconv.FormatUint(n, 10)
	}
	if strings.ContainsAny(s, ": \t\n/") {
		d.fail(field, "", "%q is not the name of a user or group", s)
	}
	return s
}

var modeRE = regexp.MustCompile(`^[0-7]{3,4}$`)

func (d *decoder) mode(standard uint32) uint32 {
	switch v := d.raw["mode"].(type) {
	case nil:
		return standard
	case string:
		if n, err := strconv.ParseUint(v, 8, 32); err == nil && modeRE.MatchString(v) {
			return uint32(n)
		}
		d.fail("mode", `write three or four octal digits, as in "0644"`, "%q is not a mode", v)
	default:
		d.fail("mode", "", `quote it, as in "0644": without quotes it is a number, and YAML readers differ about which`)
	}
	return 0
}

func (d *decoder) content() []byte {
	_, unexpanded := d.raw["contentFrom"]
	if unexpanded {
		d.fail("contentFrom", "the source's renderer has to read the file", "reached the target unexpanded")
	}
	_, plain := d.raw["content"]
	_, encoded := d.raw["contentBase64"]
	switch {
	case plain && encoded:
		d.fail("contentBase64", "", "give content or contentBase64, not both")
	case plain:
		return []byte(d.text("content", false))
	case encoded:
		b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(d.text("contentBase64", false)), ""))
		if err != nil {
			d.fail("contentBase64", "", "is not base64") // the decoder's words would quote the content
		}
		return b
	case !unexpanded:
		d.fail("content", `an empty file is content: ""`, "is missing")
	}
	return nil
}

func (d *decoder) exclusive(s *spec) {
	switch v := d.raw["exclusive"].(type) {
	case nil:
	case bool:
		s.exclusive = v
	case map[string]any:
		remove, ok := v["remove"].(bool)
		if !ok || len(v) != 1 {
			d.fail("exclusive", "", "want true, false or {remove: true}")
		}
		s.exclusive, s.remove = true, remove
	default:
		d.fail("exclusive", "", "want true, false or {remove: true}, have %s", typeName(v))
	}
}

func typeName(v any) string {
	switch v.(type) {
	case int64, float64:
		return "a number"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a mapping"
	default:
		return "another type"
	}
}

// isText reports whether content is shown and compared as text.
func isText(b []byte) bool {
	return len(b) <= maxText && utf8.Valid(b) && !strings.ContainsRune(string(b), 0)
}

func modeString(m uint32) string { return fmt.Sprintf("%04o", m&0o7777) }

// object returns the resolved form. Text stands under content. Other content
// stands under sha256, which is compared, and contentBase64, which carries the
// bytes to the write and which Observe echoes.
func (s *spec) object(from *manifest.Object, sealer *manifest.Sealer) (*manifest.Object, error) {
	m := map[string]any{"path": s.path}
	put := func(field, value string) {
		if value != "" {
			m[field] = value
		}
	}
	switch s.kind {
	case kindFile:
		s.putContent(m, sealer)
		put("check", s.check)
		put("onChange", s.onChange)
		if s.onPrune != pruneDelete {
			put("onPrune", s.onPrune)
		}
	case kindDirectory:
		if s.remove {
			m["exclusive"], m["strangers"] = map[string]any{"remove": true}, []any{}
		} else if s.exclusive {
			m["exclusive"] = true
		}
	case kindSymlink:
		m["target"] = s.target
	}
	if s.kind != kindSymlink {
		m["mode"] = modeString(s.mode)
		put("owner", s.owner)
		put("group", s.group)
	}
	return manifest.New(identified(from.ID(), m), from.Origin())
}

func identified(id manifest.ID, spec map[string]any) map[string]any {
	meta := map[string]any{"name": id.Name}
	if id.Namespace != "" {
		meta["namespace"] = id.Namespace
	}
	return map[string]any{"apiVersion": Group + "/v1alpha1", "kind": id.Kind, "metadata": meta, "spec": spec}
}

func (s *spec) putContent(m map[string]any, sealer *manifest.Sealer) {
	value := func(v string) any {
		if s.sensitive {
			return sealer.Seal(v)
		}
		return v
	}
	if isText(s.content) && !stoodFor.Match(s.content) {
		m["content"] = value(string(s.content))
		return
	}
	sum := s.sum()
	m["sha256"] = value(hex.EncodeToString(sum[:]))
	m["contentBase64"] = value(base64.StdEncoding.EncodeToString(s.content))
}

// fromResolved reads back what object wrote. Fields that a drift rule leaves
// alone hold the live value; a digest of other content than the bytes means
// that the content stays.
func fromResolved(obj *manifest.Object) *spec {
	d := &decoder{raw: obj.Spec()}
	s := &spec{kind: obj.ID().Kind, path: d.text("path", false), mode: d.mode(0), owner: d.text("owner", false), group: d.text("group", false)}
	switch s.kind {
	case kindFile:
		if _, ok := d.raw["contentBase64"]; ok {
			s.content = d.content()
			sum := s.sum()
			s.keep = d.text("sha256", false) != hex.EncodeToString(sum[:])
		} else {
			text := d.text("content", false)
			s.content, s.keep = []byte(text), stoodFor.MatchString(text)
		}
		s.sensitive = d.sealed
		s.check, s.onChange, s.onPrune = d.text("check", false), d.text("onChange", false), d.text("onPrune", false)
	case kindDirectory:
		d.exclusive(s)
	case kindSymlink:
		s.target = d.text("target", false)
	}
	return s
}

// standIn is shown in the place of live content that is no text.
func standIn(l *look) string {
	return fmt.Sprintf("(%d bytes that are not shown, sha256:%x)", l.size, l.sum)
}

var stoodFor = regexp.MustCompile(`^\(\d+ bytes that are not shown, sha256:[0-9a-f]{64}\)$`)
