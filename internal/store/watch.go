package store

import (
	"bytes"
	"context"
	"strings"
	"sync"
)

// WatchBuffer is how many events a watcher may fall behind before its channel
// is closed: ten of the largest commits.
const WatchBuffer = 10 * MaxOps

// Hub is the watch half of a backend: it hands the events of commits to those
// who watch. The zero value is ready, and all methods are safe for concurrent
// use. Publish has to be called in the order of the commits.
type Hub struct {
	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]struct{}
}

type watcher struct {
	prefix string
	events chan Event
	stop   func() bool // ends the wait for the watcher's context
}

// Watch implements Store.Watch.
func (h *Hub) Watch(ctx context.Context, prefix string) (<-chan Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	w := &watcher{prefix: prefix, events: make(chan Event, WatchBuffer)}
	w.stop = context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.drop(w)
	})
	if h.watchers == nil {
		h.watchers = map[*watcher]struct{}{}
	}
	h.watchers[w] = struct{}{}
	return w.events, nil
}

// Publish sends the events of one commit. It never waits: who is too far behind
// loses the channel, and so learns that events are missing.
func (h *Hub) Publish(events []Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		for _, e := range events {
			if !strings.HasPrefix(e.Key, w.prefix) {
				continue
			}
			if len(w.events) == cap(w.events) {
				h.drop(w)
				break
			}
			e.Value = bytes.Clone(e.Value) // no two readers share one
			w.events <- e
		}
	}
}

// Cut closes the channels of all watchers, for a backend that does not know
// which events happened. They may watch again.
func (h *Hub) Cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		h.drop(w)
	}
}

// Close cuts all watchers and refuses new ones.
func (h *Hub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.Cut()
}

// drop closes a watcher's channel once. h.mu is held.
func (h *Hub) drop(w *watcher) {
	if _, there := h.watchers[w]; !there {
		return
	}
	delete(h.watchers, w)
	w.stop()
	close(w.events)
}
