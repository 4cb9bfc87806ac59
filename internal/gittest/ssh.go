package gittest

import (
	"crypto/ed25519"
	"crypto/rand"
	_ "embed" // the encrypted key
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Key is a key pair made for one test.
type Key struct {
	Private ed25519.PrivateKey
	Public  ssh.PublicKey
}

// NewKey makes an ed25519 key.
func NewKey(t testing.TB) Key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return Key{Private: private, Public: signer.PublicKey()}
}

// PEM returns the private key in OpenSSH form.
func (k Key) PEM(t testing.TB) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(k.Private, "gittest")
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

// sealedPEM was made for tests and opens nothing. Its key derivation has one
// round (ssh-keygen -a 1), where a key made by the ssh package has 24: with the
// race detector those take seconds each time the key is read.
//
//go:embed testdata/sealed.pem
var sealedPEM []byte

// Passphrase opens the key of Sealed.
const Passphrase = "s3cret-canary"

// Sealed returns a key, always the same one, and its OpenSSH form encrypted with
// Passphrase.
func Sealed(t testing.TB) (key Key, encrypted []byte) {
	t.Helper()
	raw, err := ssh.ParseRawPrivateKeyWithPassphrase(sealedPEM, []byte(Passphrase))
	if err != nil {
		t.Fatal(err)
	}
	private := raw.(*ed25519.PrivateKey)
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return Key{Private: *private, Public: signer.PublicKey()}, sealedPEM
}

// Agent serves the key as an SSH agent and returns the path of its socket.
func (k Key) Agent(t testing.TB) string {
	t.Helper()
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: k.Private}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, func(c net.Conn) { agent.ServeAgent(ring, c) })
	return path
}

// SSH is a server that runs git-upload-pack and git-receive-pack for one user key.
type SSH struct {
	Addr string // host:port
	Host Key    // its host key

	t        testing.TB
	user     ssh.PublicKey
	mu       sync.Mutex
	repos    map[string]string
	hang     atomic.Bool
	uploads  atomic.Int64
	packs    atomic.Int64
	receives atomic.Int64
	stop     func()
}

// NewSSH starts a server on a free port of 127.0.0.1 that lets the key in, as
// user "git".
func NewSSH(t testing.TB, user ssh.PublicKey) *SSH {
	t.Helper()
	s := &SSH{Host: NewKey(t), t: t, user: user, repos: map[string]string{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = l.Addr().String()
	s.stop = serve(t, l, s.handle)
	return s
}

// Close stops the server; it is called at the end of the test anyway.
func (s *SSH) Close() { s.stop() }

// Serve puts a repository under a name and returns its ssh:// URL.
func (s *SSH) Serve(name string, r *Repo) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos["/"+name] = r.Dir
	return "ssh://git@" + s.Addr + "/" + name
}

// KnownHosts returns the line of a known_hosts file that trusts this server.
func (s *SSH) KnownHosts() string {
	return knownhosts.Line([]string{knownhosts.Normalize(s.Addr)}, s.Host.Public) + "\n"
}

// Sessions counts the sessions that fetching clients opened.
func (s *SSH) Sessions() int { return int(s.uploads.Load()) }

// Hang makes later sessions accept a command and never answer it.
func (s *SSH) Hang() { s.hang.Store(true) }

// ReceivePacks counts the sessions that pushing clients opened.
func (s *SSH) ReceivePacks() int { return int(s.receives.Load()) }

func (s *SSH) handle(c net.Conn) {
	config := &ssh.ServerConfig{PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if m.User() != "git" || string(key.Marshal()) != string(s.user.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	signer, err := ssh.NewSignerFromKey(s.Host.Private)
	if err != nil {
		return
	}
	config.AddHostKey(signer)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for nc := range channels {
		if nc.ChannelType() != "session" {
			nc.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		for r := range reqs {
			r.Reply(r.Type == "exec", nil)
			if r.Type == "exec" {
				var command struct{ Line string }
				if ssh.Unmarshal(r.Payload, &command) == nil {
					status := s.run(ch, command.Line)
					ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
				}
				ch.Close()
			}
		}
	}
}

func (s *SSH) run(ch ssh.Channel, line string) uint32 {
	if s.hang.Load() {
		buf := make([]byte, 1)
		for {
			if _, err := ch.Read(buf); err != nil {
				return 1
			}
		}
	}
	verb, path, _ := strings.Cut(line, " ")
	s.mu.Lock()
	dir := s.repos[strings.Trim(path, "'")]
	s.mu.Unlock()
	switch {
	case dir == "":
		fmt.Fprintf(ch.Stderr(), "ERROR: Repository not found.\n")
		return 128
	case verb == "git-upload-pack":
		s.uploads.Add(1)
	case verb == "git-receive-pack":
		s.receives.Add(1)
	default:
		fmt.Fprintf(ch.Stderr(), "not allowed\n")
		return 127
	}
	cmd := exec.Command("git", strings.TrimPrefix(verb, "git-"), dir)
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	in, err := cmd.StdinPipe()
	if err != nil || cmd.Start() != nil {
		return 1
	}
	go func() {
		defer in.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := ch.Read(buf)
			if strings.Contains(string(buf[:n]), "want ") {
				s.packs.Add(1)
			}
			if n > 0 {
				if _, err := in.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	if cmd.Wait() != nil {
		return 1
	}
	return 0
}

// Packs counts the sessions in which a client asked for content.
func (s *SSH) Packs() int { return int(s.packs.Load()) }
