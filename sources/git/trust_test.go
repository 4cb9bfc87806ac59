package git

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/crypto/ssh"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

const canary = "s3cret-canary/&+x"

// try asks for refs and content and returns the first error.
func try(t testing.TB, o Options) error {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	r, err := Open(o)
	if err != nil {
		return err
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	refs, err := r.Refs(ctx, mainRef)
	if err != nil {
		return err
	}
	return r.Fetch(ctx, mainRef, refs[mainRef])
}

func wantClass(t testing.TB, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: %v, want %v", what, err, class)
	}
	for _, secret := range []string{canary, "s3cret-canary"} {
		for _, format := range []string{"%v", "%+v", "%#v"} {
			if text := fmt.Sprintf(format, err); strings.Contains(text, secret) {
				t.Errorf("%s: the error shows the secret: %s", what, text)
			}
		}
	}
}

// Row A-22: TLS.
func TestUntrustedTLS(t *testing.T) {
	ca, other := gittest.NewCA(t), gittest.NewCA(t)
	p, _ := webPlace(t, gittest.HTTPOptions{TLS: ca})
	p.repo.Write("main", map[string]string{"a": "1"})
	if err := try(t, p.options); err != nil {
		t.Fatal(err)
	}
	o := p.options
	o.CA = nil
	wantClass(t, "system authorities", try(t, o), sources.ErrUntrusted)
	o.CA = Fixed(string(other.PEM))
	wantClass(t, "another authority", try(t, o), sources.ErrUntrusted)
	o.CA = Fixed("nothing")
	wantClass(t, "no authority", try(t, o), sources.ErrUntrusted)
	o = p.options
	o.URL = strings.Replace(o.URL, "127.0.0.1", "127.0.0.2", 1)
	l, err := net.Listen("tcp", strings.Split(o.URL, "/")[2])
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go relay(l, strings.Split(p.options.URL, "/")[2])
	wantClass(t, "another host", try(t, o), sources.ErrUntrusted)

	expired, _ := webPlace(t, gittest.HTTPOptions{TLS: ca, Expires: time.Now().Add(-time.Hour)})
	wantClass(t, "expired", try(t, expired.options), sources.ErrUntrusted)

	mutual, _ := webPlace(t, gittest.HTTPOptions{TLS: ca, ClientCert: true})
	mutual.options.Auth = Auth{}
	wantClass(t, "no client certificate", try(t, mutual.options), sources.ErrUnauthorized)
	cert, key := other.Issue(time.Now().Add(time.Hour))
	mutual.options.Auth = Auth{ClientCert: Fixed(string(cert)), ClientKey: Fixed(string(key))}
	wantClass(t, "a client certificate of another authority", try(t, mutual.options), sources.ErrUnauthorized)
}

// relay passes connections on until the listener is closed.
func relay(l net.Listener, to string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", to)
		if err != nil {
			c.Close()
			return
		}
		go func() {
			defer up.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				up.Write(buf[:n])
				if err != nil {
					return
				}
			}
		}()
		go func() {
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				n, err := up.Read(buf)
				c.Write(buf[:n])
				if err != nil {
					return
				}
			}
		}()
	}
}

// Row A-22: SSH host keys; no trust on first use.
func TestUntrustedSSH(t *testing.T) {
	p, s, _ := sshPlace(t)
	p.repo.Write("main", map[string]string{"a": "1"})
	if err := try(t, p.options); err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(s.Addr)
	file := write(t, "known_hosts", "# nothing\n")
	hint := "ssh-keyscan -p " + port + " " + host + " >> " + file
	o := p.options
	o.KnownHosts = []string{file}
	err := try(t, o)
	wantClass(t, "unknown host", err, sources.ErrUntrusted)
	if !strings.Contains(err.Error(), hint) {
		t.Errorf("the error does not say %q: %v", hint, err)
	}
	if data, _ := os.ReadFile(file); string(data) != "# nothing\n" {
		t.Error("the host was trusted on first use")
	}
	before := s.Sessions()
	for name, files := range map[string][]string{"no file": nil, "a missing file": {file + "x"}} {
		o.KnownHosts = files
		wantClass(t, name, try(t, o), sources.ErrUntrusted)
	}
	o.KnownHosts = []string{write(t, "other", strings.Replace(s.KnownHosts(), strings.Fields(s.KnownHosts())[2],
		strings.Fields(string(ssh.MarshalAuthorizedKey(gittest.NewKey(t).Public)))[1], 1))}
	err = try(t, o)
	wantClass(t, "another key", err, sources.ErrUntrusted)
	if err != nil && !strings.Contains(err.Error(), "SHA256:") {
		t.Errorf("the error has no fingerprint: %v", err)
	}
	if s.Sessions() != before {
		t.Error("a session was opened on an untrusted server")
	}
	o = p.options
	o.Auth.SSHKey = Fixed(string(gittest.NewKey(t).PEM(t)))
	wantClass(t, "another user key", try(t, o), sources.ErrUnauthorized)
	o.Auth.SSHKey = Fixed("no key")
	wantClass(t, "no key at all", try(t, o), sources.ErrUnauthorized)
	_, sealed := gittest.Sealed(t)
	o.Auth = Auth{SSHKey: Fixed(string(sealed)), SSHPassphrase: Fixed("not " + gittest.Passphrase)}
	wantClass(t, "a wrong passphrase", try(t, o), sources.ErrUnauthorized)
	o.Auth.SSHPassphrase = nil
	wantClass(t, "no passphrase", try(t, o), sources.ErrUnauthorized)
	o.Auth = Auth{SSHAgent: "/nonexistent/agent"}
	wantClass(t, "no agent", try(t, o), sources.ErrUnauthorized)
}

