package memory

import (
	"cmp"
	"context"
	"time"
)

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

// placePatience bounds how long Place waits for the far end.
const placePatience = 10 * time.Second

// Place implements appliers.Placer: the place that the far end acts on. While that
// cannot say, or has none, it is one that no world has.
func (c *Client) Place() string {
	c.mu.Lock()
	known := c.place
	c.mu.Unlock()
	if known != "" {
		return known
	}
	ctx, cancel := context.WithTimeout(context.Background(), placePatience)
	defer cancel()
	r, _, err := c.call(ctx, request{Call: "place"})
	if err != nil || r.Place == "" {
		return "\x00pipe"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.place = r.Place
	return c.place
}
