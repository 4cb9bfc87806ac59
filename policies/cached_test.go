package policies_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/policies"
)

// fake denies every object by its name and counts what it was asked.
type fake struct {
	digest   string
	volatile bool
	fail     error
	short    bool
	replace  func(*fake) // runs while the policy is asked
	asked    []string
}

func (f *fake) Digest() string { return f.digest }
func (f *fake) Volatile() bool { return f.volatile }

func (f *fake) Objects(_ context.Context, objects []*manifest.Object) ([]policies.Verdict, error) {
	if f.replace != nil {
		f.replace(f)
	}
	if f.fail != nil {
		return nil, f.fail
	}
	var out []policies.Verdict
	for _, o := range objects {
		f.asked = append(f.asked, o.ID().Name)
		out = append(out, policies.Verdict{
			Deny: []policies.Finding{{Rule: "main.deny", Msg: f.digest + " " + o.ID().Name}},
			Warn: []policies.Finding{{Rule: "main.warn", Msg: "w"}},
		})
	}
	if f.short {
		return nil, nil
	}
	return out, nil
}

func (f *fake) Changes(_ context.Context, changes []policies.Change) ([]policies.Verdict, error) {
	out := make([]policies.Verdict, len(changes))
	for i, c := range changes {
		f.asked = append(f.asked, c.Application)
		out[i].Warn = []policies.Finding{{Rule: "gitopsd.change.warn", Msg: c.Application}}
	}
	return out, f.fail
}

func (f *fake) took() string {
	s := strings.Join(f.asked, " ")
	f.asked = nil
	return s
}

func objects(t testing.TB, names ...string) []*manifest.Object {
	t.Helper()
	var out []*manifest.Object
	for _, n := range names {
		o, err := manifest.New(map[string]any{"apiVersion": "v1", "kind": "File", "metadata": map[string]any{"name": n}}, manifest.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, o)
	}
	return out
}

func ask(t testing.TB, p policies.Policy, names ...string) string {
	t.Helper()
	verdicts, err := p.Objects(t.Context(), objects(t, names...))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range verdicts {
		for _, f := range append(v.Deny, v.Warn...) {
			out = append(out, f.Rule+"="+f.Msg)
		}
	}
	return strings.Join(out, ", ")
}

func TestCachedAsksOnce(t *testing.T) {
	f := &fake{digest: "p1"}
	c := policies.Cached(f, 3)
	const b = "main.deny=p1 b, main.warn=w"
	ask(t, c, "a", "b")
	if got := ask(t, c, "b", "c"); f.took() != "a b c" || !strings.HasPrefix(got, b) {
		t.Errorf("asked again, or got %s", got)
	}
	ask(t, c, "d") // a is the one used longest ago
	f.took()
	if ask(t, c, "b", "a"); f.took() != "a" {
		t.Error("the wrong verdict was dropped")
	}
	if hits, misses := c.Stats(); hits != 2 || misses != 5 {
		t.Errorf("%d hits, %d misses", hits, misses)
	}
	f.digest = "p2"
	if got := ask(t, c, "b"); got != "main.deny=p2 b, main.warn=w" {
		t.Errorf("a verdict of the old policy: %s", got)
	}
	if c.Unwrap() != policies.Policy(f) || c.Digest() != "p2" {
		t.Error("the cache hides its policy")
	}
}

func TestCachedKeepsNoErrors(t *testing.T) {
	f := &fake{digest: "p1", fail: errors.New("boom")}
	c := policies.Cached(f, 10)
	if _, err := c.Objects(t.Context(), objects(t, "a")); !errors.Is(err, f.fail) {
		t.Errorf("got %v", err)
	}
	f.fail, f.short = nil, true
	if _, err := c.Objects(t.Context(), objects(t, "a")); err == nil || !strings.Contains(err.Error(), "0 verdicts for 1") {
		t.Errorf("a missing verdict passes: %v", err)
	}
	f.short = false
	f.took()
	if ask(t, c, "a"); f.took() != "a" {
		t.Error("an error was kept")
	}
}

