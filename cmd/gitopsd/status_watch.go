package main

import (
	"context"
	"fmt"
	"io"
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
	stream, err := client.WatchStatus(ctx, connect.NewRequest(&pb.WatchStatusRequest{Applications: f.applications}))
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := c.showStream(f, stream); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil // interrupting is how a watch ends
	}
	if err := stream.Err(); err != nil {
		return err
	}
	return hinted(fmt.Errorf("the daemon ended the stream"), "it may be restarting; run the command again")
}

// refresh is how often a screen is drawn again while nothing is heard: ages grow.
const refresh = time.Second

// showStream shows message after message until the stream ends.
func (c *cli) showStream(f *statusFlags, stream *connect.ServerStreamForClient[pb.WatchStatusResponse]) error {
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
	var last *pb.WatchStatusResponse
	received := c.now()
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return nil
			}
			last, received = m, c.now()
		case <-again:
			if last == nil {
				continue
			}
			now := c.now()
			grow(last.Applications, now.Sub(received))
			received = now
		}
		if err := c.showChange(f, last); err != nil {
			return err
		}
	}
}

// grow makes observations older by d.
func grow(apps []*pb.ApplicationStatus, d time.Duration) {
	for _, a := range apps {
		if a.ObservationAge != nil {
			a.ObservationAge = durationpb.New(a.ObservationAge.AsDuration() + d)
		}
	}
}

// showChange shows one message of the stream: a screen for a person, a line for
// each changed application for a pipe, a document for json and yaml.
func (c *cli) showChange(f *statusFlags, m *pb.WatchStatusResponse) error {
	switch {
	case f.format == "json":
		return printMessage(c.out, "jsonl", m)
	case f.format == "yaml":
		if _, err := io.WriteString(c.out, "---\n"); err != nil {
			return err
		}
		return printMessage(c.out, "yaml", m)
	case c.outTerminal:
		if _, err := io.WriteString(c.out, "\x1b[H\x1b[2J"); err != nil {
			return err
		}
		return c.printStatus(f, m, m.Applications)
	}
	if f.previous == nil {
		f.previous = map[string]*pb.ApplicationStatus{}
	}
	for _, a := range m.Applications {
		if before := f.previous[a.Application]; before != nil && sameShown(before, a) {
			continue
		}
		f.previous[a.Application] = a
		if _, err := fmt.Fprintf(c.out, "%s %s %s %s %s drift=%d %s\n", c.now().UTC().Format(time.RFC3339), safe(a.Application),
			safe(a.Sync), safe(a.Health), safe(short(a.Revision)), a.GetObjects().GetDrifted(), safe(a.Message)); err != nil {
			return err
		}
	}
	return nil
}

func sameShown(a, b *pb.ApplicationStatus) bool {
	return a.Sync == b.Sync && a.Health == b.Health && a.Revision == b.Revision && a.Message == b.Message &&
		a.GetObjects().GetDrifted() == b.GetObjects().GetDrifted()
}
