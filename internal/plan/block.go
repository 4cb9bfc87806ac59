package plan

import (
	"maps"
	"slices"
)

// blockDependents blocks the writes that depend on a blocked change, also
// through keys about which there is nothing to say. A change that only records
// or reports waits for nobody.
func (b *builder) blockDependents() {
	memo := map[Key]*Key{}
	var below func(Key) *Key // the nearest blocked key that k depends on
	below = func(k Key) *Key {
		if found, ok := memo[k]; ok {
			return found
		}
		memo[k] = nil
		d, _ := b.in.Desired(k)
		for _, dep := range sortedKeys(d.DependsOn) {
			found := below(dep)
			if c := b.changes[dep]; c != nil && c.Blocked != "" {
				found = &dep
			}
			if found != nil {
				memo[k] = found
				break
			}
		}
		if c := b.changes[k]; c != nil && c.Blocked == "" && c.Action != None && memo[k] != nil {
			c.Blocked = "waits for " + memo[k].String()
		}
		return memo[k]
	}
	for _, k := range b.sorted(func(c *Change) bool { return c.Desired != nil }) {
		below(k)
	}
}

// blockDependencies blocks the deletes of what a blocked change was applied to
// depend on: dependents go first.
func (b *builder) blockDependencies() {
	dependents := map[Key][]Key{}
	var queue []Key
	for _, k := range b.sorted(func(*Change) bool { return true }) {
		e, _ := b.in.Inventory(k)
		for _, dep := range sortedKeys(e.DependsOn) {
			dependents[dep] = append(dependents[dep], k)
		}
		if b.changes[k].Blocked != "" {
			queue = append(queue, k)
		}
	}
	held := map[Key]bool{}
	for ; len(queue) > 0; queue = queue[1:] {
		e, _ := b.in.Inventory(queue[0])
		for _, dep := range e.DependsOn {
			if c := b.changes[dep]; c != nil && c.Action == Delete && c.Blocked == "" && !held[dep] {
				held[dep] = true
				queue = append(queue, dep)
			}
		}
	}
	for k := range held {
		for _, d := range dependents[k] { // sorted: the first one is named
			if held[d] || b.changes[d].Blocked != "" {
				b.changes[k].Blocked = "waits for " + d.String()
				break
			}
		}
	}
}

func (b *builder) sorted(keep func(*Change) bool) []Key {
	keys := slices.SortedFunc(maps.Keys(b.changes), Key.Compare)
	return slices.DeleteFunc(keys, func(k Key) bool { return !keep(b.changes[k]) })
}
