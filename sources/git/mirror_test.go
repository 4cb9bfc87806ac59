package git

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

func localPlace(t testing.TB) place {
	r := gittest.NewRepo(t)
	return place{repo: r, options: Options{URL: r.Dir, Dir: t.TempDir()}}
}

// Row A-25: many pushes are one fetch of the newest, and dates do not matter.
func TestBurstIsOneFetch(t *testing.T) {
	t.Parallel()
	p, h := webPlace(t, gittest.HTTPOptions{})
	first := p.repo.Write("main", map[string]string{"a": "0"})
	r, _ := fetched(t, p)
	rng := rand.New(rand.NewPCG(25, 25))
	files := map[string]gittest.File{}
	for i := range 1000 {
		files["a"] = gittest.File{Data: fmt.Sprint(i)}
		p.repo.CommitAt("main", files, time.Now().AddDate(rng.IntN(101)-50, 0, 0))
	}
	refs, content := h.InfoRefs(), h.UploadPacks()
	id := fetchMain(t, r)
	if h.InfoRefs()-refs != 2 || h.UploadPacks()-content != 1 {
		t.Errorf("%d requests for refs and %d for content", h.InfoRefs()-refs, h.UploadPacks()-content)
	}
	if got, err := readAll(t, r, id); err != nil || got["a"] != "999" {
		t.Errorf("the newest is %v, %v", got, err)
	}
	for _, c := range []struct {
		old, new string
		want     bool
	}{{first, id, true}, {id, first, false}} {
		if ok, err := r.IsAncestor(t.Context(), c.old, c.new); err != nil || ok != c.want {
			t.Errorf("IsAncestor = %v, %v, want %v", ok, err, c.want)
		}
	}
}

// A fetch transfers the change and not the repository.
func TestFetchIsIncremental(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func() place{
		"http": func() place { p, _ := webPlace(t, gittest.HTTPOptions{}); return p },
		"ssh":  func() place { p, _, _ := sshPlace(t); return p },
		"path": func() place { return localPlace(t) },
	} {
		p := make()
		files := map[string]string{}
		for i := range 500 {
			files[fmt.Sprintf("d%d/f%d", i%20, i)] = fmt.Sprint("content ", i, rand.Uint64())
		}
		p.repo.Write("main", files)
		r, _ := fetched(t, p)
		first := r.Stats().BytesFetched
		p.repo.Write("main", map[string]string{"d1/f1": "changed"})
		fetchMain(t, r)
		if second := r.Stats().BytesFetched - first; second > first/5 {
			t.Errorf("%s: the first fetch took %d bytes, one changed file %d", name, first, second)
		}
	}
}

