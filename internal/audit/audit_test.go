package audit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/internal/audit"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/bolt"
	"github.com/gitopsd/gitopsd/internal/store/memory"
)

// clock gives a second more at every look.
func clock() func() time.Time {
	var mu sync.Mutex
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(time.Second)
		return now
	}
}

func open(t *testing.T, s store.Store, keep int) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), audit.Options{Store: s, Writer: "daemon", Now: clock(), Epoch: func() uint64 { return 1 }, Keep: keep})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendN(t *testing.T, l *audit.Log, from, to int) {
	t.Helper()
	for i := from; i <= to; i++ {
		if err := l.Append(t.Context(), audit.Entry{Kind: "test", Message: fmt.Sprint("record ", i)}); err != nil {
			t.Fatal(err)
		}
	}
}

func verify(t *testing.T, l *audit.Log, want int) {
	t.Helper()
	if n, err := l.Verify(t.Context()); err != nil || n != want {
		t.Fatalf("verify: %d records, %v; want %d", n, err, want)
	}
}

// numbers lists the records that a query finds.
func numbers(t *testing.T, l *audit.Log, f audit.Filter, limit int) string {
	t.Helper()
	records, err := l.Query(t.Context(), f, limit)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range records {
		out = append(out, fmt.Sprint(r.Seq))
	}
	return strings.Join(out, " ")
}

func TestChainSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for round := range 3 {
		s, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			t.Fatal(err)
		}
		l := open(t, s, 0)
		verify(t, l, 5*round)
		appendN(t, l, 1, 5)
		verify(t, l, 5*round+5)
		seq, hash, err := l.Head(t.Context())
		if newest, qerr := l.Query(t.Context(), audit.Filter{}, 1); err != nil || qerr != nil || newest[0].Seq != seq || newest[0].Hash != hash {
			t.Fatalf("head is %d %s, the newest record %+v (%v, %v)", seq, hash, newest, err, qerr)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuery(t *testing.T) {
	l := open(t, memory.New(), 0)
	if got := numbers(t, l, audit.Filter{}, 0); got != "" {
		t.Errorf("an empty log has %s", got)
	}
	for i := 1; i <= 6; i++ {
		e := audit.Entry{Kind: []string{"sync", "approve"}[i%2], Application: []string{"web", "db", "web"}[i%3],
			Principal: "uid:1000", Message: "because", Data: map[string]any{"n": i}}
		if err := l.Append(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		filter audit.Filter
		limit  int
		want   string
	}{
		{audit.Filter{}, 0, "6 5 4 3 2 1"},
		{audit.Filter{}, 2, "6 5"},
		{audit.Filter{Before: 5}, 2, "4 3"},
		{audit.Filter{Before: 1}, 2, ""},
		{audit.Filter{Before: 99}, 1, "6"},
		{audit.Filter{Kind: "approve"}, 0, "5 3 1"},
		{audit.Filter{Application: "db"}, 0, "4 1"},
		{audit.Filter{Kind: "sync", Application: "web"}, 0, "6 2"},
		{audit.Filter{Principal: "nobody"}, 0, ""},
		{audit.Filter{Since: start.Add(5 * time.Second)}, 0, "6 5"},
		{audit.Filter{Until: start.Add(3 * time.Second)}, 0, "2 1"},
	} {
		if got := numbers(t, l, test.filter, test.limit); got != test.want {
			t.Errorf("%+v, limit %d: got %s, want %s", test.filter, test.limit, got, test.want)
		}
	}
	records, _ := l.Query(t.Context(), audit.Filter{Before: 2}, 1)
	r := records[0]
	if r.Application != "db" || r.Principal != "uid:1000" || r.Message != "because" || string(r.Data) != `{"n":1}` || r.Prev != "" || !r.At.Equal(start.Add(time.Second)) {
		t.Errorf("the first record came back as %+v", r)
	}
}

// A state change and its record are one transaction: both or neither.
func TestCommitWithState(t *testing.T) {
	s := memory.New()
	l := open(t, s, 0)
	ctx := t.Context()
	state := []store.Op{{Key: "app/web", Value: []byte("suspended")}}
	suspend := audit.Entry{Kind: "suspend", Application: "web"}
	first, err := l.Commit(ctx, []store.Compare{{Key: "app/web"}}, state, suspend)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(ctx, "app/web")
	if err != nil || r.Version != first {
		t.Fatalf("state: %+v, %v", r, err)
	}
	if _, err := l.Commit(ctx, []store.Compare{{Key: "app/web"}}, state, suspend); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("the caller's compare does not hold: %v", err)
	}
	verify(t, l, 1)
	if _, err := l.Commit(ctx, nil, []store.Op{{Key: ""}}, suspend); err == nil {
		t.Fatal("a malformed operation passed")
	}
	if _, err := l.Commit(ctx, nil, state); err != nil { // nothing to say about it
		t.Fatal(err)
	}
	if _, err := l.Commit(ctx, nil, nil, suspend, suspend, suspend); err != nil {
		t.Fatal(err)
	}
	verify(t, l, 4)
}

// Row D-54: a writer whose epoch is over adds nothing.
func TestFenced(t *testing.T) {
	s := memory.New()
	l := open(t, s, 0)
	appendN(t, l, 1, 1)
	if _, err := s.Commit(t.Context(), 2, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(t.Context(), audit.Entry{Kind: "late"}); !errors.Is(err, store.ErrFenced) {
		t.Fatalf("got %v", err)
	}
	verify(t, l, 1)
}

// Rows G-102 and G-103: a secret in the data is stored as its mask.
func TestSecretsAreMasked(t *testing.T) {
	sealer, err := manifest.NewSealer([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	const canary = "canary-8d1f"
	secret := sealer.Seal(canary)
	s := memory.New()
	l := open(t, s, 0)
	err = l.Append(t.Context(), audit.Entry{Kind: "applied", Message: fmt.Sprintf("password is %v", secret), Data: map[string]any{
		"plain": secret, "pointer": &secret, "deep": map[string]any{"list": []any{secret, map[string]any{"again": secret}}},
		"struct": struct{ Password manifest.Sensitive }{secret},
	}})
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.List(t.Context(), "")
	if err != nil || len(all) != 2 {
		t.Fatalf("%d records, %v", len(all), err)
	}
	for _, r := range all {
		if strings.Contains(string(r.Value), canary) || strings.Contains(string(r.Value), string(secret.Digest())) {
			t.Errorf("%s holds the secret: %s", r.Key, r.Value)
		}
	}
	records, _ := l.Query(t.Context(), audit.Filter{}, 1)
	if n := strings.Count(string(records[0].Data), manifest.Mask); n != 5 {
		t.Errorf("%d masks in %s", n, records[0].Data)
	}
}

// Row E-88: a record is bounded, and its size never holds up what it records.
func TestRecordIsBounded(t *testing.T) {
	s := memory.New()
	l := open(t, s, 0)
	long := strings.Repeat("ä", 100_000)
	if err := l.Append(t.Context(), audit.Entry{Kind: "big", Message: long, Data: map[string]any{"body": long}}); err != nil {
		t.Fatal(err)
	}
	records, err := l.Query(t.Context(), audit.Filter{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := records[0]
	if len(r.Message) > 4<<10 || !strings.HasSuffix(r.Message, "ä...") || !json.Valid(r.Data) || !strings.Contains(string(r.Data), "omitted") {
		t.Errorf("message of %d bytes ends in %q, data %s", len(r.Message), r.Message[len(r.Message)-8:], r.Data)
	}
	if err := l.Append(t.Context(), audit.Entry{Kind: "bad", Data: map[string]any{"f": func() {}}}); err == nil {
		t.Error("data that is no JSON was taken")
	}
	verify(t, l, 1)
}

// Row E-88: many entries at once take as many transactions as they need, and
// keep their order and their times.
func TestAppendManyAtOnce(t *testing.T) {
	l := open(t, memory.New(), 0)
	at := time.Date(2029, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, size := range map[string]int{"many": 10, "large": 15 << 10} {
		var entries []audit.Entry
		for i := range 3 * store.MaxOps {
			entries = append(entries, audit.Entry{
				At: at.Add(time.Duration(i) * time.Second), Kind: name, Message: fmt.Sprint(i), Data: map[string]any{"body": strings.Repeat("x", size)},
			})
		}
		if err := l.Append(t.Context(), entries...); err != nil {
			t.Fatal(err)
		}
		records, err := l.Query(t.Context(), audit.Filter{Kind: name}, len(entries))
		if err != nil || len(records) != len(entries) {
			t.Fatalf("%s: %d records, %v", name, len(records), err)
		}
		for i, r := range records { // newest first
			if n := len(entries) - 1 - i; r.Message != fmt.Sprint(n) || !r.At.Equal(entries[n].At) {
				t.Fatalf("%s: record %d is %q of %s", name, i, r.Message, r.At)
			}
		}
	}
	verify(t, l, 6*store.MaxOps)
}

// Row E-88: the number of records is capped, and the chain still holds.
func TestRetention(t *testing.T) {
	s := memory.New()
	l := open(t, s, 10)
	appendN(t, l, 1, 10)
	verify(t, l, 10)
	for i := 11; i <= 40; i++ {
		appendN(t, l, i, i)
		verify(t, l, 10)
	}
	if got := numbers(t, l, audit.Filter{}, 0); got != "40 39 38 37 36 35 34 33 32 31" {
		t.Errorf("kept are %s", got)
	}
	if all, _ := s.List(t.Context(), ""); len(all) != 11 {
		t.Errorf("the store holds %d records", len(all))
	}
	// More at once than are kept, and then a lower cap.
	if err := l.Append(t.Context(), make([]audit.Entry, 30)...); err != nil {
		t.Fatal(err)
	}
	verify(t, l, 30)
	l = open(t, s, 2)
	appendN(t, l, 1, 1)
	verify(t, l, 2)
	// A transaction without room drops nothing and passes; the next one catches up.
	var ops []store.Op
	for i := range store.MaxOps - 2 {
		ops = append(ops, store.Op{Key: fmt.Sprint("state/", i), Value: []byte("x")})
	}
	if _, err := l.Commit(t.Context(), nil, ops, audit.Entry{Kind: "full"}); err != nil {
		t.Fatal(err)
	}
	verify(t, l, 3)
	appendN(t, l, 1, 1)
	verify(t, l, 2)
}

// Two chains in one store do not know of each other; two logs over one chain,
// which ought not to be, still make one chain.
func TestWriters(t *testing.T) {
	s := memory.New()
	a, b := open(t, s, 0), open(t, s, 0)
	other, err := audit.Open(t.Context(), audit.Options{Store: s, Writer: "daemon2", Now: clock(), Epoch: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, l := range []*audit.Log{a, b, other} {
		for range 2 {
			wg.Go(func() {
				for range 20 {
					if err := l.Append(context.Background(), audit.Entry{Kind: "x"}, audit.Entry{Kind: "y"}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	verify(t, a, 160)
	verify(t, b, 160)
	verify(t, other, 80)
	for _, name := range []string{"", "a/b"} {
		if _, err := audit.Open(t.Context(), audit.Options{Store: s, Writer: name}); err == nil {
			t.Errorf("writer %q was taken", name)
		}
	}
}

// flaky is a store whose next commit happens and still gives an error.
type flaky struct {
	store.Store
	err error
}

func (f *flaky) Commit(ctx context.Context, epoch uint64, compares []store.Compare, ops []store.Op) (uint64, error) {
	revision, err := f.Store.Commit(ctx, epoch, compares, ops)
	if f.err != nil {
		err, f.err = f.err, nil
		return 0, err
	}
	return revision, err
}

// Row D-50: a commit whose answer was lost may have happened; the next append reads first.
func TestLostAnswer(t *testing.T) {
	s := &flaky{Store: memory.New()}
	l := open(t, s, 0)
	appendN(t, l, 1, 2)
	s.err = errors.New("lost")
	if err := l.Append(t.Context(), audit.Entry{Kind: "x"}); err == nil {
		t.Fatal("the error was swallowed")
	}
	appendN(t, l, 4, 5)
	verify(t, l, 5)
}
