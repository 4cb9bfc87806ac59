package git

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"github.com/gitopsd/gitopsd/sources"
)

// shell is the SSH transport. It reads no ssh_config and writes no known_hosts.
type shell struct {
	repo   *Repository
	dialer *dialer

	mu     sync.Mutex
	parsed ssh.Signer
	source [32]byte // digest of what it was parsed from
}

func newShell(r *Repository) *shell { return &shell{repo: r, dialer: newDialer(r)} }

func (s *shell) close() {}

func (s *shell) open(ctx context.Context) (session, error) {
	l := s.repo.location
	config, err := hostKeys(s.repo.options.KnownHosts, l.address())
	if err != nil {
		return nil, err
	}
	auth, done, err := s.auth(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", sources.ErrUnauthorized, err)
	}
	defer done()
	config.User, config.Auth = l.user, []ssh.AuthMethod{auth}
	conn, err := s.dialer.dial(ctx, l.address())
	if err != nil {
		return nil, classify(err)
	}
	// The ssh package knows no context: closing the connection is what cuts it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	out := &shellSession{stop: func() { stop(); conn.Close() }}
	if err := out.start(conn, l, config); err != nil {
		out.stop()
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w: %w", sources.ErrUnavailable, ctx.Err(), err)
		}
		return nil, classifySSH(err)
	}
	return out, nil
}

// auth returns the method for one connection and what to call after it.
func (s *shell) auth(ctx context.Context) (ssh.AuthMethod, func(), error) {
	a := s.repo.options.Auth
	if a.SSHAgent != "" {
		path := a.SSHAgent
		if path == "env" {
			path = os.Getenv("SSH_AUTH_SOCK")
		}
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", path)
		if err != nil {
			return nil, nil, fmt.Errorf("ssh agent: %w", err)
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		return ssh.PublicKeysCallback(sshagent.NewClient(conn).Signers), func() { stop(); conn.Close() }, nil
	}
	key, err := s.repo.secret(ctx, "", a.SSHKey)
	passphrase := ""
	if err == nil && a.SSHPassphrase != nil {
		passphrase, err = s.repo.secret(ctx, "", a.SSHPassphrase)
	}
	if err != nil {
		return nil, nil, err
	}
	signer, err := s.signer(key, passphrase)
	if err != nil {
		return nil, nil, fmt.Errorf("credential %s: %w", a.SSHKey, err)
	}
	return ssh.PublicKeys(signer), func() {}, nil
}

// signer decrypts a key once for as long as it stays the same: the passphrase is
// made to be slow, and a poll should not be.
func (s *shell) signer(key, passphrase string) (ssh.Signer, error) {
	source := sha256.Sum256(fmt.Appendf(nil, "%q", []string{key, passphrase}))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parsed != nil && source == s.source {
		return s.parsed, nil
	}
	signer, err := ssh.ParsePrivateKey([]byte(key))
	if passphrase != "" {
		signer, err = ssh.ParsePrivateKeyWithPassphrase([]byte(key), []byte(passphrase))
	}
	if err != nil {
		return nil, err
	}
	s.parsed, s.source = signer, source
	return signer, nil
}

func classifySSH(err error) error {
	if !errors.Is(err, sources.ErrUntrusted) && strings.Contains(err.Error(), "unable to authenticate") {
		return fmt.Errorf("%w: the server takes none of the keys (is the public key known there?): %w", sources.ErrUnauthorized, err)
	}
	return classify(err)
}

type shellSession struct {
	refs   *packp.AdvRefs
	client *ssh.Client
	stop   func()
	in     io.WriteCloser
	out    io.Reader
	said   tail
}

func (s *shellSession) start(conn net.Conn, l location, config *ssh.ClientConfig) error {
	c, channels, requests, err := ssh.NewClientConn(conn, l.address(), config)
	if err != nil {
		return err
	}
	s.client = ssh.NewClient(c, channels, requests)
	run, err := s.client.NewSession()
	if err != nil {
		return err
	}
	run.Stderr = &s.said
	if s.in, err = run.StdinPipe(); err != nil {
		return err
	}
	if s.out, err = run.StdoutPipe(); err != nil {
		return err
	}
	path := l.path
	if strings.HasPrefix(path, "/~") {
		path = path[1:]
	}
	// checkPath lets no quote through.
	if err := run.Start(uploadPack + " '" + path + "'"); err != nil {
		return err
	}
	if s.refs, err = decodeRefs(s.out); err != nil {
		if errors.Is(err, packp.ErrEmptyInput) {
			run.Wait() // so that everything it says has arrived
			return fmt.Errorf("%w: the server says: %s (was the repository moved or deleted, or may the key not see it?)", sources.ErrUnavailable, serverText(s.said.String()))
		}
		return err
	}
	return nil
}

func (s *shellSession) advertised() *packp.AdvRefs { return s.refs }

func (s *shellSession) pack(_ context.Context, req packRequest, w io.Writer) error {
	if _, err := s.in.Write(encodeRequest(s.refs.Capabilities, req)); err != nil {
		return classify(err)
	}
	if err := decodePack(s.refs.Capabilities, s.out, w); err != nil {
		return classify(err)
	}
	s.in = nil
	return nil
}

func (s *shellSession) close() {
	if s.in != nil {
		s.in.Write(pktline.FlushPkt) // the polite end of a session that wants nothing
	}
	if s.client != nil {
		s.client.Close()
	}
	s.stop()
}

// tail keeps the beginning of what a server says on stderr.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 1024 - len(t.text); room > 0 {
		t.text = append(t.text, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
