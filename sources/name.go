package sources

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// maxName is the longest name in bytes that the usual filesystems hold.
const maxName = 255

// ValidName reports why a name may not be an entry of a Tree, or nil. Refused are
// the names that mean another place, or Git's own directory, to some filesystem
// (".." and ".git" in any case, with the code points that HFS+ ignores, or as
// NTFS shortens and trims them), that hold a separator or a control character,
// that are no UTF-8, or longer than 255 bytes.
func ValidName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxName:
		return errors.New("the name is longer than 255 bytes")
	case name == "." || name == "..":
		return errors.New("the name means another directory")
	case !utf8.ValidString(name):
		return errors.New("the name is not UTF-8")
	case strings.ContainsAny(name, `/\`):
		return errors.New("the name holds a separator")
	case strings.ContainsFunc(name, isControl):
		return errors.New("the name holds a control character")
	case isDotGit(name):
		return errors.New("the name means Git's own directory to some filesystem")
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }

// isDotGit folds a name as HFS+ and NTFS do and compares what is left.
func isDotGit(name string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	name, _, _ = strings.Cut(name, ":") // an alternate data stream
	name = strings.TrimRight(name, " .")
	return strings.EqualFold(name, ".git") || strings.EqualFold(name, "git~1")
}
