package bolt_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/bolt"
)

var damageFiles = flag.Int("damage.files", 320, "how many files TestDamagedFile damages, and eight times what TestDamageWhileOpen does")

// content lists a store as text, so that two can be compared.
func content(t *testing.T, s store.Store) string {
	t.Helper()
	records, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	var b strings.Builder
	for _, r := range records {
		fmt.Fprintf(&b, "%s@%d=%q\n", r.Key, r.Version, r.Value)
	}
	return b.String()
}

// specimen is a store of some hundred pages: with its bytes and content at the
// end, its content one commit earlier, and its bytes at half time.
type specimen struct {
	end, half     []byte
	after, before string
}

func grow(t *testing.T) specimen {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var sp specimen
	r := rand.New(rand.NewPCG(1, 2))
	const commits = 40
	for i := range commits {
		if i == commits/2 {
			sp.half = read(t, path)
		}
		if i == commits-1 {
			sp.before = content(t, s)
		}
		written := map[string]bool{}
		var ops []store.Op
		for range 20 {
			op := store.Op{Key: fmt.Sprintf("inventory/app-%03d/object", r.IntN(300)), Value: bytes.Repeat([]byte{byte(i)}, r.IntN(600))}
			if r.IntN(5) == 0 {
				op.Value = nil
			}
			if !written[op.Key] {
				ops = append(ops, op)
			}
			written[op.Key] = true
		}
		ops = append(ops, store.Op{Key: "big", Value: bytes.Repeat([]byte{byte(i)}, 20_000)})
		if _, err := s.Commit(t.Context(), 1, nil, ops); err != nil {
			t.Fatal(err)
		}
	}
	sp.after = content(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	sp.end = read(t, path)
	return sp
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// damages are the ways a file goes bad. Each changes b in place or returns another.
var damages = map[string]func(r *rand.Rand, b []byte, sp specimen) []byte{
	"zeroed page": func(r *rand.Rand, b []byte, _ specimen) []byte {
		clear(page(b, r.IntN(len(b)/pageSize)))
		return b
	},
	"random page": func(r *rand.Rand, b []byte, _ specimen) []byte {
		p := page(b, r.IntN(len(b)/pageSize))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return b
	},
	"cut short": func(r *rand.Rand, b []byte, _ specimen) []byte { return b[:r.IntN(len(b))] },
	"flipped bytes": func(r *rand.Rand, b []byte, _ specimen) []byte {
		for range 16 {
			b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
		}
		return b
	},
	"one flipped bit": func(r *rand.Rand, b []byte, _ specimen) []byte {
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		return b
	},
	"swapped pages": func(r *rand.Rand, b []byte, _ specimen) []byte {
		x, y := page(b, r.IntN(len(b)/pageSize)), page(b, r.IntN(len(b)/pageSize))
		saved := bytes.Clone(x)
		copy(x, y)
		copy(y, saved)
		return b
	},
	"swapped pages that say they are each other": func(r *rand.Rand, b []byte, _ specimen) []byte {
		x, y := page(b, 2+r.IntN(len(b)/pageSize-2)), page(b, 2+r.IntN(len(b)/pageSize-2))
		saved := bytes.Clone(x)
		copy(x[8:], y[8:]) // but for the page number
		copy(y[8:], saved[8:])
		return b
	},
	"stale page": func(r *rand.Rand, b []byte, sp specimen) []byte {
		i := 2 + r.IntN(len(sp.half)/pageSize-2)
		copy(page(b, i), page(sp.half, i))
		return b
	},
}

const pageSize = 4096

func page(b []byte, i int) []byte { return b[i*pageSize : (i+1)*pageSize] }

// Row E-85: whatever happened to the file, the store opens with what was last
// written (or without exactly the last commit, see Check), or says that it is
// damaged. It never panics and never shows anything else.
func TestDamagedFile(t *testing.T) {
	sp := grow(t)
	each := *damageFiles / len(damages)
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			found := 0
			for seed := range uint64(each) {
				r := rand.New(rand.NewPCG(seed, 85))
				b := damage(r, bytes.Clone(sp.end), sp)
				if openDamaged(t, b, sp, seed) {
					found++
				}
			}
			if found == 0 {
				t.Errorf("no damage was noticed in %d files", each)
			}
			t.Logf("noticed %d of %d; the others hit unused bytes", found, each)
		})
	}
}