// Row A-22: a host key that can be forged.
func TestWeakHostKey(t *testing.T) {
	for bits, ok := range map[int]bool{1024: false, 2048: true} {
		n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
		public, err := ssh.NewPublicKey(&rsa.PublicKey{N: n, E: 65537})
		if err != nil {
			t.Fatal(err)
		}
		if err := strong(public); (err == nil) != ok {
			t.Errorf("RSA of %d bits: %v", bits, err)
		}
	}
}

// Row A-21: credentials go nowhere but to the configured place.
func TestRedirects(t *testing.T) {
	ca := gittest.NewCA(t)
	p, h := webPlace(t, gittest.HTTPOptions{TLS: ca, User: "robot", Password: canary})
	p.repo.Write("main", map[string]string{"a": "1"})
	var got []string
	spy := gittest.NewHTTP(t, gittest.HTTPOptions{})
	spy.Intercept(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Host+" "+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusNotFound)
	})
	elsewhere := strings.Replace(spy.URL, "127.0.0.1", "localhost", 1)
	for name, to := range map[string]string{
		"another port": spy.URL, "another host": elsewhere, "https to http": strings.Replace(h.URL, "https", "http", 1),
		"with credentials": strings.Replace(h.URL, "://", "://u:p@", 1), "a file": "file:///etc", "another path end": h.URL + "/login?",
	} {
		h.Intercept(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to+"/team/repo.git"+strings.TrimPrefix(r.URL.RequestURI(), "/team/repo.git"), http.StatusFound)
		})
		err := try(t, p.options)
		wantClass(t, name, err, sources.ErrUntrusted)
	}
	if len(got) != 0 {
		t.Errorf("another place was asked: %q", got)
	}
	// Within the server it is followed, as hosting services do for a new name.
	h.Intercept(nil)
	h.Serve("old.git", p.repo)
	h.Intercept(func(w http.ResponseWriter, r *http.Request) {
		h.Intercept(nil)
		http.Redirect(w, r, "/team/repo.git/info/refs?"+r.URL.RawQuery, http.StatusMovedPermanently)
	})
	o := p.options
	o.URL = h.URL + "/old.git"
	if err := try(t, o); err != nil {
		t.Errorf("a redirect on the same server: %v", err)
	}
	// A redirect of the transfer itself is not.
	h.Intercept(nil)
	o.Dir = t.TempDir()
	r := mustOpen(t, o)
	refs, err := r.Refs(t.Context(), mainRef)
	if err != nil {
		t.Fatal(err)
	}
	session, err := r.transport.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.Intercept(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/team/repo.git/git-upload-pack", http.StatusTemporaryRedirect)
	})
	id, _ := parseRevision(refs[mainRef])
	err = session.pack(t.Context(), packRequest{wants: []plumbing.Hash{id}}, &strings.Builder{})
	wantClass(t, "a redirected transfer", err, sources.ErrUntrusted)
}

