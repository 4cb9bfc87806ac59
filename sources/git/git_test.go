package git

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
	"github.com/gitopsd/gitopsd/sources/sourcetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mainRef = "refs/heads/main"

// place is a served repository and how to reach it.
type place struct {
	repo     *gittest.Repo
	options  Options
	requests func() (refs, content int)
	cut      func()
	hostile  bool // run the names too; once for each way of transfer is enough
}

func gitFiles(files sourcetest.Files) map[string]gittest.File {
	out := map[string]gittest.File{}
	for p, f := range files {
		out[p] = gittest.File{Data: f.Data, Mode: map[sources.Mode]string{
			sources.ModeExec: gittest.ModeExec, sources.ModeSymlink: gittest.ModeSymlink, sources.ModeSubmodule: gittest.ModeSubmodule,
		}[f.Mode]}
	}
	return out
}

func mustOpen(t testing.TB, o Options) *Repository {
	t.Helper()
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func (p place) fixture(t *testing.T) sourcetest.Fixture {
	p.options.Dir = t.TempDir()
	r := p.repo
	f := sourcetest.Fixture{
		Repository: mustOpen(t, p.options), Ref: mainRef, Snapshot: true, SameHash: true, Submodules: true,
		Write: func(_ testing.TB, files sourcetest.Files) { r.Commit("main", gitFiles(files)) },
		WriteRef: func(t testing.TB, ref string, files sourcetest.Files) {
			r.SetRef(ref, r.CommitTree(r.TreeOf(gitFiles(files)), "other\n", time.Now()))
		},
		AnnotatedTag: func(_ testing.TB, ref string) {
			r.AnnotatedTag(strings.TrimPrefix(ref, "refs/tags/"), r.Ref(mainRef))
		},
		DeleteRef: func(_ testing.TB, ref string) { r.DeleteRef(ref) },
		Rewrite:   func(_ testing.TB, files sourcetest.Files) { r.ForcePush("main", gitFiles(files)) },
		Reopen:    func(t testing.TB) sources.Repository { return mustOpen(t, p.options) },
	}
	if p.requests != nil {
		f.Requests = p.requests
	} else {
		f.Requests = func() (int, int) {
			s := f.Repository.(*Repository).Stats()
			return s.RefsRequests, s.Fetches
		}
	}
	if p.hostile {
		f.Hostile = func(_ testing.TB, name string) bool {
			if name == "" && p.requests != nil {
				return false // git refuses to send it
			}
			r.Hostile("main", gittest.Entry{Mode: "100644", Name: name, ID: r.Blob("x")})
			return true
		}
	}
	if p.cut != nil {
		f.Cut = func(testing.TB) { p.cut() }
	}
	return f
}

func write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func webPlace(t testing.TB, o gittest.HTTPOptions) (place, *gittest.HTTP) {
	p := place{repo: gittest.NewRepo(t)}
	h := gittest.NewHTTP(t, o)
	p.options.URL = h.Serve("team/repo.git", p.repo)
	p.requests = func() (int, int) { return h.InfoRefs() - h.UploadPacks(), h.UploadPacks() }
	p.cut = h.Close
	p.options.Proxy.URL = "direct"
	if o.User != "" {
		p.options.Auth = Auth{Username: o.User, Password: File(write(t, "password", o.Password+"\n"))}
	}
	if o.Token != "" {
		p.options.Auth.Token = File(write(t, "token", o.Token))
	}
	if o.TLS != nil {
		p.options.CA = Fixed(string(o.TLS.PEM))
	}
	if o.ClientCert {
		cert, key := o.TLS.Issue(time.Now().Add(time.Hour))
		p.options.Auth.ClientCert = File(write(t, "cert", string(cert)))
		p.options.Auth.ClientKey = File(write(t, "key", string(key)))
	}
	return p, h
}

func sshPlace(t testing.TB) (place, *gittest.SSH, gittest.Key) {
	key := gittest.NewKey(t)
	p, s := sshPlaceOf(t, key.Public, key.PEM(t))
	return p, s, key
}

// sealedPlace lets in a key that is encrypted with a passphrase.
func sealedPlace(t testing.TB) place {
	key, sealed := gittest.Sealed(t)
	p, _ := sshPlaceOf(t, key.Public, sealed)
	p.options.Auth.SSHPassphrase = File(write(t, "passphrase", gittest.Passphrase))
	return p
}

func sshPlaceOf(t testing.TB, user ssh.PublicKey, private []byte) (place, *gittest.SSH) {
	p := place{repo: gittest.NewRepo(t)}
	s := gittest.NewSSH(t, user)
	p.options.URL = s.Serve("team/repo.git", p.repo)
	p.options.KnownHosts = []string{write(t, "known_hosts", s.KnownHosts())}
	p.options.Auth.SSHKey = File(write(t, "id", string(private)))
	p.requests = func() (int, int) { return s.Sessions() - s.Packs(), s.Packs() }
	p.cut = s.Close
	p.options.Proxy.URL = "direct"
	return p, s
}

func TestConformance(t *testing.T) {
	const user, secret = "robot", "s3cret-canary"
	places := map[string]func(t *testing.T) place{
		"path": func(t *testing.T) place {
			r := gittest.NewRepo(t)
			return place{repo: r, options: Options{URL: r.Dir}, cut: func() { os.RemoveAll(r.Dir) }, hostile: true}
		},
		"file": func(t *testing.T) place {
			r := gittest.NewRepo(t)
			return place{repo: r, options: Options{URL: "file://" + r.Dir}}
		},
		"http": func(t *testing.T) place {
			p, _ := webPlace(t, gittest.HTTPOptions{})
			p.hostile = true
			return p
		},
		"basic": func(t *testing.T) place {
			p, _ := webPlace(t, gittest.HTTPOptions{User: user, Password: secret})
			return p
		},
		"https-bearer": func(t *testing.T) place {
			p, _ := webPlace(t, gittest.HTTPOptions{TLS: gittest.NewCA(t), Token: secret})
			return p
		},
		"https-mtls": func(t *testing.T) place {
			p, _ := webPlace(t, gittest.HTTPOptions{TLS: gittest.NewCA(t), ClientCert: true})
			return p
		},
		"https-http-proxy": func(t *testing.T) place {
			p, _ := webPlace(t, gittest.HTTPOptions{TLS: gittest.NewCA(t), User: user, Password: secret})
			return through(t, p, gittest.NewHTTPProxy(t, user, secret))
		},
		"http-http-proxy": func(t *testing.T) place {
			p, _ := webPlace(t, gittest.HTTPOptions{})
			return through(t, p, gittest.NewHTTPProxy(t, user, secret))
		},
		"https-socks": func(t *testing.T) place {
			p, _ := webPlace(t, gittest.HTTPOptions{TLS: gittest.NewCA(t), User: user, Password: secret})
			return through(t, p, gittest.NewSOCKS(t, user, secret))
		},
		"ssh":            func(t *testing.T) place { p, _, _ := sshPlace(t); return p },
		"ssh-passphrase": func(t *testing.T) place { return sealedPlace(t) },
		"ssh-agent": func(t *testing.T) place {
			p, _, key := sshPlace(t)
			p.options.Auth = Auth{SSHAgent: key.Agent(t)}
			return p
		},
		"ssh-http-proxy": func(t *testing.T) place {
			p, _, _ := sshPlace(t)
			return through(t, p, gittest.NewHTTPProxy(t, user, secret))
		},
		"ssh-socks": func(t *testing.T) place {
			p, _, _ := sshPlace(t)
			return through(t, p, gittest.NewSOCKS(t, user, secret))
		},
	}
	child := buildFetcher(t)
	for _, name := range []string{"path", "https-bearer", "ssh-passphrase"} {
		make := places[name]
		places[name+"-child"] = func(t *testing.T) place {
			p := make(t)
			p.options.Child, p.hostile = child, false
			return p
		}
	}
	for name, make := range places {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sourcetest.Run(t, func(t *testing.T) sourcetest.Fixture { return make(t).fixture(t) })
		})
	}
}

// through sends a place's traffic over a proxy and checks that it went there.
func through(t *testing.T, p place, proxy *gittest.Proxy) place {
	p.options.Proxy = Proxy{URL: proxy.URL, Username: "robot", Password: File(write(t, "proxy", "s3cret-canary"))}
	t.Cleanup(func() {
		if refs, content := p.requests(); refs+content > 0 && proxy.Count() == 0 {
			t.Error("the proxy was not used")
		}
	})
	return p
}
