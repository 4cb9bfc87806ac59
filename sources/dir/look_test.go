package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/sources"
)

// later is a clock at which everything written now is long past.
func later() time.Time { return time.Now().Add(time.Hour) }

func wantErr(t *testing.T, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not name %s", err, w)
		}
	}
}

// A poll reads what stat says may have changed, and nothing else.
func TestReadsOnlyWhatChanged(t *testing.T) {
	path := t.TempDir()
	o := quick(path)
	o.Now = later
	r := openDir(t, o)
	for i := range 30 {
		write(t, fmt.Sprint(i), path, fmt.Sprintf("d%d", i%3), fmt.Sprint(i))
	}
	first := refs(t, r)
	steps := []struct {
		name    string
		change  func()
		reads   int
		changes bool
	}{
		{"first look", func() {}, 30, false},
		{"no change", func() {}, 0, false},
		{"one file", func() { write(t, "x", path, "d1/1") }, 1, true},
		{"same size and time", func() {
			name := filepath.Join(path, "d1/4")
			info, err := os.Stat(name)
			must(t, err, os.WriteFile(name, []byte("y"), 0o644), os.Chtimes(name, info.ModTime(), info.ModTime()))
		}, 1, true},
		{"replaced by an equal file", func() {
			write(t, "y", path, "new")
			must(t, os.Rename(filepath.Join(path, "new"), filepath.Join(path, "d1/4")))
		}, 1, false},
		{"executable", func() { must(t, os.Chmod(filepath.Join(path, "d0/0"), 0o755)) }, 1, true},
		{"one more", func() { write(t, "more", path, "d2/sub/more") }, 1, true},
		{"one less", func() { must(t, os.Remove(filepath.Join(path, "d2/sub/more"))) }, 0, true},
		{"empty directory gone", func() { must(t, os.Remove(filepath.Join(path, "d2/sub"))) }, 0, true},
	}
	before := 0
	for _, s := range steps {
		s.change()
		now := refs(t, r)
		if n := r.reads - before; n != s.reads {
			t.Errorf("%s: %d files were read, want %d", s.name, n, s.reads)
		}
		if (now != first) != s.changes {
			t.Errorf("%s: revision %s after %s", s.name, now, first)
		}
		first, before = now, r.reads
	}
}

// What changed just before it was read may change again within one tick of the
// filesystem's clock: it is read again until it is old enough.
func TestYoungFilesAreReadAgain(t *testing.T) {
	path := t.TempDir()
	o := quick(path)
	now := time.Now
	o.Now = func() time.Time { return now() }
	r := openDir(t, o)
	write(t, "x", path, "a")
	first := refs(t, r)
	for want := 2; want <= 3; want++ {
		if again := refs(t, r); again != first || r.reads != want {
			t.Fatalf("revision %s after %s, %d reads, want %d", again, first, r.reads, want)
		}
	}
	now = later
	refs(t, r) // the last time
	want := r.reads
	refs(t, r)
	if r.reads != want {
		t.Errorf("an old file was read again")
	}
}

// A folder in which something is always going on is not read, and the error says
// what it is; once it is quiet it is.
func TestNeverAtRest(t *testing.T) {
	path := t.TempDir()
	write(t, "1", path, "quiet")
	o := quick(path)
	o.Settle, o.Deadline = 40*time.Millisecond, 300*time.Millisecond
	writes, busy := 0, true
	o.Now = func() time.Time { // asked between two scans of one look: something is written in each
		if busy {
			writes++
			write(t, fmt.Sprint(writes), path, "busy.log")
		}
		return time.Now()
	}
	r := openDir(t, o)
	_, err := r.Refs(t.Context(), sources.DirRef)
	wantErr(t, err, sources.ErrUnavailable, path, "busy.log", "quiet for 40ms")
	busy = false
	refs(t, r)
}

