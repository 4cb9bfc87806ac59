package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

// fetched opens a repository and fetches its main branch.
func fetched(t testing.TB, p place) (*Repository, string) {
	t.Helper()
	if p.options.Dir == "" {
		p.options.Dir = t.TempDir()
	}
	r := mustOpen(t, p.options)
	return r, fetchMain(t, r)
}

func fetchMain(t testing.TB, r *Repository) string {
	t.Helper()
	refs, err := r.Refs(t.Context(), mainRef)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Fetch(t.Context(), mainRef, refs[mainRef]); err != nil {
		t.Fatal(err)
	}
	return refs[mainRef]
}

func readAll(t testing.TB, r *Repository, id string) (map[string]string, error) {
	t.Helper()
	tree, err := r.Open(t.Context(), id)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	return out, sources.Walk(tree, "", func(e sources.Entry) error {
		if e.Mode == sources.ModeDir {
			return nil
		}
		data, err := tree.ReadFile(e.Path, 1<<20)
		out[e.Path] = string(data)
		return err
	})
}

// Row A-13: what an outage can look like. None of it is an empty answer.
func TestOutages(t *testing.T) {
	p, h := webPlace(t, gittest.HTTPOptions{})
	p.repo.Write("main", map[string]string{"a": "1"})
	r, id := fetched(t, p)
	advertise := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		class  error
	}{
		"401": {gittest.Status(401), sources.ErrUnauthorized}, "403": {gittest.Status(403), sources.ErrUnauthorized},
		"404": {gittest.Status(404), sources.ErrUnavailable}, "410": {gittest.Status(410), sources.ErrUnavailable},
		"429": {gittest.Status(429), sources.ErrUnavailable}, "500": {gittest.Status(500), sources.ErrUnavailable},
		"502": {gittest.Status(502), sources.ErrUnavailable}, "503": {gittest.Status(503), sources.ErrUnavailable},
		"204": {gittest.Status(204), sources.ErrUnavailable}, "200 HTML": {gittest.Status(200), sources.ErrUnavailable},
		"cut": {gittest.Cut, sources.ErrUnavailable}, "empty body": {advertise(""), sources.ErrUnavailable},
		"garbage": {advertise("<html>"), sources.ErrUnavailable}, "a cut line": {advertise("001e# service=git-up"), sources.ErrUnavailable},
		"cut after the first line": {advertise("001e# service=git-upload-pack\n0000"), sources.ErrUnavailable},
		"a wrong length":           {advertise("zzzz# service=git-upload-pack\n0000"), sources.ErrUnavailable},
		"ERR":                      {advertise("0010ERR go away\n"), sources.ErrUnavailable},
		"refs and then a cut":      {advertise("001e# service=git-upload-pack\n0000" + pkt(strings.Repeat("1", 40)+" refs/heads/other\x00 ofs-delta\n") + "00"), sources.ErrUnavailable},
	} {
		h.Intercept(c.answer)
		refs, err := r.Refs(t.Context(), mainRef)
		if !errors.Is(err, c.class) || refs != nil {
			t.Errorf("%s: %v, %v, want %v", name, refs, err, c.class)
		}
		if got, err := readAll(t, r, id); err != nil || got["a"] != "1" {
			t.Errorf("%s: what was fetched reads %v, %v", name, got, err)
		}
	}
	h.Intercept(nil)
	if _, err := r.Refs(t.Context(), mainRef); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

func pkt(line string) string { return fmt.Sprintf("%04x%s", len(line)+4, line) }

// Rows: a branch that is gone, a repository that was made again
// empty, a ref that never was: all are "not found" and nothing else changes.
func TestRefsThatAreGone(t *testing.T) {
	p, _ := webPlace(t, gittest.HTTPOptions{})
	id := p.repo.Write("main", map[string]string{"a": "1"})
	p.repo.SetRef("refs/heads/other", id)
	r, _ := fetched(t, p)
	source := sources.Source{Name: "web", Repository: r, Ref: sources.Ref{Branch: "main"}}
	resolve := func(what string) {
		t.Helper()
		if _, _, err := source.Resolve(t.Context()); !errors.Is(err, sources.ErrRefNotFound) {
			t.Errorf("%s: %v, want ErrRefNotFound", what, err)
		}
		if got, err := readAll(t, r, id); err != nil || got["a"] != "1" {
			t.Errorf("%s: what was fetched reads %v, %v", what, got, err)
		}
	}
	p.repo.DeleteRef(mainRef)
	resolve("deleted, or renamed to other")
	if err := r.Fetch(t.Context(), mainRef, strings.Repeat("1", 40)); !errors.Is(err, sources.ErrRefNotFound) {
		t.Errorf("Fetch by a ref that is gone: %v", err)
	}
	p.repo.Git("symbolic-ref", "HEAD", "refs/heads/other")
	resolve("the default branch changed")
	p.repo.DeleteRef("refs/heads/other")
	resolve("created again, empty")
	if refs, err := r.Refs(t.Context(), "refs/heads/*", "HEAD"); err != nil || len(refs) != 0 {
		t.Errorf("Refs of an empty repository = %v, %v", refs, err)
	}
	p.repo.SetRef(mainRef, id)
	if ref, got, err := source.Resolve(t.Context()); err != nil || got != id || ref != mainRef {
		t.Errorf("when it is back: %s %s %v", ref, got, err)
	}
	p.repo.Git("update-ref", "--no-deref", "HEAD", id)
	if refs, err := r.Refs(t.Context(), "HEAD"); err != nil || refs["HEAD"] != id {
		t.Errorf("a detached HEAD is %v, %v", refs, err)
	}
}

