package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxSecret is the largest secret that is read: far more than a key or token
// needs, and what systemd allows for one credential.
const maxSecret = 1 << 20

// String names the place of the secret, never the secret.
func (r SecretRef) String() string {
	switch {
	case r.Env != "":
		return "environment variable " + r.Env
	case r.File != "":
		return "file " + r.File
	default:
		return "credential " + r.Credential
	}
}

// Read returns the secret that r names; lookupEnv is os.LookupEnv or stands in
// for it. One newline at the end of a file is not part of the secret. An empty
// secret is an error, and no error holds any part of one.
func (r SecretRef) Read(lookupEnv func(string) (string, bool)) (string, error) {
	secret, err := r.read(lookupEnv)
	if err != nil {
		return "", fmt.Errorf("secret in %s: %w", r, err)
	}
	if secret == "" {
		return "", fmt.Errorf("secret in %s: it is empty", r)
	}
	return secret, nil
}

func (r SecretRef) read(lookupEnv func(string) (string, bool)) (string, error) {
	switch {
	case r.Env != "":
		secret, ok := lookupEnv(r.Env)
		if !ok {
			return "", errors.New("the variable is not set; set it for the daemon, or use a file or credential")
		}
		return secret, nil
	case r.File != "":
		return readSecret(r.File)
	default:
		dir, ok := lookupEnv("CREDENTIALS_DIRECTORY")
		if !ok {
			return "", fmt.Errorf("systemd passed no credentials; add LoadCredential=%s:PATH to the unit", r.Credential)
		}
		return readSecret(filepath.Join(dir, r.Credential))
	}
}

func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxSecret {
		return "", fmt.Errorf("it is larger than %d bytes", maxSecret)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}
