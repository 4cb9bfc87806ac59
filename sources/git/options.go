package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/gitopsd/gitopsd/internal/effect"
)

// Options says where a repository is and how it is reached. Printing it prints
// no secret: it names places.
type Options struct {
	// URL is https://, http://, ssh://, user@host:path, file:// or an absolute path.
	URL string
	// Dir holds the mirrors, one directory each, named by URL, credential and CA,
	// so that nothing is read by the token of somebody else.
	Dir string
	// Auth is at most one kind of credential, fitting the URL.
	Auth Auth
	// CA is the PEM of the authorities that may sign the server's certificate,
	// instead of the system's. It is read when it is used.
	CA Resolver
	// KnownHosts are files in OpenSSH's form. A host key that is not in them is
	// refused, also on first use. Required for ssh.
	KnownHosts []string
	// Proxy is how to get there.
	Proxy Proxy
	// Limits bound what the repository may cost.
	Limits Limits
	// CompactPacks is the number of packs at which they are merged. Default 20.
	CompactPacks int
	// AllowAddress is asked about every resolved address before it is connected
	// to, that of a proxy included; an error refuses it. Nil allows all.
	AllowAddress func(netip.AddrPort) error
	// Seam passes the writes to the mirror. Default effect.Direct.
	Seam effect.Seam
	// Child starts a process for each fetch, which is ended when it needs more
	// than Limits.MemoryBytes: a program and its arguments, which has to call
	// ServeFetch. AllowAddress is not for use with it. Empty fetches in this process.
	Child []string
}

// Auth is a credential. Which fields are set decides the kind; the zero value is
// anonymous.
type Auth struct {
	// Username of HTTP basic authentication. Default "git", which hosting services
	// take together with a token.
	Username string
	Password Resolver // HTTP basic authentication
	Token    Resolver // HTTP bearer authentication
	// ClientCert and ClientKey are the PEM of a TLS client certificate; they go
	// together with any of the above, or alone.
	ClientCert, ClientKey Resolver
	// SSHKey is the PEM of a private key, SSHPassphrase what it is encrypted with.
	SSHKey, SSHPassphrase Resolver
	// SSHAgent is the path of an agent's socket; "env" takes $SSH_AUTH_SOCK.
	SSHAgent string
}

// Proxy is a way to the server.
type Proxy struct {
	// URL is http://, https:// (CONNECT), socks5:// or socks5h://, without
	// credentials. "" takes HTTPS_PROXY, HTTP_PROXY, NO_PROXY from the environment
	// and, for ssh, ALL_PROXY; "direct" takes none.
	URL      string
	Username string
	Password Resolver
}

const (
	defaultCompact = 20
	defaultUser    = "git"
)

// check fills the defaults and refuses what cannot work or would leak.
func (o *Options) check() (location, error) {
	l, err := parseURL(o.URL)
	if err != nil {
		return l, err
	}
	fail := func(format string, args ...any) (location, error) {
		return l, fmt.Errorf("%w: %s: %s", ErrInvalid, l, fmt.Sprintf(format, args...))
	}
	a := o.Auth
	web := a.Password != nil || a.Token != nil || a.ClientCert != nil || a.ClientKey != nil
	shell := a.SSHKey != nil || a.SSHAgent != "" || a.SSHPassphrase != nil
	switch {
	case !filepath.IsAbs(o.Dir):
		return fail("the directory for mirrors %q is not absolute", o.Dir)
	case a.Password != nil && a.Token != nil || a.SSHKey != nil && a.SSHAgent != "":
		return fail("two kinds of credentials are given; keep one")
	case (a.ClientCert == nil) != (a.ClientKey == nil):
		return fail("a client certificate needs both the certificate and the key")
	case a.SSHPassphrase != nil && a.SSHKey == nil:
		return fail("a passphrase needs a key")
	case web && l.scheme != "https" && l.scheme != "http", o.CA != nil && l.scheme != "https":
		return fail("HTTP credentials and a CA need an https URL")
	case shell && l.scheme != "ssh":
		return fail("an SSH key or agent needs an ssh URL")
	case l.scheme == "ssh" && !shell:
		return fail("an ssh URL needs a key or an agent")
	case len(o.Child) > 0 && o.AllowAddress != nil:
		return fail("a process of its own cannot ask which addresses are allowed")
	case l.scheme == "http" && web && !l.loopback():
		return fail("credentials would cross the network unencrypted; use https")
	}
	if err := o.Proxy.check(); err != nil {
		return fail("%v", err)
	}
	o.Limits.setDefaults()
	if o.CompactPacks <= 1 {
		o.CompactPacks = defaultCompact
	}
	if o.Auth.Username == "" {
		o.Auth.Username = defaultUser
	}
	if o.Seam == nil {
		o.Seam = effect.Direct
	}
	return l, nil
}

func (p Proxy) check() error {
	if p.URL == "" || p.URL == "direct" {
		return nil
	}
	u, err := url.Parse(p.URL)
	switch {
	case err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "":
		return errors.New("the proxy URL is not scheme://host:port")
	case u.User != nil:
		return errors.New("the proxy URL holds credentials; give username and password apart")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h":
		return fmt.Errorf("the proxy's scheme %q is not one of http, https, socks5, socks5h", u.Scheme)
	}
	return nil
}

// identity names who reads: two repositories share a mirror only when it is equal.
func (o *Options) identity(l location) string {
	h := sha256.New()
	name := func(r Resolver) string {
		if r == nil {
			return ""
		}
		return r.String()
	}
	a := o.Auth
	fmt.Fprintf(h, "%q", []string{
		l.String(), a.Username, name(a.Password), name(a.Token), name(a.ClientCert), name(a.ClientKey),
		name(a.SSHKey), name(a.SSHPassphrase), a.SSHAgent, name(o.CA),
	})
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// secret resolves a secret and remembers it for masking.
func (r *Repository) secret(ctx context.Context, user string, from Resolver) (string, error) {
	value, err := from.Resolve(ctx)
	if err != nil {
		return "", fmt.Errorf("credential %s: %w", from, err)
	}
	r.mask.add(user, value)
	return value, nil
}
