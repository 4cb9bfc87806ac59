package bolt_test

import (
	"bytes"
	"errors"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/bolt"
)

// fault is what the seam does to the next commit.
type fault func(do func() error) error

// faulty opens a store whose commits pass *f.
func faulty(t *testing.T, f *fault) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(filepath.Join(t.TempDir(), "store.db"), bolt.Options{
		Effect: func(name effect.Name, key string, do func() error) error {
			if name != effect.StoreCommit {
				return do()
			}
			if key != "a" {
				t.Errorf("the effect is on %q", key)
			}
			return (*f)(do)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Row D-49 at store.commit: an error before, an error after, and a crash.
func TestCommitPassesTheSeam(t *testing.T) {
	var f fault
	s := faulty(t, &f)
	events, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	commit := func(value string) (uint64, error) {
		return s.Commit(t.Context(), 1, nil, []store.Op{{Key: "a", Value: []byte(value)}})
	}
	injected := errors.New("injected")

	f = func(func() error) error { return injected }
	if _, err := commit("before"); !errors.Is(err, injected) {
		t.Fatalf("error before: %v", err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("error before: the record is there (%v)", err)
	}

	f = func(do func() error) error { return errors.Join(do(), injected) }
	if _, err := commit("after"); !errors.Is(err, injected) {
		t.Fatalf("error after: %v", err)
	}
	if r, err := s.Get(t.Context(), "a"); err != nil || string(r.Value) != "after" {
		t.Fatalf("error after: %q, %v", r.Value, err)
	}
	if e := <-events; string(e.Value) != "after" {
		t.Fatalf("error after: watchers got %+v", e)
	}

	f = func(func() error) error { panic("crash") }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the crash did not come through")
			}
		}()
		_, _ = commit("crash")
	}()

	f = func(do func() error) error { return do() }
	if revision, err := commit("good"); err != nil || revision != 2 {
		t.Fatalf("afterwards: revision %d, %v", revision, err)
	}
}

// Row E-87: no space for a commit. It fails, what was stored stays readable, and
// when there is space again commits go on without a restart.
func TestStoreFull(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	commit := func(key string) error {
		_, err := s.Commit(t.Context(), 1, nil, []store.Op{{Key: key, Value: bytes.Repeat([]byte(key), 200_000)}})
		return err
	}
	if err := commit("a"); err != nil {
		t.Fatal(err)
	}
	want := content(t, s)

	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	full := limit
	full.Cur = uint64(len(read(t, path)))
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	var failure error
	for _, key := range []string{"b", "c", "d", "e"} { // the file may have room for some
		if failure = commit(key); failure != nil {
			break
		}
		want = content(t, s)
	}
	got := content(t, s)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	if failure == nil {
		t.Fatal("commits went on in a full store")
	}
	if got != want {
		t.Fatal("a failed commit changed what is read")
	}
	if err := commit("z"); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := bolt.Check(path, 0); err != nil {
		t.Fatal(err)
	}
}
