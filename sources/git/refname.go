package git

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// ValidRef reports why a full ref name, or a pattern that ends in "/*", may not
// be asked for, or nil. It is git's own rule for names, narrowed by what a
// command line could misread: quotes and parts that start with a dash (row A-5).
func ValidRef(name string) error {
	plain := strings.TrimSuffix(name, "/*")
	err := refFormat(plain)
	if err == nil && (strings.ContainsAny(plain, "'\"`$;&|<>()!") || strings.Contains(plain, "/-")) {
		err = errors.New("it holds a quote or shell character, or a part starts with a dash")
	}
	if err != nil {
		return fmt.Errorf("%w: ref %q: %w", ErrInvalid, name, err)
	}
	return nil
}

// refFormat is the rule of git check-ref-format, for HEAD and names below refs/.
func refFormat(name string) error {
	if name == "HEAD" {
		return nil
	}
	switch {
	case len(name) > 1024:
		return errors.New("it is longer than 1024 bytes")
	case !strings.HasPrefix(name, "refs/"):
		return errors.New("it is not a full name such as refs/heads/main")
	case strings.Contains(name, ".."), strings.Contains(name, "@{"), strings.HasSuffix(name, "."):
		return errors.New("it holds \"..\" or \"@{\" or ends in a dot")
	case strings.ContainsFunc(name, func(r rune) bool { return r <= 0x20 || r == 0x7f || strings.ContainsRune("~^:?*[\\", r) }):
		return errors.New("it holds a blank, a control character or one of ~^:?*[\\")
	}
	for _, part := range strings.Split(name, "/") {
		if part == "" || strings.HasPrefix(part, ".") || strings.HasSuffix(part, ".lock") {
			return errors.New("a part is empty, starts with a dot or ends in .lock")
		}
	}
	return nil
}

func matchesRef(patterns []string, name string) bool {
	for _, p := range patterns {
		if prefix, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, prefix) || p == name {
			return true
		}
	}
	return false
}

// parseRevision accepts the 40 lower-case digits that Refs returns.
func parseRevision(s string) (plumbing.Hash, error) {
	h := plumbing.NewHash(s)
	if len(s) != 40 || h.String() != s || h.IsZero() {
		return plumbing.ZeroHash, fmt.Errorf("%w: revision %q is not 40 hexadecimal digits", ErrInvalid, s)
	}
	return h, nil
}