// openDamaged reports whether the damage was noticed.
func openDamaged(t *testing.T, b []byte, sp specimen, seed uint64) bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path) {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if !bytes.Equal(b, read(t, path)) {
			t.Fatalf("seed %d: opening a damaged file changed it", seed)
		}
		return true
	}
	defer s.Close()
	if got := content(t, s); got != sp.after && got != sp.before {
		t.Fatalf("seed %d: a damaged store opened with other content", seed)
	}
	// What is open can be written to, and is whole afterwards.
	if _, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: "after", Value: []byte("damage")}}); err != nil {
		t.Fatalf("seed %d: commit: %v", seed, err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("seed %d: close: %v", seed, err)
	}
	if _, err := bolt.Check(path, 0); err != nil {
		t.Fatalf("seed %d: after a commit: %v", seed, err)
	}
	return false
}

// Row E-85: the file goes bad under an open store. Calls fail or answer what was
// written; nothing panics or waits for ever, not even Close.
func TestDamageWhileOpen(t *testing.T) {
	sp := grow(t)
	want := map[string]bool{}
	for line := range strings.Lines(sp.after) {
		want[line] = true
	}
	for seed := range uint64(*damageFiles / 8) {
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, sp.end, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ruin(t, path, seed)
		if records, err := s.List(t.Context(), ""); err == nil {
			for _, r := range records {
				if !want[fmt.Sprintf("%s@%d=%q\n", r.Key, r.Version, r.Value)] {
					t.Fatalf("seed %d: list shows %s at %d, which was never written", seed, r.Key, r.Version)
				}
			}
		} else if !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("seed %d: list: %v", seed, err)
		}
		for i := range 30 {
			key := fmt.Sprintf("inventory/app-%03d/object", 10*i)
			_, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: key, Value: []byte("new")}})
			if err != nil && !errors.Is(err, store.ErrCorrupt) {
				t.Fatalf("seed %d: commit: %v", seed, err)
			}
		}
		if err := s.Close(); err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Fatalf("seed %d: close: %v", seed, err)
		}
		// The lock is gone: Check gets to read, whatever it finds.
		if _, err := bolt.Check(path, 0); errors.Is(err, bolt.ErrLocked) {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

// ruin zeroes pages of a file in place, or cuts it short.
func ruin(t *testing.T, path string, seed uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, _ := f.Stat()
	r := rand.New(rand.NewPCG(seed, 86))
	if seed%3 == 0 {
		err = f.Truncate(r.Int64N(info.Size()))
	} else {
		for range 1 + r.IntN(20) {
			// The meta pages stay: bbolt takes locks before it looks at them.
			_, werr := f.WriteAt(make([]byte, pageSize), (2+r.Int64N(info.Size()/pageSize-2))*pageSize)
			err = errors.Join(err, werr)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A record with a wrong checksum is named, is not used, and is not overwritten.
func TestDamagedRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	value := []byte("the value that goes bad")
	if _, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: "a/good", Value: []byte("x")}, {Key: "a/bad", Value: value}}); err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(read(t, path), value)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("T"), int64(at)); err != nil {
		t.Fatal(err)
	}
	named := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "a/bad") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = s.Get(t.Context(), "a/bad")
	named("get", err)
	_, err = s.List(t.Context(), "a/")
	named("list", err)
	_, err = s.Commit(t.Context(), 1, []store.Compare{{Key: "a/bad", Version: 1}}, nil)
	named("compare", err)
	_, err = s.Commit(t.Context(), 1, nil, []store.Op{{Key: "a/bad", Value: value}})
	named("overwrite", err)
	if r, err := s.Get(t.Context(), "a/good"); err != nil || string(r.Value) != "x" {
		t.Errorf("the record beside it: %q, %v", r.Value, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := bolt.Check(path, 0)
	named("check", err)
	if report.Records != 1 || len(report.Damaged) != 1 || report.Damaged[0] != "a/bad" {
		t.Errorf("check: %+v", report)
	}
	_, err = bolt.Open(path, bolt.Options{})
	named("open", err)
}