// The number of packs stays bounded, and trees that are open do not notice.
func TestCompaction(t *testing.T) {
	t.Parallel()
	p := localPlace(t)
	p.options.CompactPacks = 5
	p.repo.Write("main", map[string]string{"first": "1"})
	r, first := fetched(t, p)
	tree, err := r.Open(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	other := mustOpen(t, p.options) // shares the mirror
	for i := range 23 {
		p.repo.Write("main", map[string]string{fmt.Sprintf("d/%d", i): fmt.Sprint(i)})
		fetchMain(t, r)
	}
	s := r.Stats()
	if s.Packs > 5 || s.Compactions < 4 {
		t.Errorf("after 24 fetches: %+v", s)
	}
	if data, err := tree.ReadFile("first", 10); err != nil || string(data) != "1" {
		t.Errorf("an open tree reads %q, %v", data, err)
	}
	for name, r := range map[string]*Repository{"the same": r, "another": other} {
		if got, err := readAll(t, r, p.repo.Ref(mainRef)); err != nil || len(got) != 24 {
			t.Errorf("%s repository reads %d files, %v", name, len(got), err)
		}
	}
	if out := gitIn(t, r.MirrorDir(), "fsck", "--full", "--strict"); strings.Contains(out, "error") || strings.Contains(out, "missing") {
		t.Errorf("git finds: %s", out)
	}
}

var manyFetches = flag.Int("fetches", 100, "how many commits TestManyFetches fetches, one by one")

// After very many fetches of one commit each a mirror has few packs, hardly more
// bytes than a new one, and a fetch brings no more than the first ones did.
func TestManyFetches(t *testing.T) {
	t.Parallel()
	p := localPlace(t)
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("d%d/f%d.yaml", i%10, i)] = strings.Repeat(fmt.Sprint("line ", i, "\n"), 30)
	}
	p.repo.Write("main", files)
	r, _ := fetched(t, p)
	most, bytes := 0, make([]int64, *manyFetches)
	for i := range bytes {
		before := r.Stats().BytesFetched
		name := fmt.Sprintf("d%d/f%d.yaml", i%10, i%100)
		p.repo.Write("main", map[string]string{name: fmt.Sprint("revision ", i, "\n", files[name])})
		fetchMain(t, r)
		s := r.Stats()
		most, bytes[i] = max(most, s.Packs), s.BytesFetched-before
	}
	if most > defaultCompact {
		t.Errorf("there were %d packs", most)
	}
	if first, last := slices.Max(bytes[:10]), slices.Max(bytes[len(bytes)-10:]); last > 2*first {
		t.Errorf("one of the last fetches brought %d bytes, the first ones at most %d", last, first)
	}
	p.options.Dir = t.TempDir()
	fresh, _ := fetched(t, p)
	was, is := diskUse(t, fresh.MirrorDir()), diskUse(t, r.MirrorDir())
	t.Logf("after %d fetches: %+v, at most %d packs, %d bytes on disk; a new mirror has %d", len(bytes), r.Stats(), most, is, was)
	if is > 3*was {
		t.Errorf("the mirror has %d bytes on disk, a new one %d", is, was)
	}
	one, err := readAll(t, r, p.repo.Ref(mainRef))
	if err != nil {
		t.Fatal(err)
	}
	if other, err := readAll(t, fresh, p.repo.Ref(mainRef)); err != nil || !maps.Equal(one, other) {
		t.Errorf("a new mirror reads otherwise: %v", err)
	}
}

// diskUse is how many bytes the packs of a mirror and their indexes have.
func diskUse(t testing.TB, dir string) (n int64) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "objects/pack/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// gitIn runs git on a mirror, which it must be able to read.
func gitIn(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return gittest.NewRepo(t).Git(append([]string{"--git-dir=" + dir}, args...)...)
}