// Files whose times are of another clock settle by ours.
func TestClockBehind(t *testing.T) {
	path := t.TempDir()
	write(t, "1", path, "a")
	o := quick(path)
	o.Now = func() time.Time { return time.Now().Add(-time.Hour) }
	r := openDir(t, o)
	first := refs(t, r)
	write(t, "2", path, "a")
	if refs(t, r) == first {
		t.Error("the change was missed")
	}
}

// A file that changes between the scan and its being read, or while it is read,
// is not taken.
func TestChangedWhileRead(t *testing.T) {
	path := t.TempDir()
	r := openDir(t, quick(path))
	for name, change := range map[string]func(file string) error{
		"written":  func(file string) error { return os.WriteFile(file, []byte("xx"), 0o644) },
		"grown":    func(file string) error { return appendTo(file, "more") },
		"cut":      func(file string) error { return os.Truncate(file, 0) },
		"removed":  os.Remove,
		"replaced": func(file string) error { return errors.Join(os.Remove(file), os.WriteFile(file, []byte("ok"), 0o644)) },
		"pipe":     func(file string) error { return errors.Join(os.Remove(file), unix.Mkfifo(file, 0o644)) },
		"link":     func(file string) error { return errors.Join(os.Remove(file), os.Symlink("other", file)) },
		"mode":     func(file string) error { return os.Chmod(file, 0o755) },
	} {
		file := write(t, "ok", path, name, "file")
		write(t, "ok", path, name, "other")
		root, err := openRoot(path)
		must(t, err)
		seen, err := scan(t.Context(), root, r.o.Limits)
		must(t, err, change(file))
		_, err = r.read(t.Context(), root, seen)
		var changed changedError
		if !errors.As(err, &changed) || string(changed) != name+"/file" {
			t.Errorf("%s: %v", name, err)
		}
		must(t, root.Close(), os.RemoveAll(filepath.Join(path, name)))
	}
}

// What appears while the folder is read is in the tree, or the folder is read again.
func TestChangedBesideWhatIsRead(t *testing.T) {
	path := t.TempDir()
	write(t, "x", path, "file")
	o := quick(path)
	looks := 0
	o.Now = func() time.Time { // asked after the scan, and again before the first file is read
		if looks++; looks == 2 {
			write(t, "x", path, "added")
		}
		return later()
	}
	if _, err := snapshotOf(t, openDir(t, o)).Stat("added"); err != nil || looks < 2 {
		t.Errorf("after %d looks: %v", looks, err)
	}
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Rows A-13 and GR-FS5: a folder that is missing, or is something else, is
// unavailable and never an empty tree; what was read stays.
func TestMissingRoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	r := openDir(t, quick(path))
	_, err := r.Refs(t.Context(), sources.DirRef)
	wantErr(t, err, sources.ErrUnavailable, path, "does not exist")
	write(t, "x", path, "file")
	before := refs(t, r)
	must(t, os.Rename(path, path+".away"))
	_, err = r.Refs(t.Context(), sources.DirRef)
	wantErr(t, err, sources.ErrUnavailable)
	write(t, "x", path)
	_, err = r.Refs(t.Context(), sources.DirRef)
	wantErr(t, err, sources.ErrUnavailable, "not a directory")
	must(t, os.Remove(path), unix.Mkfifo(path, 0o600)) // opening it would wait for ever
	_, err = r.Refs(t.Context(), sources.DirRef)
	wantErr(t, err, sources.ErrUnavailable, "not a directory")
	must(t, os.Remove(path), os.Rename(path+".away", path))
	if refs(t, r) != before {
		t.Error("the same folder came back with another revision")
	}
}

