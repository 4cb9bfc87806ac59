package git

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"

	"github.com/gitopsd/gitopsd/sources"
)

// Limits bound what a repository may cost. A field that is not positive takes
// its default. An error about one names it as the configuration does.
type Limits struct {
	// PackBytes bounds what one fetch may transfer. Default 2 GiB.
	PackBytes int64
	// ObjectBytes bounds one file, directory or commit, unpacked. Default 100 MiB,
	// at which hosting services refuse a file too.
	ObjectBytes int64
	// UnpackedBytes bounds all objects of one fetch together. Default 16 GiB.
	UnpackedBytes int64
	// MemoryBytes bounds the data of the process that fetches, where fetches have
	// one (Options.Child). Default 512 MiB.
	MemoryBytes int64
}

const (
	mib = 1 << 20
	gib = 1 << 30
)

func (l *Limits) setDefaults() {
	for _, f := range []struct {
		value    *int64
		fallback int64
	}{{&l.PackBytes, 2 * gib}, {&l.ObjectBytes, 100 * mib}, {&l.UnpackedBytes, 16 * gib}, {&l.MemoryBytes, 512 * mib}} {
		if *f.value <= 0 {
			*f.value = f.fallback
		}
	}
}

// object says no to an object that is too large.
func (l Limits) object(size int64, what string) error {
	if size <= l.ObjectBytes {
		return nil
	}
	return fmt.Errorf("%w: %s unpacks to %d bytes; at most %d are allowed (git.limits.objectMiB)", sources.ErrRefused, what, size, l.ObjectBytes)
}

// index indexes a pack of somebody else's, whose objects are built only when all
// of them are within the limits.
func (l Limits) index(ctx context.Context, f *os.File) (*idxfile.MemoryIndex, plumbing.Hash, error) {
	if err := l.checkPack(ctx, f); err != nil {
		return nil, plumbing.ZeroHash, err
	}
	entries, sum, err := indexPack(ctx, f)
	if err != nil && !errors.Is(err, sources.ErrUnavailable) {
		err = brokenPack(err)
	}
	return entries, sum, err
}

func brokenPack(err error) error {
	return fmt.Errorf("%w: the server sent a broken pack: %w", sources.ErrUnavailable, err)
}

// checkPack reads through a pack without keeping anything of it and refuses one
// that would unpack to more than the limits (row A-7). Nothing after it has to
// fear a size: that which an object declares is the size it has, or the pack is
// refused, and deltas declare what they build.
func (l Limits) checkPack(ctx context.Context, f *os.File) error {
	if err := checkCount(f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	err := guard(func() error {
		s := packfile.NewScanner(&aliveFile{File: f, alive: ctx.Err})
		if err := l.scan(s); err != nil {
			return err
		}
		return checkEnd(s, f)
	})
	switch {
	case err == nil || errors.Is(err, sources.ErrRefused):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", sources.ErrUnavailable, ctx.Err())
	}
	return brokenPack(err)
}

func (l Limits) scan(s *packfile.Scanner) error {
	_, count, err := s.Header()
	if err != nil {
		return err
	}
	total := int64(0)
	for range count {
		h, err := s.NextObjectHeader()
		if err != nil {
			return err
		}
		what := fmt.Sprintf("the object at byte %d of the pack", h.Offset)
		if err := l.object(h.Length, what); err != nil {
			return err
		}
		head := &prefix{}
		n, _, err := s.NextObject(head)
		if err != nil {
			return err
		}
		if n != h.Length {
			return fmt.Errorf("%s has %d bytes and claims %d", what, n, h.Length)
		}
		if h.Type == plumbing.OFSDeltaObject || h.Type == plumbing.REFDeltaObject {
			built, err := head.target()
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if err := l.object(built, what); err != nil {
				return err
			}
			n = max(n, built)
		}
		if total += n; total > l.UnpackedBytes {
			return fmt.Errorf("%w: the pack unpacks to more than %d bytes (git.limits.unpackedMiB)", sources.ErrRefused, l.UnpackedBytes)
		}
	}
	return nil
}

// checkEnd refuses a pack with anything but its checksum after the last object:
// git would not read it.
func checkEnd(s *packfile.Scanner, f *os.File) error {
	if _, err := s.Checksum(); err != nil {
		return err
	}
	end, err := s.SeekFromStart(0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && end != info.Size() {
		err = fmt.Errorf("it has %d bytes after its end", info.Size()-end)
	}
	return err
}

// prefix keeps the first bytes of what is written to it: the two sizes at the
// head of a delta.
type prefix struct {
	data [2 * binary.MaxVarintLen64]byte
	n    int
}

func (p *prefix) Write(b []byte) (int, error) {
	p.n += copy(p.data[p.n:], b)
	return len(b), nil
}

// target returns the size of what a delta builds.
func (p *prefix) target() (int64, error) {
	_, n := binary.Uvarint(p.data[:p.n])
	if n <= 0 {
		return 0, errors.New("malformed delta")
	}
	size, m := binary.Uvarint(p.data[n:p.n])
	if m <= 0 || size > 1<<62 {
		return 0, errors.New("malformed delta")
	}
	return int64(size), nil
}
