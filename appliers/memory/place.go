package memory

import "cmp"

// SetPlace names the world, so that all targets on it are one place. Without a
// name each target counts as a place of its own. It is for before the first applier.
func (w *World) SetPlace(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.place = name
}

// Place implements appliers.Placer.
func (a *Applier) Place() string {
	a.world.mu.Lock()
	defer a.world.mu.Unlock()
	return cmp.Or(a.world.place, a.env.Target)
}
