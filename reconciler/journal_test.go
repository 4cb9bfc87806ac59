package reconciler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
	"github.com/gitopsd/gitopsd/internal/store"
	memstore "github.com/gitopsd/gitopsd/internal/store/memory"
	"github.com/gitopsd/gitopsd/sources"
)

// stuck is a store on a disk that does not answer: while it is stopped, commits
// that write a key with the prefix hang, whatever becomes of their context.
type stuck struct {
	store.Store
	mu     sync.Mutex
	prefix string
	gate   chan struct{} // nil: it answers
	fail   error         // of the commits that hung
}

func (s *stuck) stop(prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prefix, s.gate = prefix, make(chan struct{})
}

func (s *stuck) answer(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.gate)
	s.gate, s.fail = nil, err
}

func (s *stuck) Commit(ctx context.Context, epoch uint64, compares []store.Compare, ops []store.Op) (uint64, error) {
	s.mu.Lock()
	gate := s.gate
	hit := gate != nil && slices.ContainsFunc(ops, func(op store.Op) bool { return strings.HasPrefix(op.Key, s.prefix) })
	s.mu.Unlock()
	if hit {
		<-gate
		s.mu.Lock()
		err := s.fail
		s.mu.Unlock()
		if err != nil {
			return 0, err
		}
	}
	return s.Store.Commit(ctx, epoch, compares, ops)
}

// A disk that does not answer stops who has to record something, and nobody
// else: the others keep their interval, every status answers at once, and so
// does every application. When it answers again, all goes on where it stood.
func TestDiskDoesNotAnswer(t *testing.T) {
	simulate(t, func(s *sim) {
		disk := &stuck{Store: s.store}
		s.store = disk
		s.app("a", "a")
		s.app("b", "b")
		s.app("seen", "seen", func(a *Application) { a.Drift = []plan.DriftRule{{Mode: plan.DriftReport}} })
		s.commit(map[string]string{"a/x.yaml": thing("x", "1"), "b/y.yaml": thing("y", "1"), "seen/z.yaml": thing("z", "1")})
		s.start()
		disk.stop("")
		s.worlds["one"].SetField("hand", where("x"), "/spec/value", int64(9)) // healing it needs a record
		s.worlds["one"].SetField("hand", where("z"), "/spec/value", int64(9)) // its record has to wait
		for range 10 {
			s.pass(time.Minute)
			at := time.Now()
			if list, err := s.m.Status(); err != nil || len(list) != 3 || time.Since(at) != 0 {
				t.Fatalf("status: %v, %v, took %s", list, err, time.Since(at))
			}
			if p, err := s.m.Plan(s.t.Context(), "a"); err != nil || time.Since(at) != 0 || p.Revision == "" {
				t.Fatalf("plan of the application that waits: %+v, %v, took %s", p, err, time.Since(at))
			}
			for _, name := range []string{"b", "seen"} {
				if st := s.status(name); time.Since(st.ObservedAt) > 2*time.Minute || st.running {
					t.Fatalf("%s is hindered: %s %s, seen %s ago", name, st.Sync, st.Message, time.Since(st.ObservedAt))
				}
			}
		}
		s.wantSync("a", Stale, "")
		s.wantSync("b", Synced, "")
		s.wantSync("seen", OutOfSync, "1 field")
		s.wantValue("one", "x", int64(9))
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		if err := s.m.Sync(ctx, "ops", "b", true); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "audit log") {
			t.Errorf("what a person asks for goes on record first: %v", err)
		}
		disk.answer(nil)
		s.pass(2 * time.Minute)
		s.wantSync("a", Synced, "")
		s.wantValue("one", "x", int64(1))
		s.wantCounts("one", 3, 1, 0)
		var drift []driftRecord
		if err := readJSON(s.t.Context(), s.store, driftPrefix+"seen", &drift); err != nil || len(drift) != 1 {
			t.Errorf("drift on record: %+v, %v", drift, err)
		}
	})
}

