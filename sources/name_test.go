package sources

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// Row A-2.
func TestValidName(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", ".git", ".GIT", ".gIt", "git~1", "GIT~1", ".g\u200cit", ".git\ufeff", "\u200e.git", ".git ", ".git.", ".git. .",
		".git:x", ".git::$INDEX_ALLOCATION", `a\b`, "a/b", "/", "a\x00b", "a\nb", "a\x1bb", "a\x7fb", "a\u0085b", "\xff", strings.Repeat("x", 256),
	} {
		if ValidName(name) == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	for _, name := range []string{"a", "...", "a..b", ".gitignore", ".gitmodules", "git~2", "git", "x.git", "ünïcode", "a b", "-o", "👩‍🚀", strings.Repeat("x", 255)} {
		if err := ValidName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Row A-2: an accepted name stays one name in its directory, whatever case or
// ignorable characters are added.
func FuzzValidName(f *testing.F) {
	for _, s := range []string{"a", ".git", "git~1", "..", "a/b", "\u200c", ".g\u206fit"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if ValidName(name) != nil {
			return
		}
		if !utf8.ValidString(name) || strings.ContainsAny(name, "/\\\x00\n\r") || name == "" || name == ".." {
			t.Errorf("%q is accepted", name)
		}
		if folded := strings.ToLower(strings.ReplaceAll(name, "\u200c", "")); folded == ".git" || folded == "git~1" {
			t.Errorf("%q is accepted", name)
		}
	})
}
