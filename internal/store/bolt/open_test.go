package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/bolt"
)

// Row E-87: the store of a daemon that runs is refused within 5 s, by an error
// that names the file and who has it; when that daemon is killed it is free.
func TestLockedBySecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	p := start(t, path, "hold")
	began := time.Now()
	_, err := bolt.Open(path, bolt.Options{})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if !errors.Is(err, bolt.ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
	if _, statErr := os.Stat("/proc/locks"); statErr == nil {
		if want := fmt.Sprintf("process %d (bolt.test)", p.Process.Pid); !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
	if _, err := bolt.Check(path, time.Millisecond); !errors.Is(err, bolt.ErrLocked) {
		t.Errorf("check: %v", err)
	}
	p.kill()
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// Rows D-49 and E-85: what a commit has returned survives SIGKILL, and no kill
// leaves half a commit or a damaged file.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for n := range 8 {
		p := start(t, path, "commit")
		var last uint64
		for range 5 + 7*n {
			if !p.out.Scan() {
				t.Fatal("the second process ended")
			}
			last, _ = strconv.ParseUint(p.out.Text(), 10, 64)
		}
		p.kill()
		report, err := bolt.Check(path, 0)
		if err != nil || report.Revision < last || last == 0 || report.Records != 2 {
			t.Fatalf("after revision %d: %+v, %v", last, report, err)
		}
		s, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a, errA := s.Get(t.Context(), "a")
		b, errB := s.Get(t.Context(), "b")
		if errA != nil || errB != nil || a.Version != b.Version || a.Version != report.Revision {
			t.Fatalf("half a commit: %d, %d (%v, %v)", a.Version, b.Version, errA, errB)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Row E-89: an older program refuses a newer store and leaves every byte of it.
func TestNewerSchemaRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raise(t, path)
	before := read(t, path)
	_, err = bolt.Open(path, bolt.Options{Effect: func(name effect.Name, _ string, _ func() error) error {
		return fmt.Errorf("effect %s ran", name)
	}})
	if !errors.Is(err, bolt.ErrSchema) || errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v", err)
	}
	if !bytes.Equal(before, read(t, path)) {
		t.Fatal("the file was changed")
	}
}

// raise makes the store one of schema 2, with a bucket and records that this
// version knows nothing of.
func raise(t *testing.T, path string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		index, err := tx.CreateBucket([]byte("index"))
		if err != nil {
			return err
		}
		return errors.Join(
			index.Put([]byte("k"), []byte("v")),
			tx.Bucket([]byte("records")).Put([]byte("k"), []byte{2, 0, 0}),
			tx.Bucket([]byte("gitopsd")).Put([]byte("schema"), bolt.SchemaRecord(2)),
			tx.Bucket([]byte("gitopsd")).Put([]byte("state"), []byte("other")))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// Row G-103: the file is for its owner alone.
func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "store.db")
	openAndClose := func() {
		t.Helper()
		s, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	mode := func(name string, want os.FileMode) {
		t.Helper()
		info, err := os.Stat(name)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v (%v)", name, info.Mode(), want, err)
		}
	}
	openAndClose()
	mode(path, 0o600)
	mode(dir, 0o700)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	openAndClose()
	mode(path, 0o600)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Open(path, bolt.Options{}); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("a directory that everybody can write to: %v", err)
	}
}

// What is in the way is an error that says so; an empty file is a store that was
// cut short and not a new one.
func TestInTheWay(t *testing.T) {
	dir := t.TempDir()
	for name, make := range map[string]func(path string) error{
		"dir":   func(path string) error { return os.Mkdir(path, 0o700) },
		"link":  func(path string) error { return os.Symlink("elsewhere", path) },
		"empty": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"text":  func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("text\n"), 9999), 0o600) },
	} {
		path := filepath.Join(dir, name)
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		_, err := bolt.Open(path, bolt.Options{})
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if isFile := name == "empty" || name == "text"; isFile != errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := bolt.Check(filepath.Join(dir, "absent"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("check of the absent: %v", err)
	}
}

// Row D-49: making a store can fail before and after each effect; the next start
// makes it, and nothing is left lying about.
func TestCreationFails(t *testing.T) {
	for _, at := range []effect.Name{effect.FileMkdir, effect.FileWrite, effect.FileRename, effect.FileSyncDir} {
		for _, after := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "state")
			path := filepath.Join(dir, "store.db")
			hit := false
			_, err := bolt.Open(path, bolt.Options{Effect: func(name effect.Name, _ string, do func() error) error {
				if name != at {
					return do()
				}
				hit = true
				if after {
					return errors.Join(do(), errors.New("injected"))
				}
				return errors.New("injected")
			}})
			if !hit || (err == nil && at != effect.FileRename) {
				t.Fatalf("%s: hit %v, %v", at, hit, err)
			}
			if err == nil {
				continue // linked, so the error after it does not matter
			}
			s, err := bolt.Open(path, bolt.Options{})
			if err != nil {
				t.Fatalf("%s, after %v: %v", at, after, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if names, _ := os.ReadDir(dir); len(names) != 1 {
				t.Errorf("%s, after %v: left %v", at, after, names)
			}
		}
	}
}

// A creation that was killed leaves a temporary file, which the next start removes.
func TestLeftoversRemoved(t *testing.T) {
	dir := t.TempDir()
	litter := filepath.Join(dir, "store.db.new-123")
	if err := os.WriteFile(litter, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := bolt.Open(filepath.Join(dir, "store.db"), bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(litter); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", litter, err)
	}
}
