package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Limits of connections.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 5 * time.Minute
	maxHeader     = 64 << 10
	probeTimeout  = time.Second
	drainTimeout  = 5 * time.Second
	maxStreams    = 64  // concurrent calls on one HTTP/2 connection
	maxSocketPath = 107 // bytes, of sockaddr_un on Linux
)

// Access says who may connect to a socket; what they may do there is a matter of
// Roles. The zero value lets only the daemon's user connect (mode 0600).
type Access struct {
	// Group, by name or number, is one whose members may (mode 0660).
	Group string
	// Everyone lets every user of the host (mode 0666).
	Everyone bool
}

// Listen opens the Unix socket of the daemon. A socket that nobody answers on any
// more is replaced; one that a daemon answers on, or a file that is no socket, is
// an error.
func Listen(path string, access Access) (net.Listener, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	// Made under a name nobody connects to and moved once its mode is right, so
	// that it is never open to more users than it should be.
	private, err := os.MkdirTemp(filepath.Dir(path), ".s-")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w; make the directory, writable for the daemon, or choose another with --socket", path, err)
	}
	defer os.RemoveAll(private)
	made := filepath.Join(private, "s")
	if max(len(made), len(path)) > maxSocketPath {
		return nil, fmt.Errorf("socket %s: the path is too long for a socket; choose a shorter one with --socket", path)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	if err := publish(made, path, access); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &listener{UnixListener: ln, path: path, info: statOf(path)}, nil
}

// publish sets mode and group of a new socket and gives it its name.
func publish(made, path string, access Access) error {
	mode := fs.FileMode(0o600)
	if access.Group != "" {
		gid, err := lookupGroup(access.Group)
		if err != nil {
			return fmt.Errorf("socket %s: %w", path, err)
		}
		if err := os.Chown(made, -1, int(gid)); err != nil {
			return fmt.Errorf("socket %s: group %s: %w; the daemon's user has to be in that group", path, access.Group, err)
		}
		mode = 0o660
	}
	if access.Everyone {
		mode = 0o666
	}
	if err := os.Chmod(made, mode); err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	// Link and not rename: it fails when another daemon was faster.
	if err := os.Link(made, path); err != nil {
		return fmt.Errorf("socket %s: %w; another daemon may be starting on it", path, err)
	}
	return nil
}

// clearStale removes a socket that nobody answers on.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("socket %s: %w", path, err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("socket %s: there is a file in its place that is no socket; remove it or choose another with --socket", path)
	}
	conn, err := net.DialTimeout("unix", path, probeTimeout)
	if err == nil {
		return errors.Join(fmt.Errorf("socket %s: another gitopsd answers on it; stop that one, or give this one a socket and a state directory of its own", path), conn.Close())
	}
	if !errors.Is(err, errRefused) {
		return fmt.Errorf("socket %s: %w; it is unclear whether another gitopsd uses it", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("socket %s: cannot remove what a stopped daemon left: %w", path, err)
	}
	return nil
}

// listener removes its socket when it closes, unless another daemon has put its
// own there meanwhile.
type listener struct {
	*net.UnixListener
	path string
	info fs.FileInfo
}

// Addr returns the name under which the socket can be reached.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func statOf(path string) fs.FileInfo {
	info, err := os.Lstat(path)
	if err != nil {
		return nil
	}
	return info
}

func (l *listener) Close() error {
	if now := statOf(l.path); now != nil && l.info != nil && os.SameFile(now, l.info) {
		return errors.Join(os.Remove(l.path), l.UnixListener.Close())
	}
	return l.UnixListener.Close()
}

// Serve answers on a listener until ctx ends, then lets calls end for some
// seconds and closes the listener. It speaks HTTP/1.1 and HTTP/2 without TLS,
// which the mode of the socket stands in for. It returns nil after ctx ended.
func Serve(ctx context.Context, ln net.Listener, handler http.Handler, roles Roles) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	// Calls outlive ctx, until drained: a status stream ends by its own context.
	calls, endCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer endCalls()
	srv := &http.Server{
		Handler:           handler,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return calls },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return withPeer(ctx, conn, roles)
		},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("API: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	endCalls()
	err := srv.Shutdown(drain)
	if err != nil {
		err = srv.Close()
	}
	<-served
	return err
}
