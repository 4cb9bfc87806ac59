package policies

import (
	"context"
	"fmt"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Volatile is the ability of a Policy to say that equal inputs may be judged
// differently at different times, so that no verdict may be used twice.
type Volatile interface {
	Volatile() bool
}

// IsVolatile reports whether verdicts of p must not be kept.
func IsVolatile(p Policy) bool {
	v, ok := p.(Volatile)
	return ok && v.Volatile()
}

// Cache is a Policy that remembers verdicts on objects; see Cached.
type Cache struct {
	policy       Policy
	verdicts     *lru.Cache[cacheKey, Verdict]
	hits, misses atomic.Uint64
}

type cacheKey struct {
	digest string
	object manifest.Hash
}

// Cached returns p with a memory of its last size verdicts on objects, by
// digest of the policy and hash of the object. Errors, changes and verdicts of
// a volatile policy are not kept. Verdicts are shared between callers, who must
// not modify them. size must be at least 1.
func Cached(p Policy, size int) *Cache {
	verdicts, err := lru.New[cacheKey, Verdict](max(size, 1))
	if err != nil { // only a size below 1 is refused
		panic(err)
	}
	return &Cache{policy: p, verdicts: verdicts}
}

// Unwrap returns the policy behind the cache.
func (c *Cache) Unwrap() Policy { return c.policy }

// Digest is that of the policy behind the cache.
func (c *Cache) Digest() string { return c.policy.Digest() }

// Volatile is that of the policy behind the cache.
func (c *Cache) Volatile() bool { return IsVolatile(c.policy) }

// Stats returns how many verdicts came from memory and how many were asked for.
func (c *Cache) Stats() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }

// Objects asks the policy only about objects that are not remembered.
func (c *Cache) Objects(ctx context.Context, objects []*manifest.Object) ([]Verdict, error) {
	if c.Volatile() {
		c.misses.Add(uint64(len(objects)))
		verdicts, err := c.policy.Objects(ctx, objects)
		return complete(len(objects), verdicts, err)
	}
	digest := c.policy.Digest()
	verdicts := make([]Verdict, len(objects))
	var unknown []*manifest.Object
	var places []int
	for i, o := range objects {
		v, ok := c.verdicts.Get(cacheKey{digest, o.Hash()})
		if !ok {
			unknown, places = append(unknown, o), append(places, i)
		}
		verdicts[i] = v
	}
	c.hits.Add(uint64(len(objects) - len(unknown)))
	c.misses.Add(uint64(len(unknown)))
	if len(unknown) == 0 {
		return verdicts, nil
	}
	fresh, err := c.policy.Objects(ctx, unknown)
	if fresh, err = complete(len(unknown), fresh, err); err != nil {
		return nil, err
	}
	// A policy may be replaced while it is asked; then nobody knows which one answered.
	keep := c.policy.Digest() == digest
	for i, v := range fresh {
		verdicts[places[i]] = v
		if keep {
			c.verdicts.Add(cacheKey{digest, unknown[i].Hash()}, v)
		}
	}
	return verdicts, nil
}

// Changes asks the policy: a change has too many inputs to be seen twice.
func (c *Cache) Changes(ctx context.Context, changes []Change) ([]Verdict, error) {
	return c.policy.Changes(ctx, changes)
}

// complete refuses an answer that does not have one verdict for each question.
func complete(want int, verdicts []Verdict, err error) ([]Verdict, error) {
	if err != nil {
		return nil, err
	}
	if len(verdicts) != want {
		return nil, fmt.Errorf("policy gave %d verdicts for %d questions; nothing is allowed", len(verdicts), want)
	}
	return verdicts, nil
}