// Row D2-65: what may not be read makes the whole folder unavailable, and is
// named. Half a tree could be taken for a whole one.
func TestUnreadable(t *testing.T) {
	path := t.TempDir()
	must(t, os.Chmod(path, 0o755), os.Chmod(filepath.Dir(path), 0o755))
	write(t, "x", path, "good")
	r := openDir(t, quick(path))
	// Root may read everything, unless its thread reads the disk as somebody else.
	// The thread is not unlocked, so it ends with its goroutine.
	asNobody := func() error {
		done := make(chan error)
		go func() {
			runtime.LockOSThread()
			if os.Geteuid() == 0 {
				if _, err := unix.SetfsuidRetUid(65534); err != nil {
					done <- err
					return
				}
			}
			_, err := r.Refs(t.Context(), sources.DirRef)
			done <- err
		}()
		return <-done
	}
	must(t, asNobody())
	secret := write(t, "x", path, "sub/secret")
	must(t, os.Chmod(secret, 0))
	wantErr(t, asNobody(), sources.ErrUnavailable, "sub/secret", syscall.EACCES.Error())
	must(t, os.Chmod(filepath.Dir(secret), 0))
	wantErr(t, asNobody(), sources.ErrUnavailable, "sub", syscall.EACCES.Error())
	must(t, os.Chmod(filepath.Dir(secret), 0o755), os.Chmod(secret, 0o644))
	must(t, asNobody())
}

// Rows: more than the limits is refused, by name.
func TestLimits(t *testing.T) {
	for name, test := range map[string]struct {
		limits Limits
		words  []string
	}{
		"all within":       {Limits{Entries: 5, Depth: 2, FileBytes: 10, TotalBytes: 12}, nil},
		"too many entries": {Limits{Entries: 4}, []string{"4 entries"}},
		"too deep":         {Limits{Depth: 1}, []string{"a/b", "deeper than 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			write(t, "0123456789", path, "a/b/ten")
			write(t, "12", path, "two")
			write(t, "", path, "a/none")
			o := quick(path)
			o.Limits = test.limits
			_, err := openDir(t, o).Refs(t.Context(), sources.DirRef)
			if test.words == nil {
				must(t, err)
				return
			}
			wantErr(t, err, sources.ErrRefused, append(test.words, path)...)
		})
	}
}

// Row A-7: a file beyond the limit is listed and never read, whoever asks, and the
// files beside it are as ever. A change of it is a change of the folder.
func TestLargeFile(t *testing.T) {
	path := t.TempDir()
	write(t, "01234567", path, "most")
	large := write(t, "012345678", path, "d/large")
	o := quick(path)
	o.Limits.FileBytes, o.Now = 8, later
	r := openDir(t, o)
	tree := snapshotOf(t, r)
	if r.reads != 1 {
		t.Errorf("%d files were read, want 1", r.reads)
	}
	if data, err := tree.ReadFile("most", 100); err != nil || string(data) != "01234567" {
		t.Errorf("the file beside it: %q, %v", data, err)
	}
	var refused *sources.TooLargeError
	if _, err := tree.ReadFile("d/large", 100); !errors.As(err, &refused) || *refused != (sources.TooLargeError{Size: 9, Limit: 8}) || !strings.Contains(err.Error(), "d/large") {
		t.Errorf("the file beyond the limit: %v", err)
	}
	if entries, err := tree.ReadDir("d"); err != nil || len(entries) != 1 || entries[0].Mode != sources.ModeFile || entries[0].Hash == "" {
		t.Errorf("listed: %v, %v", entries, err)
	}
	if refs(t, r) != tree.Revision() {
		t.Error("the revision of a folder that did not change did")
	}
	must(t, appendTo(large, "9"))
	if refs(t, r) == tree.Revision() {
		t.Error("a change of the file beyond the limit is not seen")
	}
	must(t, os.Chmod(large, 0o755))
	if e, err := snapshotOf(t, r).Stat("d/large"); err != nil || e.Mode != sources.ModeExec {
		t.Errorf("executable: %v, %v", e, err)
	}
}

