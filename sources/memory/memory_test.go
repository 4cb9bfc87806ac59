package memory_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/sources"
	"github.com/gitopsd/gitopsd/sources/memory"
	"github.com/gitopsd/gitopsd/sources/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const main = "refs/heads/main"

func options(files sourcetest.Files) []memory.Option {
	out := []memory.Option{memory.Replace()}
	for p, f := range files {
		switch f.Mode {
		case sources.ModeExec:
			out = append(out, memory.Executable(p, f.Data))
		case sources.ModeSymlink:
			out = append(out, memory.Symlink(p, f.Data))
		case sources.ModeSubmodule:
			out = append(out, memory.Submodule(p, f.Data))
		default:
			out = append(out, memory.File(p, f.Data))
		}
	}
	return out
}

func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		r := memory.New()
		return sourcetest.Fixture{
			Repository: r, Ref: main, Snapshot: true, SameHash: true, Submodules: true,
			Write: func(_ testing.TB, files sourcetest.Files) { r.CommitFiles("main", nil, options(files)...) },
			WriteRef: func(_ testing.TB, ref string, files sourcetest.Files) {
				r.Point(ref, r.CommitFiles("scratch", nil, options(files)...))
				r.Point("refs/heads/scratch", "")
			},
			DeleteRef: func(_ testing.TB, ref string) { r.Point(ref, "") },
			Rewrite: func(_ testing.TB, files sourcetest.Files) {
				r.CommitFiles("main", nil, append(options(files), memory.Orphan())...)
			},
			Hostile: func(_ testing.TB, name string) bool {
				if name == "" || strings.Contains(name, "/") {
					return false // a name of this repository is never empty and holds no separator
				}
				r.CommitFiles("main", nil, memory.Replace(), memory.File("d/"+name, "x"))
				return true
			},
			Cut:      func(testing.TB) { r.SetDown(fmt.Errorf("%w: cut", sources.ErrUnavailable)) },
			Requests: func() (int, int) { s := r.Stats(); return s.RefsRequests, s.Fetches },
		}
	})
}

func fetchAndOpen(t testing.TB, r *memory.Repository, id string) sources.Tree {
	t.Helper()
	if err := r.Fetch(t.Context(), main, id); err != nil {
		t.Fatal(err)
	}
	tree, err := r.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestScriptedHistory(t *testing.T) {
	r := memory.New()
	one := r.CommitFiles("main", map[string]string{"a/x": "1", "a/y": "1", "b": "1"}, memory.Message("one"), memory.When(time.Unix(9, 0)))
	two := r.CommitFiles("main", map[string]string{"b": "2"}, memory.Delete("a"))
	merge := r.CommitFiles("main", map[string]string{"c": "3"}, memory.Parents(one, two))
	tree := fetchAndOpen(t, r, merge)
	if got, err := tree.ReadDir(""); err != nil || len(got) != 3 {
		t.Errorf("a merge starts from its first parent: %v, %v", got, err)
	}
	if _, err := fetchAndOpen(t, r, two).Stat("a"); err == nil {
		t.Error("a deleted directory is still there")
	}
	if c, err := r.Commit(t.Context(), one); err != nil || c.Message != "one" || !c.When.Equal(time.Unix(9, 0)) {
		t.Errorf("Commit = %+v, %v", c, err)
	}
	r.Point(main, one)
	if r.Tip(main) != one {
		t.Error("the branch was not rewound")
	}
}

func TestScriptedFaults(t *testing.T) {
	r := memory.New()
	id := r.CommitFiles("main", map[string]string{"a": "1", "b": "2"})
	boom := errors.New("boom")
	r.FailRefs(boom, nil)
	r.FailFetch(boom)
	r.HideRefs(main)
	ctx := t.Context()
	if _, err := r.Refs(ctx, main); !errors.Is(err, boom) {
		t.Errorf("Refs: %v", err)
	}
	if refs, err := r.Refs(ctx, main); err != nil || len(refs) != 0 {
		t.Errorf("the lie is %v, %v", refs, err)
	}
	if refs, err := r.Refs(ctx, main); err != nil || refs[main] != id {
		t.Errorf("after the lie Refs = %v, %v", refs, err)
	}
	if err := r.Fetch(ctx, main, id); !errors.Is(err, boom) {
		t.Errorf("Fetch: %v", err)
	}
	tree := fetchAndOpen(t, r, id)
	r.Damage(id, "a")
	if _, err := tree.ReadFile("a", 10); !errors.Is(err, sources.ErrDamaged) {
		t.Errorf("ReadFile of a damaged path: %v", err)
	}
	if _, err := fetchAndOpen(t, r, id).ReadFile("a", 10); err != nil {
		t.Errorf("after a new fetch: %v", err)
	}
	if err := r.Keep(ctx, "web", id); err != nil || r.Kept("web") != id {
		t.Errorf("Keep: %v", err)
	}
	two := r.CommitFiles("main", map[string]string{"a": "2"})
	fetchAndOpen(t, r, two)
	r.DropMirror()
	if _, err := r.Open(ctx, two); err == nil {
		t.Error("the mirror was dropped and the revision opens")
	}
	if _, err := r.Open(ctx, id); err != nil {
		t.Errorf("the kept revision is gone: %v", err)
	}
}

func TestLatencyInSimulatedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := memory.New()
		r.CommitFiles("main", map[string]string{"a": "1"})
		r.SetLatency(time.Hour)
		start := time.Now()
		if _, err := r.Refs(t.Context(), main); err != nil || time.Since(start) != time.Hour {
			t.Errorf("Refs took %s, %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := r.Refs(ctx, main); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Refs: %v", err)
		}
		watching, stop := context.WithCancel(t.Context())
		hints := 0
		go r.Watch(watching, func() { hints++ })
		synctest.Wait()
		r.CommitFiles("main", map[string]string{"a": "2"})
		synctest.Wait()
		if hints != 1 {
			t.Errorf("%d hints for one commit", hints)
		}
		stop()
		synctest.Wait()
	})
}

// A commit of one file into 10,000 must cost its path: a simulation makes millions.
func BenchmarkOneFileCommitInto10000(b *testing.B) {
	r := memory.New()
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("apps/%03d/%02d.yaml", i/100, i%100)] = fmt.Sprint("content ", i)
	}
	r.CommitFiles("main", files)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.CommitFiles("main", map[string]string{"apps/050/50.yaml": fmt.Sprint("changed ", i)})
	}
}
