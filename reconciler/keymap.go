package reconciler

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// keyMap is a persistent map by key: With and Without return a new map that
// shares all but the changed path, so a round may hold one while the next is
// being made. The zero value is empty. It is immutable and safe for concurrent use.
type keyMap[T any] struct {
	tree *iradix.Tree[keyed[T]]
}

type keyed[T any] struct {
	key   plan.Key
	value T
}

// get returns the value of a key.
func (m keyMap[T]) get(k plan.Key) (T, bool) {
	if m.tree == nil {
		var zero T
		return zero, false
	}
	e, ok := m.tree.Get([]byte(k.String()))
	return e.value, ok
}

// len returns the number of keys.
func (m keyMap[T]) len() int {
	if m.tree == nil {
		return 0
	}
	return m.tree.Len()
}

// all iterates in the order of the keys' text.
func (m keyMap[T]) all() iter.Seq2[plan.Key, T] {
	return func(yield func(plan.Key, T) bool) {
		if m.tree == nil {
			return
		}
		it := m.tree.Root().Iterator()
		for _, e, ok := it.Next(); ok; _, e, ok = it.Next() {
			if !yield(e.key, e.value) {
				return
			}
		}
	}
}

// edit returns the map as changed by fn.
func (m keyMap[T]) edit(fn func(*keyMapTxn[T])) keyMap[T] {
	tree := m.tree
	if tree == nil {
		tree = iradix.New[keyed[T]]()
	}
	txn := &keyMapTxn[T]{tree.Txn()}
	fn(txn)
	return keyMap[T]{txn.txn.Commit()}
}

// keyMapTxn is a batch of edits; it is for one goroutine.
type keyMapTxn[T any] struct {
	txn *iradix.Txn[keyed[T]]
}

func (t *keyMapTxn[T]) set(k plan.Key, v T) { t.txn.Insert([]byte(k.String()), keyed[T]{k, v}) }
func (t *keyMapTxn[T]) drop(k plan.Key)     { t.txn.Delete([]byte(k.String())) }
func (t *keyMapTxn[T]) get(k plan.Key) (T, bool) {
	e, ok := t.txn.Get([]byte(k.String()))
	return e.value, ok
}
