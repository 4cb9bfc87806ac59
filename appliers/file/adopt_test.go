package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func TestPruneOfAdoptedFiles(t *testing.T) {
	for _, tt := range []struct {
		onPrune string
		adopt   plan.Action // Update replaces other content, Adopt takes over the same
		want    string      // content after the prune; "" is gone
	}{
		{"", plan.Update, ""}, {pruneDelete, plan.Update, ""}, {pruneRestore, plan.Update, "foreign\n"}, {pruneLeave, plan.Update, "ours\n"},
		{pruneRestore, plan.Adopt, "ours\n"}, {pruneDelete, plan.Adopt, ""},
	} {
		t.Run(fmt.Sprint(tt.onPrune, "-", tt.adopt), func(t *testing.T) {
			h := newHost(t, "")
			foreign := "foreign\n"
			if tt.adopt == plan.Adopt {
				foreign = "ours\n"
			}
			h.put(t, "f", foreign)
			mode := os.FileMode(0o604)
			if tt.adopt == plan.Adopt {
				mode = 0o644
			}
			if err := os.Chmod(h.path("f"), mode); err != nil {
				t.Fatal(err)
			}
			spec := map[string]any{"path": h.path("f"), "content": "ours\n"}
			if tt.onPrune != "" {
				spec["onPrune"] = tt.onPrune
			}
			obj := object(t, kindFile, "f", spec)
			op := h.op(t, tt.adopt, obj)
			op.Change.Adopting = tt.adopt == plan.Update
			r := h.must(t, op)
			if _, err := os.Stat(r.Backup); err != nil {
				t.Fatalf("backup %q: %v", r.Backup, err)
			}
			if again := h.must(t, op); again.Backup != r.Backup {
				t.Errorf("the second apply names backup %q, the first %q", again.Backup, r.Backup)
			}
			h.converged(t, obj)
			// The adopted file is changed twice more: the first content is the one to go back to.
			for i := range 2 {
				spec["content"] = fmt.Sprintf("later %d\n", i)
				h.must(t, h.op(t, plan.Update, object(t, kindFile, "f", spec)))
			}
			spec["content"] = "ours\n"
			h.must(t, h.op(t, plan.Update, object(t, kindFile, "f", spec)))
			h.Applier = h.reopen(t)
			for range 2 { // a delete that comes again changes nothing
				del := h.op(t, plan.Delete, obj)
				del.Change.Entry.Backup = r.Backup
				want := appliers.Done
				if tt.want != "" {
					want = appliers.Released
				}
				if got := h.apply(del)[0]; got.Outcome != want || got.Err != nil {
					t.Errorf("delete: %v %v, want %v", got.Outcome, got.Err, want)
				}
			}
			b, err := os.ReadFile(h.path("f"))
			if string(b) != tt.want || (tt.want == "" && !errors.Is(err, os.ErrNotExist)) {
				t.Errorf("after the prune %q %v, want %q", b, err, tt.want)
			}
			if st, err := os.Stat(h.path("f")); tt.onPrune == pruneRestore && (err != nil || st.Mode().Perm() != mode) {
				t.Errorf("restored with mode %v %v", st.Mode(), err)
			}
			if marks, err := h.Marked(context.Background()); err != nil || len(marks) != 0 {
				t.Errorf("marks %v %v", marks, err)
			}
		})
	}
}

