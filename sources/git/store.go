package git

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"

	"github.com/gitopsd/gitopsd/sources"
)

// errMissing: the object is not in the store.
var errMissing = errors.New("object is missing")

const deltaCache = 16 << 20 // bytes of delta bases kept per repository

// store reads the objects of a bare repository on disk. go-git's storage is not
// safe for concurrent use, does not verify what it reads, and can panic on
// damaged files; this is the one place that makes up for it.
type store struct {
	dir string

	mu      sync.Mutex
	objects *filesystem.Storage
	indexes []string // that there were before objects read them
}

func (s *store) open() *filesystem.Storage {
	if s.objects == nil {
		s.indexes = s.listIndexes()
		s.objects = filesystem.NewStorageWithOptions(osfs.New(s.dir, osfs.WithBoundOS()), cache.NewObjectLRU(deltaCache), filesystem.Options{
			KeepDescriptors: true, // until reload
		})
	}
	return s.objects
}

// listIndexes lists the indexes of packs by name. Names follow content.
func (s *store) listIndexes() []string {
	paths, _ := filepath.Glob(filepath.Join(s.dir, "objects", "pack", "pack-*.idx")) // the pattern is well-formed
	return paths
}

// reload forgets what it knows of the files.
func (s *store) reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloadLocked()
}

func (s *store) reloadLocked() error {
	if s.objects == nil {
		return nil
	}
	err := s.objects.Close()
	s.objects = nil
	return err
}

// maxReloads is how often a read is tried again: each time somebody else merged
// the packs between finding an object and reading it.
const maxReloads = 3

// outdated reports an error that comes from files which are not there any more.
func outdated(err error) bool {
	for _, e := range []error{
		plumbing.ErrObjectNotFound, fs.ErrNotExist, fs.ErrClosed, dotgit.ErrPackfileNotFound, dotgit.ErrIdxNotFound,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// with runs read on the storage. What is not found is looked for again after a
// reload when another process may have merged the packs.
func (s *store) with(hash plumbing.Hash, read func(*filesystem.Storage) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := guard(func() error { return read(s.open()) })
	for range maxReloads {
		if !outdated(err) || errors.Is(err, plumbing.ErrObjectNotFound) && !s.indexed(hash) && slices.Equal(s.indexes, s.listIndexes()) {
			break // what a fetch asks for is mostly not there: to read all indexes again would cost more than the fetch
		}
		s.reloadLocked()
		err = guard(func() error { return read(s.open()) })
	}
	var path *fs.PathError
	switch {
	case err == nil, errors.Is(err, sources.ErrRefused), errors.Is(err, sources.ErrDamaged):
		return err
	case errors.Is(err, plumbing.ErrObjectNotFound) && s.indexed(hash): // so go-git calls a pack that ends too early
		return fmt.Errorf("%w: object %s: its pack is cut", sources.ErrDamaged, hash)
	case errors.Is(err, plumbing.ErrObjectNotFound), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s", errMissing, hash)
	case errors.As(err, &path): // no memory, no descriptors, no permission: the bytes may be fine
		return fmt.Errorf("%w: mirror: %w", sources.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: object %s: %w", sources.ErrDamaged, hash, err)
}

// indexed reports whether an index, or a file of its own, has the object.
func (s *store) indexed(hash plumbing.Hash) bool {
	return guard(func() error { return s.open().HasEncodedObject(hash) }) == nil
}

// guard turns a panic into an error: damaged packs lead go-git out of bounds.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("unreadable: %v", p)
		}
	}()
	return f()
}

func (s *store) has(hash plumbing.Hash) bool {
	return s.with(hash, func(o *filesystem.Storage) error { return o.HasEncodedObject(hash) }) == nil
}

// size returns how large an object is, from its header.
func (s *store) size(hash plumbing.Hash) (size int64, err error) {
	err = s.with(hash, func(o *filesystem.Storage) error {
		size, err = o.EncodedObjectSize(hash)
		return err
	})
	return size, err
}

// read returns the content of an object of a kind, with its hash verified. One
// larger than limit bytes is refused by its header, before it is inflated.
func (s *store) read(kind plumbing.ObjectType, hash plumbing.Hash, limit int64) ([]byte, error) {
	data, is, err := s.readAny(hash, limit)
	if err == nil && is != kind {
		return nil, fmt.Errorf("%w: object %s is a %s and not a %s", sources.ErrRefused, hash, is, kind)
	}
	return data, err
}

func (s *store) readAny(hash plumbing.Hash, limit int64) (data []byte, kind plumbing.ObjectType, err error) {
	err = s.with(hash, func(o *filesystem.Storage) error {
		size, err := o.EncodedObjectSize(hash)
		if err != nil {
			return err
		}
		if size > limit {
			if err := s.checkEntry(hash); err != nil {
				return err
			}
			return &sources.TooLargeError{Size: size, Limit: limit}
		}
		object, err := o.EncodedObject(plumbing.AnyObject, hash)
		if err != nil {
			return err
		}
		r, err := object.Reader()
		if err != nil {
			return err
		}
		defer r.Close()
		kind = object.Type()
		data, err = io.ReadAll(io.LimitReader(r, size+1)) // a size that lies gives another hash
		return err
	})
	if err != nil {
		return nil, kind, err
	}
	if plumbing.ComputeHash(kind, data) != hash {
		return nil, kind, fmt.Errorf("%w: object %s: its content has another hash", sources.ErrDamaged, hash)
	}
	return data, kind, nil
}

// checkEntry compares the bytes that packs have for an object with the checksums
// in their indexes: a size that is too large to read what has it, and compute the
// hash, may be damage.
func (s *store) checkEntry(hash plumbing.Hash) error {
	for _, path := range s.listIndexes() {
		index, err := readIndex(path)
		if err != nil {
			return err
		}
		at, err := index.FindOffset(hash)
		if err != nil {
			continue // it is in another pack
		}
		want, err := index.FindCRC32(hash)
		if err != nil {
			return err
		}
		got, err := checksum(strings.TrimSuffix(path, "idx")+"pack", index, at)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%w: object %s: its bytes in %s have another checksum", sources.ErrDamaged, hash, filepath.Base(path))
		}
	}
	return nil
}

// checksum computes the CRC-32 of the entry at an offset of a pack, which ends
// where the next one begins, or the pack's own checksum.
func checksum(path string, index *idxfile.MemoryIndex, at int64) (uint32, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	end := info.Size() - sha1.Size
	entries, err := index.Entries()
	if err != nil {
		return 0, err
	}
	for {
		e, err := entries.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
		if next := int64(e.Offset); next > at {
			end = min(end, next)
		}
	}
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, io.NewSectionReader(f, at, end-at)); err != nil {
		return 0, err
	}
	return sum.Sum32(), nil
}

// readIndex reads the index of a pack.
func readIndex(path string) (*idxfile.MemoryIndex, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	index := idxfile.NewMemoryIndex()
	return index, idxfile.NewDecoder(f).Decode(index)
}