// Row A-4: a hostile name in an advertisement is refused and touches no file.
func TestHostileAdvertisedRef(t *testing.T) {
	p, h := webPlace(t, gittest.HTTPOptions{})
	id := p.repo.Write("main", map[string]string{"a": "1"})
	r, _ := fetched(t, p)
	before := files(t, filepath.Dir(r.MirrorDir()))
	for _, name := range []string{"refs/heads/../../x", "refs/heads/../../../../etc/x", "../x", "/etc/x", "refs/heads/a\nb", "refs/heads/.git/x", "refs/heads/x.lock", "-o"} {
		h.Intercept(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			io.WriteString(w, "001e# service=git-upload-pack\n0000"+pkt(id+" "+mainRef+"\x00 ofs-delta\n")+pkt(strings.Repeat("2", 40)+" "+name+"\n")+"0000")
		})
		if refs, err := r.Refs(t.Context(), "refs/heads/*"); err == nil || refs != nil {
			t.Errorf("%q: %v, %v", name, refs, err)
		}
		if err := r.Fetch(t.Context(), mainRef, strings.Repeat("3", 40)); err == nil {
			t.Errorf("%q: Fetch succeeded", name)
		}
	}
	if after := files(t, filepath.Dir(r.MirrorDir())); after != before {
		t.Errorf("the disk changed from\n%s to\n%s", before, after)
	}
}

