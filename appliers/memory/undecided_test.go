package memory_test

import (
	"errors"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

// An object whose kind cannot be discovered now is neither valid nor refused (row D-52).
func TestResolveUndecided(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{})
	world.SetFaults(memory.Faults{UnknownKind: func(manifest.GroupKind) error { return errors.New("no route") }})
	if _, err := a.Resolve(variant(t, "x", 1)); !errors.Is(err, appliers.ErrUndecided) || appliers.ClassOf(err) != appliers.Wait {
		t.Errorf("discovery failed, and Resolve = %v", err)
	}
	world.SetFaults(memory.Faults{})
	if _, err := a.Resolve(variant(t, "x", 1)); err != nil {
		t.Errorf("discovery works again, and Resolve = %v", err)
	}
}
