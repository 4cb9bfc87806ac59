package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/internal/store"
)

// Bounds of the journal.
const (
	// journalBatch is how many events are written at once: so many records of the
	// audit log, and the drops of as many old ones, fit one transaction.
	journalBatch = store.MaxOps/2 - 1
	// maxUntold is how many events of an application may wait to be written before
	// it begins no further round.
	maxUntold = 100
)

// journal is the one writer of what the loop has to tell. Who has news hands it
// over and goes on, so that a goroutine that must not wait for a disk does not;
// who must know that it is durable waits for that with flush. News is written in
// the order in which it was handed over, by one goroutine at a time, which takes
// along all that came meanwhile. It is safe for concurrent use and needs no end:
// the goroutine ends when nothing is left.
//
// What waits is bounded by who hands over: an application begins no round while
// more than maxUntold events of it wait, and everybody else waits for theirs.
type journal struct {
	events func(context.Context, []Event) error
	save   func(context.Context, ...store.Op) error
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	waiting []news
	// records are those of which only the newest counts, by key.
	records map[string]func(error)
	ops     []store.Op // of records, each key once
	writing bool
}

// news is one event, or only somebody who waits for those before it.
type news struct {
	event *Event
	told  func() // called when it was written, or could not be; may be nil
}

// tell hands an event over and does not wait; told is called once it was
// written, or could not be, which the log then says.
func (j *journal) tell(e Event, told func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e.At = j.now() // under the lock, so that the times are in order too
	j.add(news{&e, told})
}

// record hands over what a record is to hold; an older content that was not
// written yet is not written any more. told is called with the outcome.
func (j *journal) record(op store.Op, told func(error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, again := j.records[op.Key]; again {
		for i := range j.ops {
			if j.ops[i].Key == op.Key {
				j.ops[i] = op
			}
		}
	} else {
		j.ops = append(j.ops, op)
	}
	j.records[op.Key] = told
	j.begin()
}

// flush waits until all that was handed over before has been written, or fails
// with ctx.
func (j *journal) flush(ctx context.Context) error {
	done := make(chan struct{})
	j.mu.Lock()
	if len(j.waiting) == 0 && !j.writing {
		j.mu.Unlock()
		return nil
	}
	j.add(news{told: func() { close(done) }})
	j.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the state directory does not answer: what happened is not in the audit log yet: %w", ctx.Err())
	}
}

// left returns how many events are not written yet.
func (j *journal) left() (n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, w := range j.waiting {
		if w.event != nil {
			n++
		}
	}
	return n
}

// add and begin are called with the lock.
func (j *journal) add(n news) {
	j.waiting = append(j.waiting, n)
	j.begin()
}

func (j *journal) begin() {
	if !j.writing {
		j.writing = true
		go j.work()
	}
}

// work writes until nothing is left. What is being written counts as waiting.
func (j *journal) work() {
	for {
		j.mu.Lock()
		batch := j.waiting[:min(len(j.waiting), journalBatch)]
		ops, told := j.ops, j.records
		j.ops, j.records = nil, map[string]func(error){}
		if len(batch)+len(ops) == 0 {
			j.writing = false
			j.mu.Unlock()
			return
		}
		j.mu.Unlock()
		j.writeEvents(batch)
		j.mu.Lock()
		j.waiting = j.waiting[len(batch):]
		j.mu.Unlock()
		for _, n := range batch {
			if n.told != nil {
				n.told()
			}
		}
		for _, tx := range store.Transactions(ops) {
			err := contained(func() error { return j.save(context.Background(), tx...) })
			for _, op := range tx {
				told[op.Key](err)
			}
		}
	}
}

func (j *journal) writeEvents(batch []news) {
	var events []Event
	for _, n := range batch {
		if n.event != nil {
			events = append(events, *n.event)
		}
	}
	if len(events) == 0 {
		return
	}
	err := contained(func() error { return j.events(context.Background(), events) })
	if err == nil {
		return
	}
	for _, e := range events {
		j.log.Error("event is missing from the audit log", "kind", e.Kind, "application", e.Application, "principal", e.Principal, "message", e.Message, "error", err)
	}
}
