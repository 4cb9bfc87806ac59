package config

import (
	"errors"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"
	"unicode"
)

// address is what the configuration needs to know of a repository's URL. The
// errors of this file never repeat the URL: it may hold a password.
type address struct {
	scheme   string // https, http, ssh or file; an address as in user@host:path is ssh
	loopback bool   // never leaves this host
}

var scpRE = regexp.MustCompile(`^[A-Za-z0-9_][-A-Za-z0-9_.]*@[A-Za-z0-9][-A-Za-z0-9.]*:[^-:/][^:]*$`)

// parseAddress checks the address of a repository. It refuses whatever could be
// taken for an option, a command or a credential on its way to a Git server.
func parseAddress(s string) (address, error) {
	if err := plainText(s); err != nil {
		return address{}, err
	}
	if !strings.Contains(s, "://") {
		switch {
		case strings.Contains(s, "::"):
			return address{}, errors.New("remote helpers (name::address) are not supported; use https, ssh or file")
		case strings.HasPrefix(s, "/") || strings.HasPrefix(s, "."):
			return address{}, errors.New("is a path; write file:///absolute/path for a repository, or use a dir source for a directory")
		case !scpRE.MatchString(s):
			return address{}, errors.New("is no address of a repository; write https://host/path, ssh://user@host/path or user@host:path")
		}
		return address{scheme: "ssh"}, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return address{}, errors.New("is no valid URL; write https://host/path, ssh://user@host/path or file:///path")
	}
	return checkURL(u)
}

func checkURL(u *url.URL) (address, error) {
	a := address{scheme: u.Scheme, loopback: isLoopback(u.Hostname())}
	_, hasPassword := u.User.Password()
	switch {
	case u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "ssh" && u.Scheme != "file":
		return a, errors.New("the scheme is not supported; use https, http, ssh or file")
	case hasPassword, u.User != nil && u.Scheme != "ssh":
		return a, errors.New("the URL holds a user name or password; remove it and put a reference under auth")
	case u.User != nil && (u.User.Username() == "" || strings.HasPrefix(u.User.Username(), "-")):
		return a, errors.New("the user name is malformed; write ssh://user@host/path")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return a, errors.New("the URL has a query or fragment; remove it, and put a token under auth")
	case u.Scheme == "file" && (u.Host != "" || !path.IsAbs(u.Path)):
		return a, errors.New("want an absolute path, as in file:///srv/git/site.git")
	case u.Scheme != "file" && (u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-")):
		return a, errors.New("the host is missing or malformed; write https://host/path")
	case u.Scheme != "file" && strings.Trim(u.Path, "/") == "":
		return a, errors.New("the path of the repository is missing; write https://host/path")
	case strings.HasPrefix(strings.TrimLeft(u.Path, "/"), "-"):
		return a, errors.New("the path starts with a dash, which could be taken for an option")
	}
	return a, plainText(u.Path)
}

// parseProxy checks the address of a proxy.
func parseProxy(s string) error {
	if err := plainText(s); err != nil {
		return err
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Hostname() == "":
		return errors.New("is no valid URL; write http://host:port")
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5":
		return errors.New("the scheme is not supported; use http, https or socks5")
	case u.User != nil:
		return errors.New("the URL holds a user name or password; proxies that ask for one are not supported")
	case u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return errors.New("only a host and a port belong there; write http://host:port")
	}
	return nil
}

// plainText refuses characters that no repository needs and that a shell, a log
// or a header could misread.
func plainText(s string) error {
	if strings.HasPrefix(s, "-") {
		return errors.New("starts with a dash, which could be taken for an option")
	}
	for _, r := range s {
		if unicode.IsControl(r) || unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune("'\"`\\<>|;$", r) {
			return errors.New("holds a space, a quote or a control character")
		}
	}
	return nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && ip.IsLoopback())
}

// checkRefName applies the rules of git-check-ref-format to a branch or tag.
func checkRefName(s string) error {
	bad := strings.HasPrefix(s, "-") || strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") ||
		strings.HasSuffix(s, ".") || s == "@"
	for _, forbidden := range []string{"..", "@{", "//", "%00"} {
		bad = bad || strings.Contains(s, forbidden)
	}
	for part := range strings.SplitSeq(s, "/") {
		bad = bad || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock")
	}
	for _, r := range s {
		bad = bad || !unicode.IsPrint(r) || strings.ContainsRune(" ~^:?*[\\'\"`", r)
	}
	switch {
	case bad:
		return errors.New("is no valid name of a branch or tag")
	case strings.HasPrefix(s, "refs/"):
		return errors.New("write the short name, as in main, without refs/heads/ or refs/tags/")
	}
	return nil
}

// checkTreePath accepts a clean path that stays inside the source.
func checkTreePath(s string) error {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == '\\' {
			return errors.New("holds a control character or a backslash; separate with /")
		}
	}
	clean := path.Clean(s)
	switch {
	case path.IsAbs(s):
		return errors.New("is absolute; paths in a source start at its root, as in apps/web")
	case clean == ".." || strings.HasPrefix(clean, "../"):
		return errors.New("leads out of the source")
	}
	return nil
}
