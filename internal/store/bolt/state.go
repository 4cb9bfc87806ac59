package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/gitopsd/gitopsd/internal/store"
)

// schema is the version of the layout of the whole file. It is raised when an
// older program would misread or destroy what this one writes.
const schema = 1

// The bucket "records" holds what users store. The bucket "gitopsd" holds two
// records of the store's own, in the same form; that of the schema record is
// the same in all versions.
var (
	bucketRecords = []byte("records")
	bucketOwn     = []byte("gitopsd")
	keySchema     = []byte("schema")
	keyState      = []byte("state")
)

// state is what the store knows about its records as a whole. count and sum say
// which records there have to be: a page that went missing, or came back from an
// older transaction, leaves every remaining record valid but not these two.
type state struct {
	revision uint64
	epoch    uint64
	count    uint64
	sum      sum // XOR of the sums of all records
}

const stateSize = 3*8 + sumSize

func (s state) put(tx *bbolt.Tx) error {
	value := make([]byte, 0, stateSize)
	for _, n := range []uint64{s.revision, s.epoch, s.count} {
		value = binary.BigEndian.AppendUint64(value, n)
	}
	raw, _ := encode(keyState, s.revision, append(value, s.sum[:]...))
	return tx.Bucket(bucketOwn).Put(keyState, raw)
}

// loadState reads the state of a file whose schema has been checked.
func loadState(tx *bbolt.Tx) (state, error) {
	s, err := decodeState(tx.Bucket(bucketOwn).Get(keyState))
	if err != nil {
		return state{}, fmt.Errorf("%w: %w", store.ErrCorrupt, err)
	}
	return s, nil
}

func decodeState(raw []byte) (state, error) {
	r, err := decode(keyState, raw)
	if err == nil && len(r.value) != stateSize {
		err = errors.New("wrong length")
	}
	if err != nil {
		return state{}, fmt.Errorf("the store's own state: %w", err)
	}
	n := func(i int) uint64 { return binary.BigEndian.Uint64(r.value[8*i:]) }
	return state{revision: n(0), epoch: n(1), count: n(2), sum: sum(r.value[3*8:])}, nil
}

// checkSchema refuses a file that a newer version of the program wrote.
func checkSchema(raw []byte) error {
	r, err := decode(keySchema, raw)
	if err == nil && len(r.value) != 4 {
		err = errors.New("wrong length")
	}
	if err != nil {
		return fmt.Errorf("the schema record: %w", err)
	}
	if found := binary.BigEndian.Uint32(r.value); found != schema {
		return fmt.Errorf("%w: it has schema %d, this program knows %d; start the newer gitopsd again, or give this one an empty state directory",
			ErrSchema, found, schema)
	}
	return nil
}

// initialise lays out a new file.
func initialise(tx *bbolt.Tx) error {
	if _, err := tx.CreateBucket(bucketRecords); err != nil {
		return err
	}
	own, err := tx.CreateBucket(bucketOwn)
	if err != nil {
		return err
	}
	raw, _ := encode(keySchema, 0, binary.BigEndian.AppendUint32(nil, schema))
	if err := own.Put(keySchema, raw); err != nil {
		return err
	}
	return state{}.put(tx)
}
