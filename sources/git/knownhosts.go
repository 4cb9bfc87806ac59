package git

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/gitopsd/gitopsd/sources"
)

const minRSA = 2048

// hostKeys makes the part of a client configuration that says which host keys
// are taken for an address: those in the files, read now, and no others.
func hostKeys(files []string, address string) (*ssh.ClientConfig, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	scan := "ssh-keyscan"
	if port != "22" {
		scan += " -p " + port
	}
	into := "known_hosts"
	if len(files) > 0 {
		into = files[0]
	}
	hint := fmt.Sprintf("run: %s %s >> %s, and compare the fingerprint with what the server's owner publishes", scan, host, into)
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: no known_hosts file is given for %s (%s, and name the file in the source)", sources.ErrUntrusted, address, hint)
	}
	check, err := knownhosts.New(files...)
	if err != nil {
		return nil, fmt.Errorf("%w: known_hosts: %w (%s)", sources.ErrUntrusted, err, hint)
	}
	algorithms := known(check, address)
	if len(algorithms) == 0 {
		return nil, fmt.Errorf("%w: %s has no usable host key in %s (%s)", sources.ErrUntrusted, address, strings.Join(files, ", "), hint)
	}
	return &ssh.ClientConfig{
		HostKeyAlgorithms: algorithms,
		HostKeyCallback: func(address string, remote net.Addr, key ssh.PublicKey) error {
			if err := check(address, remote, key); err != nil {
				return fmt.Errorf("%w: host key %s of %s: %w (was the server's key changed? if its owner confirms it, remove the old line and %s)",
					sources.ErrUntrusted, ssh.FingerprintSHA256(key), address, err, hint)
			}
			return strong(key)
		},
	}, nil
}

// probe is a key that no file can hold.
type probe struct{ ssh.PublicKey }

func (probe) Type() string    { return "probe" }
func (probe) Marshal() []byte { return nil }

// known asks which algorithms the files have keys of, so that the server is not
// asked for a key of another kind and then called an impostor for it.
func known(check ssh.HostKeyCallback, address string) []string {
	var missing *knownhosts.KeyError
	if err := check(address, &net.TCPAddr{IP: net.IPv4zero}, probe{}); !errors.As(err, &missing) {
		return nil
	}
	var out []string
	for _, k := range missing.Want {
		for _, a := range algorithmsOf(k.Key.Type()) {
			if !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// algorithmsOf leaves out DSA, and SHA-1 signatures by RSA keys.
func algorithmsOf(keyType string) []string {
	switch keyType {
	case ssh.KeyAlgoRSA:
		return []string{ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	case ssh.KeyAlgoED25519:
		return []string{ssh.CertAlgoED25519v01, keyType}
	case ssh.KeyAlgoECDSA256:
		return []string{ssh.CertAlgoECDSA256v01, keyType}
	case ssh.KeyAlgoECDSA384:
		return []string{ssh.CertAlgoECDSA384v01, keyType}
	case ssh.KeyAlgoECDSA521:
		return []string{ssh.CertAlgoECDSA521v01, keyType}
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return []string{keyType}
	}
	return nil
}

// strong refuses a host key that can be forged (row A-22).
func strong(key ssh.PublicKey) error {
	if c, ok := key.(*ssh.Certificate); ok {
		key = c.Key
	}
	if k, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSA {
			return fmt.Errorf("%w: the host key is RSA of %d bits, fewer than %d (give the server a new key)", sources.ErrUntrusted, r.N.BitLen(), minRSA)
		}
	}
	return nil
}
