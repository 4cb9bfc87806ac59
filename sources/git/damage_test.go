package git

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

var damageSeeds = flag.Int("damage.seeds", 300, "how many damaged mirrors TestDamagedMirror reads and heals")

// Row A-9: whatever happens to the files of a mirror between two polls or while
// the daemon is stopped, content and ancestry are right or an error, and the
// next fetch heals the mirror.
func TestDamagedMirror(t *testing.T) {
	t.Parallel()
	w := newWorn(t)
	seeds := make(chan uint64)
	var healed, noticed atomic.Int64
	var workers sync.WaitGroup
	for range 8 { // they wait for the disk most of the time
		workers.Go(func() {
			for seed := range seeds {
				what, err := w.run(t, seed, &noticed, &healed)
				if err != nil {
					t.Errorf("seed %d: %s: %v", seed, what, err)
				}
			}
		})
	}
	for seed := range *damageSeeds {
		seeds <- uint64(seed)
	}
	close(seeds)
	workers.Wait()
	t.Logf("%d mirrors were damaged, %d were made anew, a read failed in %d", *damageSeeds, healed.Load(), noticed.Load())
	if most := int64(*damageSeeds); healed.Load() < most/3 || noticed.Load() < most/10 {
		t.Error("hardly any damage was noticed")
	}
}

// worn is a repository and mirrors of it that can be damaged.
type worn struct {
	place
	commits []string            // oldest first; the last is the tip
	content []map[string]string // of each
	mirrors []string            // directories for Options.Dir
	dir     string              // for copies
	child   []string            // a process that fetches
}

const kept = 1 // index of the commit that is held in the mirrors

