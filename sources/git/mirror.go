package git

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/gitopsd/gitopsd/sources"
)

// Names of refs in a mirror. Tips are named by a digest of the server's name,
// which therefore never becomes a path (row A-4).
const (
	tipRefs  = "refs/gitopsd/tip/"
	keepRefs = "refs/gitopsd/keep/"
)

// mirror is a bare repository on disk, readable by git itself. Packs and refs
// are written to a temporary file, synced and renamed. Writers hold the lock,
// which also keeps other processes out; readers need none.
type mirror struct {
	dir   string
	store *store
}

func newMirror(dir string) *mirror { return &mirror{dir: dir, store: &store{dir: dir}} }

// create makes the directory unless it is there.
func (m *mirror) create() error {
	for _, d := range []string{"objects/pack", "refs"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o700); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		"HEAD":   "ref: refs/heads/none\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[gc]\n\tauto = 0\n",
	} {
		path := filepath.Join(m.dir, name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			if err := writeFile(path, content); err != nil {
				return err
			}
		}
	}
	return nil
}

// lockRetry is how often a lock that another process holds is asked for.
const lockRetry = 20 * time.Millisecond

// lock takes the mirror for writing and clears what a crash left behind.
func (m *mirror) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(m.dir+".lock", os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", m.dir, err)
		}
		timer := time.NewTimer(lockRetry)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			f.Close()
			return nil, fmt.Errorf("%w: the mirror is in use: %w", sources.ErrUnavailable, ctx.Err())
		}
	}
	if err := m.create(); err != nil { // somebody may have removed it since
		f.Close()
		return nil, err
	}
	left, _ := filepath.Glob(filepath.Join(m.dir, "objects/pack/tmp_*"))
	for _, path := range left {
		os.Remove(path)
	}
	return func() { f.Close() }, nil
}

