package reconciler

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
	memstore "github.com/gitopsd/gitopsd/internal/store/memory"
)

// An object whose record no transaction holds fails by itself, for good, and
// says what to do; the others of its chunk go on.
func TestRecordThatDoesNotFit(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		var huge strings.Builder
		huge.WriteString(thing("huge", "1"))
		for i := range 33_000 {
			fmt.Fprintf(&huge, "  f%d: 1\n", i)
		}
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "huge.yaml": huge.String(), "z.yaml": thing("z", "1")})
		s.start()
		s.pass(time.Minute)
		s.wantFailure("web", "huge", "the record of one:test.example/Thing/huge, which has a line for each of its fields, is larger than the store can hold; split the object")
		for _, f := range s.status("web").Failures {
			if f.Class != appliers.Stop || f.Key.ID.Name != "huge" {
				t.Errorf("failure %+v", f)
			}
		}
		s.wantCounts("one", 2, 0, 0)
	})
}

// An object of 10,000 fields is created, changed in all of them at once, and known
// again after a restart.
func TestRecordOfManyFields(t *testing.T) {
	simulate(t, func(s *sim) {
		large := func(value string) string {
			var b strings.Builder
			b.WriteString(thing("large", value))
			for i := range 10_000 {
				if i%100 == 0 {
					fmt.Fprintf(&b, "  group%03d:\n", i/100)
				}
				fmt.Fprintf(&b, "    field%06d: %s\n", i, value)
			}
			return b.String()
		}
		s.app("web", ".")
		s.commit(map[string]string{"large.yaml": large("1")})
		s.start()
		s.wantSync("web", Synced, "")
		s.commit(map[string]string{"large.yaml": large("2")})
		s.pass(15 * time.Second)
		s.wantSync("web", Synced, "")
		s.wantValue("one", "large", int64(2))
		s.stop()
		s.start()
		s.wantSync("web", Synced, "")
		s.wantCounts("one", 1, 1, 0)
	})
}

// Records that fit one transaction by their number and not by their size go in
// several, each within the limits, and all are read again.
func TestRecordsAreSplitBySize(t *testing.T) {
	sealer, err := manifest.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	s := memstore.New() // it refuses a transaction that is too large
	r := newRegistry(s, 1)
	var entries []plan.Entry
	for i := range store.MaxOps / 2 {
		e := plan.Entry{
			Key:   plan.Key{Target: "one", ID: manifest.ID{Kind: "Thing", Name: objectName(i)}},
			Owner: "web", Locator: objectName(i), State: plan.EntryPending, Writing: plan.Applied{},
		}
		for j := range 2000 {
			e.Writing[manifest.Pointer(fmt.Sprintf("/spec/field%d", j))] = sealer.Digest(int64(i*2000 + j))
		}
		entries = append(entries, e)
	}
	if err := r.write(t.Context(), entries, nil); err != nil {
		t.Fatal(err)
	}
	if rev, err := s.Commit(t.Context(), 1, nil, nil); err != nil || rev < 4 || rev > 6 {
		t.Errorf("%d transactions, %v; want the least that hold 50 records of some 35 KB", rev-1, err)
	}
	again := newRegistry(s, 1)
	if err := again.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if got, ok := again.entry("web", e.Key); !ok || !maps.Equal(got.Writing, e.Writing) || got.Applied != nil {
			t.Fatalf("%s was not read again", e.Key)
		}
	}
}

// A write that its target completes by itself is on record with the token that
// names it, and is not sent again before it is time to look, nor after a restart.
func TestTokenOfPendingWrite(t *testing.T) {
	simulate(t, func(s *sim) {
		s.is["one"] = memapply.Personality{Async: &memapply.Async{After: 30 * time.Second}}
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		e, _ := s.m.registry.entry("web", s.key("one", "a"))
		if e.Token == "" {
			t.Fatalf("no token on record: %+v", e)
		}
		a, _ := s.m.app("web")
		a.look(nil)
		s.pass(time.Second)
		if c := s.worlds["one"].Counters(); c.Applies != 1 {
			t.Errorf("%d applies, want 1", c.Applies)
		}
		s.stop()
		s.start()
		if c := s.worlds["one"].Counters(); c.Started != 1 {
			t.Errorf("%d writes started, want 1", c.Started)
		}
		s.pass(2 * time.Minute)
		s.wantSync("web", Synced, "")
		if e, _ := s.m.registry.entry("web", s.key("one", "a")); e.Token != "" {
			t.Errorf("token still on record: %+v", e)
		}
	})
}
