package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// MaxKVValue is the size limit of one value of a KV in bytes.
const MaxKVValue = 64 << 10

// KV is a part of a store that belongs to one user: all its keys share a
// prefix that the user does not see and cannot leave. It is safe for concurrent
// use.
type KV struct {
	store  Store
	prefix string
	epoch  func() uint64
}

// Namespace returns the part of s below prefix, which is followed by "/". Two
// namespaces are apart when neither prefix is a path above the other. epoch is
// asked at every write.
func Namespace(s Store, prefix string, epoch func() uint64) *KV {
	return &KV{store: s, prefix: prefix + "/", epoch: epoch}
}

// Get returns the value of a key, and whether there is one.
func (kv *KV) Get(ctx context.Context, key string) (value []byte, found bool, err error) {
	r, err := kv.store.Get(ctx, kv.prefix+key)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, false, nil
	case err != nil:
		return nil, false, err
	}
	return r.Value, true, nil
}

// Put writes a value of at most MaxKVValue bytes; a nil value deletes.
func (kv *KV) Put(ctx context.Context, key string, value []byte) error {
	if key == "" {
		return errors.New("store key is empty")
	}
	if len(value) > MaxKVValue {
		return fmt.Errorf("%w: value of %s has %d bytes (at most %d)", ErrTooLarge, kv.prefix+key, len(value), MaxKVValue)
	}
	_, err := kv.store.Commit(ctx, kv.epoch(), nil, []Op{{Key: kv.prefix + key, Value: value}})
	return err
}

// List returns all values whose key starts with prefix, by key, or fails as a whole.
func (kv *KV) List(ctx context.Context, prefix string) (map[string][]byte, error) {
	records, err := kv.store.List(ctx, kv.prefix+prefix)
	if err != nil {
		return nil, err
	}
	values := make(map[string][]byte, len(records))
	for _, r := range records {
		values[strings.TrimPrefix(r.Key, kv.prefix)] = r.Value
	}
	return values, nil
}
