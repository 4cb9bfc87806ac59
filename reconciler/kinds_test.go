package reconciler

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

func TestEventKindsAreAll(t *testing.T) {
	src, err := os.ReadFile("settings.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []EventKind
	for _, m := range regexp.MustCompile(`(?m)^\tEvent\w+\s+EventKind = "(\w+)"`).FindAllSubmatch(src, -1) {
		want = append(want, EventKind(m[1]))
	}
	if len(want) == 0 || !slices.Equal(want, EventKinds) {
		t.Errorf("EventKinds are\n%s, declared are\n%s", EventKinds, want)
	}
}
