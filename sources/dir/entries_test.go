package dir

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/sources"
)

// Rows A-1 and D2-62: links are entries, wherever they lead; nothing outside is
// read, and no error shows it.
func TestLinksAreNotFollowed(t *testing.T) {
	outside := t.TempDir()
	const canary = "canary-55e1"
	secret := write(t, canary, outside, "secret")
	path := t.TempDir()
	write(t, "x", path, "sub/file")
	for name, target := range map[string]string{
		"abs": secret, "up": "../../../../../../../.." + secret, "dir": outside, "in": "sub/file", "indir": "sub",
		"loop": "loop", "dangling": "nowhere", "device": "/dev/zero", "proc": "/proc/self/root" + secret,
	} {
		must(t, os.Symlink(target, filepath.Join(path, name)))
	}
	r := openDir(t, quick(path))
	tree := snapshotOf(t, r)
	seen := map[sources.Hash]bool{}
	must(t, sources.Walk(tree, "", func(e sources.Entry) error {
		data, err := tree.ReadFile(e.Path, 1<<20)
		if strings.Contains(string(data), canary) || err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s shows what is outside", e.Path)
		}
		if e.Mode == sources.ModeSymlink {
			wantErr(t, err, sources.ErrRefused, e.Path)
			if seen[e.Hash] {
				t.Errorf("%s has the hash of another link", e.Path)
			}
			seen[e.Hash] = true
		}
		return nil
	}))
	if len(seen) != 9 {
		t.Errorf("%d links were listed", len(seen))
	}
	if _, err := tree.Stat("indir/file"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("through a link: %v", err)
	}
	before := tree.Revision()
	must(t, os.Remove(filepath.Join(path, "abs")), os.Symlink("elsewhere", filepath.Join(path, "abs")))
	if refs(t, r) == before {
		t.Error("a link with another target has the same hash")
	}
}

// Row D2-68: pipes, sockets and devices are named and never opened: opening the
// pipe would wait for ever.
func TestSpecialFiles(t *testing.T) {
	path := t.TempDir()
	write(t, "x", path, "good/file")
	must(t, os.Mkdir(filepath.Join(path, "pipe"), 0o755), unix.Mkfifo(filepath.Join(path, "pipe", "p"), 0o644))
	must(t, os.Mkdir(filepath.Join(path, "sock"), 0o755))
	l, err := net.Listen("unix", filepath.Join(path, "sock", "s"))
	must(t, err)
	defer l.Close()
	kinds := map[string]string{"pipe/p": "named pipe", "sock/s": "socket"}
	must(t, os.Mkdir(filepath.Join(path, "dev"), 0o755))
	if unix.Mknod(filepath.Join(path, "dev", "d"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 5))) == nil { // needs root
		kinds["dev/d"] = "device"
	}
	tree := snapshotOf(t, openDir(t, quick(path)))
	for name, kind := range kinds {
		_, err := tree.ReadDir(filepath.Dir(name))
		wantErr(t, err, sources.ErrRefused, name, kind)
		_, err = tree.Stat(name)
		wantErr(t, err, sources.ErrRefused, name, kind)
		_, err = tree.ReadFile(name, 10)
		wantErr(t, err, sources.ErrRefused, name, kind)
	}
	if data, err := tree.ReadFile("good/file", 10); err != nil || string(data) != "x" {
		t.Errorf("a directory beside them: %q, %v", data, err)
	}
	if entries, err := tree.ReadDir(""); err != nil || len(entries) != 4 {
		t.Errorf("the directory above them: %v, %v", entries, err)
	}
}

// Row A-2: Git's own directory is left out at the root, be it a directory or a
// file, and refused anywhere else.
func TestGitDirectory(t *testing.T) {
	path := t.TempDir()
	write(t, "x", path, "a/file")
	r := openDir(t, quick(path))
	before := refs(t, r)
	write(t, "ref: refs/heads/main", path, ".git/HEAD")
	if refs(t, r) != before {
		t.Error(".git counts")
	}
	must(t, os.RemoveAll(filepath.Join(path, ".git")))
	write(t, "gitdir: elsewhere", path, ".git")
	if refs(t, r) != before {
		t.Error("the file .git counts")
	}
	write(t, "x", path, "b/.git/HEAD")
	tree := snapshotOf(t, r)
	_, err := tree.ReadDir("b")
	wantErr(t, err, sources.ErrRefused, `".git"`)
	if entries, err := tree.ReadDir(""); err != nil || len(entries) != 2 {
		t.Errorf("root: %v, %v", entries, err)
	}
}
