package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

// refresh is how often a screen is drawn again while nothing is heard: ages grow.
const refresh = time.Second

// How long a watch waits before it asks for a daemon that went away: first, and
// at most, after twice as long each time.
const (
	returnFirst = 250 * time.Millisecond
	returnMost  = 5 * time.Second
)

// errStreamEnded: the daemon ended a stream in good order, as it does when it stops.
var errStreamEnded = errors.New("it ended the stream")

// statusWatch shows the status as it changes, over as many connections as it
// takes. It is for one goroutine.
type statusWatch struct {
	*cli
	flags  *statusFlags
	known  watched
	cursor string    // of the last message; "" before the first
	aged   time.Time // up to when known was made older
	lost   error     // why no daemon is heard at present
}

// watchStatus shows the status until ctx ends. A daemon that was heard once and
// goes away is asked for until it, or the one that is started in its place,
// answers; what it refuses ends the watch.
func (c *cli) watchStatus(ctx context.Context, f *statusFlags) error {
	w := &statusWatch{cli: c, flags: f, aged: c.now()}
	pause := returnFirst
	for {
		err := w.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return nil // interrupting is how a watch ends
		case w.cursor == "" && errors.Is(err, errStreamEnded):
			return hinted(errors.New("the daemon ended the stream before it sent a status"), "it may be restarting; run the command again")
		case w.cursor == "" || !mayReturn(err):
			return err
		}
		if w.lost == nil {
			pause = returnFirst
		}
		if err := w.lose(err); err != nil {
			return err
		}
		if err := w.wait(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, returnMost)
	}
}

// mayReturn reports whether the daemon was lost, rather than answered with an error
// or could not be shown.
func mayReturn(err error) bool {
	var fromDaemon *connect.Error
	switch {
	case errors.Is(err, api.ErrNoDaemon), errors.Is(err, errStreamEnded):
		return true
	case !errors.As(err, &fromDaemon):
		return false
	}
	return !connect.IsWireError(err) || fromDaemon.Code() == connect.CodeUnavailable || fromDaemon.Code() == connect.CodeCanceled
}

// follow shows what one connection brings until it ends, from the cursor on.
func (w *statusWatch) follow(ctx context.Context) error {
	client, err := w.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	w.socket = client.Socket() // the daemon that is waited for is this one
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	// The stream may last for ever; its first message may not take that long.
	slow := time.AfterFunc(w.timeout, cancel)
	defer slow.Stop()
	stream, err := client.WatchStatus(call, connect.NewRequest(&pb.WatchStatusRequest{Applications: w.flags.applications, Cursor: w.cursor}))
	if err == nil {
		defer stream.Close()
		if err := w.showStream(stream, func() { slow.Stop() }); err != nil {
			return err
		}
		err = stream.Err()
	}
	if call.Err() != nil && ctx.Err() == nil {
		err = connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("no status came in %s", w.timeout))
	}
	if err != nil {
		return client.Silence(err)
	}
	return errStreamEnded
}

// screen reports whether a person is shown all of it again and again.
func (w *statusWatch) screen() bool {
	return w.outTerminal && w.flags.format != "json" && w.flags.format != "yaml"
}

// lose notes why no daemon is heard, and says so: on the screen, or apart from
// the output, once.
func (w *statusWatch) lose(err error) error {
	first := w.lost == nil
	w.lost = err
	if w.screen() {
		return w.draw()
	}
	if !first {
		return nil
	}
	_, err = fmt.Fprintf(w.err, "%s lost the daemon: %s; trying again until it answers\n", w.errPaint(yellow, "warning:"), safe(err.Error()))
	return err
}

// found ends what lose began.
func (w *statusWatch) found() {
	if w.lost != nil && !w.screen() {
		fmt.Fprintln(w.err, "the daemon answers again")
	}
	w.lost = nil
}

