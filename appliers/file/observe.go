package file

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Observe implements appliers.Applier. A file's content is read only when its
// stat cannot vouch for what is remembered.
func (a *Applier) Observe(ctx context.Context, queries []appliers.Query) (map[plan.Key]plan.Observed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	pending, err := a.pending(ctx)
	if err != nil {
		return nil, err
	}
	v := &view{a: a, names: newNames(), pending: pending, trees: map[*root]*tree{}, broken: map[*root]error{}}
	defer v.close()
	sorted := slices.Clone(queries)
	slices.SortFunc(sorted, func(x, y appliers.Query) int { return strings.Compare(x.Locator, y.Locator) })
	answers := make(map[plan.Key]plan.Observed, len(queries))
	for _, q := range sorted {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		o, err := v.answer(ctx, q)
		if err != nil {
			o = plan.Observed{Reason: err.Error()}
		}
		o.At = a.env.Now()
		answers[q.Key] = o
	}
	return answers, nil
}

// view is one Observe. It is not for concurrent use.
type view struct {
	a       *Applier
	names   *names
	pending map[string]pendingRun
	trees   map[*root]*tree
	broken  map[*root]error
}

func (v *view) close() {
	for _, t := range v.trees {
		t.close()
	}
}

// tree opens a root once.
func (v *view) tree(ctx context.Context, r *root) (*tree, error) {
	if t, ok := v.trees[r]; ok {
		return t, nil
	}
	if err, ok := v.broken[r]; ok {
		return nil, err
	}
	t, err := v.a.open(ctx, r)
	if err == nil {
		t.holdFree()
		if err = t.fresh(); err != nil {
			t.close()
		}
	}
	if err != nil {
		v.broken[r] = err
		return nil, err
	}
	v.trees[r] = t
	return t, nil
}

func (v *view) answer(ctx context.Context, q appliers.Query) (plan.Observed, error) {
	r, err := v.a.allowed(q.Locator)
	if err != nil {
		return plan.Observed{}, err
	}
	t, err := v.tree(ctx, r)
	if err != nil {
		return plan.Observed{}, err
	}
	l, err := t.look(q.Locator)
	if err != nil {
		return plan.Observed{}, err
	}
	run, waiting := v.pending[q.Locator]
	if l.absent {
		if waiting && run.Gone && q.Desired == nil {
			// The file is gone, the command that its removal calls for has not
			// succeeded: until then there is something left to delete.
			o, err := v.present(q, map[string]any{"path": q.Locator}, "gone")
			o.Unfinished = owed(run.Command)
			return o, err
		}
		return plan.Observed{Presence: plan.Absent}, nil
	}
	m, err := v.project(ctx, t, q, l)
	if err != nil {
		return plan.Observed{}, err
	}
	o, err := v.present(q, m, l.version())
	if l.kind() != q.Key.ID.Kind {
		o.Instead = l.typeOf()
	} else if name, asked := m["onChange"].(string); waiting && asked {
		o.Unfinished = owed(name)
	}
	if err == nil && l.typ == unix.S_IFDIR {
		o.Removes, err = removes(t, q.Locator, m)
	}
	if rec := t.record(q.Locator); rec != nil && (rec.ours() || v.a.digest(l) == rec.Digest) {
		o.Owner = rec.Application
	}
	return o, err
}

// owed says that a command has still to run.
func owed(command string) string { return "onChange " + command + " is still owed" }

// present answers with a live object. One that is as desired shares the desired
// object's content, which is what nearly all of them are at nearly all times.
func (v *view) present(q appliers.Query, spec map[string]any, version string) (plan.Observed, error) {
	if d := q.Desired; d != nil && d.ID() == q.Key.ID && manifest.Equal(d.Spec(), spec) {
		return plan.Observed{Presence: plan.Present, Object: d.At(manifest.Origin{}), Version: version}, nil
	}
	obj, err := manifest.New(identified(q.Key.ID, spec), manifest.Origin{})
	if err != nil {
		return plan.Observed{}, fmt.Errorf("%s: %w", q.Locator, err)
	}
	return plan.Observed{Presence: plan.Present, Object: obj, Version: version}, nil
}

// project returns the live spec, in the form of the desired one. What only
// steers the write (check, onChange, contentBase64) is echoed from it.
func (v *view) project(ctx context.Context, t *tree, q appliers.Query, l *look) (map[string]any, error) {
	m := map[string]any{"path": q.Locator}
	if l.kind() != q.Key.ID.Kind {
		m["type"] = l.typeOf()
		return m, nil
	}
	var want map[string]any
	if q.Desired != nil {
		want = q.Desired.Spec()
	}
	has := func(field string) bool { _, ok := want[field]; return ok || want == nil }
	if l.typ == unix.S_IFLNK {
		m["target"] = strings.ToValidUTF8(l.target, "\ufffd")
		return m, nil
	}
	m["mode"] = modeString(l.perm)
	if has("owner") {
		s, _ := want["owner"].(string)
		m["owner"] = v.names.ownerOf(l.uid, s)
	}
	if has("group") {
		s, _ := want["group"].(string)
		m["group"] = v.names.groupOf(l.gid, s)
	}
	if l.typ == unix.S_IFDIR {
		return m, v.projectDir(ctx, t, q, want, m)
	}
	rec := t.record(q.Locator)
	for _, field := range []string{"check", "onChange", "onPrune"} {
		if e, ok := want[field]; ok {
			m[field] = e
		}
	}
	if rec.ours() && (want["onPrune"] != nil || rec.OnPrune != "") {
		delete(m, "onPrune")
		if rec.OnPrune != "" {
			m["onPrune"] = rec.OnPrune
		}
	}
	return m, v.projectContent(t, q, l, rec, m)
}

