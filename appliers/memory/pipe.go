package memory

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Serve answers calls that a Client sends on r, one JSON document a line, until
// r ends. Calls run concurrently. It returns when all of them have been answered.
func Serve(a appliers.Applier, sealer *manifest.Sealer, r io.Reader, w io.Writer) error {
	s := &server{applier: a, sealer: sealer, out: json.NewEncoder(w), cancel: map[uint64]context.CancelFunc{}}
	defer s.calls.Wait()
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a call: %w", err)
		}
		var q request
		if err := decode(line, &q); err != nil {
			return fmt.Errorf("decode a call: %w", err)
		}
		s.start(q)
	}
}

type server struct {
	applier appliers.Applier
	sealer  *manifest.Sealer
	calls   sync.WaitGroup

	mu     sync.Mutex
	out    *json.Encoder
	cancel map[uint64]context.CancelFunc
}

func (s *server) start(q request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if q.Call == "cancel" {
		if cancel := s.cancel[q.ID]; cancel != nil {
			cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel[q.ID] = cancel
	s.calls.Go(func() {
		reply := s.answer(ctx, q)
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.cancel, q.ID)
		_ = s.out.Encode(reply) // a near end that is gone is seen by the reader
	})
}

func (s *server) answer(ctx context.Context, q request) response {
	r := response{ID: q.ID}
	var err error
	switch q.Call {
	case "takes":
		r.Answer, err = s.applier.Takes(q.Kind)
	case "resolve":
		var obj *manifest.Object
		if obj, err = q.Object.unpack(s.sealer); err == nil {
			var resolved appliers.Resolved
			resolved, err = s.applier.Resolve(obj)
			r.Object, r.Locator = packObject(resolved.Object), resolved.Locator
		}
	case "observe":
		var queries []appliers.Query
		if queries, err = unpackQueries(s.sealer, q.Query); err == nil {
			var answers map[plan.Key]plan.Observed
			answers, err = s.applier.Observe(ctx, queries)
			r.Observed = packObserved(answers)
		}
	case "apply":
		var ops []appliers.Operation
		if ops, err = unpackOps(s.sealer, q.Ops); err == nil {
			for _, res := range s.applier.Apply(ctx, ops) {
				r.Results = append(r.Results, wireResult{res.Outcome, packError(res.Err), res.CheckAfter, res.Backup, res.Token, res.Removed})
			}
		}
	case "place":
		r.Place = appliers.PlaceOf(s.applier, "")
	default:
		err = fmt.Errorf("call %q is not known", q.Call)
	}
	r.Err = packError(err)
	return r
}

// Client is an applier whose work is done at the other end of a pipe. It has
// the four calls of the contract and of the abilities only Placer. It is safe for
// concurrent use. Close ends the pipe; its reader ends when the far end does.
type Client struct {
	sealer *manifest.Sealer
	end    io.Closer
	done   chan struct{} // closed when the reader has ended

	mu      sync.Mutex
	out     *json.Encoder
	next    uint64
	waiting map[uint64]chan response
	broken  error
	place   string // as the far end has said; "" not yet
}

// Dial returns a client that writes calls to w and reads answers from r.
func Dial(sealer *manifest.Sealer, r io.Reader, w io.WriteCloser) *Client {
	c := &Client{sealer: sealer, end: w, done: make(chan struct{}), out: json.NewEncoder(w), waiting: map[uint64]chan response{}}
	go c.read(r)
	return c
}

// Close implements appliers.Closer and waits for the reader.
func (c *Client) Close() error {
	err := c.end.Close()
	<-c.done
	return err
}

func (c *Client) read(r io.Reader) {
	defer close(c.done)
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		var reply response
		if err == nil {
			err = decode(line, &reply)
		}
		c.mu.Lock()
		if err != nil {
			c.broken = fmt.Errorf("the applier process is gone: %w", err)
			for id, ch := range c.waiting {
				close(ch)
				delete(c.waiting, id)
			}
			c.mu.Unlock()
			return
		}
		if ch := c.waiting[reply.ID]; ch != nil {
			ch <- reply
			delete(c.waiting, reply.ID)
		}
		c.mu.Unlock()
	}
}

// call sends a request and waits for its answer. When ctx ends the far end is
// told and nobody waits for it any longer; sent says whether it may have seen
// the request.
func (c *Client) call(ctx context.Context, q request) (reply response, sent bool, err error) {
	if err := ctx.Err(); err != nil {
		return response{}, false, err
	}
	ch := make(chan response, 1)
	c.mu.Lock()
	if c.broken != nil {
		defer c.mu.Unlock()
		return response{}, false, c.broken
	}
	c.next++
	q.ID = c.next
	c.waiting[q.ID] = ch
	err = c.out.Encode(q)
	c.mu.Unlock()
	if err != nil {
		return response{}, true, fmt.Errorf("send a call: %w", err)
	}
	select {
	case reply, ok := <-ch:
		return c.opened(reply, ok)
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, q.ID)
		_ = c.out.Encode(request{ID: q.ID, Call: "cancel"}) // a broken pipe is seen by the reader
		c.mu.Unlock()
		return response{}, true, ctx.Err()
	}
}

func (c *Client) opened(reply response, ok bool) (response, bool, error) {
	if !ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		return response{}, true, c.broken
	}
	return reply, true, reply.Err.unpack()
}

// Takes implements appliers.Applier.
func (c *Client) Takes(gk manifest.GroupKind) (appliers.Answer, error) {
	r, _, err := c.call(context.Background(), request{Call: "takes", Kind: gk})
	return r.Answer, err
}

// Resolve implements appliers.Applier.
func (c *Client) Resolve(obj *manifest.Object) (appliers.Resolved, error) {
	r, _, err := c.call(context.Background(), request{Call: "resolve", Object: packObject(obj)})
	if err != nil {
		return appliers.Resolved{}, err
	}
	resolved, err := r.Object.unpack(c.sealer)
	return appliers.Resolved{Object: resolved, Locator: r.Locator}, err
}

// Observe implements appliers.Applier.
func (c *Client) Observe(ctx context.Context, queries []appliers.Query) (map[plan.Key]plan.Observed, error) {
	r, _, err := c.call(ctx, request{Call: "observe", Query: packQueries(queries)})
	if err != nil {
		return nil, err
	}
	return unpackObserved(c.sealer, r.Observed)
}

// Apply implements appliers.Applier. Operations whose answer did not come are Uncertain.
func (c *Client) Apply(ctx context.Context, ops []appliers.Operation) []appliers.Result {
	r, sent, err := c.call(ctx, request{Call: "apply", Ops: packOps(ops)})
	if err == nil && len(r.Results) != len(ops) {
		err = errors.New("the far end answered fewer operations than it was asked")
	}
	results := make([]appliers.Result, len(ops))
	for i := range results {
		switch {
		case err != nil && sent:
			results[i] = appliers.Result{Outcome: appliers.Uncertain, Err: err}
		case err != nil:
			results[i] = appliers.Result{Outcome: appliers.Refused, Err: err}
		default:
			w := r.Results[i]
			results[i] = appliers.Result{Outcome: w.Outcome, Err: w.Err.unpack(), CheckAfter: w.CheckAfter, Backup: w.Backup, Token: w.Token, Removed: w.Removed}
		}
	}
	return results
}