func TestCachedKeepsNothingOfAVolatilePolicy(t *testing.T) {
	f := &fake{digest: "p1", volatile: true}
	c := policies.Cached(f, 10)
	ask(t, c, "a")
	if ask(t, c, "a"); f.took() != "a a" || !policies.IsVolatile(c) {
		t.Error("a verdict of a volatile policy was used twice")
	}
}

func TestCachedKeepsNothingOfAReplacedPolicy(t *testing.T) {
	f := &fake{digest: "p1"}
	f.replace = func(f *fake) { f.digest, f.replace = "p2", nil }
	c := policies.Cached(f, 10)
	ask(t, c, "a")
	f.digest = "p1"
	if got := ask(t, c, "a"); got != "main.deny=p1 a, main.warn=w" {
		t.Errorf("the verdict of p2 was kept under p1: %s", got)
	}
}

func TestCachedChangesAreAlwaysAsked(t *testing.T) {
	f := &fake{digest: "p1"}
	c := policies.Cached(f, 10)
	for range 2 {
		if _, err := c.Changes(t.Context(), []policies.Change{{Application: "web"}}); err != nil {
			t.Fatal(err)
		}
	}
	if f.took() != "web web" {
		t.Error("a verdict on a change was kept")
	}
}

func TestCachedConcurrently(t *testing.T) {
	var lock sync.Mutex
	c := policies.Cached(policies.All(locked{&fake{digest: "p1"}, &lock}), 5)
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for i := range 50 {
				name := fmt.Sprintf("o%d", (i+w)%9)
				if got := ask(t, c, name); got != "main.deny=p1 "+name+", main.warn=w" {
					t.Errorf("%s: %s", name, got)
				}
			}
		})
	}
	workers.Wait()
}

type locked struct {
	*fake
	lock *sync.Mutex
}

func (l locked) Objects(ctx context.Context, o []*manifest.Object) ([]policies.Verdict, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.fake.Objects(ctx, o)
}

func TestAll(t *testing.T) {
	a, b := &fake{digest: "p1"}, &fake{digest: "p2"}
	p := policies.All(policies.Named("base", policies.Cached(a, 9)), policies.Named("team", b))
	want := "base/main.deny=p1 x, team/main.deny=p2 x, base/main.warn=w, team/main.warn=w"
	for range 2 { // the second time the first set answers from memory
		if got := ask(t, p, "x"); got != want {
			t.Errorf("got %s", got)
		}
	}
	changes, err := p.Changes(t.Context(), []policies.Change{{Application: "web"}})
	if err != nil || len(changes[0].Warn) != 2 || changes[0].Warn[1].Rule != "team/gitopsd.change.warn" {
		t.Errorf("changes: %v, %v", changes, err)
	}
	b.fail = errors.New("boom")
	if v, err := p.Objects(t.Context(), objects(t, "x")); !errors.Is(err, b.fail) || v != nil || !strings.Contains(err.Error(), "policy set team") {
		t.Errorf("one error does not stop all: %v, %v", v, err)
	}
	b.fail, b.short = nil, true
	if _, err := p.Objects(t.Context(), objects(t, "x")); err == nil {
		t.Error("a missing verdict passes")
	}
}

func TestAllDigestAndVolatile(t *testing.T) {
	a, b := &fake{digest: "p1"}, &fake{digest: "p2"}
	if policies.All(a, b).Digest() == policies.All(b, a).Digest() || policies.Named("x", a).Digest() == policies.Named("y", a).Digest() {
		t.Error("equal digests of different policies")
	}
	if policies.IsVolatile(policies.All(a, b)) {
		t.Error("volatile without reason")
	}
	b.volatile = true
	if !policies.IsVolatile(policies.All(a, policies.Named("n", policies.Cached(b, 1)))) {
		t.Error("volatility is lost on the way")
	}
	if got := ask(t, policies.All(), "x"); got != "" {
		t.Errorf("no policy says %s", got)
	}
}
