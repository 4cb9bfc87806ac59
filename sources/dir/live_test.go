package dir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/sources"
)

func openLive(t *testing.T, path string) *Live {
	t.Helper()
	l, err := OpenLive(path)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// What nobody asks for is not looked at, whatever it is and however large.
func TestLiveReadsWhatIsAskedFor(t *testing.T) {
	path := t.TempDir()
	write(t, "x", path, "d/a.yaml")
	must(t, os.Chmod(filepath.Join(path, "d/a.yaml"), 0o755))
	write(t, "", path, "big.iso")
	must(t, os.Truncate(filepath.Join(path, "big.iso"), 1<<36))
	must(t, os.Mkdir(filepath.Join(path, "odd"), 0o755), unix.Mkfifo(filepath.Join(path, "odd", "pipe"), 0o600))
	write(t, "x", path, "odd/.git/HEAD")
	write(t, "x", path, ".git/HEAD")
	l := openLive(t, path)
	if data, err := l.ReadFile("d/a.yaml", 1); err != nil || string(data) != "x" || l.Revision() != "" {
		t.Errorf("%q, %v, revision %q", data, err, l.Revision())
	}
	entries, err := l.ReadDir("")
	must(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Path)
		if again, err := l.Stat(e.Path); err != nil || again != e || e.Hash == "" {
			t.Errorf("ReadDir says %+v, Stat says %+v, %v", e, again, err)
		}
	}
	if !slices.Equal(names, []string{"big.iso", "d", "odd"}) {
		t.Errorf("the root lists %v", names)
	}
	if e, err := l.Stat("d/a.yaml"); err != nil || e.Mode != sources.ModeExec || e.Path != "d/a.yaml" {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := l.Stat("."); err != nil || e.Mode != sources.ModeDir || e.Path != "" {
		t.Errorf("the root: %+v, %v", e, err)
	}
	var large *sources.TooLargeError
	if _, err := l.ReadFile("big.iso", 10); !errors.As(err, &large) || *large != (sources.TooLargeError{Size: 1 << 36, Limit: 10}) {
		t.Errorf("a large file: %v", err)
	}
	for _, p := range []string{"none", "d/none", "d/none/x", "d/a.yaml/x", ".git", ".git/HEAD", "../x", "/d", "d//a.yaml"} {
		_, err1 := l.Stat(p)
		_, err2 := l.ReadDir(p)
		_, err3 := l.ReadFile(p, 1)
		for _, err := range []error{err1, err2, err3} {
			wantErr(t, err, fs.ErrNotExist, p)
		}
	}
	_, err = l.ReadFile("d", 1)
	wantErr(t, err, sources.ErrRefused, "directory")
	_, err = l.ReadDir("big.iso")
	wantErr(t, err, sources.ErrRefused, "file")
	// Odd types and names are those of every source.
	_, err = l.ReadDir("odd")
	wantErr(t, err, sources.ErrRefused, `".git"`)
	_, err = l.Stat("odd/.git/HEAD")
	wantErr(t, err, sources.ErrRefused, `".git"`)
	must(t, os.RemoveAll(filepath.Join(path, "odd/.git")))
	_, err = l.ReadDir("odd")
	wantErr(t, err, sources.ErrRefused, "odd/pipe is a named pipe")
	_, err = l.ReadFile("odd/pipe", 1)
	wantErr(t, err, sources.ErrRefused, "named pipe")
}

// Row A-1: no link is followed, at the end of a path or before.
func TestLiveFollowsNoLinks(t *testing.T) {
	outside := t.TempDir()
	write(t, "canary", outside, "secret")
	path := t.TempDir()
	write(t, "x", path, "sub/file")
	for name, target := range map[string]string{"dir": outside, "in": "sub/file", "indir": "sub", "loop": "loop", "up": "../" + filepath.Base(outside)} {
		must(t, os.Symlink(target, filepath.Join(path, name)))
	}
	l := openLive(t, path)
	for _, name := range []string{"dir", "in", "indir", "loop", "up"} {
		if e, err := l.Stat(name); err != nil || e.Mode != sources.ModeSymlink {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		_, err := l.ReadFile(name, 100)
		wantErr(t, err, sources.ErrRefused, "symbolic link")
		_, err = l.ReadDir(name)
		wantErr(t, err, sources.ErrRefused, "symbolic link")
		for _, below := range []string{"secret", "file"} {
			_, err = l.ReadFile(name+"/"+below, 100)
			wantErr(t, err, fs.ErrNotExist)
		}
	}
}

// A file that changes between two looks is an error and never half of each.
func TestLiveChanges(t *testing.T) {
	for name, change := range map[string]func(file string) error{
		"written":  func(file string) error { return os.WriteFile(file, []byte("yy"), 0o600) },
		"removed":  os.Remove,
		"replaced": func(file string) error { return errors.Join(os.Remove(file), os.WriteFile(file, []byte("x"), 0o600)) },
	} {
		path := t.TempDir()
		file := write(t, "x", path, "d/file")
		l := openLive(t, path)
		_, err := l.ReadDir("d")
		must(t, err, change(file))
		_, err = l.ReadFile("d/file", 100)
		if name == "removed" {
			wantErr(t, err, fs.ErrNotExist, "d/file")
			continue
		}
		wantErr(t, err, sources.ErrUnavailable, "d/file changed while it was looked at; try again")
	}
	_, err := OpenLive(filepath.Join(t.TempDir(), "none"))
	wantErr(t, err, sources.ErrUnavailable, "does not exist")
	if _, err := OpenLive(write(t, "x", t.TempDir(), "file")); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("a file: %v", err)
	}
}
