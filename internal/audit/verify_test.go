package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/audit"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/memory"
)

// tampered is a store in which somebody edits a chain of eight records, of which
// the first two were dropped by retention.
type tampered struct {
	*testing.T
	*memory.Store
}

const headKey = "audit/daemon/head"

func recordKey(seq int) string { return fmt.Sprintf("audit/daemon/record/%020d", seq) }

func (x tampered) value(key string) []byte {
	x.Helper()
	r, err := x.Get(x.Context(), key)
	if err != nil {
		x.Fatal(err)
	}
	return r.Value
}

// put writes values by key; nil deletes.
func (x tampered) put(key string, value []byte) {
	x.Helper()
	if _, err := x.Commit(x.Context(), 1, nil, []store.Op{{Key: key, Value: value}}); err != nil {
		x.Fatal(err)
	}
}

func (x tampered) edit(key, old, new string) {
	x.Helper()
	value := x.value(key)
	if !bytes.Contains(value, []byte(old)) {
		x.Fatalf("%s holds no %s: %s", key, old, value)
	}
	x.put(key, bytes.Replace(value, []byte(old), []byte(new), 1))
}

// forge is a chain of the same writer with other content.
func (x tampered) forge() tampered {
	x.Helper()
	f := tampered{x.T, memory.New()}
	l := open(x.T, f, 6)
	for i := 1; i <= 8; i++ {
		if err := l.Append(x.Context(), audit.Entry{Kind: "forged", Message: fmt.Sprint(i)}); err != nil {
			x.Fatal(err)
		}
	}
	return f
}

// Verify names the first record at which the chain breaks.
func TestVerifyFindsTheBreak(t *testing.T) {
	for name, test := range map[string]struct {
		tamper func(x tampered)
		seq    uint64
		reason string
	}{
		"nothing":               {func(tampered) {}, 0, ""},
		"message changed":       {func(x tampered) { x.edit(recordKey(5), "record 5", "record X") }, 5, "hash does not match"},
		"hash changed":          {func(x tampered) { x.put(recordKey(4), append([]byte("0"), x.value(recordKey(4))[1:]...)) }, 4, "hash does not match"},
		"record removed":        {func(x tampered) { x.put(recordKey(6), nil) }, 6, "missing"},
		"oldest removed":        {func(x tampered) { x.put(recordKey(3), nil) }, 3, "missing"},
		"tail cut off":          {func(x tampered) { x.put(recordKey(7), nil); x.put(recordKey(8), nil) }, 7, "missing"},
		"newest cut off":        {func(x tampered) { x.put(recordKey(8), nil) }, 8, "missing"},
		"record from elsewhere": {func(x tampered) { x.put(recordKey(5), x.value(recordKey(4))) }, 5, "it is record 4"},
		"well-formed forgery":   {func(x tampered) { x.put(recordKey(5), x.forge().value(recordKey(5))) }, 5, "does not follow"},
		"forged tail":           {func(x tampered) { x.put(recordKey(8), x.forge().value(recordKey(8))) }, 8, "does not follow"},
		"forged head":           {func(x tampered) { x.put(headKey, x.forge().value(headKey)) }, 3, "does not follow"},
		"head moved back":       {func(x tampered) { x.edit(headKey, `"seq":8`, `"seq":7`) }, 7, "not the record that the head names"},
		"record behind the end": {func(x tampered) { x.put(recordKey(9), x.value(recordKey(8))) }, 9, "behind the end"},
		"head unreadable":       {func(x tampered) { x.put(headKey, []byte("{")) }, 0, "unreadable"},
		"head removed":          {func(x tampered) { x.put(headKey, nil) }, 0, "head is missing"},
		"unreadable with the right hash": {func(x tampered) {
			x.put(recordKey(5), []byte("44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\n{}")) // SHA-256 of {}
		}, 5, "it is record 0"},
	} {
		t.Run(name, func(t *testing.T) {
			x := tampered{t, memory.New()}
			l := open(t, x, 6)
			appendN(t, l, 1, 8)
			test.tamper(x)
			n, err := l.Verify(t.Context())
			if test.reason == "" {
				if err != nil || n != 6 {
					t.Fatalf("an untouched chain: %d, %v", n, err)
				}
				return
			}
			var b *audit.Break
			if !errors.As(err, &b) || !errors.Is(err, audit.ErrBroken) || b.Seq != test.seq || !strings.Contains(b.Reason, test.reason) {
				t.Fatalf("got %v, want a break at %d: %s", err, test.seq, test.reason)
			}
			if test.seq > 3 && n != int(test.seq)-3 && n != int(test.seq)-2 {
				t.Errorf("%d records hold before a break at %d", n, test.seq)
			}
		})
	}
}

// A chain without its head is not begun anew over the old records.
func TestOpenRefusesLostHead(t *testing.T) {
	x := tampered{t, memory.New()}
	appendN(t, open(t, x, 0), 1, 3)
	x.put(headKey, nil)
	_, err := audit.Open(t.Context(), audit.Options{Store: x, Writer: "daemon", Now: clock(), Epoch: func() uint64 { return 1 }})
	if !errors.Is(err, audit.ErrBroken) {
		t.Fatalf("got %v", err)
	}
}

// A broken record is named by Query too, and appending goes on around it.
func TestBrokenChainGoesOn(t *testing.T) {
	x := tampered{t, memory.New()}
	l := open(t, x, 6)
	appendN(t, l, 1, 6)
	x.put(recordKey(2), []byte("nonsense"))
	if _, err := l.Query(t.Context(), audit.Filter{}, 0); !errors.Is(err, audit.ErrBroken) || !strings.Contains(err.Error(), "record 2 ") {
		t.Errorf("query: %v", err)
	}
	if got := numbers(t, l, audit.Filter{}, 4); got != "6 5 4 3" {
		t.Errorf("query above it: %s", got)
	}
	appendN(t, l, 7, 7) // record 2 cannot become the oldest
	if _, err := l.Verify(t.Context()); !errors.Is(err, audit.ErrBroken) {
		t.Errorf("verify: %v", err)
	}
	appendN(t, l, 8, 12)
	verify(t, l, 6)
}
