// Package sourcetest is the conformance suite of sources.Repository. Every
// implementation runs it; a promise of the contract that has no test here is no
// promise.
package sourcetest

import (
	"context"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/sources"
)

// File is one entry of a place: its type and its content, which is the target
// of a symbolic link.
type File struct {
	Mode sources.Mode
	Data string
}

// Files is the whole content of a place by path.
type Files map[string]File

// Text makes Files of plain files, given as path, content, path, content...
func Text(pathsAndContents ...string) Files {
	out := Files{}
	for i := 0; i < len(pathsAndContents); i += 2 {
		out[pathsAndContents[i]] = File{Data: pathsAndContents[i+1]}
	}
	return out
}

// Fixture is a place made for one test, and the Repository over it. The
// functions that are nil are abilities that the implementation does not have;
// tests that need them do not run. All of them call t.Fatal on failure.
type Fixture struct {
	Repository sources.Repository
	// Ref is the full name that Write moves: refs/heads/main, or sources.DirRef
	// for a place without refs.
	Ref string
	// Write makes the whole content of the place equal to files. It returns when
	// the next Refs would see it.
	Write func(t testing.TB, files Files)

	// Snapshot says that an opened tree stays readable while the place moves on.
	// Without it reading may fail instead, but never yields anything else than
	// what the tree's hashes name.
	Snapshot bool
	// SameHash says that equal content has the same hash wherever it lies.
	SameHash bool
	// Submodules says that Write can make them.
	Submodules bool
	// WriteRef makes or moves another ref, given by its full name.
	WriteRef func(t testing.TB, ref string, files Files)
	// AnnotatedTag makes a tag object that names what Ref stands at.
	AnnotatedTag func(t testing.TB, ref string)
	// DeleteRef removes a ref.
	DeleteRef func(t testing.TB, ref string)
	// Rewrite forces Ref onto a commit with no history.
	Rewrite func(t testing.TB, files Files)
	// Hostile makes the content of the place one directory "d" that holds a file
	// under exactly this name; it reports false when it cannot be made.
	Hostile func(t testing.TB, name string) bool
	// Cut makes the server unreachable.
	Cut func(t testing.TB)
	// Requests counts the requests that reached the server: for refs, for content.
	Requests func() (refs, content int)
	// Reopen opens the same place again over the same local mirror.
	Reopen func(t testing.TB) sources.Repository
}

// Run runs the suite. fixture makes a fresh place, empty until Write, and
// registers its own clean-up.
func Run(t *testing.T, fixture func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Fixture)
	}{
		{"Refs", testRefs},
		{"RefsOfManyRefs", testManyRefs},
		{"AnnotatedTag", testAnnotatedTag},
		{"RefsAreOneRequest", testOneRequest},
		{"RequestsAreCounted", testMeter},
		{"OutageIsAnError", testOutage},
		{"FetchIsIdempotent", testFetchTwice},
		{"FetchOfNothingKnown", testFetchUnknown},
		{"OpenNeedsFetch", testOpenUnfetched},
		{"Stat", testStat},
		{"ReadDir", testReadDir},
		{"ReadFile", testReadFile},
		{"Missing", testMissing},
		{"Modes", testModes},
		{"Submodule", testSubmodule},
		{"HashesFollowContent", testHashes},
		{"OpenedTreeIsImmutable", testImmutable},
		{"HostileNames", testHostile},
		{"CancelledContext", testCancelled},
		{"History", testHistory},
		{"Keep", testKeep},
		{"Watch", testWatch},
		{"Reopen", testReopen},
		{"Concurrent", testConcurrent},
		{"Close", testClose},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, fixture(t)) })
	}
}

// bound is how long any single call of the suite may take.
const bound = 30 * time.Second

func ctx(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(context.Background(), bound)
	t.Cleanup(cancel)
	return c
}

// head returns what the fixture's ref stands at.
func head(t testing.TB, f Fixture) string {
	t.Helper()
	refs, err := f.Repository.Refs(ctx(t), f.Ref)
	if err != nil {
		t.Fatalf("Refs: %v", err)
	}
	if refs[f.Ref] == "" {
		t.Fatalf("Refs(%s) = %v, the ref is missing", f.Ref, refs)
	}
	return refs[f.Ref]
}

// fetch fetches what the ref stands at and returns its ID.
func fetch(t testing.TB, f Fixture) string {
	t.Helper()
	id := head(t, f)
	if err := f.Repository.Fetch(ctx(t), f.Ref, id); err != nil {
		t.Fatalf("Fetch: %v", err)
	}
	return id
}

// open writes files, fetches them and opens the tree.
func open(t testing.TB, f Fixture, files Files) sources.Tree {
	t.Helper()
	f.Write(t, files)
	id := fetch(t, f)
	tree, err := f.Repository.Open(ctx(t), id)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	if tree.Revision() != id {
		t.Fatalf("Revision() = %q, opened %q", tree.Revision(), id)
	}
	return tree
}