// An audit log that does not answer: nothing is written to a target before what
// was said of it is durable, no event is lost, none comes out of its order, an
// application does not gather them without end, and those without news go on.
func TestAuditLogDoesNotAnswer(t *testing.T) {
	simulate(t, func(s *sim) {
		s.app("many", "many", func(a *Application) { a.Drift = []plan.DriftRule{{Mode: plan.DriftReport}} })
		s.app("heal", "heal")
		s.app("calm", "calm")
		files := things("many", maxUntold+50, "1")
		files["heal/h.yaml"], files["calm/c.yaml"] = thing("h", "1"), thing("c", "1")
		s.commit(files)
		s.start()
		gate := make(chan struct{})
		s.sink = func([]Event) { <-gate }
		for i := range maxUntold + 50 {
			s.worlds["one"].SetField("hand", where(objectName(i)), "/spec/value", int64(9))
		}
		s.worlds["one"].SetField("hand", where("h"), "/spec/value", int64(9))
		s.pass(2 * time.Minute)
		rounds := s.status("many").Round
		s.pass(10 * time.Minute)
		if n := s.status("many").Round - rounds; n != 0 {
			t.Errorf("%d more rounds with %d events that are not written", n, s.m.journal.left())
		}
		s.wantSync("many", Stale, "")
		s.wantSync("heal", Stale, "")
		s.wantValue("one", "h", int64(9))
		s.wantSync("calm", Synced, "")
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Second)
		defer cancel()
		if _, err := s.m.Suspend(ctx, "ops", "calm", false, "incident", time.Time{}); err != nil {
			t.Error(err)
		}
		s.sink = nil
		close(gate)
		s.pass(2 * time.Minute)
		s.wantSync("heal", Synced, "")
		s.wantSync("many", OutOfSync, "fields drifted")
		kinds := s.eventKinds()
		if kinds[EventDrift] != maxUntold+51 || kinds[EventSuspended] != 1 {
			t.Errorf("%v, want %d of drift and one of the suspension", kinds, maxUntold+51)
		}
		var last time.Time
		for _, e := range s.happened() {
			if e.At.Before(last) {
				t.Fatalf("%s of %s comes after one of %s", e.Kind, e.At, last)
			}
			last = e.At
		}
	})
}

// What an audit log refuses is named in the log, and the loop goes on.
func TestEventThatIsRefusedIsSaid(t *testing.T) {
	log := &strings.Builder{}
	j := &journal{
		events:  func(context.Context, []Event) error { return errors.New("no space left") },
		now:     time.Now,
		log:     textLog(log),
		records: map[string]func(error){},
	}
	j.tell(Event{Kind: EventApplied, Application: "web", Message: "update a"}, nil)
	j.tell(Event{Kind: EventApplied, Application: "web", Message: "update b"}, nil)
	if err := j.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`message="update a"`, `message="update b"`, "no space left"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("no %s in\n%s", want, log)
		}
	}
}

// Of a record only the newest content is written, whatever came before it.
func TestJournalKeepsTheNewestRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var written []string
		j := &journal{
			save: func(_ context.Context, ops ...store.Op) error {
				<-gate
				for _, op := range ops {
					written = append(written, op.Key+"="+string(op.Value))
				}
				return nil
			},
			now: time.Now, records: map[string]func(error){},
		}
		var told []string
		for _, v := range []string{"1", "2", "3"} {
			j.record(store.Op{Key: "a", Value: []byte(v)}, func(error) { told = append(told, v) })
			j.record(store.Op{Key: "b", Value: []byte(v)}, func(error) {})
			if v == "1" {
				synctest.Wait() // the first are being written
			}
		}
		close(gate)
		synctest.Wait()
		if got := strings.Join(written, " "); got != "a=1 b=1 a=3 b=3" && got != "a=1 a=3 b=3" {
			t.Errorf("written %q", got)
		}
		if got := strings.Join(told, " "); got != "1 3" {
			t.Errorf("told of %q", got)
		}
	})
}

