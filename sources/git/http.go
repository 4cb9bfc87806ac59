package git

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"github.com/gitopsd/gitopsd/sources"
)

const (
	infoRefs     = "/info/refs"
	uploadPack   = "git-upload-pack"
	maxRedirects = 5
)

// web is the smart HTTP transport.
type web struct {
	repo   *Repository
	base   *url.URL
	dialer *dialer

	mu        sync.Mutex
	transport *http.Transport
	trust     [32]byte // digest of the CA and client certificate it was made with
}

func newWeb(r *Repository) (*web, error) {
	base, err := url.Parse(r.location.String())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return &web{repo: r, base: base, dialer: newDialer(r)}, nil
}

func (w *web) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.transport != nil {
		w.transport.CloseIdleConnections()
	}
}

// client reads the CA and the client certificate and returns a client that uses
// them; connections live on until one of them changes.
func (w *web) client(ctx context.Context) (*http.Client, error) {
	var ca, cert, key string
	var err error
	o := &w.repo.options
	if o.CA != nil {
		if ca, err = o.CA.Resolve(ctx); err != nil {
			return nil, fmt.Errorf("%w: CA %s: %w", sources.ErrUntrusted, o.CA, err)
		}
	}
	if o.Auth.ClientCert != nil {
		if cert, err = o.Auth.ClientCert.Resolve(ctx); err == nil {
			key, err = w.repo.secret(ctx, "", o.Auth.ClientKey)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: client certificate: %w", sources.ErrUnauthorized, err)
		}
	}
	trust := sha256.Sum256(fmt.Appendf(nil, "%q", []string{ca, cert, key}))
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.transport == nil || trust != w.trust {
		config, err := tlsConfig(ca, cert, key)
		if err != nil {
			return nil, err
		}
		if w.transport != nil {
			w.transport.CloseIdleConnections()
		}
		w.transport, w.trust = w.newTransport(config), trust
	}
	return &http.Client{Transport: w.transport, CheckRedirect: checkRedirect}, nil
}

func (w *web) newTransport(config *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:       w.dialer.net.DialContext,
		Proxy:             func(req *http.Request) (*url.URL, error) { return w.dialer.proxyFor(req.Context(), req.URL) },
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, res *http.Response) error {
			if res.StatusCode == http.StatusProxyAuthRequired {
				return fmt.Errorf("%w: the proxy wants other credentials", sources.ErrUnauthorized)
			}
			return nil
		},
		TLSHandshakeTimeout: 30 * time.Second,
		IdleConnTimeout:     2 * time.Minute,
		MaxIdleConns:        2,
	}
}

func tlsConfig(ca, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("%w: the CA holds no PEM certificate", sources.ErrUntrusted)
		}
	}
	if cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
		if err != nil {
			return nil, fmt.Errorf("%w: client certificate: %w", sources.ErrUnauthorized, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// redirectError is an answer that leads elsewhere.
type redirectError struct{ to string }

func (e *redirectError) Error() string {
	return "redirected to " + e.to + ", which is not followed, nor are credentials sent there (if that is the right place, put its URL into the source)"
}

// checkRedirect follows only within the same scheme, host and port, and only for
// refs: everything else would take trust or credentials elsewhere (row A-21).
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.Method != http.MethodGet || len(via) > maxRedirects || req.URL.User != nil ||
		req.URL.Scheme != first.Scheme || req.URL.Host != first.Host || !strings.HasSuffix(req.URL.Path, infoRefs) {
		return &redirectError{to: serverText(req.URL.Scheme + "://" + req.URL.Host)}
	}
	return nil
}

func (w *web) do(ctx context.Context, client *http.Client, method, address, kind string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	req.Header.Set("User-Agent", "git/2 ("+agent+")") // some servers answer only to git
	req.Header.Set("Accept", "application/x-"+uploadPack+"-"+kind)
	if body != nil {
		req.Header.Set("Content-Type", "application/x-"+uploadPack+"-request")
	}
	if err := w.authorize(ctx, req); err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, classify(err)
	}
	if err := checkResponse(res, kind); err != nil {
		io.Copy(io.Discard, io.LimitReader(res.Body, 4<<10)) // so that the connection can be used again
		res.Body.Close()
		return nil, err
	}
	return res, nil
}

