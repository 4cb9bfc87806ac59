package gittest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What the writer makes is what git itself would make.
func TestRepoIsValid(t *testing.T) {
	r := NewRepo(t)
	r.Commit("main", map[string]File{
		"a.yaml": {Data: "1"}, "run": {Mode: ModeExec, Data: "x"}, "l": {Mode: ModeSymlink, Data: "a.yaml"},
		"d/a/x": {Data: "1"}, "d/a.b": {Data: "2"}, "d/a-": {Data: "3"},
	})
	two := r.Write("main", map[string]string{"d/new": "4"}, "a.yaml")
	r.AnnotatedTag("v1", two)
	if out := r.Git("fsck", "--strict", "--full"); strings.Contains(out, "error") {
		t.Error(out)
	}
	if out := r.Git("log", "--oneline", "main"); len(strings.Split(out, "\n")) != 2 {
		t.Errorf("log is %q", out)
	}
	if out := r.Git("ls-tree", "-r", "--name-only", "v1"); out != "d/a-\nd/a.b\nd/a/x\nd/new\nl\nrun" {
		t.Errorf("ls-tree is %q", out)
	}
}

// The git command itself can clone from and push to every server.
func TestServersSpeakGit(t *testing.T) {
	repo := NewRepo(t)
	repo.Write("main", map[string]string{"a": "1"})
	clone := func(url string, env ...string) {
		t.Helper()
		work := NewRepo(t)
		for _, kv := range env {
			k, v, _ := strings.Cut(kv, "=")
			work.Git("config", k, v)
		}
		work.Git("fetch", "-q", url, "refs/heads/main:refs/heads/main")
		if work.Ref("refs/heads/main") != repo.Ref("refs/heads/main") {
			t.Errorf("%s: the clone differs", url)
		}
		work.Write("main", map[string]string{"pushed": url})
		work.Git("push", "-q", url, "main")
		if work.Ref("refs/heads/main") != repo.Ref("refs/heads/main") {
			t.Errorf("%s: the push did not arrive", url)
		}
	}
	h := NewHTTP(t, HTTPOptions{User: "u", Password: "p"})
	clone(strings.Replace(h.Serve("r.git", repo), "http://", "http://u:p@", 1))
	if h.InfoRefs() == 0 || h.Denied() == 0 || h.UploadPacks() == 0 || h.ReceivePacks() == 0 { // git asks without credentials first
		t.Errorf("counted %d, %d, %d", h.InfoRefs(), h.UploadPacks(), h.ReceivePacks())
	}
	ca := NewCA(t)
	s := NewHTTP(t, HTTPOptions{TLS: ca, Token: "tok", ClientCert: true})
	cert, key := ca.Issue(time.Now().Add(time.Hour))
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca": ca.PEM, "cert": cert, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tlsConfig := []string{"http.sslCAInfo=" + dir + "/ca", "http.sslCert=" + dir + "/cert", "http.sslKey=" + dir + "/key", "http.extraHeader=Authorization: Bearer tok"}
	clone(s.Serve("r.git", repo), tlsConfig...)
	for _, p := range []*Proxy{NewHTTPProxy(t, "", ""), NewSOCKS(t, "", "")} {
		clone(s.URL+"/r.git", append(tlsConfig, "http.proxy="+p.URL)...)
		if p.Count() == 0 {
			t.Errorf("%s was not used", p.URL)
		}
	}
	user := NewKey(t)
	g := NewSSH(t, user.Public)
	for name, data := range map[string][]byte{"id": user.PEM(t), "known": []byte(g.KnownHosts())} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	clone(g.Serve("r.git", repo), "core.sshCommand=ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -i "+dir+"/id -o UserKnownHostsFile="+dir+"/known")
	if g.Sessions() != 1 || g.ReceivePacks() != 1 {
		t.Errorf("counted %d, %d", g.Sessions(), g.ReceivePacks())
	}
}