// Row A-8: of files that are too much to be held together the smallest are held. The
// others are read when they are asked for, and are what they were or unavailable,
// until the folder is looked at again.
func TestTooMuchToHold(t *testing.T) {
	path := t.TempDir()
	write(t, "1", path, "z")
	write(t, "22", path, "a/two")
	write(t, "22", path, "b/two")
	write(t, "55555", path, "a/five")
	o := quick(path)
	o.Limits.TotalBytes, o.Now = 9, later
	r := openDir(t, o)
	tree := snapshotOf(t, r)
	read := func(name, want string) {
		t.Helper()
		data, err := tree.ReadFile(name, 100)
		if want != "" && (err != nil || string(data) != want) {
			t.Errorf("%s: %q, %v", name, data, err)
		}
		if want == "" {
			wantErr(t, err, sources.ErrUnavailable, name, "has changed since revision "+tree.Revision()[:12])
		}
	}
	read("a/five", "55555")
	write(t, "new", path, "z")
	write(t, "66666", path, "a/five")
	read("z", "1") // held
	read("a/five", "")
	must(t, os.Truncate(filepath.Join(path, "a/five"), 3))
	read("a/five", "")
	must(t, appendTo(filepath.Join(path, "a/five"), "and more"))
	read("a/five", "")
	must(t, os.Remove(filepath.Join(path, "a/five")))
	read("a/five", "")
	must(t, unix.Mkfifo(filepath.Join(path, "a/five"), 0o644)) // opening it would wait for ever
	read("a/five", "")
	must(t, os.Remove(filepath.Join(path, "a/five")), os.Symlink("../b/two", filepath.Join(path, "a/five")))
	read("a/five", "")
	must(t, os.Remove(filepath.Join(path, "a/five")), os.WriteFile(filepath.Join(path, "a/five"), []byte("55555"), 0o600))
	read("a/five", "55555") // what it was
	tree = snapshotOf(t, r)
	read("z", "new")
	// What was held is let go of when smaller files need the room.
	write(t, "22", path, "c")
	write(t, "22", path, "d")
	tree = snapshotOf(t, r)
	for name, held := range map[string]bool{"z": false, "a/two": true, "b/two": true, "c": true, "d": true, "a/five": false} {
		n, _, err := tree.(interface {
			find(string) (*node, string, error)
		}).find(name)
		if err != nil || (n.content != nil) != held {
			t.Errorf("%s: held %t, want %t (%v)", name, n.content != nil, held, err)
		}
	}
	read("z", "new")
}

// The newest revisions can be opened, and older ones that are kept.
func TestHeldRevisions(t *testing.T) {
	path := t.TempDir()
	r := openDir(t, quick(path))
	var ids []string
	for i := range 8 {
		write(t, fmt.Sprint(i), path, "file")
		ids = append(ids, refs(t, r))
		if i == 1 {
			must(t, r.Keep(t.Context(), "web/accepted", ids[1]))
		}
	}
	for i, id := range ids {
		tree, err := r.Open(t.Context(), id)
		if want := i == 1 || i >= len(ids)-recent; want != (err == nil) {
			t.Errorf("revision %d: %v", i, err)
		}
		if err != nil {
			wantErr(t, err, sources.ErrUnavailable, path)
			wantErr(t, r.Fetch(t.Context(), sources.DirRef, id), sources.ErrUnavailable)
		} else if data, err := tree.ReadFile("file", 10); err != nil || string(data) != fmt.Sprint(i) {
			t.Errorf("revision %d reads %q, %v", i, data, err)
		}
	}
	must(t, r.Keep(t.Context(), "web/accepted", ids[7]))
	if _, err := r.Open(t.Context(), ids[1]); err == nil {
		t.Error("a revision that was let go is still there")
	}
	write(t, "1", path, "file") // the same content is the same revision
	must(t, r.Fetch(t.Context(), sources.DirRef, ids[1]))
}

func TestOpenOptions(t *testing.T) {
	if _, err := Open(Options{}); err == nil {
		t.Error("an empty path was taken")
	}
	r := openDir(t, Options{Path: "relative/folder"})
	if !filepath.IsAbs(r.o.Path) || r.o.Settle != 300*time.Millisecond || r.o.Limits.TotalBytes != 64<<20 {
		t.Errorf("defaults: %+v", r.o)
	}
	must(t, r.Close())
	_, err := r.Open(t.Context(), "x")
	wantErr(t, err, fs.ErrClosed)
}
