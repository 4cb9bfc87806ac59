package git

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// deltaWindow is how many objects a delta is looked for in, git's own default.
const deltaWindow = 10

// compact merges the smallest packs into one when there are at least limit. A
// pack that is larger than twice all the smaller ones together is left alone, so
// that each object is rewritten a logarithmic number of times and the first,
// big pack of a clone hardly ever. It reports whether it did anything. An error
// that wraps ErrDamaged says that a pack cannot be read; all of them are still
// there.
func (m *mirror) compact(ctx context.Context, limit int) (bool, error) {
	packs, err := m.packs()
	if err != nil || len(packs) < limit {
		return false, asDamage(err)
	}
	n, sum := 0, int64(0)
	for n < len(packs) && (n < 2 || packs[n].size <= 2*sum) {
		sum += packs[n].size
		n++
	}
	old := packs[:n]
	hashes, err := m.objectsOf(old)
	if err == nil {
		err = m.rewrite(ctx, m.store, hashes)
	}
	if err != nil {
		return false, fmt.Errorf("merge packs: %w", asDamage(err))
	}
	// The new pack is durable; what it replaces may go. Index first: a pack
	// without one is not looked at.
	for _, suffix := range []string{".idx", ".pack"} {
		for _, p := range old {
			if err := os.Remove(filepath.Join(m.dir, "objects", "pack", p.name+suffix)); err != nil {
				return false, err
			}
		}
	}
	return true, m.store.reload()
}

// objectsOf lists what packs hold, each object once.
func (m *mirror) objectsOf(packs []pack) ([]plumbing.Hash, error) {
	seen := map[plumbing.Hash]bool{}
	var out []plumbing.Hash
	for _, p := range packs {
		err := guard(func() error {
			index, err := readIndex(filepath.Join(m.dir, "objects", "pack", p.name+".idx"))
			if err != nil {
				return err
			}
			entries, err := index.Entries()
			if err != nil {
				return err
			}
			for {
				e, err := entries.Next()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				if !seen[e.Hash] {
					seen[e.Hash] = true
					out = append(out, e.Hash)
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// encode writes a pack of objects of this store.
func (s *store) encode(w io.Writer, hashes []plumbing.Hash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return guard(func() error { return encodePack(w, s.open(), hashes) })
}

func encodePack(w io.Writer, from storer.EncodedObjectStorer, hashes []plumbing.Hash) error {
	if len(hashes) == 0 {
		return nil
	}
	_, err := packfile.NewEncoder(w, from, false).Encode(hashes, deltaWindow)
	return err
}
