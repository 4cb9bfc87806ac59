package plan

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// recordV1 begins a stored record: this byte, the length of the envelope (uvarint),
// the envelope (the entry as JSON, without Applied and Writing), the length of the
// packed paths, the paths, and the digests. The paths are sorted, and each is
// written as the length that it shares with the one before, together with what is
// said of it, the length of what follows, and that. A record that begins with a brace is
// plain JSON, as it was written before there were versions.
const recordV1 = 1

// What a record says of a path.
const (
	pathApplied byte = 1 << iota // in Applied: a digest follows
	pathWriting                  // in Writing
	pathSame                     // in both, with one digest, which is stored once

	pathBits = 3 // the shared length comes above these
)

// digestSize is that of a manifest.Digest in bytes.
const digestSize = 16

var errRecord = errors.New("record of an object is damaged or of a newer version")

// MarshalRecord returns the form of an entry that is stored: small, because an
// object of 10,000 fields has 20,000 digests while it is written. A path costs
// what it does not share with the one before it, a digest 16 bytes, and one that a
// write in flight leaves as it is nothing. Nothing is compressed: most records are
// small, and setting up a compressor for each would cost more than all the rest.
func (e Entry) MarshalRecord() ([]byte, error) {
	paths, digests, err := packApplied(e.Applied, e.Writing)
	if err != nil {
		return nil, err
	}
	envelope := struct {
		Entry
		Applied bool `json:"applied,omitempty"` // these hide those of Entry
		Writing bool `json:"writing,omitempty"`
	}{e, e.Applied != nil, e.Writing != nil}
	head, err := json.Marshal(envelope)
	if err != nil {
		return nil, err
	}
	out := binary.AppendUvarint([]byte{recordV1}, uint64(len(head)))
	out = append(out, head...)
	out = binary.AppendUvarint(out, uint64(len(paths)))
	return append(append(out, paths...), digests...), nil
}

// UnmarshalRecord reads what MarshalRecord wrote.
func (e *Entry) UnmarshalRecord(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		return json.Unmarshal(data, e)
	}
	if len(data) == 0 || data[0] != recordV1 {
		return errRecord
	}
	head, rest, err := section(data[1:])
	if err != nil {
		return err
	}
	paths, digests, err := section(rest)
	if err != nil {
		return err
	}
	var envelope struct {
		Entry
		Applied bool `json:"applied,omitempty"`
		Writing bool `json:"writing,omitempty"`
	}
	if err := json.Unmarshal(head, &envelope); err != nil {
		return err
	}
	*e = envelope.Entry
	if envelope.Applied {
		e.Applied = Applied{}
	}
	if envelope.Writing {
		e.Writing = Applied{}
	}
	return e.unpack(paths, digests)
}

func section(data []byte) (part, rest []byte, err error) {
	n, size := binary.Uvarint(data)
	if size <= 0 || n > uint64(len(data)-size) {
		return nil, nil, errRecord
	}
	return data[size:][:n], data[size:][n:], nil
}

// packApplied returns the paths of both, each with what is said of it, and their
// digests in the same order.
func packApplied(applied, writing Applied) (packed, digests []byte, err error) {
	all := make(map[manifest.Pointer]struct{}, len(applied))
	for p := range applied {
		all[p] = struct{}{}
	}
	for p := range writing {
		all[p] = struct{}{}
	}
	before := manifest.Pointer("")
	for _, p := range slices.Sorted(maps.Keys(all)) {
		was, isApplied := applied[p]
		next, isWriting := writing[p]
		var says byte
		if isApplied {
			says |= pathApplied
		}
		if isWriting {
			says |= pathWriting
		}
		if isApplied && isWriting && was == next {
			says |= pathSame
		}
		shared := common(before, p)
		packed = binary.AppendUvarint(packed, uint64(shared)<<pathBits|uint64(says))
		packed = append(binary.AppendUvarint(packed, uint64(len(p)-shared)), p[shared:]...)
		before = p
		if isApplied {
			if digests, err = appendDigest(digests, was); err != nil {
				return nil, nil, err
			}
		}
		if isWriting && says&pathSame == 0 {
			if digests, err = appendDigest(digests, next); err != nil {
				return nil, nil, err
			}
		}
	}
	return packed, digests, nil
}

// common returns the length of what two paths begin with.
func common(a, b manifest.Pointer) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func appendDigest(to []byte, d manifest.Digest) ([]byte, error) {
	raw, err := hex.DecodeString(string(d))
	if err != nil || len(raw) != digestSize {
		return nil, fmt.Errorf("%q is no digest", d)
	}
	return append(to, raw...), nil
}

func (e *Entry) unpack(packed, digests []byte) error {
	next := func() (manifest.Digest, error) {
		if len(digests) < digestSize {
			return "", errRecord
		}
		d := manifest.Digest(hex.EncodeToString(digests[:digestSize]))
		digests = digests[digestSize:]
		return d, nil
	}
	var p manifest.Pointer
	for len(packed) > 0 {
		head, n := binary.Uvarint(packed)
		says, shared := byte(head)&(1<<pathBits-1), head>>pathBits
		if n <= 0 || shared > uint64(len(p)) {
			return errRecord
		}
		path, rest, err := section(packed[n:])
		if err != nil || says&pathApplied != 0 && e.Applied == nil || says&pathWriting != 0 && e.Writing == nil {
			return errRecord
		}
		packed, p = rest, p[:shared]+manifest.Pointer(path)
		var d manifest.Digest
		if says&pathApplied != 0 {
			if d, err = next(); err != nil {
				return err
			}
			e.Applied[p] = d
		}
		if says&pathWriting != 0 {
			if says&pathSame == 0 {
				if d, err = next(); err != nil {
					return err
				}
			}
			e.Writing[p] = d
		}
	}
	if len(digests) > 0 {
		return errRecord
	}
	return nil
}
