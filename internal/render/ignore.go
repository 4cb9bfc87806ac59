package render

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"

	"github.com/gitopsd/gitopsd/sources"
)

// IgnoreFile is the name of the files that leave names out, in the syntax of
// .gitignore. One covers the directory it stands in and everything below; those
// between the root of the tree and the rendered path count too.
const IgnoreFile = ".gitopsdignore"

// rules are the patterns in force in a directory: a chain of ignore files, the
// innermost first. nil has no patterns. It is immutable.
type rules struct {
	outer    *rules
	read     FileRead
	size     int64
	id       string // identifies the whole chain
	patterns []gitignore.Pattern
	matcher  gitignore.Matcher
}

func (r *rules) ID() string {
	if r == nil {
		return ""
	}
	return r.id
}

// next returns the id of the chain with one more file.
func (r *rules) next(e sources.Entry) string {
	h := sha256.New()
	writeParts(h.Write, r.ID(), e.Path, string(e.Hash))
	return hex.EncodeToString(h.Sum(nil))
}

// with returns the chain with one more file, which stands in directory dir.
func (r *rules) with(dir string, e sources.Entry, text []byte) *rules {
	n := &rules{outer: r, read: FileRead{Path: e.Path, Hash: e.Hash}, size: int64(len(text)), id: r.next(e)}
	if r != nil {
		n.patterns = append(n.patterns, r.patterns...)
	}
	var domain []string
	if dir != "" {
		domain = strings.Split(dir, "/")
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		n.patterns = append(n.patterns, gitignore.ParsePattern(line, domain))
	}
	n.matcher = gitignore.NewMatcher(n.patterns)
	return n
}

// ignores reports whether a name in the directory of these rules is left out.
func (r *rules) ignores(e sources.Entry) bool {
	return r != nil && r.matcher.Match(strings.Split(e.Path, "/"), e.Mode == sources.ModeDir)
}

// ancestors returns the directories above p, the root first.
func ancestors(p string) []string {
	if p == "" {
		return nil
	}
	dirs := []string{""}
	for i, c := range p {
		if c == '/' {
			dirs = append(dirs, p[:i])
		}
	}
	return dirs
}

// parent returns the directory of p; that of a name in the root is "".
func parent(p string) string { return clean(path.Dir(p)) }
