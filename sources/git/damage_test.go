package git

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

// The beginning of row A-9: whatever byte of the mirror flips, content is right
// or refused, and the next fetch heals it.
func TestDamagedMirror(t *testing.T) {
	t.Parallel()
	p := localPlace(t)
	content := map[string]string{}
	for i := range 30 {
		content[fmt.Sprintf("d%d/f%d.yaml", i%3, i)] = strings.Repeat(fmt.Sprint("line ", i, "\n"), 20)
	}
	p.repo.Write("main", content)
	rng := rand.New(rand.NewPCG(9, 9))
	healed := 0
	for seed := range 150 {
		r, id := fetched(t, p)
		packs, err := filepath.Glob(filepath.Join(r.MirrorDir(), "objects/pack/pack-*"))
		if err != nil || len(packs) < 2 {
			t.Fatal(packs, err)
		}
		r.Close()
		damage(t, packs[rng.IntN(len(packs))], rng)
		r = mustOpen(t, p.options)
		got, err := readAll(t, r, id)
		for path, data := range got {
			if err == nil && data != content[path] {
				t.Fatalf("seed %d: %s reads %q without an error", seed, path, data)
			}
		}
		if err == nil && len(got) != len(content) {
			t.Fatalf("seed %d: %d files, no error", seed, len(got))
		}
		if err != nil && !errors.Is(err, sources.ErrDamaged) && !errors.Is(err, sources.ErrUnavailable) {
			t.Errorf("seed %d: %v", seed, err)
		}
		if err := r.Fetch(t.Context(), mainRef, id); err != nil {
			t.Fatalf("seed %d: Fetch after the damage: %v", seed, err)
		}
		if got, err := readAll(t, r, id); err != nil || len(got) != len(content) {
			t.Fatalf("seed %d: after the fetch %d files, %v", seed, len(got), err)
		}
		healed += r.Stats().Reclones
		r.Close()
	}
	if healed == 0 {
		t.Error("no damage was ever noticed")
	}
}

func damage(t testing.TB, path string, rng *rand.Rand) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	switch rng.IntN(4) {
	case 0:
		data = data[:rng.IntN(len(data))]
	case 1:
		at := rng.IntN(len(data))
		clear(data[at:min(at+64, len(data))])
	default:
		for range 8 {
			data[rng.IntN(len(data))] ^= byte(1 + rng.IntN(255))
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
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
