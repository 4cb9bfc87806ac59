package git

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Resolver gives a secret, or a certificate, at the time it is used, so that it
// can be rotated without a restart. Implementations are safe for concurrent use.
type Resolver interface {
	// Resolve reads the value now. Its error names the place and never the value.
	Resolve(ctx context.Context) (string, error)
	// String names the place, such as env:GIT_TOKEN; it is shown and logged.
	String() string
}

type (
	envSecret     string
	fileSecret    string
	systemdSecret string
	fixedValue    string
)

// Env reads an environment variable of the process.
func Env(name string) Resolver { return envSecret(name) }

// File reads a file of at most 1 MiB, without the newline at its end.
func File(path string) Resolver { return fileSecret(path) }

// Systemd reads a credential that systemd passed on (LoadCredential= of the
// unit), from $CREDENTIALS_DIRECTORY.
func Systemd(name string) Resolver { return systemdSecret(name) }

// Fixed is a value that is known already and not secret, such as a CA. It is
// shown as a digest.
func Fixed(value string) Resolver { return fixedValue(value) }

func (e envSecret) String() string { return "env:" + string(e) }

func (e envSecret) Resolve(context.Context) (string, error) {
	if v := os.Getenv(string(e)); v != "" {
		return v, nil
	}
	return "", fmt.Errorf("environment variable %s is empty or not set", string(e))
}

func (f fileSecret) String() string { return "file:" + string(f) }

func (f fileSecret) Resolve(context.Context) (string, error) { return readSecret(string(f)) }

func (s systemdSecret) String() string { return "systemd:" + string(s) }

func (s systemdSecret) Resolve(context.Context) (string, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", fmt.Errorf("systemd credential %s: $CREDENTIALS_DIRECTORY is not set (add LoadCredential=%s:/path to the unit)", string(s), string(s))
	}
	if strings.Contains(string(s), "/") {
		return "", fmt.Errorf("systemd credential %s: the name holds a slash", string(s))
	}
	return readSecret(filepath.Join(dir, string(s)))
}

func (f fixedValue) Resolve(context.Context) (string, error) { return string(f), nil }

func (f fixedValue) String() string {
	sum := sha256.Sum256([]byte(f))
	return "sha256:" + hex.EncodeToString(sum[:8])
}

// Format keeps every verb from printing the value itself.
func (f fixedValue) Format(s fmt.State, _ rune) { io.WriteString(s, f.String()) }

const maxSecret = 1 << 20

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case text == "":
		return "", fmt.Errorf("%s is empty", path)
	case len(data) > maxSecret:
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxSecret)
	}
	return text, nil
}

// mask remembers the secrets that were used, in every spelling that goes over
// the wire, to take them out of what others send back (row A-20).
type mask struct {
	mu     sync.Mutex
	values []string
}

const maxMasked = 64

func (m *mask) add(user, secret string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret),
		base64.StdEncoding.EncodeToString([]byte(secret)),
		base64.StdEncoding.EncodeToString([]byte(user + ":" + secret)),
	} {
		known := len(v) < 4 // too short to be told from ordinary text
		for _, old := range m.values {
			known = known || old == v
		}
		if !known {
			m.values = append(m.values, v)
		}
	}
	if over := len(m.values) - maxMasked; over > 0 {
		m.values = m.values[over:] // the oldest were rotated out
	}
}

func (m *mask) text(s string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	// The longest first: one spelling can be part of another.
	for _, v := range slices.SortedFunc(slices.Values(m.values), func(a, b string) int { return len(b) - len(a) }) {
		s = strings.ReplaceAll(s, v, "***")
	}
	return s
}

// err returns an error whose text holds no secret. One that held any keeps its
// class and loses the chain that could still be printed.
func (m *mask) err(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if masked := m.text(text); masked != text {
		return &maskedError{text: masked, err: err}
	}
	return err
}

type maskedError struct {
	text string
	err  error
}

func (e *maskedError) Error() string        { return e.text }
func (e *maskedError) Is(target error) bool { return errors.Is(e.err, target) }

// Format keeps %+v and %#v from printing the chain.
func (e *maskedError) Format(s fmt.State, _ rune) { io.WriteString(s, e.text) }
