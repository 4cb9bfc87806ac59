package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/gitopsd/gitopsd/internal/effect"
)

// Whatever fails while the first key is made, the next start makes or finds a
// whole one, and every later start finds the same.
func TestKeyIsWholeOrNotThere(t *testing.T) {
	cut := errors.New("cut")
	for _, name := range []effect.Name{effect.FileWrite, effect.FileRename, effect.FileSyncDir} {
		for _, after := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "digest.key")
			_, err := loadSealer(path, func(at effect.Name, _ string, do func() error) error {
				if at != name {
					return do()
				}
				if after {
					return errors.Join(do(), cut)
				}
				return cut
			})
			if !errors.Is(err, cut) {
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := loadSealer(path, effect.Direct); err != nil {
				t.Errorf("%s, after %v: %v", name, after, err)
			}
			first, err := os.ReadFile(path)
			if err != nil || len(first) != 32 {
				t.Errorf("%s, after %v: %d bytes, %v", name, after, len(first), err)
			}
			if _, err := loadSealer(path, effect.Direct); err != nil {
				t.Error(err)
			}
			if again, err := os.ReadFile(path); err != nil || string(again) != string(first) {
				t.Errorf("%s, after %v: another key, %v", name, after, err)
			}
		}
	}
}
