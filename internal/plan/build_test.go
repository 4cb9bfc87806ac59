package plan

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name, got string) {
	t.Helper()
	at := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(at, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(at)
	if err != nil {
		t.Fatalf("%v; run the test with -update", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s: -want +got\n%s", at, d)
	}
}

// story prints what a plan means: the order with the facts that the text leaves
// out, then the text.
func story(t *testing.T, p *Plan) string {
	t.Helper()
	var b bytes.Buffer
	for i := range p.Changes {
		c := &p.Changes[i]
		fmt.Fprintf(&b, "%s %s cause=%s", c.Action, c.Key.ID.Name, c.Cause)
		if c.Adopting {
			b.WriteString(" adopting")
		}
		if c.Record {
			b.WriteString(" record")
		}
		if c.TransferFrom != nil {
			fmt.Fprintf(&b, " from=%s", c.TransferFrom.ID.Name)
		}
		if c.Blocked != "" {
			b.WriteString(" BLOCKED")
		}
		fmt.Fprintf(&b, " entry=%s/%d/%d adopted=%t\n", c.Entry.State, len(c.Entry.Applied), len(c.Entry.Writing), c.Entry.Adopted)
	}
	fmt.Fprintf(&b, "levels %v, empty %t\n\n", Levels(p), p.Empty())
	if err := p.Text(&b, TextOptions{Verbose: true}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func heal(mode DriftMode, path manifest.Pointer) []DriftRule {
	return []DriftRule{{Path: path, Mode: mode}}
}

// TestBuildCases prints the plan of every case (rows D-48 for blocked
// dependents, D-52 for unknown observations, D-55 for hand-over, S1 and S3).
func TestBuildCases(t *testing.T) {
	one, two := m{"mode": "0600", "content": "a\nb\n"}, m{"mode": "0644", "content": "a\nc\n"}
	cases := map[string]func(w *world){
		"converged":     func(w *world) { w.want("a", one).applied() },
		"create":        func(w *world) { w.want("a", one) },
		"change":        func(w *world) { w.want("a", one).applied().want("a", two) },
		"field-removed": func(w *world) { w.want("a", one).applied().want("a", m{"mode": "0600"}) },
		"field-added":   func(w *world) { w.want("a", m{"mode": "0600"}).applied().want("a", one) },
		"drift":         func(w *world) { w.want("a", one).applied().there("a", two) },
		"both": func(w *world) {
			w.want("a", one).applied().there("a", two).want("a", m{"mode": "0640", "content": "a\nb\n"})
		},
		"both-written": func(w *world) {
			w.want("a", one).applied().there("a", two).want("a", m{"mode": "0640", "content": "a\nb\n"}).opts.Drift = heal(DriftReport, "")
		},
		"removed-both": func(w *world) { w.want("a", one).applied().there("a", two).want("a", m{"mode": "0644"}) },
		"not-ours": func(w *world) {
			w.want("a", one).applied().there("a", m{"mode": "0600", "content": "a\nb\n", "owner": "x"})
		},
		"drift-reported": func(w *world) {
			w.want("a", one).applied().there("a", two).opts.Drift = heal(DriftReport, "/spec/mode")
		},
		"drift-left":    func(w *world) { w.want("a", one).applied().there("a", two).opts.Drift = heal(DriftReport, "") },
		"drift-ignored": func(w *world) { w.want("a", one).applied().there("a", two).opts.Drift = heal(DriftIgnore, "") },
		"drift-contended": func(w *world) {
			w.want("a", one).applied().there("a", two).opts.Contended = map[FieldRef]bool{{file("a"), "/spec/mode"}: true}
		},
		"deleted-by-hand": func(w *world) { w.want("a", one).applied().gone("a") },
		"deleted-left":    func(w *world) { w.want("a", one).applied().gone("a").opts.Drift = heal(DriftReport, "") },
		"deleted-ignored": func(w *world) { w.want("a", one).applied().gone("a").opts.Drift = heal(DriftIgnore, "") },
		"deleted-changed": func(w *world) { w.want("a", one).applied().gone("a").want("a", two).opts.Drift = heal(DriftReport, "") },
		"wanted-again": func(w *world) {
			w.want("a", one).applied().gone("a").entry("a", func(e *Entry) { e.State = EntryDeleting }).opts.Drift = heal(DriftReport, "")
		},
		"unknown": func(w *world) {
			w.want("a", one).want("b", one, "a").want("c", one, "b").want("gone", one).applied().drop("gone")
			w.want("b", two, "a").want("c", two, "b").want("d", one).unknown[file("a")] = "connection refused"
			w.unknown[file("gone")] = ""
		},
		"adopt-identical": func(w *world) { w.want("a", one).there("a", one) },
		"adopt-differs":   func(w *world) { w.want("a", one).there("a", two) },
		"adopt-never":     func(w *world) { w.want("a", one).there("a", one).opts.Adopt = AdoptNever },
		"adopt-always":    func(w *world) { w.want("a", one).there("a", two).opts.Adopt = AdoptAlways },
		"adopt-marked": func(w *world) {
			w.want("a", one).there("a", one).marks[path("a")] = "shop"
			w.opts.Adopt = AdoptAlways
		},
		"adopt-own-mark": func(w *world) { w.want("a", one).there("a", two).marks[path("a")] = "web" },
		"foreign":        func(w *world) { w.want("a", one).opts.Foreign = map[Key]string{file("a"): "shop"} },
		"foreign-entry": func(w *world) {
			w.want("a", one).want("b", one).applied().drop("b")
			w.entry("a", setOwner).entry("b", setOwner)
		},
		"delete":      func(w *world) { w.want("a", one).want("b", one).applied().drop("a") },
		"delete-gone": func(w *world) { w.want("a", one).want("b", one).applied().drop("a").gone("a") },
		"delete-off":  func(w *world) { w.want("a", one).want("b", one).applied().drop("a").opts.Prune = false },
		"delete-handover": func(w *world) {
			w.want("a", one).want("b", one).applied().drop("a").opts.Handover = map[Key]string{file("a"): "awaiting hand-over to application shop"}
		},
		"delete-marked": func(w *world) { w.want("a", one).want("b", one).applied().drop("a").marks[path("a")] = "shop" },
		"delete-orphaned": func(w *world) {
			w.want("a", one).want("b", one).applied().drop("a", "b").entry("a", orphan).entry("b", orphan).gone("b")
		},
		"delete-unowned": func(w *world) { w.want("a", one).there("b", one).applied().want("b", one).drop("b") },
		"rename":         func(w *world) { w.want("a", one).applied().drop("a").wantAt("z", path("a"), one) },
		"rename-change":  func(w *world) { w.want("a", one).applied().drop("a").wantAt("z", path("a"), two) },
		"rename-unknown": func(w *world) {
			w.want("a", one).applied().drop("a").wantAt("z", path("a"), two).unknown[file("z")] = "timeout"
		},
		"rename-waits": func(w *world) {
			w.want("a", one).want("b", one).applied().drop("a").wantAt("z", path("a"), two, "b").unknown[file("b")] = "timeout"
		},
		"rename-half-stored": func(w *world) {
			w.want("a", one).applied().wantAt("z", path("a"), one).drop("a").applied()
		},
		"kind-changed": func(w *world) { kindChanged(w, m{"mode": "0600", "target": "there"}) },
		"kind-changed-reported": func(w *world) {
			kindChanged(w, m{"mode": "0600", "target": "there"}).opts.Drift = heal(DriftReport, "")
		},
		"kind-changed-full": func(w *world) {
			w.wantAt("x", path("a/x"), one).want("b", one).want("c", one)
			kindChanged(w, m{"target": "there"}).drop("x").want("b", two).want("c", two).want("late", one).wave("late", 1)
			d := w.desired[file("c")]
			d.DependsOn = []Key{link("a")}
			w.desired[file("c")] = d
		},
		"kind-changed-killed": func(w *world) {
			kindChanged(w, m{"mode": "0600", "target": "there"})
			for _, c := range w.build(&testing.T{}).Changes { // recorded, and then killed
				w.record(&c)
			}
		},
		"other-type": func(w *world) {
			w.want("a", one).there("a", m{}).opts.Adopt = AdoptAlways
			w.instead[file("a")] = "a directory"
		},
		"other-type-identical": func(w *world) {
			w.want("a", one).there("a", m{}).instead[file("a")] = "a directory"
		},
		"same-locator":  func(w *world) { w.wantAt("a", "/srv/x", one).wantAt("b", "/srv/x", one) },
		"moved":         func(w *world) { w.want("a", one).applied().wantAt("a", "/srv/new", one).wantAt("b", path("a"), one) },
		"order":         orderCase,
		"delete-blocks": deleteBlocks,
		"gate-empty":    func(w *world) { w.want("a", one).applied().drop("a") },
		"gate-protected": func(w *world) {
			w.want("a", one).want("b", one).applied().drop("a").opts.Protected = func(id manifest.ID) bool { return id.Name == "a" }
		},
		"strangers":           strangersCase(3, func(*world) {}),
		"strangers-one":       strangersCase(1, func(*world) {}),
		"strangers-over":      strangersCase(12, func(w *world) { w.opts.Prune = false }),
		"strangers-left":      strangersCase(3, func(w *world) { w.opts.Drift = heal(DriftReport, "/spec/strangers") }),
		"strangers-waits":     strangersCase(3, func(w *world) { w.want("d", exclusive("0755"), "x").unknown[file("x")] = "timeout" }),
		"strangers-not-ours":  strangersCase(3, func(w *world) { w.entries = nil }),
		"strangers-taken":     strangersCase(3, func(w *world) { w.entries, w.opts.Adopt = nil, AdoptAlways }),
		"strangers-and-prune": strangersCase(2, func(w *world) { w.drop("o1").opts.Budget = Budget{MaxCount: 2, MaxPercent: -1} }),
		"unfinished":          unfinishedCase(one, func(*world) {}),
		"unfinished-drifted":  unfinishedCase(two, func(*world) {}),
		"unfinished-left":     unfinishedCase(two, func(w *world) { w.opts.Drift = heal(DriftReport, "") }),
		"unfinished-ignored":  unfinishedCase(two, func(w *world) { w.opts.Drift = heal(DriftIgnore, "") }),
		"unfinished-contended": unfinishedCase(two, func(w *world) {
			w.opts.Contended = map[FieldRef]bool{{file("a"), "/spec/mode"}: true, {file("a"), "/spec/content"}: true}
		}),
		"unfinished-first":   unfinishedCase(one, func(w *world) { begun(w, "a") }),
		"unfinished-taken":   unfinishedCase(one, func(w *world) { begun(w, "a").entry("a", func(e *Entry) { e.Adopted = true }) }),
		"unfinished-dropped": unfinishedCase(one, func(w *world) { w.want("b", one).applied().drop("a") }),
		"escapes": func(w *world) {
			w.want("a", m{"\x1b[31mkey": "\x1b[2J\u202e"}).want("b", one).unknown[file("b")] = "bad\x1b]0;title\x07\nnext"
		},
	}
	for name, set := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			set(w)
			golden(t, name, story(t, w.build(t)))
		})
	}
}

func link(name string) Key {
	return Key{Target: "host", ID: manifest.ID{Group: "host.gitopsd.io", Kind: "Symlink", Name: name}}
}

// kindChanged declares a link where a file was written; the file is still there.
func kindChanged(w *world, spec m) *world {
	w.want("a", m{"mode": "0600"}).applied().drop("a")
	w.live[path("a")] = object(link("a"), m{}).Content() // nothing that a link would show
	w.desired[link("a")] = Desired{Object: object(link("a"), spec), Locator: path("a")}
	w.instead[link("a")] = "a file"
	return w
}

func exclusive(mode string) m { return m{"mode": mode, "strangers": []any{}} }

// strangersCase: next to directory d of ten objects stand n things that nobody declared.
func strangersCase(n int, set func(*world)) func(*world) {
	return func(w *world) {
		w.want("d", exclusive("0755")).want("x", m{"mode": "0600"})
		for i := range 8 {
			w.want(fmt.Sprintf("o%d", i), m{"mode": "0600"})
		}
		w.applied()
		var beside []string
		for i := range n {
			beside = append(beside, fmt.Sprintf("/srv/d/s%02d", i))
		}
		w.beside("d", beside...)
		set(w)
	}
}

func setOwner(e *Entry) { e.Owner = "shop" }
func orphan(e *Entry)   { e.State, e.Owner = EntryOrphaned, "old" }

func orderCase(w *world) {
	one := m{"mode": "0600"}
	w.want("r1", one).want("r2", one, "r1").want("r3", one).wave("r3", 5).want("k1", one).want("k2", one).applied()
	w.drop("r1", "r2", "r3", "k2").gone("k2")
	w.want("z", one).want("y", one, "z").want("x", one, "y").want("w", one).wave("w", -1).want("v", one, "w").wave("v", 3)
	w.opts.Budget = Budget{MaxCount: -1, MaxPercent: -1}
}

// deleteBlocks: r3 stands on r2 stands on r1, and r3 is held.
func deleteBlocks(w *world) {
	one := m{"mode": "0600"}
	w.want("r1", one).want("r2", one, "r1").want("r3", one, "r2").want("k", one).applied().drop("r1", "r2", "r3")
	w.opts.Handover = map[Key]string{file("r3"): "awaiting hand-over"}
}

// TestOwnWriteIsNoDrift: the write of a reverted commit was made, its success
// never recorded. It must not be taken for drift that a rule leaves (row D-49).
func TestOwnWriteIsNoDrift(t *testing.T) {
	w := newWorld().want("a", specN(1)).applied().want("a", specN(2))
	w.opts.Drift = heal(DriftReport, "")
	p := w.build(t)
	w.record(&p.Changes[0])
	w.write(&p.Changes[0]) // and then the crash
	w.want("a", specN(1))
	p = w.build(t)
	if len(p.Changes) != 1 || p.Changes[0].Action != Update || p.Changes[0].Cause != Intended {
		t.Errorf("want one intended update, got\n%s", story(t, p))
	}
}

// TestLeavingDesired: what is left at its live value is so in what is written.
func TestLeavingDesired(t *testing.T) {
	w := newWorld().want("a", m{"mode": "1", "size": m{"min": 1}, "content": "x"}).applied()
	w.there("a", m{"mode": "2", "content": "x"}).want("a", m{"mode": "1", "size": m{"min": 1}, "content": "y"})
	w.opts.Drift = []DriftRule{
		{Path: "", Mode: DriftReport},
		{GroupKind: &manifest.GroupKind{Group: "host.gitopsd.io", Kind: "File"}, Path: "/spec/mode", Mode: DriftIgnore},
		{GroupKind: &manifest.GroupKind{Kind: "Other"}, Path: "", Mode: DriftHeal},
	}
	c := w.build(t).Changes[0]
	if d := cmp.Diff(m{"mode": "2", "content": "y"}, c.Desired.Spec()); d != "" {
		t.Errorf("desired: -want +got\n%s", d)
	}
	if len(c.Fields) != 1 || len(c.Reported) != 1 || c.Reported[0].Path != "/spec/size/min" {
		t.Errorf("fields %v, reported %v", c.Fields, c.Reported)
	}
	if d := cmp.Diff(Digests(w.desired[file("a")].Object, w.opts.Digest), c.Applied); d != "" {
		t.Errorf("applied: -want +got\n%s", d)
	}
}

func TestBuildErrors(t *testing.T) {
	one := m{"mode": "0600"}
	cases := map[string]struct {
		set  func(w *world)
		want string
	}{
		"cycle": {func(w *world) { w.want("a", one, "c").want("b", one, "a").want("c", one, "b") },
			"dependency cycle host:host.gitopsd.io/File/a -> host:host.gitopsd.io/File/c -> host:host.gitopsd.io/File/b -> host:host.gitopsd.io/File/a, " +
				"declared in host:host.gitopsd.io/File/a (web/a.yaml:1), host:host.gitopsd.io/File/c (web/c.yaml:1), host:host.gitopsd.io/File/b (web/b.yaml:1); remove one annotation gitopsd.io/depends-on"},
		"itself": {func(w *world) { w.want("a", one, "a") }, "dependency cycle host:host.gitopsd.io/File/a -> host:host.gitopsd.io/File/a"},
		"missing": {func(w *world) { w.want("a", one, "nope") },
			"host:host.gitopsd.io/File/a (web/a.yaml:1) depends on host:host.gitopsd.io/File/nope, which this application does not declare"},
		"later wave": {func(w *world) { w.want("a", one, "b").want("b", one).wave("b", 2) },
			"host:host.gitopsd.io/File/a (web/a.yaml:1) is in wave 0 and depends on host:host.gitopsd.io/File/b (web/b.yaml:1) in the later wave 2"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			c.set(w)
			if _, err := Build(w.input(), w.keys(), w.options()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Build: got %v, want %q", err, c.want)
			}
			if err := CheckDependencies(w.all); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("CheckDependencies: got %v, want %q", err, c.want)
			}
		})
	}
	if err := CheckDependencies(newWorld().want("a", one).want("b", one, "a").all); err != nil {
		t.Error(err)
	}
	if _, err := Build(Input{}, nil, Options{}); err == nil || !strings.Contains(err.Error(), "Digest") {
		t.Errorf("without Digest: %v", err)
	}
}

func (w *world) all(yield func(Key, Desired) bool) {
	for k, d := range w.desired {
		if !yield(k, d) {
			return
		}
	}
}

// unfinishedCase: object a was written, something of that write is still to be
// done, and live is what is there.
func unfinishedCase(live m, change func(w *world)) func(*world) {
	return func(w *world) {
		w.want("a", m{"mode": "0600", "content": "a\nb\n"}).applied().there("a", live).owed[file("a")] = "onChange reload is still owed"
		change(w)
	}
}
