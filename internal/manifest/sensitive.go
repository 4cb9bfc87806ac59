package manifest

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"slices"
)

// Mask is what a Sensitive value looks like wherever it could leave the
// process. Its length says nothing about the value.
const Mask = "(sensitive)"

// Digest is a keyed hash of one value: the first 16 bytes of HMAC-SHA256, in
// hexadecimal. Two digests made by one Sealer are equal exactly when the values
// are; without the key nothing can be learnt from one, so it may be stored.
type Digest string

// Sensitive is a string that must not be shown. It prints, marshals and logs as
// Mask, and compares by its keyed digest. The zero value is the empty secret.
// It is immutable. Two of the same value need not be == to each other; use Equal.
type Sensitive struct {
	// The value is behind a pointer because fmt cannot call methods on what it
	// finds in unexported fields of other types: it prints the raw fields, and
	// of a pointer only the address.
	value  *string
	digest Digest
}

// Reveal returns the plain value. Only appliers call it, at the moment they write.
func (s Sensitive) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Digest returns the keyed digest of the value.
func (s Sensitive) Digest() Digest { return s.digest }

// Equal reports whether both were sealed from the same value by the same key.
func (s Sensitive) Equal(o Sensitive) bool {
	return hmac.Equal([]byte(s.digest), []byte(o.digest))
}

// String returns Mask.
func (s Sensitive) String() string { return Mask }

// GoString returns Mask, so that %#v is safe too.
func (s Sensitive) GoString() string { return Mask }

// Format writes Mask for every verb, so that no width or flag reaches the value.
func (s Sensitive) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Mask)) }

// MarshalJSON writes Mask as a JSON string.
func (s Sensitive) MarshalJSON() ([]byte, error) { return []byte(`"` + Mask + `"`), nil }

// MarshalText writes Mask.
func (s Sensitive) MarshalText() ([]byte, error) { return []byte(Mask), nil }

// LogValue logs Mask.
func (s Sensitive) LogValue() slog.Value { return slog.StringValue(Mask) }

// Sealer makes digests and Sensitive values with one key. It is safe for
// concurrent use.
type Sealer struct {
	// The key is inside a function because fmt, handed a verb that does not fit,
	// prints raw fields even behind a pointer; of a function only the address.
	mac func() hash.Hash
}

// NewSealer returns a Sealer for a key of at least 32 bytes.
func NewSealer(key []byte) (*Sealer, error) {
	if len(key) < sha256.Size {
		return nil, errors.New("digest key: want at least 32 bytes")
	}
	key = slices.Clone(key)
	return &Sealer{mac: func() hash.Hash { return hmac.New(sha256.New, key) }}, nil
}

// Format writes a fixed text for every verb: the key is not for printing.
func (s *Sealer) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(digest key)")) }

// Seal wraps a plain value.
func (s *Sealer) Seal(value string) Sensitive {
	return Sensitive{value: &value, digest: s.Digest(value)}
}

// Digest returns the keyed digest of a value's canonical form. A Sensitive has
// the digest of the string it hides.
func (s *Sealer) Digest(v any) Digest {
	if sec, ok := v.(Sensitive); ok {
		return sec.digest
	}
	var b bytes.Buffer
	writeCanonical(&b, v, byDigest)
	mac := s.mac()
	mac.Write(b.Bytes())
	return Digest(hex.EncodeToString(mac.Sum(nil)[:16]))
}
