package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gitopsd/gitopsd/sources"
)

// unknown looks like a revision of any implementation and is none.
var unknown = strings.Repeat("0123456789", 4)

func testRefs(t *testing.T, f Fixture) {
	f.Write(t, Text("a.yaml", "1"))
	first := head(t, f)
	if again := head(t, f); again != first {
		t.Errorf("unchanged place moved from %s to %s", first, again)
	}
	refs, err := f.Repository.Refs(ctx(t), f.Ref, "refs/heads/never-made", "refs/never/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(refs) != 1 || refs[f.Ref] != first {
		t.Errorf("Refs = %v, want only %s: a ref that is not there is not in the map", refs, f.Ref)
	}
	f.Write(t, Text("a.yaml", "2"))
	if head(t, f) == first {
		t.Error("changed content has the same revision")
	}
}

func testManyRefs(t *testing.T, f Fixture) {
	if f.WriteRef == nil || f.DeleteRef == nil {
		return
	}
	f.Write(t, Text("a.yaml", "1"))
	f.WriteRef(t, "refs/heads/team/one", Text("a.yaml", "2"))
	f.WriteRef(t, "refs/heads/team/two", Text("a.yaml", "3"))
	f.WriteRef(t, "refs/tags/v1", Text("a.yaml", "4"))
	names := func(patterns ...string) string {
		refs, err := f.Repository.Refs(ctx(t), patterns...)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for name, id := range refs {
			if id == "" {
				t.Errorf("%s has no ID", name)
			}
			out = append(out, name)
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	for _, c := range []struct{ patterns, want string }{
		{"refs/heads/team/*", "refs/heads/team/one refs/heads/team/two"},
		{"refs/heads/team/one refs/tags/*", "refs/heads/team/one refs/tags/v1"},
		{"refs/heads/team", ""},
		{"refs/heads/team/o", ""},
	} {
		if got := names(strings.Fields(c.patterns)...); got != c.want {
			t.Errorf("Refs(%s) = %q, want %q", c.patterns, got, c.want)
		}
	}
	f.DeleteRef(t, "refs/heads/team/one")
	if got := names("refs/heads/team/*"); got != "refs/heads/team/two" {
		t.Errorf("after the delete Refs = %q", got)
	}
}

func testAnnotatedTag(t *testing.T, f Fixture) {
	if f.AnnotatedTag == nil {
		return
	}
	f.Write(t, Text("a.yaml", "1"))
	f.AnnotatedTag(t, "refs/tags/v2")
	refs, err := f.Repository.Refs(ctx(t), "refs/tags/v2", f.Ref)
	if err != nil {
		t.Fatal(err)
	}
	if id := refs["refs/tags/v2"]; id == "" || id != refs[f.Ref] {
		t.Errorf("Refs = %v: the tag must give the commit it points to", refs)
	}
	if err := f.Repository.Fetch(ctx(t), "refs/tags/v2", refs["refs/tags/v2"]); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Repository.Open(ctx(t), refs["refs/tags/v2"]); err != nil {
		t.Error(err)
	}
}

func testOneRequest(t *testing.T, f Fixture) {
	if f.Requests == nil {
		return
	}
	f.Write(t, Text("a.yaml", "1"))
	id := fetch(t, f)
	refs0, content0 := f.Requests()
	for range 5 {
		head(t, f)
		if err := f.Repository.Fetch(ctx(t), f.Ref, id); err != nil {
			t.Fatal(err)
		}
	}
	refs1, content1 := f.Requests()
	if refs1-refs0 != 5 || content1 != content0 {
		t.Errorf("five polls without a change made %d requests for refs and %d for content, want 5 and 0", refs1-refs0, content1-content0)
	}
}

func testOutage(t *testing.T, f Fixture) {
	if f.Cut == nil {
		return
	}
	tree := open(t, f, Text("a.yaml", "1"))
	f.Cut(t)
	if refs, err := f.Repository.Refs(ctx(t), f.Ref); err == nil {
		t.Errorf("Refs of a server that is down = %v, want an error", refs)
	} else if !errors.Is(err, sources.ErrUnavailable) {
		t.Errorf("Refs of a server that is down: %v, want ErrUnavailable", err)
	}
	if err := f.Repository.Fetch(ctx(t), f.Ref, unknown); err == nil {
		t.Error("Fetch of a server that is down succeeded")
	}
	if data, err := tree.ReadFile("a.yaml", 10); err != nil || string(data) != "1" {
		t.Errorf("what was fetched reads %q, %v without the server", data, err)
	}
	if _, err := f.Repository.Open(ctx(t), tree.Revision()); err != nil {
		t.Errorf("what was fetched does not open without the server: %v", err)
	}
	if err := f.Repository.Fetch(ctx(t), f.Ref, tree.Revision()); err != nil {
		t.Errorf("Fetch of what is there needs the server: %v", err)
	}
}

func testFetchTwice(t *testing.T, f Fixture) {
	f.Write(t, Text("a.yaml", "1"))
	id := fetch(t, f)
	for range 3 {
		if err := f.Repository.Fetch(ctx(t), f.Ref, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Repository.Open(ctx(t), id); err != nil {
		t.Error(err)
	}
}

func testFetchUnknown(t *testing.T, f Fixture) {
	f.Write(t, Text("a.yaml", "1"))
	if err := f.Repository.Fetch(ctx(t), f.Ref, unknown); err == nil {
		t.Error("Fetch of a revision that does not exist succeeded")
	}
	if _, err := f.Repository.Open(ctx(t), unknown); err == nil {
		t.Error("a revision that does not exist opens")
	}
	fetch(t, f)
}

func testOpenUnfetched(t *testing.T, f Fixture) {
	f.Write(t, Text("a.yaml", "1"))
	fetch(t, f)
	f.Write(t, Text("a.yaml", "2"))
	id := head(t, f)
	if f.Requests == nil { // a place that is read in place may have it already
		return
	}
	if _, err := f.Repository.Open(ctx(t), id); err == nil {
		t.Error("a revision opens that was not fetched")
	}
	for _, id := range []string{"", "main", "HEAD", "../../etc/passwd"} {
		if _, err := f.Repository.Open(ctx(t), id); err == nil {
			t.Errorf("Open(%q) succeeded", id)
		}
	}
}

func testCancelled(t *testing.T, f Fixture) {
	f.Write(t, Text("a.yaml", "1"))
	id := head(t, f)
	c, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Repository.Refs(c, f.Ref); err == nil {
		t.Error("Refs ignores its context")
	}
	if err := f.Repository.Fetch(c, f.Ref, id); err == nil {
		t.Error("Fetch ignores its context")
	}
	fetch(t, f)
}

func testReopen(t *testing.T, f Fixture) {
	if f.Reopen == nil {
		return
	}
	f.Write(t, Text("d/a.yaml", "1"))
	id := fetch(t, f)
	if err := f.Repository.Close(); err != nil {
		t.Fatal(err)
	}
	repo := f.Reopen(t)
	_, content := f.Requests()
	if err := repo.Fetch(ctx(t), f.Ref, id); err != nil {
		t.Fatal(err)
	}
	if _, again := f.Requests(); again != content {
		t.Error("the mirror did not survive: the revision was fetched again")
	}
	tree, err := repo.Open(ctx(t), id)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := tree.ReadFile("d/a.yaml", 10); err != nil || string(data) != "1" {
		t.Errorf("ReadFile = %q, %v", data, err)
	}
}

func testConcurrent(t *testing.T, f Fixture) {
	files := Files{}
	for i := range 40 {
		files[fmt.Sprintf("d%d/f%d.yaml", i%4, i)] = File{Data: fmt.Sprint("content ", i)}
	}
	tree := open(t, f, files)
	f.Write(t, Text("other.yaml", "1"))
	id := head(t, f)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			err := sources.Walk(tree, "", func(e sources.Entry) error {
				if e.Mode == sources.ModeDir {
					return nil
				}
				data, err := tree.ReadFile(e.Path, 100)
				if err == nil && string(data) != files[e.Path].Data {
					return fmt.Errorf("%s reads %q", e.Path, data)
				}
				return err
			})
			if err != nil && f.Snapshot {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := f.Repository.Fetch(ctx(t), f.Ref, id); err != nil {
				t.Error(err)
			} else if _, err := f.Repository.Open(ctx(t), id); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := f.Repository.Refs(ctx(t), f.Ref); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func testClose(t *testing.T, f Fixture) {
	f.Write(t, Text("a.yaml", "1"))
	fetch(t, f)
	for range 2 {
		if err := f.Repository.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := f.Repository.Refs(ctx(t), f.Ref); err == nil {
		t.Error("Refs works after Close")
	}
}
