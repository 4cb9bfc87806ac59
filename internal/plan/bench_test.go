package plan

import (
	"fmt"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// large returns a converged input of n objects with its lookups, as the loop
// keeps them.
func large(n int) (Input, []Key, Options) {
	w := newWorld()
	observed := make(map[Key]Observed, n)
	byLocator := make(map[string]Key, n)
	keys := make([]Key, n)
	for i := range n {
		name := fmt.Sprintf("object-%06d", i)
		w.want(name, m{"path": path(name), "mode": "0644", "owner": "root", "group": "root", "content": "listen 80;\n"})
		keys[i] = file(name)
		byLocator[path(name)] = keys[i]
	}
	w.applied()
	for _, k := range keys {
		observed[k] = w.observeOwned(k)
	}
	in := w.input()
	in.Observed = func(k Key) Observed { return observed[k] }
	in.ByLocator = func(_, locator string) (Key, bool) { k, ok := byLocator[locator]; return k, ok }
	in.DesiredAt = func(_, locator string) []Key {
		if k, ok := byLocator[locator]; ok {
			return []Key{k}
		}
		return nil
	}
	return in, keys, w.options()
}

func (w *world) observeOwned(k Key) Observed {
	o, err := manifest.New(manifest.Clone(w.live[w.entries[k].Locator]).(m), manifest.Origin{})
	if err != nil {
		panic(err)
	}
	return Observed{Presence: Present, Object: o}
}

var sizes = []int{100, 1_000, 10_000, 100_000}

// BenchmarkBuildAll builds over everything, as a full look at a converged
// application does; cold computes the digests of what is desired, warm has them.
func BenchmarkBuildAll(b *testing.B) {
	for _, n := range sizes {
		in, keys, opts := large(n)
		b.Run(fmt.Sprintf("cold/%d", n), func(b *testing.B) { buildAll(b, in, keys, opts) })
		warm := make(map[Key]Desired, n)
		for _, k := range keys {
			d, _ := in.Desired(k)
			d.Digests = Digests(d.Object, opts.Digest)
			warm[k] = d
		}
		in.Desired = func(k Key) (Desired, bool) { d, ok := warm[k]; return d, ok }
		b.Run(fmt.Sprintf("warm/%d", n), func(b *testing.B) { buildAll(b, in, keys, opts) })
	}
}

func buildAll(b *testing.B, in Input, keys []Key, opts Options) {
	b.ReportAllocs()
	for b.Loop() {
		if p, err := Build(in, keys, opts); err != nil || !p.Empty() {
			b.Fatal(p, err)
		}
	}
}

// BenchmarkBuildOne builds over one changed key, whose cost must not grow with
// the application.
func BenchmarkBuildOne(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			in, keys, opts := large(n)
			drift := in.Observed(keys[n/2])
			drift.Object = object(keys[n/2], specN(1))
			observed := in.Observed
			in.Observed = func(k Key) Observed {
				if k == keys[n/2] {
					return drift
				}
				return observed(k)
			}
			b.ReportAllocs()
			for b.Loop() {
				if p, err := Build(in, keys[n/2:n/2+1], opts); err != nil || p.Counts.Update != 1 {
					b.Fatal(p, err)
				}
			}
		})
	}
}

// TestOneKeyAsksLittle holds Build to a cost that follows the scope: lookups
// are counted instead of time.
func TestOneKeyAsksLittle(t *testing.T) {
	count := func(n int) int {
		in, keys, opts := large(n)
		calls := 0
		desired, inventory, observed := in.Desired, in.Inventory, in.Observed
		in.Desired = func(k Key) (Desired, bool) { calls++; return desired(k) }
		in.Inventory = func(k Key) (Entry, bool) { calls++; return inventory(k) }
		in.Observed = func(k Key) Observed { calls++; return observed(k) }
		if _, err := Build(in, keys[:1], opts); err != nil {
			t.Fatal(err)
		}
		return calls
	}
	if few, many := count(10), count(1000); few != many || many > 20 {
		t.Errorf("%d lookups among 10 objects, %d among 1000", few, many)
	}
}
