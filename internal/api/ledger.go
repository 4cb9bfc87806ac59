package api

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/reconciler"
)

// maxGone is how many applications that are gone a ledger remembers; cursors
// from before those it drops are answered with everything.
const maxGone = 1000

// ledger numbers the statuses that watchers were told of, so that each is told
// only what changed since its cursor. It compares whole statuses: some change by
// time alone. One ledger serves all streams; it is safe for concurrent use.
type ledger struct {
	// daemon tells the cursors of this process from those of another.
	daemon string

	mu    sync.Mutex
	seq   uint64 // of the newest change
	floor uint64 // cursors below it are answered with everything
	told  map[string]*entry
	gone  map[string]uint64 // when an application went
}

type entry struct {
	status reconciler.Status
	seq    uint64 // when it became that
}

func newLedger() *ledger {
	return &ledger{daemon: rand.Text(), told: map[string]*entry{}, gone: map[string]uint64{}}
}

// update takes in a present list of statuses, which is of all applications or
// of some. The caller holds the lock.
func (l *ledger) update(list []reconciler.Status, all bool) {
	seen := make(map[string]bool, len(list))
	for _, s := range list {
		seen[s.Application] = true
		if e, ok := l.told[s.Application]; ok && reflect.DeepEqual(e.status, s) {
			continue
		}
		l.seq++
		l.told[s.Application] = &entry{s, l.seq}
		delete(l.gone, s.Application)
	}
	if !all {
		return
	}
	for name := range l.told {
		if !seen[name] {
			l.seq++
			delete(l.told, name)
			l.gone[name] = l.seq
		}
	}
	if len(l.gone) > maxGone {
		clear(l.gone)
		l.floor = l.seq
	}
}

// cursor names how much of what names stand for has been told.
func (l *ledger) cursor(names []string) string {
	return fmt.Sprintf("%s.%d", l.scope(names), l.seq)
}

// scope binds a cursor to this process and to what was asked for.
func (l *ledger) scope(names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	sum := sha256.Sum256([]byte(strings.Join(sorted, "\x00")))
	return l.daemon + "." + hex.EncodeToString(sum[:8])
}

// since returns the number in a cursor for names, and false when it says nothing
// to this ledger. The caller holds the lock.
func (l *ledger) since(cursor string, names []string) (seq uint64, ok bool) {
	rest, ok := strings.CutPrefix(cursor, l.scope(names)+".")
	if !ok {
		return 0, false
	}
	if _, err := fmt.Sscanf(rest, "%d", &seq); err != nil || fmt.Sprint(seq) != rest {
		return 0, false
	}
	return seq, seq >= l.floor && seq <= l.seq
}

// news returns what changed of the named applications, or of all, since cursor.
func (s *server) news(names []string, cursor string) (*pb.WatchStatusResponse, error) {
	if err := checkNames(names); err != nil {
		return nil, err
	}
	l := s.ledger
	l.mu.Lock() // before the look, so that no older one is taken in after a newer
	defer l.mu.Unlock()
	list, err := s.backend.Status(names...)
	if err != nil {
		return nil, toCode(err)
	}
	seq, known := l.since(cursor, names)
	l.update(list, len(names) == 0)
	out := &pb.WatchStatusResponse{Cursor: l.cursor(names), Full: !known}
	if known {
		list = slices.DeleteFunc(list, func(st reconciler.Status) bool { return l.told[st.Application].seq <= seq })
		if len(names) == 0 {
			for name, at := range l.gone {
				if at > seq {
					out.Removed = append(out.Removed, name)
				}
			}
			slices.Sort(out.Removed)
		}
	}
	out.Applications = s.converted(list)
	return out, nil
}
