package memory

import (
	"strconv"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// Named is a personality with the name that tests and child processes know it by.
type Named struct {
	Name string
	Personality
}

// Personalities returns the kinds of target that every part of the loop has to
// get on with, each with the trait it is there for, the last with all that go
// together.
func Personalities() []Named {
	defaults := map[manifest.Pointer]any{
		"/spec/restartPolicy": "Always", "/spec/strategy/type": "RollingUpdate", "/status/phase": "Active",
	}
	return []Named{
		{"plain", Personality{}},
		{"owners", Personality{FieldOwners: true, Defaults: defaults, Normalize: Quantities}},
		{"conflicts", Personality{Conflicts: true}},
		{"async", Personality{Async: &Async{Observes: 2}}},
		{"timed", Personality{Async: &Async{After: 3 * time.Second}}},
		{"batch", Personality{Batch: true}},
		{"marks", Personality{Marks: true}},
		{"releases", Personality{Releases: true}},
		{"everything", Personality{
			Conflicts: true, Defaults: defaults, Normalize: Quantities, Async: &Async{Observes: 2, After: time.Minute}, Batch: true, Marks: true,
		}},
	}
}

// Quantities keeps amounts the way Kubernetes does: "1000m" is "1", "1024Mi" is
// "1Gi". Other values stay as they are.
func Quantities(_ manifest.Pointer, v any) any {
	s, ok := v.(string)
	if !ok {
		return v
	}
	steps := []struct {
		suffix, next string
		unit         int64
	}{{"m", "", 1000}, {"Ki", "Mi", 1024}, {"Mi", "Gi", 1024}}
	for _, step := range steps {
		digits, found := strings.CutSuffix(s, step.suffix)
		n, err := strconv.ParseInt(digits, 10, 64)
		if found && err == nil && n != 0 && n%step.unit == 0 {
			s = strconv.FormatInt(n/step.unit, 10) + step.next
		}
	}
	return s
}
