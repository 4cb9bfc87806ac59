package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// part gives what is on record at another address than its key is desired at by
// now a key of its own, and returns the keys that this is about, old and new. From
// there a new address is a new object under the name and an old one that nobody
// desires: created and pruned, or taken over by another name, through the same
// gates as any other. It can be done for a revision that is not accepted in the
// end: then the old address is desired under the name still, and takes the record back.
func (r *round) part(ctx context.Context, state *desiredState, keys []plan.Key) ([]plan.Key, error) {
	reg := r.m.registry
	parting := map[plan.Key]plan.Key{}
	var concerned []plan.Key
	for _, k := range keys {
		item, wanted := state.items.get(k)
		e, owned := reg.entry(r.app.Name, k)
		if e.Token != "" { // what its target still has under way goes by its name
			continue
		}
		if !wanted || !owned || e.Locator == item.Locator || e.Place != "" && e.Place != reg.placed(k.Target) {
			continue
		}
		parting[k] = formerKey(e)
		concerned = append(concerned, k, parting[k])
	}
	if len(parting) == 0 {
		return nil, nil
	}
	return concerned, reg.part(ctx, parting)
}

// formerKey is the key of an object whose name is wanted at another address: the name
// with what tells its address from others.
func formerKey(e plan.Entry) plan.Key {
	sum := sha256.Sum256([]byte(e.Locator))
	suffix := "@" + hex.EncodeToString(sum[:4])
	k := e.Key
	k.ID.Name = k.ID.Name[:min(len(k.ID.Name), maxName-len(suffix))] + suffix
	return k
}

// maxName is how long the name of an object may be; see manifest.ParseID.
const maxName = 253

// part renames records in one transaction each, unless the new name is in use.
func (r *registry) part(ctx context.Context, parting map[plan.Key]plan.Key) error {
	for from, to := range parting {
		err := r.change(ctx, func() ([]plan.Entry, []plan.Key, error) {
			e, there := r.entries[from]
			if other, taken := r.entries[to]; taken {
				return nil, nil, fmt.Errorf("%s is on record at %s, and %s at %s; rename one of them", from, e.Locator, to, other.Locator)
			}
			if !there {
				return nil, nil, nil
			}
			e.Key = to
			return []plan.Entry{e}, []plan.Key{from}, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
