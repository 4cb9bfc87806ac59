package bolt

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// A record is stored as
//
//	format (1 byte) | version (8 bytes, big endian) | sum (16 bytes) | value
//
// The sum is the first half of SHA-256 over format, version, key and value, so
// that a value under another key, and an old value under a new version, are
// both noticed. It is SHA-256 and not a CRC because the sums of all records are
// also combined by XOR (see state): CRCs are linear, and two swapped values
// would cancel out. 128 bits keep an accident from passing; this is no defence
// against somebody who writes the file on purpose.
const (
	recordFormat = 1
	headerSize   = 1 + 8 + sumSize
	sumSize      = 16
)

type sum [sumSize]byte

// xor adds a record to, or takes it out of, the sum of a set.
func (s *sum) xor(o sum) {
	for i := range s {
		s[i] ^= o[i]
	}
}

// record is a decoded record. Its value may be shared with the input.
type record struct {
	version uint64
	sum     sum
	value   []byte
}

var errDamaged = errors.New("checksum does not match")

func sumOf(format byte, key []byte, version uint64, value []byte) sum {
	h := sha256.New()
	head := make([]byte, 0, 17)
	head = append(head, format)
	head = binary.BigEndian.AppendUint64(head, version)
	head = binary.BigEndian.AppendUint64(head, uint64(len(key)))
	h.Write(head)
	h.Write(key)
	h.Write(value)
	return sum(h.Sum(nil)[:sumSize])
}

// encode returns the stored form of a value and its sum.
func encode(key []byte, version uint64, value []byte) ([]byte, sum) {
	s := sumOf(recordFormat, key, version, value)
	raw := make([]byte, 0, headerSize+len(value))
	raw = append(raw, recordFormat)
	raw = binary.BigEndian.AppendUint64(raw, version)
	raw = append(raw, s[:]...)
	return append(raw, value...), s
}

// decode checks and takes apart what is stored under key. The value shares the
// memory of raw.
func decode(key, raw []byte) (record, error) {
	if len(raw) < headerSize {
		return record{}, fmt.Errorf("%d bytes are less than a header", len(raw))
	}
	if raw[0] != recordFormat {
		return record{}, fmt.Errorf("unknown format %d", raw[0])
	}
	r := record{
		version: binary.BigEndian.Uint64(raw[1:9]),
		sum:     sum(raw[9:headerSize]),
		value:   raw[headerSize:],
	}
	if sumOf(raw[0], key, r.version, r.value) != r.sum {
		return record{}, errDamaged
	}
	return r, nil
}
