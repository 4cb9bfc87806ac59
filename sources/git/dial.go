package git

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/net/proxy"

	"github.com/gitopsd/gitopsd/sources"
)

// dialer makes every connection of one repository, so that one place asks
// whether an address may be reached.
type dialer struct {
	net   net.Dialer
	proxy Proxy
	repo  *Repository
}

func newDialer(r *Repository) *dialer {
	d := &dialer{proxy: r.options.Proxy, repo: r, net: net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}}
	if allow := r.options.AllowAddress; allow != nil {
		d.net.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err == nil {
				err = allow(ap)
			}
			if err != nil {
				return fmt.Errorf("%w: address %s: %w", sources.ErrRefused, address, err)
			}
			return nil
		}
	}
	return d
}

// proxyFor returns the proxy on the way to a URL, with its credentials, or nil.
func (d *dialer) proxyFor(ctx context.Context, target *url.URL) (*url.URL, error) {
	switch d.proxy.URL {
	case "direct":
		return nil, nil
	case "":
		config := httpproxy.FromEnvironment()
		if target.Scheme == "ssh" {
			all := os.Getenv("ALL_PROXY")
			if all == "" {
				all = os.Getenv("all_proxy")
			}
			config.HTTPSProxy = all
			target = &url.URL{Scheme: "https", Host: target.Host}
		}
		u, err := config.ProxyFunc()(target)
		if err != nil {
			return nil, errors.New("the proxy in the environment is not a URL")
		}
		if u != nil && u.User != nil {
			password, _ := u.User.Password()
			d.repo.mask.add(u.User.Username(), password)
		}
		return u, nil
	}
	u, err := url.Parse(d.proxy.URL)
	if err != nil {
		return nil, errors.New("the proxy URL cannot be parsed")
	}
	if d.proxy.Password != nil {
		password, err := d.repo.secret(ctx, d.proxy.Username, d.proxy.Password)
		if err != nil {
			return nil, fmt.Errorf("%w: proxy: %w", sources.ErrUnauthorized, err)
		}
		u.User = url.UserPassword(d.proxy.Username, password)
	}
	return u, nil
}

// dial connects to an address, through the proxy if there is one. net/http has
// its own way through proxies; this one is for ssh.
func (d *dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	u, err := d.proxyFor(ctx, &url.URL{Scheme: "ssh", Host: address})
	if err != nil {
		return nil, err
	}
	if u == nil {
		return d.net.DialContext(ctx, "tcp", address)
	}
	switch u.Scheme {
	case "socks5", "socks5h":
		var auth *proxy.Auth
		if u.User != nil {
			password, _ := u.User.Password()
			auth = &proxy.Auth{User: u.User.Username(), Password: password}
		}
		socks, err := proxy.SOCKS5("tcp", u.Host, auth, &d.net)
		if err != nil {
			return nil, err
		}
		return socks.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
	case "http", "https":
		return d.connect(ctx, u, address)
	}
	return nil, fmt.Errorf("the proxy's scheme %q is not known", u.Scheme)
}

// connect asks an HTTP proxy for a tunnel.
func (d *dialer) connect(ctx context.Context, u *url.URL, address string) (net.Conn, error) {
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
	}
	conn, err := d.net.DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if u.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("proxy: %w", err)
		}
		conn = secure
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if u.User != nil {
		password, _ := u.User.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
	}
	// An SSH server speaks first, so its greeting may arrive together with the
	// proxy's answer and has to be read from the same buffer.
	buffered := bufio.NewReaderSize(conn, 4096)
	err = req.Write(conn)
	var res *http.Response
	if err == nil {
		res, err = http.ReadResponse(buffered, req)
	}
	switch {
	case err != nil:
		err = fmt.Errorf("proxy: %w", err)
	case res.StatusCode == http.StatusProxyAuthRequired:
		err = fmt.Errorf("%w: the proxy wants other credentials", sources.ErrUnauthorized)
	case res.StatusCode != http.StatusOK:
		err = fmt.Errorf("the proxy answers with status %d", res.StatusCode)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &bufferedConn{Conn: conn, r: buffered}, nil
}

type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
