package git

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrInvalid: the options themselves are wrong; nothing has been contacted.
var ErrInvalid = errors.New("invalid git source")

const maxURL = 2048

// location is a checked repository URL.
type location struct {
	scheme string // https, http, ssh or file
	user   string // of ssh only
	host   string // without brackets, lower case
	port   string // "" for the scheme's own
	path   string // decoded
}

// parseURL accepts https://, http://, ssh://, file:// URLs, the scp-like form
// user@host:path, and absolute paths. Whatever could mean something else to a
// shell, to git or to a URL parser further on is refused (rows ), and
// so are credentials, which would end up in every log (row A-20).
func parseURL(raw string) (location, error) {
	l, err := splitURL(raw)
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return location{}, fmt.Errorf("%w: url %q: %w", ErrInvalid, displayURL(raw), err)
	}
	return l, nil
}

func splitURL(raw string) (location, error) {
	switch {
	case raw == "":
		return location{}, errors.New("it is empty")
	case len(raw) > maxURL:
		return location{}, fmt.Errorf("it is longer than %d bytes", maxURL)
	case !utf8.ValidString(raw) || strings.ContainsFunc(raw, unsafeInURL):
		return location{}, errors.New("it holds a quote, blank, control or shell character")
	case strings.HasPrefix(raw, "/"):
		return location{scheme: "file", path: raw}, nil
	case strings.Contains(raw, "://"):
		return splitFullURL(raw)
	}
	authority, p, ok := strings.Cut(raw, ":")
	if !ok || strings.Contains(authority, "/") {
		return location{}, errors.New("it is neither a URL, nor user@host:path, nor an absolute path")
	}
	user, host, ok := strings.Cut(authority, "@")
	if !ok {
		return location{}, errors.New("its scheme is not one of https, http, ssh, file (the scp-like form is user@host:path)")
	}
	return location{scheme: "ssh", user: user, host: strings.ToLower(host), path: p}, nil
}

func splitFullURL(raw string) (location, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return location{}, errors.New("it cannot be parsed")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
		return location{}, errors.New("it has a query or a fragment; name the ref in the source's own field")
	}
	l := location{scheme: u.Scheme, host: strings.ToLower(u.Hostname()), port: u.Port(), path: u.Path}
	if strings.HasSuffix(u.Host, ":") {
		return location{}, errors.New("its port is empty")
	}
	_, password := u.User.Password()
	switch {
	case u.User != nil && (l.scheme != "ssh" || password):
		return location{}, errors.New("it holds credentials; remove them and name an environment variable, file or systemd credential that has them")
	case u.User != nil:
		l.user = u.User.Username()
	}
	if l.port == map[string]string{"https": "443", "http": "80", "ssh": "22"}[l.scheme] {
		l.port = ""
	}
	return l, nil
}

// unsafeInURL holds for the characters that no URL of a repository needs as such.
func unsafeInURL(r rune) bool {
	return r <= 0x20 || r >= 0x7f && r < 0xa0 || strings.ContainsRune("'\"`\\$;&|<>*(){}^!", r)
}

func (l location) check() error {
	switch l.scheme {
	case "https", "http", "ssh":
		if err := checkHost(l.host); err != nil {
			return err
		}
	case "file":
		if l.host != "" {
			return errors.New("a file URL has no host: file:///absolute/path")
		}
	default:
		return errors.New("its scheme is not one of https, http, ssh, file")
	}
	if l.port != "" {
		if n, err := strconv.Atoi(l.port); err != nil || n < 1 || n > 65535 || l.port[0] == '+' {
			return errors.New("its port is not a number from 1 to 65535")
		}
	}
	if l.scheme == "ssh" && (l.user == "" || !plainWord(l.user)) {
		return errors.New("the ssh user is missing or not plain (most servers want git@)")
	}
	return l.checkPath()
}

func (l location) checkPath() error {
	p := l.path
	switch {
	case strings.Trim(p, "/") == "":
		return errors.New("its path is empty")
	case !utf8.ValidString(p) || strings.ContainsFunc(p, func(r rune) bool { return r != ' ' && unsafeInURL(r) }):
		return errors.New("its path holds a quote, control or shell character, perhaps encoded")
	case strings.HasPrefix(p, ":"):
		return errors.New("it names a transport helper")
	case strings.Contains(p, "%"):
		return errors.New("its path is encoded twice, or encoded where no encoding is known")
	case l.scheme == "file" && !path.IsAbs(p):
		return errors.New("its path is not absolute")
	}
	for _, part := range strings.Split(p, "/") {
		if part == ".." || part == "." || strings.HasPrefix(part, "-") {
			return errors.New("a part of its path is . or .. or starts with a dash")
		}
	}
	return nil
}

func checkHost(h string) error {
	if _, err := netip.ParseAddr(h); err == nil && !strings.Contains(h, "%") {
		return nil
	}
	for _, label := range strings.Split(h, ".") {
		if label == "" || len(h) > 253 || !plainWord(label) {
			return errors.New("its host is missing or not a plain name")
		}
	}
	return nil
}

// plainWord accepts letters, digits, dots, underscores and inner dashes.
func plainWord(s string) bool {
	for i, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '.':
		case r == '-' && i > 0:
		default:
			return false
		}
	}
	return s != ""
}

// address is host:port to dial.
func (l location) address() string {
	port := l.port
	if port == "" {
		port = map[string]string{"https": "443", "http": "80", "ssh": "22"}[l.scheme]
	}
	return net.JoinHostPort(l.host, port)
}

// String is the one form under which a repository is known: in errors, and as
// part of the name of its mirror. It never holds a secret.
func (l location) String() string {
	if l.scheme == "file" {
		return (&url.URL{Scheme: "file", Path: path.Clean(l.path)}).String()
	}
	host := l.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if l.port != "" {
		host += ":" + l.port
	}
	u := url.URL{Scheme: l.scheme, Host: host, Path: "/" + strings.TrimRight(strings.TrimLeft(l.path, "/"), "/")}
	if l.scheme == "ssh" {
		u.User = url.User(l.user)
		if !strings.HasPrefix(l.path, "/") { // relative to the user's home, as scp has it
			u.Path = "/./" + strings.TrimRight(l.path, "/")
		}
	}
	return u.String()
}

// loopback reports whether the host is this machine by its very spelling.
func (l location) loopback() bool {
	if l.host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(l.host)
	return err == nil && ip.IsLoopback()
}

// displayURL is a URL that was refused, without what may be secret in it.
func displayURL(raw string) string {
	raw, _, cut := strings.Cut(raw, "?")
	raw, _, cut2 := strings.Cut(raw, "#")
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		scheme, rest = "", raw
	} else {
		scheme += "://"
	}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		rest = "***@" + rest[at+1:]
	}
	if len(rest) > 200 {
		rest = rest[:200] + "..."
	}
	if cut || cut2 {
		rest += "?***"
	}
	return scheme + rest
}