// The registry answers while the store works on a record, keeps what that is
// about for who reserved it, and gives it back when the record fails.
func TestRegistryWhileTheStoreWorks(t *testing.T) {
	key := func(name string) plan.Key {
		return plan.Key{Target: "one", ID: manifest.ID{Kind: "Thing", Name: name}}
	}
	entry := func(owner, name, at string) []plan.Entry {
		return []plan.Entry{{Key: key(name), Owner: owner, Locator: at, State: plan.EntryPending}}
	}
	for name, c := range map[string]struct {
		fail error
		want string
	}{"kept": {nil, "owned by another application: a"}, "given back": {errors.New("I/O error"), ""}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &stuck{Store: memstore.New()}
				r := newRegistry(disk, 1)
				disk.stop(inventoryPrefix + key("x").String())
				first, second, third := make(chan error, 1), make(chan error, 1), make(chan error, 1)
				go func() { first <- r.write(context.Background(), entry("a", "x", "here"), nil) }()
				synctest.Wait()
				if owner, _ := r.ownerOf("b", key("x"), "here"); owner != "" {
					t.Errorf("owned by %s before it is on record", owner)
				}
				go func() { second <- r.write(context.Background(), entry("b", "y", "here"), nil) }() // the same address
				go func() { third <- r.write(context.Background(), entry("b", "z", "there"), nil) }()
				synctest.Wait()
				if err := <-third; err != nil {
					t.Error(err)
				}
				select {
				case err := <-second:
					t.Fatalf("it did not wait for the one before: %v", err)
				default:
				}
				short, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				if err := r.write(short, entry("b", "x", "else"), nil); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the same key: %v", err)
				}
				disk.answer(c.fail)
				if err := <-first; !errors.Is(err, c.fail) {
					t.Errorf("first: %v", err)
				}
				if err := <-second; fmt.Sprint(err) != c.want && (c.want == "" || err == nil || !strings.HasSuffix(err.Error(), c.want)) && (c.want != "" || err != nil) {
					t.Errorf("second: %v, want %q", err, c.want)
				}
				if n := len(r.reserved); n != 0 {
					t.Errorf("%d reservations left", n)
				}
			})
		})
	}
}

// deaf is a repository whose requests ignore their context while gate is set.
type deaf struct {
	keepOpen
	gate chan struct{}
}

// textLog is a log that ends up in b, without times.
func textLog(b *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, nil))
}

func (d *deaf) Refs(ctx context.Context, patterns ...string) (map[string]string, error) {
	<-d.gate
	return d.keepOpen.Refs(ctx, patterns...)
}

// A source whose call ignores its context is told of in the status, and neither
// a reload nor the end waits for it.
func TestDeafSource(t *testing.T) {
	simulate(t, func(s *sim) {
		gate := make(chan struct{})
		s.serve = func(r keepOpen) sources.Repository { return &deaf{r, gate} }
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		s.pass(5 * time.Minute)
		if src := s.m.Sources()[0]; !strings.Contains(src.Error, "source fleet: ") {
			t.Errorf("source %+v", src)
		}
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		at := time.Now()
		s.stop()
		if took := time.Since(at); took > stopGrace {
			t.Errorf("the end took %s", took)
		}
		close(gate)
		synctest.Wait()
	})
}

// A round that does not end is left behind by the end of the process, and named.
func TestEndNamesWhatDoesNotEnd(t *testing.T) {
	simulate(t, func(s *sim) {
		log := &strings.Builder{}
		s.log = textLog(log)
		disk := &stuck{Store: s.store}
		s.store = disk
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		disk.stop("")
		s.worlds["one"].SetField("hand", where("a"), "/spec/value", int64(9))
		s.pass(2 * time.Minute)
		at := time.Now()
		s.stop()
		if took := time.Since(at); took > stopGrace {
			t.Errorf("the end took %s", took)
		}
		if !strings.Contains(log.String(), "left behind") || !strings.Contains(log.String(), "application web") {
			t.Errorf("the log does not name it:\n%s", log)
		}
		disk.answer(nil)
		synctest.Wait()
		s.wantValue("one", "a", int64(9)) // it wrote nothing after its end
	})
}
