package file

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// look is what one look at a path found. It is immutable once made.
type look struct {
	absent  bool
	typ     uint32 // S_IFMT part
	perm    uint32
	uid     uint32
	gid     uint32
	nlink   uint64
	ino     uint64
	dev     uint64
	size    int64
	changed time.Time // the later of mtime and ctime
	mtime   unix.Timespec
	ctime   unix.Timespec
	sum     [sha256.Size]byte // of a regular file's content
	target  string            // of a symbolic link
}

func newLook(st *unix.Stat_t) *look {
	l := &look{
		typ: st.Mode & unix.S_IFMT, perm: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid, nlink: uint64(st.Nlink),
		ino: st.Ino, dev: st.Dev, size: st.Size, mtime: st.Mtim, ctime: st.Ctim,
	}
	l.changed = time.Unix(st.Mtim.Unix())
	if c := time.Unix(st.Ctim.Unix()); c.After(l.changed) {
		l.changed = c
	}
	return l
}

// sameStat reports whether nothing that stat tells has changed.
func (l *look) sameStat(o *look) bool {
	return l.typ == o.typ && l.perm == o.perm && l.uid == o.uid && l.gid == o.gid && l.ino == o.ino && l.dev == o.dev &&
		l.size == o.size && l.mtime == o.mtime && l.ctime == o.ctime && l.nlink == o.nlink
}

// version changes with every change of the object. A directory's own times move
// with its entries, so they are left out.
func (l *look) version() string {
	if l.typ == unix.S_IFDIR {
		return fmt.Sprintf("%d-%o-%d-%d", l.ino, l.perm, l.uid, l.gid)
	}
	return fmt.Sprintf("%d-%d-%d.%09d", l.ino, l.size, l.ctime.Sec, l.ctime.Nsec)
}

// kind is the kind of object that a look's type belongs to; "" for an odd one.
func (l *look) kind() string {
	switch l.typ {
	case unix.S_IFREG:
		return kindFile
	case unix.S_IFDIR:
		return kindDirectory
	case unix.S_IFLNK:
		return kindSymlink
	}
	return ""
}

// typeOf names a type for a person.
func (l *look) typeOf() string {
	switch l.typ {
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a named pipe"
	case unix.S_IFSOCK:
		return "a socket"
	default:
		return "a device"
	}
}

// racyWindow is how old a change must be before its stat vouches for the
// content: within the same tick of a file system's clock a second change leaves
// no trace. The coarsest clock in use ticks every 2 s (FAT).
const racyWindow = 2 * time.Second

// looks remembers contents by what stat said when they were hashed. It is safe
// for concurrent use.
type looks struct {
	mu     sync.Mutex
	byPath map[string]remembered
}

type remembered struct {
	look *look
	at   time.Time // when hashing began
}

func newLooks() *looks { return &looks{byPath: map[string]remembered{}} }

func (c *looks) get(p string, now *look) ([sha256.Size]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.byPath[p]
	if !ok || !r.look.sameStat(now) || r.at.Sub(now.changed) <= racyWindow {
		return [sha256.Size]byte{}, false
	}
	return r.look.sum, true
}

func (c *looks) put(p string, l *look, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byPath[p] = remembered{l, at}
}

func (c *looks) drop(p string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.byPath, p)
}

// look finds out what is at a path. Absent is only what the kernel calls absent
// below a root that is there; everything else that prevents a look is an error.
func (t *tree) look(p string) (*look, error) {
	dir, name, err := t.parent(p)
	if errors.Is(err, unix.ENOENT) || errors.As(err, new(nothingBelow)) {
		t.a.looks.drop(p)
		return &look{absent: true}, nil
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.ENOENT {
		t.a.looks.drop(p)
		return &look{absent: true}, nil
	}
	if err != nil {
		return nil, explain(err, p)
	}
	l := newLook(&st)
	switch l.typ {
	case unix.S_IFREG:
		return t.hashed(dir, name, p, l)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return nil, explain(err, p)
		}
		l.target = string(buf[:n])
	}
	return l, nil
}

// hashTries is how often a file that changes while it is read is read again.
const hashTries = 3