func (v *view) projectDir(ctx context.Context, t *tree, q appliers.Query, want, m map[string]any) error {
	e, ok := want["exclusive"]
	if !ok {
		return nil
	}
	m["exclusive"] = e
	found, err := t.strangers(q.Locator, func(r *root) (*tree, error) { return v.tree(ctx, r) }, v.a.watch.declared)
	if err != nil {
		return err
	}
	list := make([]any, 0, len(found))
	for _, name := range found {
		list = append(list, strings.ToValidUTF8(name, "\ufffd"))
	}
	m["strangers"] = list
	return nil
}

// removes says what writing a directory would remove, by its projection. A name
// that does not stand there as it is on disk has no address, and stays.
func removes(t *tree, dir string, m map[string]any) (plan.Removal, error) {
	asked, _ := m["exclusive"].(map[string]any)
	if asked["remove"] != true {
		return plan.Removal{}, nil
	}
	list, _ := m["strangers"].([]any)
	names := make([]string, len(list))
	for i, e := range list {
		names[i], _ = e.(string)
	}
	return t.removal(dir, names)
}

// projectContent adds the content, as text or by digest. What may be secret is
// sealed: declared so, written so, or kept from other users and not known to be plain.
func (v *view) projectContent(t *tree, q appliers.Query, l *look, rec *record, m map[string]any) error {
	var s *spec
	if q.Desired != nil {
		s = fromResolved(q.Desired)
		want := q.Desired.Spec()
		if e, ok := want["contentBase64"]; ok {
			m["contentBase64"] = e
		}
		if !s.keep && s.sum() == l.sum {
			for _, field := range []string{"content", "sha256"} {
				if e, ok := want[field]; ok {
					m[field] = e
				}
			}
			return nil
		}
	}
	secret := rec.ours() && rec.Sensitive || !rec.ours() && l.perm&0o004 == 0 || s != nil && s.sensitive
	seal := func(text string) any {
		if secret {
			return v.a.env.Sealer.Seal(text)
		}
		return text
	}
	if s != nil {
		if _, byDigest := m["contentBase64"]; byDigest {
			m["sha256"] = seal(hex.EncodeToString(l.sum[:]))
			return nil
		}
	}
	content, whole, err := t.read(q.Locator, maxText)
	if err != nil {
		return err
	}
	switch {
	case whole && isText(content):
		m["content"] = seal(string(content))
	case s != nil:
		m["content"] = seal(standIn(l))
	default:
		m["sha256"] = seal(hex.EncodeToString(l.sum[:]))
		if whole {
			m["contentBase64"] = seal(base64.StdEncoding.EncodeToString(content))
		}
	}
	return nil
}

// Health implements appliers.HealthChecker: what is there is healthy, unless its
// command is still owed; strangers in an exclusive directory are told in the message.
func (a *Applier) Health(ctx context.Context, queries []appliers.Query) (map[plan.Key]appliers.Health, error) {
	seen, err := a.Observe(ctx, queries)
	if err != nil {
		return nil, err
	}
	answers := make(map[plan.Key]appliers.Health, len(seen))
	for key, o := range seen {
		switch o.Presence {
		case plan.Absent:
			answers[key] = appliers.Health{Status: appliers.Missing, Message: "not there"}
		case plan.Present:
			if o.Unfinished != "" {
				answers[key] = appliers.Health{Status: appliers.Degraded, Message: o.Unfinished}
				continue
			}
			answers[key] = appliers.Health{Status: appliers.Healthy, Message: strangersIn(o.Object)}
		default:
			answers[key] = appliers.Health{Status: appliers.HealthUnknown, Message: o.Reason}
		}
	}
	return answers, nil
}

// shownNames is how many names a message lists.
const shownNames = 5

// strangersIn says what nobody declared in an exclusive directory.
func strangersIn(obj *manifest.Object) string {
	list, _ := obj.Spec()["strangers"].([]any)
	if len(list) == 0 {
		return ""
	}
	names := make([]string, len(list))
	for i, e := range list {
		names[i], _ = e.(string)
	}
	dir, _ := obj.Spec()["path"].(string)
	entries := "1 entry"
	if len(names) > 1 {
		entries = fmt.Sprintf("%d entries", len(names))
	}
	return fmt.Sprintf("%s holds %s that nobody declared: %s", dir, entries, someOf(names))
}

func someOf(names []string) string {
	if len(names) <= shownNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shownNames], ", "), len(names)-shownNames)
}
