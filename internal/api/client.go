package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1/gitopsdv1alpha1connect"
)

// How long a connection may be silent before the daemon is asked for a sign of
// life, how long that may take, and how long one asked for anew.
const (
	pingAfter = 10 * time.Second
	askAgain  = 2 * time.Second
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
	socket    string
}

// Socket returns the path of the socket that the client was made for.
func (c *Client) Socket() string { return c.socket }

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
	transport := &http.Transport{
		DialContext: dial, Protocols: protocols,
		// A process that was stopped keeps its connections and answers no ping.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
	}
	client := gitopsdv1alpha1connect.NewControlServiceClient(
		&http.Client{Transport: transport}, "http://gitopsd",
		connect.WithReadMaxBytes(MaxResponse), connect.WithSendMaxBytes(MaxRequest),
		connect.WithAcceptCompression("gzip", nil, nil)) // nothing to gain inside one host
	return &Client{ControlServiceClient: client, transport: transport, socket: socket}, nil
}

// Silence says what it means that a call ended without an answer of the daemon:
// err when the daemon is there and was only slow, or did answer; a *DialError
// when it cannot be reached any more. It asks the daemon, for 2 s at most.
func (c *Client) Silence(err error) error {
	var fromClient *connect.Error
	if !errors.As(err, &fromClient) || connect.IsWireError(err) {
		return err
	}
	switch fromClient.Code() {
	case connect.CodeDeadlineExceeded, connect.CodeUnavailable, connect.CodeUnknown, connect.CodeInternal:
	default:
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askAgain)
	defer cancel()
	fresh, dialErr := Dial(ctx, c.socket) // the connection of the call may be what is broken
	if dialErr != nil {
		return dialErr
	}
	defer fresh.Close()
	if _, infoErr := fresh.Info(ctx, connect.NewRequest(&pb.InfoRequest{})); infoErr == nil || connect.IsWireError(infoErr) {
		return err
	}
	return &DialError{
		Socket: c.socket, Err: errors.New("a process holds the socket and does not answer"),
		Hint: "it may be stopped or stuck: see its state with systemctl status gitopsd or ps, and its log; continue it with kill -CONT, or restart it",
	}
}

// noSocketError says in plain words that the file is not there.
type noSocketError struct{}

func (noSocketError) Error() string        { return "there is no such socket" }
func (noSocketError) Is(target error) bool { return target == fs.ErrNotExist }

// isSocket reports whether there is a socket at path, as far as can be seen.
func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err != nil || info.Mode()&fs.ModeSocket != 0
}

func dialError(socket string, err error) error {
	e := &DialError{Socket: socket, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Err = noSocketError{}
		e.Hint = "start the daemon with gitopsd run, or name its socket with --socket or GITOPSD_SOCKET"
	case errors.Is(err, errRefused) && !isSocket(socket):
		e.Err = errors.New("it is not a socket")
		e.Hint = "name the socket of the daemon with --socket or GITOPSD_SOCKET"
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
