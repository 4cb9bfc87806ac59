package git

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"
)

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"https://Example.com/team/repo.git":    "https://example.com/team/repo.git",
		"https://example.com:443/team/repo/":   "https://example.com/team/repo",
		"https://example.com:8443/a%20b/_git/": "https://example.com:8443/a%20b/_git",
		"http://[::1]:80/r":                    "http://[::1]/r",
		"ssh://git@example.com:22/team/repo":   "ssh://git@example.com/team/repo",
		"ssh://git@example.com:2222/~me/repo":  "ssh://git@example.com:2222/~me/repo",
		"git@example.com:team/repo.git":        "ssh://git@example.com/./team/repo.git",
		"git@example.com:/srv/repo.git":        "ssh://git@example.com/srv/repo.git",
		"file:///srv/repo.git":                 "file:///srv/repo.git",
		"/srv/repo.git/":                       "file:///srv/repo.git",
	} {
		l, err := parseURL(raw)
		if err != nil || l.String() != want {
			t.Errorf("%s is %s, %v, want %s", raw, l, err, want)
		}
	}
}

// Rows: what is refused before anything is contacted, and that
// no error repeats a secret.
func TestHostileURLs(t *testing.T) {
	for _, raw := range []string{
		"", "repo", "./repo", "../repo", "C:/repo", `C:\repo`, "example.com:repo", "host:path",
		"ext::sh -c id", "ext::sh", "git@ext::sh", "fd::17", "git://example.com/r", "ftp://example.com/r", "javascript:alert(1)", "HTTPX://a/b",
		"-oProxyCommand=id", "git@-oProxyCommand=id:repo", "ssh://-oProxyCommand=id/repo", "ssh://-l@example.com/r", "git@example.com:-upload-pack=id",
		"git@example.com:--upload-pack=id", "https://example.com/-o/r", "file:///srv/--upload-pack=id",
		"https://example.com/a'b", `https://example.com/a"b`, "https://example.com/a`b", "https://example.com/a$(id)", "https://example.com/a;b",
		"https://example.com/a%27b", "https://example.com/a%22b", "https://example.com/a%60b", "https://example.com/a%3Bb",
		"https://example.com/a\nb", "https://example.com/a%0ab", "https://example.com/a%00b", "git@example.com:a%00b", "ssh://git@example.com/a%00b",
		"https://example.com/a%2500", "https://example.com/a b", "https://example.com/\x7f", "https://example.com/a\\b", "https://example.com/\xff",
		"https://example.com/../r", "https://example.com/%2e%2e/r", "https://example.com/./r", "file:///srv/../etc", "/srv/../etc",
		"https://example.com", "https://example.com/", "https:///r", "https://exa mple.com/r", "https://example..com/r", "https://[fe80::1%25eth0]/r",
		"https://example.com:0/r", "https://example.com:99999/r", "https://example.com:/r", "https://example.com:+80/r", "https://example.com:x/r",
		"https://example.com/r?service=x", "https://example.com/r#main", "https://example.com/r?", "file://host/srv/r", "file:srv", "file://./r",
		"https://user:s3cret-canary@example.com/r", "https://s3cret-canary@example.com/r", "http://:s3cret-canary@example.com/r",
		"ssh://git:s3cret-canary@example.com/r", "git:s3cret-canary@example.com:r", "https://example.com/r?token=s3cret-canary",
		"https://a:s3cret-canary@b:c@example.com/r", "https://user:s3cret-canary@exa mple.com/r", "https://user:s3cret-canary@example.com/%zz",
		"ssh://example.com/r", "https://" + strings.Repeat("a", 3000),
	} {
		l, err := parseURL(raw)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is accepted as %s (%v)", raw, l, err)
			continue
		}
		if strings.Contains(err.Error(), "s3cret-canary") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}

// Rows.
func FuzzURL(f *testing.F) {
	for _, s := range []string{
		"https://example.com/a/b.git", "ssh://git@h:22/x", "git@h:x/y", "file:///a", "/a/b", "https://u:p@h/x", "ext::sh -c id", "https://h/%00", "http://[::1]/x", "git@h:-o", "https://h/a%20b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		l, err := parseURL(raw)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%q: %v has no class", raw, err)
			}
			return
		}
		if l.host == "" && l.scheme != "file" || strings.HasPrefix(l.host, "-") || strings.HasPrefix(l.user, "-") || strings.HasPrefix(strings.TrimLeft(l.path, "/"), "-") {
			t.Errorf("%q gives %+v", raw, l)
		}
		for _, s := range []string{l.host, l.user, l.path, l.port} {
			if strings.ContainsAny(s, "'\"`\\$;|&<>\x00\n") || strings.ContainsFunc(s, unicode.IsControl) {
				t.Errorf("%q gives %+v", raw, l)
			}
		}
		if l.scheme != "ssh" && strings.Contains(strings.SplitN(l.String()+"///", "/", 4)[2], "@") {
			t.Errorf("%q keeps user information: %s", raw, l)
		}
		if l.scheme == "ssh" && !strings.HasPrefix(l.path, "/") {
			return // its form with /./ is for names only
		}
		again, err := parseURL(l.String())
		if err != nil || again.String() != l.String() {
			t.Errorf("%q is %s, which reads as %s, %v", raw, l, again, err)
		}
	})
}

