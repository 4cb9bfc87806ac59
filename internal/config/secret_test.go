package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gitopsd/gitopsd/internal/config"
)

func TestSecretRead(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{"token": "CANARY\n", "lines": "a\nb\n\n", "empty": "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"TOKEN": "CANARY", "EMPTY": "", "CREDENTIALS_DIRECTORY": dir}[name]
		return v, ok
	}
	for _, c := range []struct {
		ref  config.SecretRef
		want string
		err  string
	}{
		{config.SecretRef{Env: "TOKEN"}, "CANARY", ""},
		{config.SecretRef{Env: "EMPTY"}, "", "environment variable EMPTY: it is empty"},
		{config.SecretRef{Env: "NONE"}, "", "is not set"},
		{config.SecretRef{File: filepath.Join(dir, "token")}, "CANARY", ""},
		{config.SecretRef{File: filepath.Join(dir, "lines")}, "a\nb\n", ""},
		{config.SecretRef{File: filepath.Join(dir, "empty")}, "", "it is empty"},
		{config.SecretRef{File: dir}, "", "no regular file"},
		{config.SecretRef{File: filepath.Join(dir, "none")}, "", "no such file"},
		{config.SecretRef{Credential: "token"}, "CANARY", ""},
		{config.SecretRef{Credential: "none"}, "", "no such file"},
	} {
		got, err := c.ref.Read(env)
		if got != c.want || (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %q, %v", c.ref, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s: the error holds the secret", c.ref)
		}
	}
	none := func(string) (string, bool) { return "", false }
	if _, err := (config.SecretRef{Credential: "token"}).Read(none); err == nil || !strings.Contains(err.Error(), "LoadCredential=token:") {
		t.Errorf("without systemd: %v", err)
	}
}