// receive writes the pack that fill produces and makes it readable with the index
// that index gives. Nothing of it is visible before all of it is on disk. A fill
// that writes nothing, and a pack of no objects, leave nothing.
func (m *mirror) receive(ctx context.Context, index indexer, fill func(io.Writer) error) error {
	dir := filepath.Join(m.dir, "objects", "pack")
	f, err := os.CreateTemp(dir, "tmp_pack_")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := fill(f); err != nil {
		return err
	}
	if size, err := f.Seek(0, io.SeekEnd); err != nil || size == 0 {
		return err
	}
	entries, sum, err := index(ctx, f)
	if err != nil {
		return err
	}
	if n, err := entries.Count(); err != nil || n == 0 {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	idx, err := os.CreateTemp(dir, "tmp_idx_")
	if err != nil {
		return err
	}
	defer os.Remove(idx.Name())
	defer idx.Close()
	if _, err := idxfile.NewEncoder(idx).Encode(entries); err != nil {
		return err
	}
	if err := idx.Sync(); err != nil {
		return err
	}
	base := filepath.Join(dir, "pack-"+sum.String())
	if err := os.Rename(f.Name(), base+".pack"); err != nil {
		return err
	}
	if err := os.Rename(idx.Name(), base+".idx"); err != nil { // the index is what makes a pack known
		return err
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return m.store.reload()
}

// indexer reads a pack and returns its index and its checksum.
type indexer func(context.Context, *os.File) (*idxfile.MemoryIndex, plumbing.Hash, error)

// indexPack reads a pack through, checks its checksum and every delta, and
// returns its index.
func indexPack(ctx context.Context, f *os.File) (index *idxfile.MemoryIndex, sum plumbing.Hash, err error) {
	if _, err = f.Seek(0, io.SeekStart); err != nil {
		return nil, sum, err
	}
	err = guard(func() error {
		w := new(idxfile.Writer)
		parser, err := packfile.NewParser(packfile.NewScanner(&aliveFile{File: f, alive: ctx.Err}), w)
		if err != nil {
			return err
		}
		if sum, err = parser.Parse(); err != nil {
			return err
		}
		index, err = w.Index()
		return err
	})
	if ctx.Err() != nil {
		return nil, sum, fmt.Errorf("%w: %w", sources.ErrUnavailable, ctx.Err())
	}
	return index, sum, err
}

// rewrite adds a pack with these objects of another store, or of this one. Every
// object is known to be in it, whole, when it returns.
func (m *mirror) rewrite(ctx context.Context, from *store, hashes []plumbing.Hash) error {
	index := func(ctx context.Context, f *os.File) (*idxfile.MemoryIndex, plumbing.Hash, error) {
		entries, sum, err := indexPack(ctx, f)
		if err != nil {
			return nil, sum, err
		}
		for _, h := range hashes {
			// What is indexed is the hash of what was read.
			if there, err := entries.Contains(h); err != nil || !there {
				return nil, sum, fmt.Errorf("%w: object %s: its content has another hash", sources.ErrDamaged, h)
			}
		}
		return entries, sum, nil
	}
	return asDamage(m.receive(ctx, index, func(w io.Writer) error { return from.encode(w, hashes) }))
}

// asDamage gives an error of reading packs its class: a full disk or too many open
// files say nothing about the packs, what is missing or malformed does.
func asDamage(err error) error {
	var path *fs.PathError
	switch {
	case err == nil, errors.Is(err, sources.ErrDamaged), errors.Is(err, sources.ErrUnavailable):
		return err
	case errors.Is(err, fs.ErrNotExist), !errors.As(err, &path):
		return fmt.Errorf("%w: %w", sources.ErrDamaged, err)
	}
	return err
}

// No object takes fewer bytes in a pack: a header, and an empty zlib stream.
const minObject = 9

// checkCount compares the number of objects that a pack claims with its size,
// because the index is allocated by that number (row A-7).
func checkCount(f *os.File) error {
	var header [12]byte
	if _, err := f.ReadAt(header[:], 0); err != nil {
		return fmt.Errorf("%w: the server sent a broken pack: its header was cut", sources.ErrUnavailable)
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if count := int64(binary.BigEndian.Uint32(header[8:])); count > info.Size()/minObject {
		return fmt.Errorf("%w: the server sent a pack of %d bytes that claims %d objects", sources.ErrRefused, info.Size(), count)
	}
	return nil
}

// aliveFile ends reads when the call they belong to has ended.
type aliveFile struct {
	*os.File
	alive func() error
}

func (f *aliveFile) Read(p []byte) (int, error) {
	if err := f.alive(); err != nil {
		return 0, err
	}
	return f.File.Read(p)
}

// refs lists the refs below a prefix. One that cannot be read as a hash is
// skipped: it holds nothing.
func (m *mirror) refs(prefix string) (map[string]plumbing.Hash, error) {
	out := map[string]plumbing.Hash{}
	root := filepath.Join(m.dir, filepath.FromSlash(prefix))
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if h, err := parseRevision(strings.TrimSpace(string(data))); err == nil {
			name, _ := filepath.Rel(root, path)
			out[filepath.ToSlash(name)] = h
		}
		return nil
	})
	return out, err
}

// setRef points a ref at a commit, durably; the zero hash removes it.
func (m *mirror) setRef(name string, to plumbing.Hash) error {
	path := filepath.Join(m.dir, filepath.FromSlash(name))
	if to.IsZero() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := syncDir(filepath.Dir(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return writeFile(path, to.String()+"\n")
}

// writeFile replaces a small file so that a crash leaves the old or the new one.
func writeFile(path, content string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	return err
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// packs lists the packs, smallest first.
func (m *mirror) packs() ([]pack, error) {
	files, err := os.ReadDir(filepath.Join(m.dir, "objects", "pack"))
	if err != nil {
		return nil, err
	}
	var out []pack
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".idx"); ok && strings.HasPrefix(name, "pack-") {
			info, err := os.Stat(filepath.Join(m.dir, "objects", "pack", name+".pack"))
			if err != nil {
				return nil, err
			}
			out = append(out, pack{name: name, size: info.Size()})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].size < out[j].size })
	return out, nil
}

type pack struct {
	name string
	size int64
}