// Rows.
func TestRefNames(t *testing.T) {
	for _, name := range []string{"HEAD", "refs/heads/main", "refs/heads/team/x-1", "refs/tags/v1.0", "refs/heads/*", "refs/heads/team/*", "refs/heads/ünï", "refs/pull/1/head"} {
		if err := ValidRef(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"", "*", "/*", "main", "-o", "refs", "refs/", "refs/heads/", "refs//main", "refs/heads/../../x", "refs/heads/..", "refs/heads/a..b", "refs/heads/.x",
		"refs/heads/x.lock", "refs/heads/x.", "refs/heads/a b", "refs/heads/a\nb", "refs/heads/a\x00b", "refs/heads/a~1", "refs/heads/a^", "refs/heads/a:b",
		"refs/heads/a?", "refs/heads/a*", "refs/heads/*/x", "refs/heads/[", `refs/heads/a\b`, "refs/heads/a@{1}", "refs/heads/-o", "refs/heads/--upload-pack=id",
		"refs/heads/it's", `refs/heads/"`, "refs/heads/$(id)", "/refs/heads/main", "refs/heads/main/", "refs/" + strings.Repeat("x", 2000),
	} {
		if err := ValidRef(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is accepted", name)
		}
	}
}

// Row A-5.
func FuzzRefName(f *testing.F) {
	for _, s := range []string{"refs/heads/main", "HEAD", "refs/heads/*", "refs/heads/../x", "refs/heads/-o", "refs/heads/a@{b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if ValidRef(name) != nil {
			return
		}
		if strings.Contains(name, "..") || strings.ContainsAny(name, " \x00\n'\"\\") || strings.HasPrefix(name, "-") || strings.Contains(name, "/-") || strings.Contains(name, "//") {
			t.Errorf("%q is accepted", name)
		}
		if name != "HEAD" && name != "HEAD/*" && !strings.HasPrefix(name, "refs/") {
			t.Errorf("%q is accepted", name)
		}
	})
}

// Row A-20: what is printed names places.
func TestOptionsPrintNoSecret(t *testing.T) {
	t.Setenv("GITOPSD_TEST_TOKEN", "s3cret-canary")
	o := Options{
		URL: "https://example.com/r", Dir: t.TempDir(), CA: Fixed("s3cret-canary"),
		Auth:  Auth{Password: Env("GITOPSD_TEST_TOKEN"), ClientCert: File("/run/cert"), ClientKey: Systemd("key")},
		Proxy: Proxy{URL: "http://proxy:3128", Password: Fixed("s3cret-canary")},
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(format, o); strings.Contains(s, "s3cret-canary") {
			t.Errorf("%s prints %s", format, s)
		}
	}
	r := mustOpen(t, o)
	if strings.Contains(r.String()+r.MirrorDir(), "s3cret-canary") {
		t.Error("the name holds the secret")
	}
}

// Rows: combinations that would leak or cannot work are refused by Open.
func TestOptionsRefused(t *testing.T) {
	secret := Env("X")
	for name, o := range map[string]Options{
		"password over http":      {URL: "http://example.com/r", Auth: Auth{Password: secret}},
		"token over http":         {URL: "http://example.com/r", Auth: Auth{Token: secret}},
		"http to 127.0.0.1.nip":   {URL: "http://127.0.0.1.example.com/r", Auth: Auth{Token: secret}},
		"password for ssh":        {URL: "git@example.com:r", Auth: Auth{Password: secret, SSHKey: secret}},
		"key for https":           {URL: "https://example.com/r", Auth: Auth{SSHKey: secret}},
		"two kinds":               {URL: "https://example.com/r", Auth: Auth{Password: secret, Token: secret}},
		"key and agent":           {URL: "git@example.com:r", Auth: Auth{SSHKey: secret, SSHAgent: "env"}},
		"certificate without key": {URL: "https://example.com/r", Auth: Auth{ClientCert: secret}},
		"ssh without anything":    {URL: "git@example.com:r"},
		"CA for ssh":              {URL: "git@example.com:r", Auth: Auth{SSHKey: secret}, CA: secret},
		"proxy with password":     {URL: "https://example.com/r", Proxy: Proxy{URL: "http://u:s3cret-canary@proxy:1"}},
		"proxy scheme":            {URL: "https://example.com/r", Proxy: Proxy{URL: "ext://proxy:1"}},
		"proxy no URL":            {URL: "https://example.com/r", Proxy: Proxy{URL: "proxy"}},
		"relative directory":      {URL: "https://example.com/r", Dir: "cache"},
	} {
		if o.Dir == "" {
			o.Dir = t.TempDir()
		}
		_, err := Open(o)
		if !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "s3cret-canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(Options{URL: "http://127.0.0.1:1/r", Dir: t.TempDir(), Auth: Auth{Token: secret}}); err != nil {
		t.Errorf("a token to loopback: %v", err)
	}
}

// One mirror per URL, credential and CA: nobody reads by another's token.
func TestMirrorsAreApart(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]string{}
	for name, o := range map[string]Options{
		"anonymous": {URL: "https://example.com/r"}, "other URL": {URL: "https://example.com/r2"},
		"token a": {URL: "https://example.com/r", Auth: Auth{Token: Env("A")}}, "token b": {URL: "https://example.com/r", Auth: Auth{Token: Env("B")}},
		"password a": {URL: "https://example.com/r", Auth: Auth{Password: Env("A")}}, "CA": {URL: "https://example.com/r", CA: Fixed("x")},
		"user": {URL: "https://example.com/r", Auth: Auth{Password: Env("A"), Username: "u"}},
	} {
		o.Dir = dir
		r := mustOpen(t, o)
		if other := seen[r.MirrorDir()]; other != "" {
			t.Errorf("%s and %s share a mirror", name, other)
		}
		seen[r.MirrorDir()] = name
	}
}