// hashed completes a look at a regular file with the hash of its content.
func (t *tree) hashed(dir int, name, p string, l *look) (*look, error) {
	if sum, ok := t.a.looks.get(p, l); ok {
		l.sum = sum
		return l, nil
	}
	for range hashTries {
		at := t.a.env.Now()
		f, err := t.openRegular(dir, name, p)
		if err != nil {
			return nil, err
		}
		before, after, sum, err := hash(f)
		f.Close()
		if err != nil {
			return nil, explain(err, p)
		}
		t.a.count(func(s *Stats) { s.FilesHashed++ })
		if before.sameStat(after) {
			after.sum = sum
			t.a.looks.put(p, after, at)
			return after, nil
		}
	}
	return nil, fmt.Errorf("%s: changed while it was read, %d times", p, hashTries)
}

// openRegular opens a file for reading and makes sure that it is one.
func (t *tree) openRegular(dir int, name, p string) (*os.File, error) {
	fd, err := t.root.step(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, t.root.cross)
	if err != nil {
		return nil, explain(err, p)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return nil, fmt.Errorf("%w: %s was replaced while it was looked at", ErrOddType, p)
	}
	return os.NewFile(uintptr(fd), p), nil
}

func hash(f *os.File) (before, after *look, sum [sha256.Size]byte, err error) {
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err != nil {
		return
	}
	before = newLook(&st)
	h := sha256.New()
	if _, err = io.Copy(h, f); err != nil {
		return
	}
	h.Sum(sum[:0])
	if err = unix.Fstat(int(f.Fd()), &st); err != nil {
		return
	}
	return before, newLook(&st), sum, nil
}

// read returns a file's content if it has at most limit bytes, else false.
func (t *tree) read(p string, limit int64) ([]byte, bool, error) {
	dir, name, err := t.parent(p)
	if err != nil {
		return nil, false, err
	}
	f, err := t.openRegular(dir, name, p)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, false, explain(err, p)
	}
	return b, int64(len(b)) <= limit, nil
}

// digest is the keyed digest of what a look found, as the ledger keeps it.
func (a *Applier) digest(l *look) manifest.Digest {
	switch {
	case l.absent:
		return ""
	case l.typ == unix.S_IFLNK:
		return a.env.Sealer.Digest("link " + l.target)
	case l.typ == unix.S_IFDIR:
		return a.env.Sealer.Digest("directory")
	}
	return a.env.Sealer.Digest("file " + hex.EncodeToString(l.sum[:]))
}

// digestOf is the digest that a look will have once s is written.
func (a *Applier) digestOf(s *spec) manifest.Digest {
	l := look{target: s.target}
	switch s.kind {
	case kindFile:
		l.typ, l.sum = unix.S_IFREG, s.sum()
	case kindDirectory:
		l.typ = unix.S_IFDIR
	case kindSymlink:
		l.typ = unix.S_IFLNK
	}
	return a.digest(&l)
}

// names translates users and groups, each looked up once. It is not for
// concurrent use and lives as long as one call.
type names struct{ users, groups map[string]string }

func newNames() *names { return &names{map[string]string{}, map[string]string{}} }

// uid returns the number of a user given by name or number.
func (n *names) uid(name string) (uint32, error) {
	return number(n.users, name, "user", func() (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
}

// gid returns the number of a group given by name or number.
func (n *names) gid(name string) (uint32, error) {
	return number(n.groups, name, "group", func() (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
}

func number(cache map[string]string, name, what string, lookup func() (string, error)) (uint32, error) {
	if id, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(id), nil
	}
	if _, ok := cache[name]; !ok {
		id, err := lookup()
		if err != nil {
			id = ""
		}
		cache[name] = id
	}
	id, err := strconv.ParseUint(cache[name], 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s %q is not known on this host; create it, or write its number", what, name)
	}
	return uint32(id), nil
}

// ownerOf returns the form in which a live owner is shown: as want says, when it
// means the same, else the name, else the number.
func (n *names) ownerOf(id uint32, want string) string {
	if u, err := n.uid(want); want != "" && err == nil && u == id {
		return want
	}
	if u, err := user.LookupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return u.Username
	}
	return strconv.FormatUint(uint64(id), 10)
}

func (n *names) groupOf(id uint32, want string) string {
	if g, err := n.gid(want); want != "" && err == nil && g == id {
		return want
	}
	if g, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return g.Name
	}
	return strconv.FormatUint(uint64(id), 10)
}