func files(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			fmt.Fprintln(&b, path, d.Type())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Row A-6: a server that never ends, or never begins, is left
// at the deadline.
func TestDeadlinesCutTheNetwork(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	p, h := webPlace(t, gittest.HTTPOptions{})
	id := p.repo.Write("main", map[string]string{"a": "1"})
	s, server, _ := sshPlace(t)
	s.repo.Write("main", map[string]string{"a": "1"})
	server.Hang()
	quiet := s.options
	quiet.URL = "ssh://git@" + silent.Addr().String() + "/r"
	quiet.KnownHosts = []string{write(t, "known", strings.Replace(server.KnownHosts(), "["+strings.Replace(server.Addr, ":", "]:", 1), "["+strings.Replace(silent.Addr().String(), ":", "]:", 1), 1))}
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		io.WriteString(w, "001e# service=git-upload-pack\n0000"+pkt(id+" "+mainRef+"\x00 ofs-delta\n"))
		for i := 0; r.Context().Err() == nil; i++ {
			fmt.Fprint(w, pkt(fmt.Sprintf("%040d refs/heads/x%d\n", i+1, i)))
		}
	}
	cases := map[string]struct {
		options Options
		answer  http.HandlerFunc
	}{
		"http hangs": {p.options, gittest.Hang}, "http never ends": {p.options, endless},
		"http says nothing":  {Options{URL: "http://" + silent.Addr().String() + "/r", Proxy: Proxy{URL: "direct"}}, nil},
		"https says nothing": {Options{URL: "https://" + silent.Addr().String() + "/r", Proxy: Proxy{URL: "direct"}}, nil},
		"ssh hangs":          {s.options, nil}, "ssh says nothing": {quiet, nil},
		"the proxy says nothing": {Options{URL: "https://127.0.0.1:1/r", Proxy: Proxy{URL: "http://" + silent.Addr().String()}}, nil},
		"ssh: the socks proxy says nothing": {func() Options {
			o := s.options
			o.Proxy.URL = "socks5://" + silent.Addr().String()
			return o
		}(), nil},
		"ssh: the proxy says nothing": {func() Options {
			o := s.options
			o.Proxy.URL = "http://" + silent.Addr().String()
			return o
		}(), nil},
	}
	for name, c := range cases {
		h.Intercept(c.answer)
		c.options.Dir = t.TempDir()
		r := mustOpen(t, c.options)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		start := time.Now()
		_, err := r.Refs(ctx, mainRef)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: took %s", name, took)
		}
		if !errors.Is(err, sources.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	// The transfer of content stalls.
	h.Intercept(nil)
	p.options.Dir = t.TempDir()
	r := mustOpen(t, p.options)
	session, err := r.transport.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.Intercept(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		io.WriteString(w, pkt("NAK\n")+pkt("\x01PACK"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	want, _ := parseRevision(id)
	if err := session.pack(ctx, packRequest{wants: []plumbing.Hash{want}}, io.Discard); err == nil {
		t.Error("a stalled transfer succeeded")
	}
}

// Row A-7: the limit of a transfer is kept and named.
func TestPackLimit(t *testing.T) {
	p, _ := webPlace(t, gittest.HTTPOptions{})
	p.repo.Write("main", map[string]string{"a": strings.Repeat("incompressible? ", 10) + fmt.Sprint(time.Now().UnixNano())})
	p.options.Limits.PackBytes = 100
	err := try(t, p.options)
	if !errors.Is(err, sources.ErrRefused) || !strings.Contains(err.Error(), "git.limits.packMiB") {
		t.Error(err)
	}
}

// lyingServer answers a transfer with the pack that make returns.
func lyingServer(h *gittest.HTTP, make func() []byte) {
	h.Intercept(sendPack(make))
}

func sendPack(make func() []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		io.WriteString(w, pkt("NAK\n"))
		for data := make(); len(data) > 0; {
			n := min(len(data), 60_000)
			io.WriteString(w, pkt("\x01"+string(data[:n])))
			data = data[n:]
		}
		io.WriteString(w, "0000")
	}
}

// Row A-11: a revision is not opened before all that it leads to is there,
// whatever the server claims to have sent.
func TestIncompleteTransfer(t *testing.T) {
	p, h := webPlace(t, gittest.HTTPOptions{})
	p.repo.Write("main", map[string]string{"a": "1", "d/b": "2"})
	all := &collector{from: &store{dir: p.repo.Dir}, has: func(plumbing.Hash) bool { return false }, seen: map[plumbing.Hash]bool{}}
	id, _ := parseRevision(p.repo.Ref(mainRef))
	if err := all.add(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	defer all.from.reload()
	for i := range all.out {
		var pack bytes.Buffer
		lacking := append(append([]plumbing.Hash{}, all.out[:i]...), all.out[i+1:]...)
		if err := all.from.encode(&pack, lacking); err != nil {
			t.Fatal(err)
		}
		p.options.Dir = t.TempDir()
		r := mustOpen(t, p.options)
		refs, err := r.Refs(t.Context(), mainRef)
		if err != nil {
			t.Fatal(err)
		}
		session, err := r.transport.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lyingServer(h, pack.Bytes)
		r.transport = &fixedTransport{session}
		if err := r.Fetch(t.Context(), mainRef, refs[mainRef]); !errors.Is(err, sources.ErrUnavailable) {
			t.Errorf("without object %d: Fetch: %v", i, err)
		}
		if _, err := r.Open(t.Context(), refs[mainRef]); err == nil {
			t.Errorf("without object %d: the revision opens", i)
		}
		h.Intercept(nil)
		web, err := newWeb(r)
		if err != nil {
			t.Fatal(err)
		}
		session.close()
		r.transport = web
		if err := r.Fetch(t.Context(), mainRef, refs[mainRef]); err != nil {
			t.Errorf("without object %d: it does not heal: %v", i, err)
		}
		if got, err := readAll(t, r, refs[mainRef]); err != nil || got["d/b"] != "2" {
			t.Errorf("without object %d: after healing %v, %v", i, got, err)
		}
	}
}

// fixedTransport hands out a session that has been opened already.
type fixedTransport struct{ session }

func (f *fixedTransport) open(context.Context) (session, error) { return f.session, nil }

// A pack that is not one is refused and leaves nothing behind.
func TestBrokenPacks(t *testing.T) {
	p, h := webPlace(t, gittest.HTTPOptions{})
	p.repo.Write("main", map[string]string{"a": "1"})
	p.options.Dir = t.TempDir()
	r := mustOpen(t, p.options)
	id := p.repo.Ref(mainRef)
	for name, data := range map[string]string{
		"nothing": "", "no pack": "hello", "cut": "PACK\x00\x00\x00\x02\x00\x00\x00\x05", "version": "PACK\x00\x00\x00\x09\x00\x00\x00\x00",
		"a count that lies": "PACK\x00\x00\x00\x02\xff\xff\xff\xff", "no checksum": "PACK\x00\x00\x00\x02\x00\x00\x00\x00",
	} {
		session, err := r.transport.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		lyingServer(h, func() []byte { return []byte(data) })
		good := r.transport
		r.transport = &fixedTransport{session}
		if err := r.Fetch(t.Context(), mainRef, id); err == nil {
			t.Errorf("%s: Fetch succeeded", name)
		}
		r.transport = good
		h.Intercept(nil)
		left, err := os.ReadDir(filepath.Join(r.MirrorDir(), "objects", "pack"))
		if err != nil || len(left) != 0 {
			t.Errorf("%s: left behind %v, %v", name, left, err)
		}
	}
	if err := r.Fetch(t.Context(), mainRef, id); err != nil {
		t.Error(err)
	}
}
