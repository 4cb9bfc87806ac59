package reconciler

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
)

// An object whose record no transaction holds fails by itself, for good, and
// says what to do; the others of its chunk go on.
func TestRecordThatDoesNotFit(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("web", ".")
		var huge strings.Builder
		huge.WriteString(thing("huge", "1"))
		for i := range 6000 {
			fmt.Fprintf(&huge, "  field%06d%s: 1\n", i, strings.Repeat("x", 40))
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
