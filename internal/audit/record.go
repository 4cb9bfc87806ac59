package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/gitopsd/gitopsd/internal/store"
)

const (
	maxMessage = 4 << 10
	maxData    = 16 << 10
	hashLength = 2 * sha256.Size
)

// body is what is hashed. A record is stored as the hash in hexadecimal, a
// newline, and the body as JSON. The hash is over the stored bytes, so that a
// later version may add fields without breaking older records.
type body struct {
	Writer      string          `json:"writer"` // a record cannot move to another chain
	Seq         uint64          `json:"seq"`
	At          time.Time       `json:"at"`
	Kind        string          `json:"kind"`
	Application string          `json:"application,omitempty"`
	Principal   string          `json:"principal,omitempty"`
	Message     string          `json:"message,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Prev        string          `json:"prev"`
}

func encode(writer string, seq uint64, prev string, at time.Time, e Entry) (hash string, value []byte, err error) {
	b := body{Writer: writer, Seq: seq, At: at.UTC(), Prev: prev,
		Kind: e.Kind, Application: e.Application, Principal: e.Principal, Message: cut(e.Message)}
	if len(e.Data) > 0 {
		if b.Data, err = json.Marshal(e.Data); err != nil {
			return "", nil, fmt.Errorf("audit entry %s: its data: %w", e.Kind, err)
		}
		if len(b.Data) > maxData {
			b.Data = fmt.Appendf(nil, `{"omitted":"%d bytes of data, more than %d"}`, len(b.Data), maxData)
		}
	}
	raw, err := json.Marshal(b)
	if err != nil {
		return "", nil, fmt.Errorf("audit entry %s: %w", e.Kind, err)
	}
	hash = hashOf(raw)
	return hash, append([]byte(hash+"\n"), raw...), nil
}

func hashOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// cut shortens a message to maxMessage bytes of whole characters.
func cut(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	n := maxMessage - len("...")
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// decode reads a stored record and checks it by itself: its hash, and that it is
// the one that was asked for. The reason is what Break says.
func decode(writer string, seq uint64, value []byte) (r Record, reason string) {
	hash, raw, found := bytes.Cut(value, []byte("\n"))
	if !found || len(hash) != hashLength || string(hash) != hashOf(raw) {
		return Record{}, "its hash does not match its content"
	}
	var b body
	if err := json.Unmarshal(raw, &b); err != nil {
		return Record{}, "it is unreadable: " + err.Error()
	}
	if b.Writer != writer || b.Seq != seq {
		return Record{}, fmt.Sprintf("it is record %d of writer %s", b.Seq, b.Writer)
	}
	return Record{Seq: b.Seq, At: b.At, Kind: b.Kind, Application: b.Application, Principal: b.Principal,
		Message: b.Message, Data: b.Data, Prev: b.Prev, Hash: string(hash)}, ""
}

// get reads one record; a missing or wrong one is a *Break.
func (l *Log) get(ctx context.Context, seq uint64) (Record, error) {
	stored, err := l.opts.Store.Get(ctx, l.key(seq))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return Record{}, &Break{l.opts.Writer, seq, "it is missing"}
	case errors.Is(err, store.ErrCorrupt):
		return Record{}, &Break{l.opts.Writer, seq, err.Error()}
	case err != nil:
		return Record{}, fmt.Errorf("audit record %d of writer %s: %w", seq, l.opts.Writer, err)
	}
	r, reason := decode(l.opts.Writer, seq, stored.Value)
	if reason != "" {
		return Record{}, &Break{l.opts.Writer, seq, reason}
	}
	return r, nil
}
