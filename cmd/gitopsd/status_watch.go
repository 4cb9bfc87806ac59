package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
)

func (c *cli) watchStatus(ctx context.Context, f *statusFlags) error {
	client, err := c.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	// The stream may last for ever; its first message may not take that long.
	slow := time.AfterFunc(c.timeout, cancel)
	defer slow.Stop()
	stream, err := client.WatchStatus(call, connect.NewRequest(&pb.WatchStatusRequest{Applications: f.applications}))
	if err == nil {
		defer stream.Close()
		if err := c.showStream(f, stream, func() { slow.Stop() }); err != nil {
			return err
		}
		err = stream.Err()
	}
	switch {
	case ctx.Err() != nil:
		return nil // interrupting is how a watch ends
	case call.Err() != nil:
		err = connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("no status came in %s", c.timeout))
	}
	if err != nil {
		return client.Silence(err)
	}
	return hinted(fmt.Errorf("the daemon ended the stream"), "it may be restarting; run the command again")
}

// refresh is how often a screen is drawn again while nothing is heard: ages grow.
const refresh = time.Second

// watched is what a stream has told so far, by application. The zero value is
// ready for use.
type watched map[string]*pb.ApplicationStatus

// take adds what a message says.
func (w *watched) take(m *pb.WatchStatusResponse) {
	if m.Full || *w == nil {
		*w = watched{}
	}
	for _, a := range m.Applications {
		(*w)[a.Application] = a
	}
	for _, name := range m.Removed {
		delete(*w, name)
	}
}

// list returns all of it, sorted by name.
func (w watched) list() []*pb.ApplicationStatus {
	out := make([]*pb.ApplicationStatus, 0, len(w))
	for _, name := range slices.Sorted(maps.Keys(w)) {
		out = append(out, w[name])
	}
	return out
}

// showStream shows message after message until the stream ends; begun is called
// with the first.
func (c *cli) showStream(f *statusFlags, stream *connect.ServerStreamForClient[pb.WatchStatusResponse], begun func()) error {
	messages := make(chan *pb.WatchStatusResponse)
	go func() {
		defer close(messages)
		for stream.Receive() {
			messages <- stream.Msg()
		}
	}()
	defer func() {
		_ = stream.Close() // ends Receive; what it gave no longer matters
		for range messages {
		}
	}()
	var again <-chan time.Time
	if c.outTerminal && f.format != "json" && f.format != "yaml" {
		ticker := time.NewTicker(refresh)
		defer ticker.Stop()
		again = ticker.C
	}
	received := c.now()
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return nil
			}
			begun()
			now := c.now()
			grow(f.known, now.Sub(received))
			received = now
			if err := c.showChange(f, m); err != nil {
				return err
			}
		case <-again:
			if f.known == nil {
				continue
			}
			now := c.now()
			grow(f.known, now.Sub(received))
			received = now
			if err := c.showScreen(f); err != nil {
				return err
			}
		}
	}
}

// grow makes observations older by d.
func grow(apps watched, d time.Duration) {
	for _, a := range apps {
		if a.ObservationAge != nil {
			a.ObservationAge = durationpb.New(a.ObservationAge.AsDuration() + d)
		}
	}
}

// showChange shows one message of the stream: a screen for a person, a line for
// each changed application for a pipe, a document of what changed for json and yaml.
func (c *cli) showChange(f *statusFlags, m *pb.WatchStatusResponse) error {
	before := maps.Clone(f.known)
	f.known.take(m)
	switch {
	case f.format == "json":
		return printMessage(c.out, "jsonl", m)
	case f.format == "yaml":
		if _, err := io.WriteString(c.out, "---\n"); err != nil {
			return err
		}
		return printMessage(c.out, "yaml", m)
	case c.outTerminal:
		return c.showScreen(f)
	}
	for _, name := range m.Removed {
		if _, err := fmt.Fprintf(c.out, "%s %s gone\n", c.now().UTC().Format(time.RFC3339), safe(name)); err != nil {
			return err
		}
	}
	for _, a := range m.Applications {
		if old := before[a.Application]; old != nil && sameShown(old, a) {
			continue
		}
		if _, err := fmt.Fprintf(c.out, "%s %s %s %s %s drift=%d %s\n", c.now().UTC().Format(time.RFC3339), safe(a.Application),
			safe(a.Sync), safe(a.Health), safe(short(a.Revision)), a.GetObjects().GetDrifted(), safe(a.Message)); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) showScreen(f *statusFlags) error {
	if _, err := io.WriteString(c.out, "\x1b[H\x1b[2J"); err != nil {
		return err
	}
	return c.printStatus(f, nil, f.known.list())
}

func sameShown(a, b *pb.ApplicationStatus) bool {
	return a.Sync == b.Sync && a.Health == b.Health && a.Revision == b.Revision && a.Message == b.Message &&
		a.GetObjects().GetDrifted() == b.GetObjects().GetDrifted()
}