func newWorn(t *testing.T) *worn {
	w := &worn{place: localPlace(t), dir: t.TempDir(), child: buildFetcher(t)}
	files := map[string]string{}
	for i := range 8 {
		files[fmt.Sprintf("d%d/f%d.yaml", i%3, i)] = strings.Repeat(fmt.Sprint("line ", i, "\n"), 20)
	}
	var mirrors []*Repository // one that is a commit behind, one that is not, one with loose objects
	for range 3 {
		w.options.Dir = t.TempDir()
		mirrors = append(mirrors, mustOpen(t, w.options))
		w.mirrors = append(w.mirrors, w.options.Dir)
	}
	for i := range 5 {
		if i > 0 {
			files["d1/new.yaml"] = fmt.Sprint("new ", i)
			files[fmt.Sprintf("d2/f%d.yaml", 7+i)] = "added"
		}
		w.commits = append(w.commits, w.repo.Write("main", files))
		w.content = append(w.content, maps.Clone(files))
		for n, r := range mirrors {
			if i < 4 || n > 0 {
				fetchMain(t, r)
			}
		}
	}
	for _, r := range mirrors {
		if err := r.Keep(t.Context(), "web/accepted", w.commits[kept]); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	w.repo.Git("repack", "-q", "-a", "-d")
	explode(t, mirrors[2].MirrorDir())
	return w
}

// explode turns the largest pack of a mirror into loose objects, as git does it.
func explode(t *testing.T, dir string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "objects/pack/pack-*.pack"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	largest, most := "", int64(0)
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Size() > most {
			largest, most = path, info.Size()
		}
	}
	data, err := os.ReadFile(largest)
	for _, path := range []string{largest, strings.TrimSuffix(largest, "pack") + "idx"} {
		err = errors.Join(err, os.Remove(path))
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("git", "--git-dir="+dir, "unpack-objects", "-q")
	cmd.Stdin = bytes.NewReader(data)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// run damages a copy of a mirror by a seed and reads it until it is sound again.
func (w *worn) run(t *testing.T, seed uint64, noticed, healed *atomic.Int64) (what string, err error) {
	rng := rand.New(rand.NewPCG(9, seed))
	o := w.options
	if o.Dir, err = os.MkdirTemp(w.dir, ""); err != nil {
		return "", err
	}
	defer os.RemoveAll(o.Dir)
	o.CompactPacks = []int{3, 50}[rng.IntN(2)]
	if seed%10 == 0 { // it costs more to start one than all the rest
		o.Child = w.child
	}
	if err := os.CopyFS(o.Dir, os.DirFS(w.mirrors[rng.IntN(len(w.mirrors))])); err != nil {
		return "", err
	}
	r, err := Open(o)
	if err != nil {
		return "", err
	}
	running := rng.IntN(2) == 0
	if running {
		_, err = readAll(t, r, w.commits[3])
	} else {
		err = r.Close()
	}
	if err != nil {
		return "", err
	}
	if what, err = damage(r.MirrorDir(), rng); err != nil {
		return what, err
	}
	if !running {
		if r, err = Open(o); err != nil {
			return what, err
		}
	}
	defer r.Close()
	failed := int64(0)
	for _, i := range []int{len(w.commits) - 1, kept} {
		for tries := 0; ; tries++ {
			err := w.round(t, r, i)
			if err == nil {
				break
			}
			failed = 1
			damaged := errors.Is(err, sources.ErrDamaged) || errors.Is(err, sources.ErrUnavailable)
			if !damaged || tries == 2 { // one read to notice, one fetch to heal
				return what, fmt.Errorf("it does not heal: %w", err)
			}
		}
	}
	noticed.Add(failed)
	healed.Add(int64(r.Stats().Reclones))
	if seed%20 == 0 && r.Stats().Reclones > 0 {
		if out := gitIn(t, r.MirrorDir(), "fsck", "--full", "--strict"); strings.Contains(out, "error") || strings.Contains(out, "missing") {
			return what, fmt.Errorf("git finds: %s", out)
		}
	}
	return what, nil
}

// round is what a poll and a round of an application do with a commit. What it
// finds without an error has to be right.
func (w *worn) round(t *testing.T, r *Repository, i int) error {
	id := w.commits[i]
	if err := r.Fetch(t.Context(), mainRef, id); err != nil {
		return err
	}
	for _, q := range []struct {
		old, new string
		want     bool
	}{{w.commits[0], id, true}, {id, w.commits[0], false}} {
		got, err := r.IsAncestor(t.Context(), q.old, q.new)
		if err != nil {
			return err
		}
		if got != q.want {
			return fmt.Errorf("%s is an ancestor of %s: %v", q.old, q.new, got)
		}
	}
	got, err := readAll(t, r, id)
	for path, data := range got {
		if data != w.content[i][path] && (err == nil || data != "") {
			return fmt.Errorf("%s reads %q", path, data)
		}
	}
	if err == nil && len(got) != len(w.content[i]) {
		return fmt.Errorf("%d files of %d", len(got), len(w.content[i]))
	}
	return err
}

// damage does something to one file of a directory, in place, and says what.
func damage(dir string, rng *rand.Rand) (what string, err error) {
	var paths []string
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 0 {
			paths = append(paths, path)
		}
		return err
	})
	packs := slices.DeleteFunc(slices.Clone(paths), func(path string) bool { return filepath.Base(filepath.Dir(path)) != "pack" })
	if rng.IntN(4) > 0 {
		paths = packs // they are few, and matter most
	}
	path := paths[rng.IntN(len(paths))]
	data, rerr := os.ReadFile(path)
	if err := errors.Join(err, rerr, os.Chmod(path, 0o600)); err != nil {
		return "", err
	}
	kind := rng.IntN(10)
	at := rng.IntN(len(data))
	switch kind {
	case 0:
		data = data[:at]
	case 1:
		data = nil
	case 2, 3:
		page := []int{64, 4096}[kind-2]
		at -= at % page
		clear(data[at:min(at+page, len(data))])
	case 4:
		data = append(data, data[:at]...)
	case 5: // where an object begins is what it is and how large
		if strings.HasSuffix(path, ".pack") {
			if at, err = entryAt(path, rng); err != nil {
				return "", err
			}
		}
		data[at] ^= byte(1 + rng.IntN(255))
	case 6:
		data[at] ^= 1 << rng.IntN(8)
	case 7:
		for range 8 {
			data[rng.IntN(len(data))] ^= byte(1 + rng.IntN(255))
		}
	}
	what = fmt.Sprintf("damage %d at byte %d of %s", kind, at, filepath.Base(path))
	switch kind {
	case 8:
		return what, os.Remove(path)
	case 9:
		return what, os.RemoveAll(filepath.Dir(path))
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return what, err
	}
	_, err = f.Write(data)
	return what, errors.Join(err, f.Close())
}

