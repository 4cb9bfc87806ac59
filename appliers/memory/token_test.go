package memory_test

import (
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// A second Apply with the token of the same write looks at it and starts no other.
func TestTokenOfPendingWrite(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{Async: &memory.Async{Observes: 3}})
	resolved, err := a.Resolve(variant(t, "x", 1))
	if err != nil {
		t.Fatal(err)
	}
	op := appliers.Operation{Application: "web", Epoch: 1, Change: plan.Change{
		Key: plan.Key{Target: "mem", ID: resolved.Object.ID()}, Action: plan.Create, Desired: resolved.Object,
		Entry: plan.Entry{Locator: resolved.Locator},
	}}
	first := a.Apply(t.Context(), []appliers.Operation{op})[0]
	if first.Outcome != appliers.Pending || first.Token == "" {
		t.Fatalf("first: %v, token %q", first.Outcome, first.Token)
	}
	op.Change.Entry.Token = first.Token
	again := a.Apply(t.Context(), []appliers.Operation{op})[0]
	if again.Outcome != appliers.Pending || again.Token != first.Token || world.Counters().Started != 1 {
		t.Errorf("again: %v, token %q, first %q, %d started", again.Outcome, again.Token, first.Token, world.Counters().Started)
	}
}