// A delete touches only what the ledger shows as the application's, also when
// the same path was somebody's before (rows S1 and D-55).
func TestDeleteOfWhatIsNotOurs(t *testing.T) {
	h := newHost(t, "")
	obj := file(t, h.path("f"), "theirs\n")
	h.put(t, "f", "theirs\n")
	released := func(why string, op appliers.Operation) {
		t.Helper()
		if r := h.apply(op)[0]; r.Outcome != appliers.Released || r.Err != nil || h.content(t, "f") != "theirs\n" {
			t.Errorf("%s: %v %v", why, r.Outcome, r.Err)
		}
	}
	released("no record", h.op(t, plan.Delete, obj))
	other := h.op(t, plan.Adopt, obj)
	other.Application = "other"
	h.must(t, other)
	released("the record of another application", h.op(t, plan.Delete, obj))
	if marks, err := h.Marked(t.Context()); err != nil || len(marks) != 1 || marks[0].Application != "other" {
		t.Errorf("the record of the other application: %v %v", marks, err)
	}
	moved := h.op(t, plan.Delete, obj)
	moved.Change.Entry.MovedFrom = "other"
	h.must(t, moved)
	if _, err := os.Stat(h.path("f")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("handed over to us, and still there: %v", err)
	}
}

// What is to be restored and cannot be is not removed.
func TestMissingBackup(t *testing.T) {
	h := newHost(t, "")
	obj := object(t, kindFile, "f", map[string]any{"path": h.path("f"), "content": "ours\n", "onPrune": "restore"})
	h.put(t, "f", "foreign\n")
	op := h.op(t, plan.Update, obj)
	op.Change.Adopting = true
	r := h.must(t, op)
	b, err := os.ReadFile(r.Backup)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func() error{
		"damaged": func() error { return os.WriteFile(r.Backup, append(b, '!'), 0o600) },
		"missing": func() error { return os.Remove(r.Backup) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		del := h.op(t, plan.Delete, obj)
		del.Change.Entry.Backup = r.Backup
		if r := h.apply(del)[0]; r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Stop || h.content(t, "f") != "ours\n" {
			t.Errorf("%s: %v %v", name, r.Outcome, r.Err)
		}
	}
	// A file that was created, not adopted, has nothing to go back to.
	made := object(t, kindFile, "g", map[string]any{"path": h.path("g"), "content": "ours\n", "onPrune": "restore"})
	h.must(t, h.op(t, plan.Create, made))
	h.must(t, h.op(t, plan.Delete, made))
	if _, err := os.Stat(h.path("g")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("created file: %v", err)
	}
}

// An owner that is not declared stays, one that is declared is set, and one that
// cannot be given says so and changes nothing.
func TestOwners(t *testing.T) {
	h := newHost(t, "")
	h.put(t, "f", "old\n")
	uid, gid := os.Getuid(), anotherGroup()
	if uid == 0 { // only root can give files away
		uid = 12345
	}
	if err := os.Chown(h.path("f"), uid, gid); err != nil {
		t.Fatal(err)
	}
	owned := func(content, owner, group string) *manifest.Object {
		return object(t, kindFile, "f", map[string]any{"path": h.path("f"), "content": content, "owner": owner, "group": group})
	}
	h.must(t, h.op(t, plan.Update, file(t, h.path("f"), "new\n")))
	h.converged(t, owned("new\n", fmt.Sprint(uid), fmt.Sprint(gid)))
	us := owned("new\n", fmt.Sprint(os.Getuid()), fmt.Sprint(os.Getgid()))
	h.must(t, h.op(t, plan.Update, us))
	h.converged(t, us)
	refused := func(want *manifest.Object, word string) {
		t.Helper()
		r := h.apply(h.op(t, plan.Update, want))[0]
		if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Wait || !strings.Contains(r.Err.Error(), word) {
			t.Errorf("%v %v", r.Outcome, r.Err)
		}
		h.converged(t, us)
		if left := temps(t, h.root); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	refused(owned("x", "no-such-user", "0"), `user "no-such-user" is not known`)
	refused(owned("x", "0", "no-such-group"), `group "no-such-group" is not known`)
	if os.Getuid() != 0 {
		refused(owned("x", "0", "0"), "give it to user 0 and group 0")
	}
}

// anotherGroup is one that we may give our files to: any for root, else one that
// we are in besides our own, or else our own.
func anotherGroup() int {
	if os.Getuid() == 0 {
		return 23456
	}
	groups, err := os.Getgroups()
	if err != nil {
		return os.Getgid()
	}
	for _, g := range groups {
		if g != os.Getgid() {
			return g
		}
	}
	return os.Getgid()
}

func TestDirectories(t *testing.T) {
	h := newHost(t, "")
	dir := object(t, kindDirectory, "d", map[string]any{"path": h.path("d")})
	inside := file(t, h.path("d/x"), "x")
	// One Apply, in the worst order: the directory is made first, and removed last.
	for _, r := range h.apply(h.op(t, plan.Create, inside), h.op(t, plan.Create, dir)) {
		if r.Outcome != appliers.Done {
			t.Fatalf("%v %v", r.Outcome, r.Err)
		}
	}
	h.put(t, "d/stranger", "")
	got := h.apply(h.op(t, plan.Delete, dir), h.op(t, plan.Delete, inside))
	if got[0].Outcome != appliers.Refused || appliers.ClassOf(got[0].Err) != appliers.Wait || !strings.Contains(got[0].Err.Error(), "stranger") || got[1].Outcome != appliers.Done {
		t.Errorf("%v %v, %v", got[0].Outcome, got[0].Err, got[1].Outcome)
	}
	if err := os.Remove(h.path("d/stranger")); err != nil {
		t.Fatal(err)
	}
	h.must(t, h.op(t, plan.Delete, dir))
	r := h.apply(h.op(t, plan.Create, file(t, h.path("no/where"), "x")))[0]
	if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Wait || !strings.Contains(r.Err.Error(), "declare it as a Directory") {
		t.Errorf("without a directory: %v %v", r.Outcome, r.Err)
	}
}

// Strangers are reported; where the directory asks for it they are removed,
// counted and kept, and never what any application has declared.
func TestExclusiveDirectories(t *testing.T) {
	h := newHost(t, fmt.Sprintf(`, "protected": [%q]`, "/nowhere"))
	for _, d := range []string{"d", "d/ours", "d/empty", "d/full"} {
		if err := os.Mkdir(h.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.must(t, h.op(t, plan.Create, file(t, h.path("d/own"), "own")))
	other := h.op(t, plan.Create, file(t, h.path("d/ours/deep"), "deep"))
	other.Application = "other"
	h.must(t, other)
	waiting := file(t, h.path("d/declared"), "declared, not yet written")
	h.SetWatched("third", []appliers.Query{query(key(waiting), h.resolve(t, waiting))})
	for _, name := range []string{"d/s1", "d/declared", "d/full/x", "d/batch"} {
		h.put(t, name, "stranger")
	}
	if err := os.Symlink("/etc/passwd", h.path("d/link")); err != nil {
		t.Fatal(err)
	}
	report := object(t, kindDirectory, "d", map[string]any{"path": h.path("d"), "exclusive": true})
	o := h.see(t, report)
	want := []any{"batch", "empty", "full", "link", "s1"}
	if !manifest.Equal(o.Object.Spec()["strangers"], want) {
		t.Errorf("strangers %v, want %v", o.Object.Spec()["strangers"], want)
	}
	if health, err := h.Health(t.Context(), []appliers.Query{query(key(report), h.resolve(t, report))}); err != nil ||
		!strings.Contains(health[key(report)].Message, "s1") || health[key(report)].Status != appliers.Healthy {
		t.Errorf("%v %v", health, err)
	}
	h.must(t, h.op(t, plan.Adopt, report))
	if list, err := os.ReadDir(h.path("d")); err != nil || len(list) != 8 {
		t.Errorf("reporting removed something: %v %v", list, err)
	}
	remove := object(t, kindDirectory, "d", map[string]any{"path": h.path("d"), "exclusive": map[string]any{"remove": true}})
	batch := h.op(t, plan.Update, file(t, h.path("d/batch"), "ours now"))
	batch.Change.Adopting = true
	clearing := h.op(t, plan.Update, remove)
	clearing.Change.Removes = h.see(t, remove).Removes.Addresses
	if d := cmp.Diff([]string{h.path("d/batch"), h.path("d/empty"), h.path("d/link"), h.path("d/s1")}, clearing.Change.Removes); d != "" {
		t.Errorf("to be removed: -want +got\n%s", d)
	}
	if r := h.see(t, report).Removes; r.Addresses != nil {
		t.Errorf("a directory that only reports would remove %v", r.Addresses)
	}
	h.put(t, "d/late", "came after the plan")
	got := h.apply(clearing, batch)
	if got[0].Outcome != appliers.Uncertain || appliers.ClassOf(got[0].Err) != appliers.Wait || !strings.Contains(got[0].Err.Error(), "d/full") {
		t.Errorf("a full directory: %v %v", got[0].Outcome, got[0].Err)
	}
	if err := os.RemoveAll(h.path("d/full")); err != nil {
		t.Fatal(err)
	}
	removed := map[string]string{}
	for _, r := range got[0].Removed {
		removed[filepath.Base(r.Address)] = h.kept(t, r.Backup)
	}
	if d := cmp.Diff(map[string]string{"s1": "stranger", "link": "", "empty": ""}, removed); d != "" {
		t.Errorf("removed, with what was kept: -want +got\n%s", d)
	}
	if r := h.must(t, clearing); len(r.Removed) > 0 || h.content(t, "d/late") != "came after the plan" {
		t.Errorf("what came after the plan, and again: %v", r.Removed)
	}
	later := h.op(t, plan.Update, remove)
	later.Change.Removes = h.see(t, remove).Removes.Addresses
	h.must(t, later)
	h.converged(t, remove)
	for name, there := range map[string]bool{"own": true, "ours/deep": true, "declared": true, "batch": true, "s1": false, "link": false, "empty": false, "late": false} {
		if _, err := os.Lstat(h.path("d/" + name)); (err == nil) != there {
			t.Errorf("%s: %v, want there %v", name, err, there)
		}
	}
	if n := h.Stats().StrangersRemoved; n != 4 {
		t.Errorf("%d strangers counted", n)
	}
	kept, err := os.ReadDir(h.path(stateDir + "/" + backupDir))
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, e := range kept {
		b, err := os.ReadFile(h.path(stateDir + "/" + backupDir + "/" + e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all += string(b)
	}
	for _, s := range []string{"d/s1", "d/link", "d/empty", "/etc/passwd"} {
		if !strings.Contains(all, s) {
			t.Errorf("%s was not kept", s)
		}
	}
}

// kept returns the content of a backup.
func (h *host) kept(t *testing.T, backup string) string {
	t.Helper()
	b, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	_, content, _ := strings.Cut(string(b), "\n")
	return content
}

// What cannot be removed is reported, is not planned to go, and holds up nothing else.
func TestStrangersThatStay(t *testing.T) {
	h := newHost(t, "")
	for _, d := range []string{"d", "d/full"} {
		if err := os.Mkdir(h.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"d/full/x", "d/line\nbreak", "d/plain"} {
		h.put(t, name, "")
	}
	if err := unix.Mkfifo(h.path("d/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := object(t, kindDirectory, "d", map[string]any{"path": h.path("d"), "exclusive": map[string]any{"remove": true}})
	seen := h.see(t, dir)
	if d := cmp.Diff([]any{"fifo", "full", "line\nbreak", "plain"}, seen.Object.Spec()["strangers"]); d != "" {
		t.Errorf("strangers: -want +got\n%s", d)
	}
	op := h.op(t, plan.Update, dir)
	op.Change.Removes = append(seen.Removes.Addresses, h.path("d/full"), h.path("d/fifo"))
	if d := cmp.Diff([]string{h.path("d/plain")}, seen.Removes.Addresses); d != "" {
		t.Errorf("to be removed: -want +got\n%s", d)
	}
	r := h.apply(op)[0]
	if r.Outcome != appliers.Uncertain || appliers.ClassOf(r.Err) != appliers.Wait || len(r.Removed) != 1 {
		t.Errorf("%v %v %v", r.Outcome, r.Err, r.Removed)
	}
	for _, word := range []string{"d/fifo is a named pipe", "d/full is a directory that is not empty (x)", `d/line\nbreak`, "by hand"} {
		if !strings.Contains(r.Err.Error(), word) {
			t.Errorf("%v\ndoes not say %q", r.Err, word)
		}
	}
	if list, err := os.ReadDir(h.path("d")); err != nil || len(list) != 3 {
		t.Errorf("left: %v %v", list, err)
	}
}

// What another root's ledger lists is nobody's stranger, nor is the root itself.
func TestStrangersOfNestedRoots(t *testing.T) {
	outer := realDir(t)
	inner := filepath.Join(outer, "d/inner")
	if err := os.MkdirAll(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	h := hostAt(t, outer, "")
	h.env.Config = json.RawMessage(fmt.Sprintf(`{"roots": [%q, %q]}`, outer, inner))
	h.Applier = h.reopen(t)
	h.must(t, h.op(t, plan.Create, file(t, filepath.Join(inner, "ours"), "ours")))
	h.Applier = h.reopen(t) // which watches nothing yet
	h.put(t, "d/inner/stray", "")
	for path, want := range map[string][]string{filepath.Dir(inner): nil, inner: {filepath.Join(inner, "stray")}} {
		dir := object(t, kindDirectory, "d", map[string]any{"path": path, "exclusive": map[string]any{"remove": true}})
		if d := cmp.Diff(want, h.see(t, dir).Removes.Addresses); d != "" {
			t.Errorf("%s: -want +got\n%s", path, d)
		}
	}
}

func TestLedgerSurvivesDamage(t *testing.T) {
	h := newHost(t, "")
	for i := range 3 {
		h.must(t, h.op(t, plan.Create, file(t, h.path(fmt.Sprintf("f%d", i)), "x")))
	}
	ledger := h.path(stateDir + "/" + ledgerName)
	whole, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(ledger); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("ledger mode %v %v", st.Mode(), err)
	}
	names := func() string {
		t.Helper()
		marks, err := h.reopen(t).Marked(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := ""
		for _, m := range marks {
			s += " " + m.Locator[len(h.root):]
		}
		return s
	}
	flipped := append([]byte(nil), whole...)
	flipped[20] ^= 1 // in the intent of the first file, which its confirmation replaces
	for name, tt := range map[string]struct {
		content []byte
		want    string
	}{
		"whole": {whole, " /f0 /f1 /f2"}, "torn": {whole[:len(whole)-10], " /f0 /f1 /f2"}, "flipped": {flipped, " /f0 /f1 /f2"}, "empty": {nil, ""},
	} {
		if err := os.WriteFile(ledger, tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := names(); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	// A torn line is ended before the next one is written.
	if err := os.WriteFile(ledger, whole[:len(whole)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	h.Applier = h.reopen(t)
	h.must(t, h.op(t, plan.Create, file(t, h.path("f3"), "x")))
	if got := names(); got != " /f0 /f1 /f2 /f3" {
		t.Errorf("after a torn line: %q", got)
	}
}

func TestLedgerIsCompacted(t *testing.T) {
	h := newHost(t, "")
	tree, err := h.open(t.Context(), h.roots[0])
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	for i := range 30 {
		recs := make([]*record, 100)
		for n := range recs {
			recs[n] = &record{Path: h.path(fmt.Sprintf("f%d", n)), Application: "web", Epoch: uint64(i), Gone: n == 7}
		}
		if err := tree.write(recs); err != nil {
			t.Fatal(err)
		}
	}
	if l := &tree.root.led; l.lines > 2*100+compactAt+100 || len(l.byPath) != 99 || l.epoch != 29 {
		t.Errorf("%d lines, %d records, epoch %d", l.lines, len(l.byPath), l.epoch)
	}
	fresh := h.reopen(t)
	if marks, err := fresh.Marked(t.Context()); err != nil || len(marks) != 99 {
		t.Errorf("%d marks %v", len(marks), err)
	}
}