// Row A-20: no error on any way shows a credential, also when the other side
// sends back what it was given.
func TestNoErrorShowsASecret(t *testing.T) {
	faults := map[string]http.HandlerFunc{
		"401": gittest.Status(401), "403": gittest.Status(403), "404": gittest.Status(404), "407": gittest.Status(407), "500": gittest.Status(500),
		"200 HTML": gittest.Status(200), "cut": gittest.Cut,
		"echo in ERR": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, password, _ := r.BasicAuth()
			line := "ERR you sent " + r.Header.Get("Authorization") + " that is " + password
			fmt.Fprintf(w, "%04x%s", len(line)+4, line)
		},
		"echo in a ref": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, password, _ := r.BasicAuth()
			line := strings.Repeat("1", 40) + " refs/heads/.." + password + r.Header.Get("Authorization") + "\x00 ofs-delta\n"
			fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s0000", len(line)+4, line)
		},
		"echo in the type": func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			w.Header().Set("Content-Type", "text/"+password)
		},
		"echo in a redirect": func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			http.Redirect(w, r, "http://evil.example.com/"+url.PathEscape(password), http.StatusFound)
		},
	}
	check := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s: no error", what)
			return
		}
		for _, format := range []string{"%v", "%+v", "%#v"} {
			text := fmt.Sprintf(format, err)
			for _, secret := range []string{canary, "s3cret", "czNjcmV0", "cm9ib3Q6"} { // plain and base64
				if strings.Contains(text, secret) {
					t.Errorf("%s shows %q: %s", what, secret, text)
				}
			}
		}
	}
	for name, fault := range faults {
		for kind, o := range map[string]gittest.HTTPOptions{"basic": {User: "robot", Password: canary}, "bearer": {Token: canary}} {
			p, h := webPlace(t, o)
			h.Intercept(fault)
			if kind == "bearer" && name == "echo in a redirect" || kind == "bearer" && name == "echo in the type" {
				continue // those repeat a password
			}
			check(kind+" "+name, try(t, p.options))
		}
	}
	p, _ := webPlace(t, gittest.HTTPOptions{TLS: gittest.NewCA(t)})
	for name, proxy := range map[string]*gittest.Proxy{"http": gittest.NewHTTPProxy(t, "robot", "other"), "socks": gittest.NewSOCKS(t, "robot", "other")} {
		p.options.Proxy = Proxy{URL: proxy.URL, Username: "robot", Password: Fixed(canary)}
		err := try(t, p.options)
		check("https over a refusing proxy "+name, err)
		if name == "http" {
			wantClass(t, "a refusing proxy", err, sources.ErrUnauthorized)
		}
		s, _, _ := sshPlace(t)
		s.options.Proxy = p.options.Proxy
		check("ssh over a refusing proxy "+name, try(t, s.options))
	}
	t.Setenv("HTTPS_PROXY", "http://robot:"+strings.ReplaceAll(canary, "/", "%2F")+"@127.0.0.1:1")
	p.options.URL, p.options.Proxy = "https://gitopsd.invalid/r", Proxy{}
	check("a proxy from the environment", try(t, p.options))
	p.options.Auth = Auth{Password: File("/nonexistent/secret")}
	p.options.Proxy.URL = "direct"
	wantClass(t, "a credential that is not there", try(t, p.options), sources.ErrUnauthorized)
}

// A rotated credential is used by the next request, without a restart.
func TestCredentialRotation(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("GITOPSD_TEST_PASSWORD", "old")
	old := write(t, "password", "old\n")
	for name, c := range map[string]struct {
		from   Resolver
		rotate func()
	}{
		"file":    {File(old), func() { os.WriteFile(old, []byte("new\r\n"), 0o600) }},
		"env":     {Env("GITOPSD_TEST_PASSWORD"), func() { os.Setenv("GITOPSD_TEST_PASSWORD", "new") }},
		"systemd": {Systemd("git"), func() { os.WriteFile(dir+"/git", []byte("new"), 0o600) }},
	} {
		p, _ := webPlace(t, gittest.HTTPOptions{User: "robot", Password: "new"})
		p.repo.Write("main", map[string]string{"a": "1"})
		p.options.Auth.Password, p.options.Dir = c.from, t.TempDir()
		r := mustOpen(t, p.options)
		_, err := r.Refs(t.Context(), mainRef)
		wantClass(t, name, err, sources.ErrUnauthorized)
		c.rotate()
		if _, err := r.Refs(t.Context(), mainRef); err != nil {
			t.Errorf("%s: after the rotation: %v", name, err)
		}
	}
}

// The beginning of row A-23: every address is asked about before it is connected to.
func TestAddressPolicy(t *testing.T) {
	for name, o := range map[string]Options{
		"https": {URL: "https://127.0.0.1:1/r"},
		"ssh":   {URL: "ssh://git@127.0.0.1:1/r", Auth: Auth{SSHKey: Fixed(string(gittest.NewKey(t).PEM(t)))}},
	} {
		if name == "ssh" {
			o.KnownHosts = []string{write(t, "known", "[127.0.0.1]:1 "+string(ssh.MarshalAuthorizedKey(gittest.NewKey(t).Public)))}
		}
		o.Proxy.URL = "direct"
		var asked []netip.AddrPort
		o.AllowAddress = func(a netip.AddrPort) error { asked = append(asked, a); return errors.New("not inside") }
		wantClass(t, name, try(t, o), sources.ErrRefused)
		if len(asked) != 1 || asked[0].String() != "127.0.0.1:1" {
			t.Errorf("%s: asked about %v", name, asked)
		}
	}
}
