package sourcetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/sources"
)

func testHistory(t *testing.T, f Fixture) {
	history, ok := sources.Ability[sources.History](f.Repository)
	if !ok {
		return
	}
	var ids []string
	for _, content := range []string{"1", "2", "3"} {
		f.Write(t, Text("a.yaml", content))
		ids = append(ids, fetch(t, f))
	}
	for i, id := range ids {
		c, err := history.Commit(ctx(t), id)
		if err != nil {
			t.Fatal(err)
		}
		if c.ID != id || c.Message == "" || c.Author.Name == "" || c.Committer.Email == "" || c.When.IsZero() {
			t.Errorf("Commit(%s) = %+v, fields are missing", id, c)
		}
		if i > 0 && (len(c.Parents) != 1 || c.Parents[0] != ids[i-1]) {
			t.Errorf("parents of commit %d are %v, want %s", i, c.Parents, ids[i-1])
		}
	}
	check := func(old, new string, want bool) {
		t.Helper()
		if got, err := history.IsAncestor(ctx(t), old, new); err != nil || got != want {
			t.Errorf("IsAncestor(%s, %s) = %v, %v, want %v", old, new, got, err, want)
		}
	}
	check(ids[0], ids[0], true)
	check(ids[0], ids[2], true)
	check(ids[1], ids[2], true)
	check(ids[2], ids[0], false)
	for _, pair := range [][2]string{{unknown, ids[0]}, {ids[0], unknown}} {
		if ok, err := history.IsAncestor(ctx(t), pair[0], pair[1]); err == nil {
			t.Errorf("IsAncestor(%s, %s) = %v, want an error: it is not known", pair[0], pair[1], ok)
		}
	}
	if _, err := history.Commit(ctx(t), unknown); err == nil {
		t.Error("Commit of an unknown revision succeeded")
	}
	if f.Rewrite == nil {
		return
	}
	// Row A-10: a rewritten history is seen as such, and the old one stays readable.
	f.Rewrite(t, Text("a.yaml", "rewritten"))
	rewritten := fetch(t, f)
	check(ids[2], rewritten, false)
	check(rewritten, ids[2], false)
	if _, err := f.Repository.Open(ctx(t), ids[2]); err != nil {
		t.Errorf("the accepted revision is gone after a forced push: %v", err)
	}
}

func testKeep(t *testing.T, f Fixture) {
	keeper, ok := sources.Ability[sources.Keeper](f.Repository)
	if !ok {
		return
	}
	f.Write(t, Text("a.yaml", "kept"))
	id := fetch(t, f)
	if err := keeper.Keep(ctx(t), "web/accepted", id); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Keep(ctx(t), "web/last", unknown); err == nil {
		t.Error("a revision is kept that was never fetched")
	}
	repo := f.Repository
	if f.Rewrite != nil {
		f.Rewrite(t, Text("a.yaml", "other"))
		fetch(t, f)
	}
	if f.Reopen != nil {
		repo = f.Reopen(t)
	}
	tree, err := repo.Open(ctx(t), id)
	if err != nil {
		t.Fatalf("the kept revision is gone: %v", err)
	}
	if data, err := tree.ReadFile("a.yaml", 10); err != nil || string(data) != "kept" {
		t.Errorf("the kept revision reads %q, %v", data, err)
	}
	for range 2 { // letting go is idempotent
		if err := keeper.Keep(ctx(t), "web/accepted", ""); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "../x"} {
		if err := keeper.Keep(ctx(t), name, id); name == "" && err == nil {
			t.Errorf("Keep under the name %q succeeded", name)
		}
	}
}

func testWatch(t *testing.T, f Fixture) {
	watcher, ok := sources.Ability[sources.Watcher](f.Repository)
	if !ok {
		return
	}
	f.Write(t, Text("a.yaml", "1"))
	id := fetch(t, f)
	c, cancel := context.WithCancel(context.Background())
	defer cancel()
	hints := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- watcher.Watch(c, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
	}()
	// The watch may not have begun when the first write is made, so write until
	// a hint comes; what it leads to must be the new state.
	deadline := time.After(bound)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for i, hinted := 0, false; !hinted; i++ {
		f.Write(t, Text("a.yaml", time.Duration(i+2).String()))
		select {
		case <-hints:
			hinted = true
		case <-tick.C:
		case <-deadline:
			t.Fatal("no hint after many changes")
		}
	}
	if head(t, f) == id {
		t.Error("the hint came and Refs shows the old state")
	}
	cancel()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	case <-deadline:
		t.Error("Watch does not end with its context")
	}
}

func testMeter(t *testing.T, f Fixture) {
	m, ok := sources.Ability[sources.Meter](f.Repository)
	if !ok {
		return
	}
	want := func(step string, want sources.Requests) {
		t.Helper()
		if got := m.Requests(); got != want {
			t.Errorf("%s: %+v, want %+v", step, got, want)
		}
	}
	want("opened", sources.Requests{})
	f.Write(t, Text("a.yaml", "1"))
	id := fetch(t, f)
	want("first fetch", sources.Requests{Refs: 1, Fetches: 1})
	head(t, f)
	if err := f.Repository.Fetch(ctx(t), f.Ref, id); err != nil {
		t.Fatal(err)
	}
	want("no change", sources.Requests{Refs: 2, Fetches: 1})
	if err := f.Repository.Fetch(ctx(t), f.Ref, unknown); err == nil {
		t.Fatal("Fetch of a revision that does not exist succeeded")
	}
	want("a revision that does not exist", sources.Requests{Refs: 2, Fetches: 2, FetchesFailed: 1})
	if f.Cut == nil {
		return
	}
	f.Cut(t)
	if _, err := f.Repository.Refs(ctx(t), f.Ref); err == nil {
		t.Fatal("Refs of a server that is down succeeded")
	}
	if err := f.Repository.Fetch(ctx(t), f.Ref, unknown); err == nil {
		t.Fatal("Fetch of a server that is down succeeded")
	}
	want("the server is down", sources.Requests{Refs: 3, RefsFailed: 1, Fetches: 3, FetchesFailed: 2})
}
