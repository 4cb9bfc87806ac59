package dir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/sources"
	"github.com/gitopsd/gitopsd/sources/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick are options under which tests need not wait long for a folder to settle.
func quick(path string) Options {
	return Options{Path: path, Settle: 10 * time.Millisecond, Interval: time.Hour}
}

func openDir(t testing.TB, o Options) *Repository {
	t.Helper()
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// write makes a file with the directories above it.
func write(t testing.TB, content string, elem ...string) string {
	t.Helper()
	name := filepath.Join(elem...)
	must(t, os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644))
	return name
}

// refs returns the revision of the folder.
func refs(t testing.TB, r *Repository) string {
	t.Helper()
	found, err := r.Refs(t.Context(), sources.DirRef)
	if err != nil {
		t.Fatal(err)
	}
	return found[sources.DirRef]
}

func snapshotOf(t testing.TB, r *Repository) sources.Tree {
	t.Helper()
	tree, err := r.Open(t.Context(), refs(t, r))
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestConformance(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture {
		path := filepath.Join(t.TempDir(), "folder")
		must(t, os.Mkdir(path, 0o755))
		return sourcetest.Fixture{
			Repository: openDir(t, quick(path)),
			Ref:        sources.DirRef,
			Snapshot:   true,
			SameHash:   true,
			Write:      func(t testing.TB, files sourcetest.Files) { fill(t, path, files) },
			Cut:        func(t testing.TB) { must(t, os.Rename(path, path+".away")) },
			Hostile: func(t testing.TB, name string) bool {
				fill(t, path, sourcetest.Text("d/good", "x"))
				// Joined by hand: filepath.Join would clean the name.
				return os.WriteFile(path+"/d/"+name, []byte("x"), 0o644) == nil
			},
		}
	})
}

// fill makes the content of the folder equal to files.
func fill(t testing.TB, path string, files sourcetest.Files) {
	t.Helper()
	entries, err := os.ReadDir(path)
	must(t, err)
	for _, e := range entries {
		must(t, os.RemoveAll(filepath.Join(path, e.Name())))
	}
	for name, f := range files {
		file := filepath.Join(path, filepath.FromSlash(name))
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		switch f.Mode {
		case sources.ModeSymlink:
			must(t, os.Symlink(f.Data, file))
		case sources.ModeExec:
			must(t, os.WriteFile(file, []byte(f.Data), 0o755))
		default:
			must(t, os.WriteFile(file, []byte(f.Data), 0o644))
		}
	}
}
