package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1/gitopsdv1alpha1connect"
)

// errRefused is what dialling a socket that nobody listens on gives.
const errRefused = unix.ECONNREFUSED

// ErrNoDaemon: nobody answers on the socket. Test with errors.Is.
var ErrNoDaemon = errors.New("no gitopsd answers")

// DialError says why no daemon was reached and what to do.
type DialError struct {
	Socket string
	Hint   string
	Err    error
}

// Error returns the cause without the hint.
func (e *DialError) Error() string {
	return fmt.Sprintf("no gitopsd answers on %s: %v", e.Socket, e.Err)
}

// Unwrap returns ErrNoDaemon and the cause.
func (e *DialError) Unwrap() []error { return []error{ErrNoDaemon, e.Err} }

// Client speaks to one daemon. It is safe for concurrent use.
type Client struct {
	gitopsdv1alpha1connect.ControlServiceClient
	transport *http.Transport
}

// Close drops the connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Dial connects to the daemon on a Unix socket. It fails with a *DialError when
// nobody answers there.
func Dial(ctx context.Context, socket string) (*Client, error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, "unix", socket)
	}
	conn, err := dial(ctx, "", "")
	if err != nil {
		return nil, dialError(socket, err)
	}
	if err := conn.Close(); err != nil {
		return nil, dialError(socket, err)
	}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{DialContext: dial, Protocols: protocols}
	client := gitopsdv1alpha1connect.NewControlServiceClient(
		&http.Client{Transport: transport}, "http://gitopsd",
		connect.WithReadMaxBytes(MaxResponse), connect.WithSendMaxBytes(MaxRequest))
	return &Client{ControlServiceClient: client, transport: transport}, nil
}

// noSocketError says in plain words that the file is not there.
type noSocketError struct{}

func (noSocketError) Error() string        { return "there is no such socket" }
func (noSocketError) Is(target error) bool { return target == fs.ErrNotExist }

func dialError(socket string, err error) error {
	e := &DialError{Socket: socket, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Err = noSocketError{}
		e.Hint = "start the daemon with gitopsd run, or name its socket with --socket or GITOPSD_SOCKET"
	case errors.Is(err, errRefused):
		e.Err = errors.New("the daemon that made it is gone")
		e.Hint = "start it again with gitopsd run (the old socket is replaced), or see why it stopped in its log"
	case errors.Is(err, fs.ErrPermission):
		e.Err = errors.New("permission denied")
		e.Hint = "join the group that the daemon was given with --socket-group, or ask as root"
	default:
		e.Hint = "name another socket with --socket or GITOPSD_SOCKET"
	}
	return e
}
