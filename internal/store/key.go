package store

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxKey is the length limit of a key in bytes.
const MaxKey = 1 << 10

// CheckKey reports why a key cannot be stored.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey || !utf8.ValidString(key) || strings.ContainsRune(key, 0) {
		return fmt.Errorf("store key %q: want 1 to %d bytes of UTF-8 without NUL", key, MaxKey)
	}
	return nil
}
