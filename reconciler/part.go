package reconciler

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"

	"github.com/gitopsd/gitopsd/internal/manifest"
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
	parting := map[plan.Key]plan.Entry{}
	var concerned []plan.Key
	for _, k := range keys {
		item, wanted := state.items.get(k)
		e, owned := reg.entry(r.app.Name, k)
		if !wanted || !owned || e.Locator == item.Locator || e.Place != "" && e.Place != reg.placed(k.Target) {
			continue
		}
		// What its target still has under way goes by its name, and a name has to hold
		// where it was: plan says what to do about these.
		if e.Token != "" || len(k.ID.Name)+len(formerSuffix(e)) > maxName {
			continue
		}
		parting[k] = e
		concerned = append(concerned, k, formerKey(e))
	}
	if len(parting) == 0 {
		return nil, nil
	}
	return concerned, reg.part(ctx, parting)
}

// formerKey is the key of an object whose name is wanted at another address: the name
// with what tells its address from others.
func formerKey(e plan.Entry) plan.Key {
	k := e.Key
	k.ID.Name += formerSuffix(e)
	return k
}

func formerSuffix(e plan.Entry) string {
	sum := sha256.Sum256([]byte(e.Locator))
	return "@" + hex.EncodeToString(sum[:4])
}

// parted returns the key that an object was declared under before its name was wanted
// at another address.
func parted(e plan.Entry) (declared plan.Key, was bool) {
	declared = e.Key
	declared.ID.Name, was = strings.CutSuffix(e.Key.ID.Name, formerSuffix(e))
	return declared, was
}

// asDeclared is a change as people know it: under the name that its object was
// declared with.
func asDeclared(c *plan.Change) (*plan.Change, error) {
	declared, was := parted(c.Entry)
	if !was || c.Desired != nil {
		return c, nil
	}
	known := *c
	known.Key = declared
	if c.Live != nil {
		content := c.Live.Content()
		meta, _ := content["metadata"].(map[string]any)
		meta = maps.Clone(meta)
		meta["name"] = declared.ID.Name
		content = maps.Clone(content)
		content["metadata"] = meta
		live, err := manifest.New(content, c.Live.Origin())
		if err != nil {
			return nil, err
		}
		known.Live = live
	}
	return &known, nil
}

// arrived says why the object that a delete takes the old place of is not at its new
// one yet, or "": until then there would be neither.
func (e *execution) arrived(c *plan.Change) string {
	declared, was := parted(c.Entry)
	item, wanted := e.state.items.get(declared)
	if c.Action != plan.Delete || !was || !wanted {
		return ""
	}
	if why := e.unmet[declared]; why != "" {
		return fmt.Sprintf("it goes once %s is at %s: that waits for %s, %s", declared, item.Locator, declared, why)
	}
	at, owned := e.r.m.registry.entry(e.r.app.Name, declared)
	if !owned || at.Locator != item.Locator || at.State != plan.EntryOwned {
		return fmt.Sprintf("it goes once %s is at %s", declared, item.Locator)
	}
	return ""
}

// maxName is how long the name of an object may be; see manifest.ParseID.
const maxName = 253

// part gives records the key that formerKey says, each in a commit of its own, unless
// they have changed since they were looked at.
func (r *registry) part(ctx context.Context, parting map[plan.Key]plan.Entry) error {
	for from, seen := range parting {
		to := formerKey(seen)
		err := r.change(ctx, func() ([]plan.Entry, []plan.Key, error) {
			e, there := r.entries[from]
			if !there || e.Owner != seen.Owner || e.Locator != seen.Locator {
				return nil, nil, nil
			}
			if other, taken := r.entries[to]; taken {
				return nil, nil, fmt.Errorf("%s is on record at %s, and %s at %s; rename one of them", from, e.Locator, to, other.Locator)
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
