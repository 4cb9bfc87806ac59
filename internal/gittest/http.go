package gittest

import (
	"crypto/subtle"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// HTTPOptions says how an HTTP server protects itself. The zero value serves
// everyone in plain HTTP.
type HTTPOptions struct {
	User, Password string    // basic authentication
	Token          string    // bearer authentication
	TLS            *CA       // serve HTTPS with a certificate of this authority
	ClientCert     bool      // and require a client certificate of it
	Expires        time.Time // of the server's certificate; zero means tomorrow
}

// HTTP is a smart HTTP server: git's own http-backend behind net/http/cgi.
type HTTP struct {
	// URL is the address without a final slash; a repository served under a name
	// has URL + "/" + name.
	URL string

	root      string
	options   HTTPOptions
	t         testing.TB
	server    *httptest.Server
	intercept atomic.Pointer[http.HandlerFunc]
	packs     atomic.Pointer[http.HandlerFunc]
	refs      atomic.Int64
	uploads   atomic.Int64
	receives  atomic.Int64
	denied    atomic.Int64
	requests  atomic.Int64
}

// NewHTTP starts a server on a free port of 127.0.0.1.
func NewHTTP(t testing.TB, options HTTPOptions) *HTTP {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	h := &HTTP{root: t.TempDir(), options: options, t: t}
	backend := &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Root: "/",
		Env:    append(environment(), "GIT_PROJECT_ROOT="+h.root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=test"),
		Logger: log.New(io.Discard, "", 0), Stderr: io.Discard,
	}
	h.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.serve(w, r, backend) }))
	h.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if options.TLS != nil {
		until := options.Expires
		if until.IsZero() {
			until = time.Now().Add(24 * time.Hour)
		}
		h.server.TLS = options.TLS.server(until, options.ClientCert)
		h.server.StartTLS()
	} else {
		h.server.Start()
	}
	t.Cleanup(h.Close)
	h.URL = h.server.URL
	return h
}

// Close stops the server and cuts its connections; it is called at the end of
// the test anyway.
func (h *HTTP) Close() {
	h.server.CloseClientConnections()
	h.server.Close()
}

// Serve puts a repository under a name and returns its URL.
func (h *HTTP) Serve(name string, r *Repo) string {
	h.t.Helper()
	link := filepath.Join(h.root, filepath.FromSlash(name))
	r.must(os.MkdirAll(filepath.Dir(link), 0o755))
	r.must(os.Symlink(r.Dir, link))
	return h.URL + "/" + name
}

// Intercept makes every authorized or unauthorized request go to f instead of
// the repositories; nil ends that.
func (h *HTTP) Intercept(f http.HandlerFunc) {
	if f == nil {
		h.intercept.Store(nil)
		return
	}
	h.intercept.Store(&f)
}

// InterceptPacks makes f answer the authorized requests for content; those for
// refs go to the repositories. Nil ends that.
func (h *HTTP) InterceptPacks(f http.HandlerFunc) {
	if f == nil {
		h.packs.Store(nil)
		return
	}
	h.packs.Store(&f)
}

// InfoRefs counts the requests for refs, by clients that fetch.
func (h *HTTP) InfoRefs() int { return int(h.refs.Load()) }

// UploadPacks counts the requests for content.
func (h *HTTP) UploadPacks() int { return int(h.uploads.Load()) }

// ReceivePacks counts the pushes.
func (h *HTTP) ReceivePacks() int { return int(h.receives.Load()) }

// Denied counts the requests that had no valid credentials.
func (h *HTTP) Denied() int { return int(h.denied.Load()) }

// Requests counts all requests.
func (h *HTTP) Requests() int { return int(h.requests.Load()) }

func (h *HTTP) serve(w http.ResponseWriter, r *http.Request, backend http.Handler) {
	h.requests.Add(1)
	switch {
	case strings.HasSuffix(r.URL.Path, "/info/refs") && r.URL.Query().Get("service") == "git-upload-pack":
		h.refs.Add(1)
	case strings.HasSuffix(r.URL.Path, "/git-upload-pack"):
		h.uploads.Add(1)
	case strings.HasSuffix(r.URL.Path, "/git-receive-pack"):
		h.receives.Add(1)
	}
	if f := h.intercept.Load(); f != nil {
		(*f)(w, r)
		return
	}
	if !h.authorized(r) {
		h.denied.Add(1)
		w.Header().Set("WWW-Authenticate", `Basic realm="gittest"`)
		// A careless server shows what it was given.
		http.Error(w, "denied: "+r.Header.Get("Authorization"), http.StatusUnauthorized)
		return
	}
	if f := h.packs.Load(); f != nil && strings.HasSuffix(r.URL.Path, "/git-upload-pack") {
		(*f)(w, r)
		return
	}
	backend.ServeHTTP(w, r)
}

func (h *HTTP) authorized(r *http.Request) bool {
	same := func(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
	switch {
	case h.options.Token != "":
		return same(r.Header.Get("Authorization"), "Bearer "+h.options.Token)
	case h.options.User != "":
		user, password, ok := r.BasicAuth()
		return ok && same(user, h.options.User) && same(password, h.options.Password)
	}
	return true
}

// Status answers every request with a status and a page of HTML, as gateways do.
func Status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(code)
		io.WriteString(w, "<html><body>We are down for maintenance. You sent "+r.Header.Get("Authorization")+"</body></html>")
	}
}

// Cut closes the connection without an answer.
func Cut(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// Hang sends the start of an answer and then nothing until the client goes away.
func Hang(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	io.WriteString(w, "001e# service=git-upload-pack\n0000")
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}