// Several repositories may share a mirror, while it grows and is compacted.
func TestSharedMirror(t *testing.T) {
	p := localPlace(t)
	p.options.CompactPacks = 3
	p.repo.Write("main", map[string]string{"a": "0"})
	var wg sync.WaitGroup
	for n := range 3 {
		r := mustOpen(t, p.options)
		wg.Go(func() {
			for i := range 15 {
				if n == 0 {
					p.repo.Write("main", map[string]string{"a": fmt.Sprint(i), fmt.Sprint("f", i): "x"})
				}
				refs, err := r.Refs(t.Context(), mainRef)
				if err == nil {
					err = r.Fetch(t.Context(), mainRef, refs[mainRef])
				}
				if err == nil {
					err = r.Keep(t.Context(), fmt.Sprintf("app%d/accepted", n), refs[mainRef])
				}
				if err == nil {
					_, err = readAll(t, r, refs[mainRef])
				}
				if err != nil {
					t.Errorf("repository %d: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
}

// Every write to the mirror passes the seam; a fault before or after it is an
// error, and the next call makes up for it.
func TestEffectsPassTheSeam(t *testing.T) {
	p := localPlace(t)
	p.repo.Write("main", map[string]string{"a": "1"})
	boom := errors.New("boom")
	var names []effect.Name
	fault := "before"
	p.options.Seam = func(name effect.Name, _ string, do func() error) error {
		names = append(names, name)
		if fault == "before" {
			return boom
		}
		err := do()
		if fault == "after" && err == nil {
			return boom
		}
		return err
	}
	id := p.repo.Ref(mainRef)
	for _, fault = range []string{"before", "after"} {
		p.options.Dir = t.TempDir()
		r := mustOpen(t, p.options)
		if err := r.Fetch(t.Context(), mainRef, id); !errors.Is(err, boom) {
			t.Errorf("Fetch with a fault %s: %v", fault, err)
		}
		was := fault
		fault = ""
		if err := r.Fetch(t.Context(), mainRef, id); err != nil {
			t.Errorf("Fetch after a fault %s: %v", was, err)
		}
		fault = was
		if err := r.Keep(t.Context(), "web", id); !errors.Is(err, boom) {
			t.Errorf("Keep with a fault %s: %v", fault, err)
		}
		fault = ""
		if err := r.Keep(t.Context(), "web", id); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(fmt.Sprint(names), string(effect.MirrorKeep)) || !strings.Contains(fmt.Sprint(names), string(effect.MirrorFetch)) {
		t.Errorf("effects were %v", names)
	}
}

// A pinned commit is fetched by itself, from servers that give any commit and
// from those that give only tips.
func TestPinnedCommit(t *testing.T) {
	for _, allow := range []string{"true", "false"} {
		p, _ := webPlace(t, gittest.HTTPOptions{})
		p.repo.Git("config", "uploadpack.allowReachableSHA1InWant", allow)
		pinned := p.repo.Write("main", map[string]string{"a": "1"})
		p.repo.Write("main", map[string]string{"a": "2"})
		p.options.Dir = t.TempDir()
		r := mustOpen(t, p.options)
		if err := r.Fetch(t.Context(), "", pinned); err != nil {
			t.Fatalf("allow %s: %v", allow, err)
		}
		if got, err := readAll(t, r, pinned); err != nil || got["a"] != "1" {
			t.Errorf("allow %s: %v, %v", allow, got, err)
		}
		if err := r.Fetch(t.Context(), "", strings.Repeat("1", 40)); !errors.Is(err, sources.ErrUnavailable) {
			t.Errorf("allow %s: a commit that is not there: %v", allow, err)
		}
	}
}

// A ref that moves between Refs and Fetch: what it led to is still fetched when
// the new commit descends from it, and is an error to retry when it was replaced.
func TestRefMovesBeforeFetch(t *testing.T) {
	p, _ := webPlace(t, gittest.HTTPOptions{})
	one := p.repo.Write("main", map[string]string{"a": "1"})
	p.options.Dir = t.TempDir()
	r := mustOpen(t, p.options)
	p.repo.Write("main", map[string]string{"a": "2"})
	if err := r.Fetch(t.Context(), mainRef, one); err != nil {
		t.Errorf("moved on: %v", err)
	}
	two := p.repo.Write("main", map[string]string{"a": "3"})
	p.repo.ForcePush("main", map[string]gittest.File{"a": {Data: "4"}})
	if err := r.Fetch(t.Context(), mainRef, two); !errors.Is(err, sources.ErrUnavailable) {
		t.Errorf("replaced: %v", err)
	}
	fetchMain(t, r)
}

// A lock that is held elsewhere is waited for, no longer than the context.
func TestLockedMirror(t *testing.T) {
	p := localPlace(t)
	id := p.repo.Write("main", map[string]string{"a": "1"})
	r, other := mustOpen(t, p.options), mustOpen(t, p.options)
	unlock, err := other.mirror.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := r.Fetch(ctx, mainRef, id); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, sources.ErrUnavailable) {
		t.Error(err)
	}
	unlock()
	if err := r.Fetch(t.Context(), mainRef, id); err != nil {
		t.Error(err)
	}
}
