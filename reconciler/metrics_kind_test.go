package reconciler

import (
	"fmt"
	"testing"

	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// A repository may invent kinds without end; the series of its drift stay bounded.
func TestDriftKindsAreBounded(t *testing.T) {
	var drift []DriftedField
	for i := range 3 * maxKinds {
		drift = append(drift, DriftedField{Key: plan.Key{Target: "one", ID: manifest.ID{Group: "test.example", Kind: fmt.Sprintf("Kind%d", i), Name: "a"}}})
	}
	got := driftByKind(drift)
	if len(got) != maxKinds+1 || got["other"] != 2*maxKinds || got["test.example/Kind0"] != 1 {
		t.Errorf("%d kinds, %d of them other: %v", len(got), got["other"], got)
	}
}