func (w *web) authorize(ctx context.Context, req *http.Request) error {
	a := w.repo.options.Auth
	var err error
	var value string
	switch {
	case a.Token != nil:
		if value, err = w.repo.secret(ctx, "", a.Token); err == nil {
			req.Header.Set("Authorization", "Bearer "+value)
		}
	case a.Password != nil:
		if value, err = w.repo.secret(ctx, a.Username, a.Password); err == nil {
			req.SetBasicAuth(a.Username, value)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", sources.ErrUnauthorized, err)
	}
	return nil
}

// checkResponse sorts what a server can answer (row A-13). Its words are not
// repeated: they may hold what it was sent.
func checkResponse(res *http.Response, kind string) error {
	switch code := res.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w: the server answers with status %d (check that the credential is valid and may read this repository)", sources.ErrUnauthorized, code)
	case code == http.StatusProxyAuthRequired:
		return fmt.Errorf("%w: the proxy wants other credentials", sources.ErrUnauthorized)
	case code == http.StatusNotFound, code == http.StatusGone:
		return fmt.Errorf("%w: the server answers with status %d (was the repository moved or deleted, or may the credential not see it?)", sources.ErrUnavailable, code)
	case code != http.StatusOK:
		return fmt.Errorf("%w: the server answers with status %d", sources.ErrUnavailable, code)
	}
	want := "application/x-" + uploadPack + "-" + kind
	if got, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); strings.TrimSpace(got) != want {
		return fmt.Errorf("%w: the answer is %q and not Git's (is a login or maintenance page in between, or a server without smart HTTP?)", sources.ErrUnavailable, serverText(got))
	}
	return nil
}

func (w *web) open(ctx context.Context) (session, error) {
	client, err := w.client(ctx)
	if err != nil {
		return nil, err
	}
	res, err := w.do(ctx, client, http.MethodGet, w.base.String()+infoRefs+"?service="+uploadPack, "advertisement", nil)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	refs, err := decodeRefs(res.Body)
	if err != nil {
		return nil, err
	}
	base := *res.Request.URL
	base.Path, base.RawPath, base.RawQuery = strings.TrimSuffix(base.Path, infoRefs), strings.TrimSuffix(base.RawPath, infoRefs), ""
	return &webSession{web: w, client: client, base: base.String(), refs: refs}, nil
}

type webSession struct {
	web    *web
	client *http.Client
	base   string
	refs   *packp.AdvRefs
}

func (s *webSession) advertised() *packp.AdvRefs { return s.refs }
func (s *webSession) close()                     {}

func (s *webSession) pack(ctx context.Context, req packRequest, w io.Writer) error {
	res, err := s.web.do(ctx, s.client, http.MethodPost, s.base+"/"+uploadPack, "result", encodeRequest(s.refs.Capabilities, req))
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return decodePack(s.refs.Capabilities, res.Body, w)
}

// classify gives an error of a connection its class (row A-22).
func classify(err error) error {
	var (
		redirect  *redirectError
		verify    *tls.CertificateVerificationError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		remote    *net.OpError
	)
	for _, class := range []error{sources.ErrUnavailable, sources.ErrUnauthorized, sources.ErrUntrusted, sources.ErrRefused, sources.ErrDamaged, sources.ErrRefNotFound, ErrInvalid} {
		if errors.Is(err, class) {
			return err
		}
	}
	switch {
	case errors.As(err, &redirect):
		return fmt.Errorf("%w: %w", sources.ErrUntrusted, err)
	case errors.As(err, &verify), errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &invalid):
		return fmt.Errorf("%w: %w (give the CA that signs it, or repair the server's certificate)", sources.ErrUntrusted, err)
	case errors.As(err, &remote) && remote.Op == "remote error": // how crypto/tls words an alert
		return fmt.Errorf("%w: %w (does the server want a client certificate?)", sources.ErrUnauthorized, err)
	}
	return fmt.Errorf("%w: %w", sources.ErrUnavailable, err)
}
