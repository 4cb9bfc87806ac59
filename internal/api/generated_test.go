package api

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGeneratedCodeIsCurrent: make generate notes what it made from which
// contract. Needs no generator, so it holds wherever the tests run.
func TestGeneratedCodeIsCurrent(t *testing.T) {
	sums, err := os.ReadFile("../../api/generated.sum")
	if err != nil {
		t.Fatal(err)
	}
	made := strings.Fields(string(sums))
	for i := 0; i+1 < len(made); i += 2 {
		data, err := os.ReadFile(filepath.Join("../../api", made[i+1]))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != made[i] {
			t.Errorf("api/%s is not what make generate left; run it again", made[i+1])
		}
	}
	if len(made) != 6 {
		t.Errorf("generated.sum names %d files, want the contract and two made from it", len(made)/2)
	}
}
