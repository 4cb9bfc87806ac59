package config

import (
	"strings"
	"testing"
)

// TestAddresses: what could be taken for an option, a command or a credential
// is refused at load (rows ).
func TestAddresses(t *testing.T) {
	good := map[string]string{
		"https://git.example.org/ops/site.git":    "https",
		"http://127.0.0.1:8080/site.git":          "http",
		"ssh://git@git.example.org:2222/site":     "ssh",
		"git@git.example.org:ops/site.git":        "ssh",
		"file:///srv/git/site.git":                "file",
		"https://git.example.org/~user/a%20b.git": "", // a space, spelt out
		"https://[::1]:8443/site.git":             "https",
	}
	for s, scheme := range good {
		got, err := parseAddress(s)
		if (err == nil) != (scheme != "") || (err == nil && got.scheme != scheme) {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "x", "-o", "--upload-pack=id", "/srv/git", "./git", "ext::sh -c id", "ext::id", "fd::17", "file::x",
		"https://", "https:///path", "https://host", "https://host/", "https://-host/x", "https://user@host/x",
		"https://user:CANARY@host/x", "https://:CANARY@host/x", "https://CANARY@host/x", "https://host/x?private_token=CANARY",
		"https://host/x#CANARY", "https://host/-x", "https://host/x\ny", "https://host/x%00", "https://host/x%0ay", "https://host/'x'",
		"https://host/`id`", "https://host/$(id)", "ssh://user:CANARY@host/x", "ssh://-oProxyCommand=id/x", "ssh://-l@host/x",
		"ssh://@host/x", "-oProxyCommand=id@host:x", "git@-host:x", "git@host:-x", "git@host:", "ftp://host/x", "git://host/x", "javascript:alert(1)//x:y",
		"file://host/x", "file:x", "git.example.org:ops/site.git", "https://host/\u202ex", "HTTPS//host",
	} {
		_, err := parseAddress(s)
		if err == nil {
			t.Errorf("%q was accepted", s)
		} else if strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%q: the error repeats the secret: %v", s, err)
		}
	}
}

func TestProxies(t *testing.T) {
	for s, ok := range map[string]bool{
		"http://proxy:3128": true, "https://proxy": true, "socks5://127.0.0.1:1080/": true,
		"http://u:CANARY@proxy": false, "ftp://proxy": false, "proxy:3128": false, "http://": false, "http://proxy/path": false, "-x": false,
	} {
		if err := parseProxy(s); (err == nil) != ok || (err != nil && strings.Contains(err.Error(), "CANARY")) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// TestRefNames: row A-5.
func TestRefNames(t *testing.T) {
	for s, ok := range map[string]bool{
		"main": true, "release/2026.1": true, "v1": true, "äöü": true,
		"-x": false, "/x": false, "x/": false, "x.": false, "a..b": false, "a//b": false, "a/.b": false, "a.lock": false, "a.lock/b": false,
		"@": false, "a@{1}": false, "a b": false, "a~1": false, "a^": false, "a:b": false, "a?": false, "a*": false, "a[": false, "a\\b": false,
		"a\nb": false, "a'b": false, "x%00": false, "refs/heads/main": false,
	} {
		if err := checkRefName(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzAddress: whatever is accepted has no place for a secret, an option or a
// command, and no error repeats its input.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://h/x", "git@h:x", "ssh://git@h:22/x", "https://u:p@h/x", "ext::id", "https://h/%2e%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := parseAddress(s)
		if err != nil {
			if len(s) > 30 && strings.Contains(err.Error(), s) {
				t.Fatalf("the error repeats the input: %v", err)
			}
			return
		}
		authority, _, _ := strings.Cut(strings.TrimPrefix(s, a.scheme+"://"), "/")
		if a.scheme != "ssh" && strings.Contains(authority, "@") || strings.HasPrefix(authority, "-") {
			t.Fatalf("%q was accepted as %+v", s, a)
		}
		if user, _, found := strings.Cut(authority, "@"); found && strings.Contains(user, ":") {
			t.Fatalf("%q holds a password and was accepted", s)
		}
		if strings.ContainsAny(s, " \n\r\x00'\"`$;|\\") {
			t.Fatalf("%q was accepted", s)
		}
	})
}