// wait lets d pass, and shows on a screen that it does.
func (w *statusWatch) wait(ctx context.Context, d time.Duration) error {
	end := time.NewTimer(d)
	defer end.Stop()
	again, stop := w.ticks()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-end.C:
			return nil
		case <-again:
			if err := w.draw(); err != nil {
				return err
			}
		}
	}
}

// ticks tells when a screen is to be drawn again.
func (w *statusWatch) ticks() (<-chan time.Time, func()) {
	if !w.screen() {
		return nil, func() {}
	}
	ticker := time.NewTicker(refresh)
	return ticker.C, ticker.Stop
}

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
func (w *statusWatch) showStream(stream *connect.ServerStreamForClient[pb.WatchStatusResponse], begun func()) error {
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
	again, stop := w.ticks()
	defer stop()
	for {
		var err error
		select {
		case m, ok := <-messages:
			if !ok {
				return nil
			}
			begun()
			w.found()
			err = w.showChange(m)
		case <-again:
			err = w.draw()
		}
		if err != nil {
			return err
		}
	}
}

// grow makes the observations as old as they are now.
func (w *statusWatch) grow() {
	now := w.now()
	d := now.Sub(w.aged)
	w.aged = now
	for _, a := range w.known {
		if a.ObservationAge != nil {
			a.ObservationAge = durationpb.New(a.ObservationAge.AsDuration() + d)
		}
	}
}

// showChange shows one message of the stream: a screen for a person, a line for
// each changed application for a pipe, a document of what changed for json and yaml.
func (w *statusWatch) showChange(m *pb.WatchStatusResponse) error {
	w.grow()
	before := maps.Clone(w.known)
	w.known.take(m)
	w.cursor = m.Cursor
	switch {
	case w.screen():
		return w.draw()
	case !m.Full && len(m.Applications)+len(m.Removed) == 0: // nothing changed while the daemon was away
		return nil
	case w.flags.format == "json":
		return printMessage(w.out, "jsonl", m)
	case w.flags.format == "yaml":
		if _, err := io.WriteString(w.out, "---\n"); err != nil {
			return err
		}
		return printMessage(w.out, "yaml", m)
	}
	return w.printLines(before, m.Applications)
}

// printLines prints a line for each application that is shown in another way than
// before, or is gone.
func (w *statusWatch) printLines(before watched, changed []*pb.ApplicationStatus) error {
	now := w.now().UTC().Format(time.RFC3339)
	for _, old := range before.list() {
		if w.known[old.Application] != nil {
			continue
		}
		if _, err := fmt.Fprintf(w.out, "%s %s gone\n", now, safe(old.Application)); err != nil {
			return err
		}
	}
	for _, a := range changed {
		if old := before[a.Application]; old != nil && sameShown(old, a) {
			continue
		}
		if _, err := fmt.Fprintf(w.out, "%s %s %s %s %s drift=%d %s\n", now, safe(a.Application),
			safe(a.Sync), safe(a.Health), safe(short(a.Revision)), a.GetObjects().GetDrifted(), safe(a.Message)); err != nil {
			return err
		}
	}
	return nil
}

// draw shows the screen as it is now, once there is something to show.
func (w *statusWatch) draw() error {
	if w.cursor == "" {
		return nil
	}
	w.grow()
	if _, err := io.WriteString(w.out, "\x1b[H\x1b[2J"); err != nil {
		return err
	}
	if err := w.printStatus(w.flags, nil, w.known.list()); err != nil || w.lost == nil {
		return err
	}
	_, err := fmt.Fprintf(w.out, "\n%s lost the daemon: %s; this is the last that it said, trying again\n", w.outPaint(yellow, "warning:"), safe(w.lost.Error()))
	return err
}

func sameShown(a, b *pb.ApplicationStatus) bool {
	return a.Sync == b.Sync && a.Health == b.Health && a.Revision == b.Revision && a.Message == b.Message &&
		a.GetObjects().GetDrifted() == b.GetObjects().GetDrifted()
}
