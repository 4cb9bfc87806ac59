package dir

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/sources"
)

// coarse is the coarsest step in which a filesystem counts time (two seconds, on
// FAT). What changed less than that before it was read may have changed again
// with the same times, and is read again at the next look.
const coarse = 2 * time.Second

// reader makes the nodes of a snapshot from a scan, taking over from the last
// snapshot what has not changed.
type reader struct {
	ctx     context.Context
	root    *os.Root
	limits  Limits
	largest int64 // of the files that are held
	since   int64 // changes after this are too young to be trusted
	recheck bool
	reads   int
}

func (r *Repository) read(ctx context.Context, root *os.Root, now *entry) (*snapshot, error) {
	var old *node
	if r.last != nil {
		old = r.last.root
	}
	rd := &reader{ctx: ctx, root: root, limits: r.o.Limits, since: r.o.Now().Add(-coarse).UnixNano()}
	rd.largest = now.largest(r.o.Limits.FileBytes, r.o.Limits.TotalBytes)
	n, err := rd.node(now, old, ".")
	r.reads += rd.reads
	if err != nil {
		return nil, err
	}
	return &snapshot{scan: now, root: n, recheck: rd.recheck}, nil
}

func (r *reader) node(e *entry, old *node, at string) (*node, error) {
	if e.stat.kind() == unix.S_IFDIR {
		return r.dir(e, old, at)
	}
	size := int64(e.stat.size)
	isFile := e.stat.kind() == unix.S_IFREG
	young := e.stat.ctime > r.since && !(isFile && size > r.limits.FileBytes) // of which nobody sees the content
	r.recheck = r.recheck || young
	if old != nil && old.stat == e.stat && !old.young {
		if old.content == nil || size <= r.largest {
			return old, nil
		}
		n := *old
		n.content = nil
		return &n, nil
	}
	n := &node{name: e.name, stat: e.stat, young: young}
	if isFile && e.stat.mode&0o100 != 0 { // the owner's, as Git has it
		n.mode = sources.ModeExec
	}
	if e.stat.kind() == unix.S_IFLNK {
		target, err := r.root.Readlink(at)
		if err != nil {
			return nil, unavailable(at, err)
		}
		n.mode, n.hash = sources.ModeSymlink, hash("link", []byte(target))
		return n, nil
	}
	if size > r.limits.FileBytes {
		n.hash = hash("large", fmt.Append(nil, e.stat))
		return n, nil
	}
	r.reads++
	content, err := readAll(r.ctx, r.root, e.stat, at)
	if err != nil {
		return nil, err
	}
	n.hash = hash("file", content)
	if size <= r.largest {
		n.content = content
	}
	return n, nil
}

// readAll reads a file that must be, before and after, what was seen of it.
func readAll(ctx context.Context, root *os.Root, seen stat, at string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(at, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe put in its place would block
	if err != nil {
		return nil, unavailable(at, err)
	}
	defer f.Close()
	if err := unchanged(f, seen, at); err != nil {
		return nil, err
	}
	content := make([]byte, seen.size)
	if _, err := io.ReadFull(f, content); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, changedError(at)
	} else if err != nil {
		return nil, unavailable(at, err)
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 {
		return nil, changedError(at)
	}
	return content, unchanged(f, seen, at)
}

func unchanged(f *os.File, want stat, at string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return unavailable(at, err)
	}
	if statOf(&st) != want {
		return changedError(at)
	}
	return nil
}

func (r *reader) dir(e *entry, old *node, at string) (*node, error) {
	n := &node{name: e.name, mode: sources.ModeDir}
	h := sha256.New()
	h.Write([]byte("tree\n"))
	for _, x := range e.entries {
		if x.refused != nil {
			// Its name and type count, what is in it is never read.
			n.refused = append(n.refused, refusal{x.name, x.refused})
			writeEntry(h, byte('!'), x.name, sources.Hash(fmt.Sprint(x.stat.kind())))
			continue
		}
		child, err := r.node(x, old.child(x.name), path.Join(at, x.name))
		if err != nil {
			return nil, err
		}
		n.children = append(n.children, child)
		writeEntry(h, byte('0'+child.mode), child.name, child.hash)
	}
	n.hash = sources.Hash(hex.EncodeToString(h.Sum(nil)))
	if old != nil && old.mode == sources.ModeDir && old.hash == n.hash && slices.Equal(old.children, n.children) && len(n.refused) == 0 {
		return old, nil // snapshots share what is equal
	}
	return n, nil
}

// writeEntry adds one entry to the hash of its directory. The lengths keep one
// name and hash from being read as another.
func writeEntry(w io.Writer, kind byte, name string, h sources.Hash) {
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(name)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(h)))
	_, _ = w.Write(append(append(head, name...), h...)) // a hash does not fail
}

func hash(kind string, content []byte) sources.Hash {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d\n", kind, len(content))
	h.Write(content)
	return sources.Hash(hex.EncodeToString(h.Sum(nil)))
}