// entryAt returns where an object begins in a pack.
func entryAt(path string, rng *rand.Rand) (int, error) {
	index, err := readIndex(strings.TrimSuffix(path, "pack") + "idx")
	if err != nil {
		return 0, err
	}
	entries, err := index.Entries()
	if err != nil {
		return 0, err
	}
	n, err := index.Count()
	if err != nil {
		return 0, err
	}
	at := 0
	for range 1 + rng.IntN(int(n)) {
		e, err := entries.Next()
		if err != nil {
			return 0, err
		}
		at = int(e.Offset)
	}
	return at, nil
}

// What last good needs outlives the damage of the mirror, although the server
// does not have it any more.
func TestKeptRevisionIsSalvaged(t *testing.T) {
	p := localPlace(t)
	p.repo.Write("main", map[string]string{"a": "kept"})
	r, kept := fetched(t, p)
	if err := r.Keep(t.Context(), "web/accepted", kept); err != nil {
		t.Fatal(err)
	}
	p.repo.ForcePush("main", map[string]gittest.File{"b": {Data: "new"}})
	id := fetchMain(t, r)
	p.repo.Git("reflog", "expire", "--expire=now", "--all")
	p.repo.Git("prune", "--expire=now")
	packs, err := filepath.Glob(filepath.Join(r.MirrorDir(), "objects/pack/pack-*.pack"))
	if err != nil || len(packs) != 2 {
		t.Fatal(packs, err)
	}
	for _, path := range packs { // break the blob "new", wherever it is
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if tree, err := r.Open(t.Context(), id); err == nil {
			if _, err := tree.ReadFile("b", 10); errors.Is(err, sources.ErrDamaged) {
				break
			}
		}
		broken := append([]byte{}, data...)
		for i := 12; i < len(broken)-20; i++ {
			broken[i] ^= 0x5a
		}
		os.Chmod(path, 0o600)
		os.WriteFile(path, broken, 0o600)
		r.mirror.store.reload()
		if _, err := readAll(t, r, kept); err != nil { // that was the wrong pack
			os.WriteFile(path, data, 0o600)
			r.mirror.store.reload()
		}
	}
	if _, err := readAll(t, r, id); !errors.Is(err, sources.ErrDamaged) {
		t.Fatalf("the damage is not noticed: %v", err)
	}
	if err := r.Fetch(t.Context(), mainRef, id); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t, r, kept); err != nil || got["a"] != "kept" {
		t.Errorf("the kept revision is %v, %v", got, err)
	}
	if got, err := readAll(t, r, id); err != nil || got["b"] != "new" || r.Stats().Reclones != 1 {
		t.Errorf("the new revision is %v, %v", got, err)
	}
}

// Row A-9: an index that leads to another, sound object is the damage that only
// the hash of the content can show.
func TestIndexThatPointsElsewhere(t *testing.T) {
	p := localPlace(t)
	p.repo.Write("main", map[string]string{"a": "one", "b": "two"})
	r, id := fetched(t, p)
	r.Close()
	paths, err := filepath.Glob(filepath.Join(r.MirrorDir(), "objects/pack/pack-*.idx"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	const fanout = 8
	n := int(binary.BigEndian.Uint32(data[fanout+255*4:]))
	hashes, offsets := data[fanout+1024:], data[fanout+1024+n*24:]
	var blobs []int
	for i := range n {
		h := hex.EncodeToString(hashes[i*20 : i*20+20])
		if h == p.repo.Blob("one") || h == p.repo.Blob("two") {
			blobs = append(blobs, i)
		}
	}
	x, y := offsets[blobs[0]*4:][:4], offsets[blobs[1]*4:][:4]
	for i := range x {
		x[i], y[i] = y[i], x[i]
	}
	sum := sha1.Sum(data[:len(data)-20])
	copy(data[len(data)-20:], sum[:])
	if err := os.Chmod(paths[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	r = mustOpen(t, p.options)
	if got, err := readAll(t, r, id); !errors.Is(err, sources.ErrDamaged) {
		t.Errorf("reads %v, %v, want ErrDamaged", got, err)
	}
	if err := r.Fetch(t.Context(), mainRef, id); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t, r, id); err != nil || got["a"] != "one" || got["b"] != "two" {
		t.Errorf("after the fetch %v, %v", got, err)
	}
}
