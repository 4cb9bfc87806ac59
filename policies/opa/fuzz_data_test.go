package opa

import (
	"reflect"
	"testing"
)

// FuzzData: what two data files say is in `data`, each value once and whatever
// the order; files that disagree are refused.
func FuzzData(f *testing.F) {
	for _, s := range []string{"a: 1\n", `{"a": {"b": 1}}`, "a: {b: 2}", "a: {c: [1, x]}", "a: 1\n---\nb: 2\n", "a: 1\na: 2\n", "", "- x", "a: &x {y: 1}\nb: *x\n", "n: 9007199254740993", "{}", "yes: on"} {
		f.Add(s, "z: 1\n")
		f.Add(s, s)
		f.Add(s, "a: 2\n")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		if len(first)+len(second) > 8<<10 {
			return
		}
		one, errOne := mergeData(map[string][]byte{"a.yaml": []byte(first)})
		two, errTwo := mergeData(map[string][]byte{"b.yaml": []byte(second)})
		merged, err := mergeData(map[string][]byte{"a.yaml": []byte(first), "b.yaml": []byte(second)})
		if (errOne != nil || errTwo != nil) != (err != nil) && err == nil {
			t.Fatalf("%q and %q merge, and alone they are refused: %v, %v", first, second, errOne, errTwo)
		}
		if err != nil {
			if merged != nil {
				t.Fatalf("%v came with %v", err, merged)
			}
			return
		}
		swapped, err := mergeData(map[string][]byte{"a.yaml": []byte(second), "b.yaml": []byte(first)})
		if err != nil || !reflect.DeepEqual(swapped, merged) {
			t.Fatalf("the order of %q and %q matters: %v, %v", first, second, merged, err)
		}
		if overlap(one, two) {
			t.Fatalf("%q and %q claim one path", first, second)
		}
		if !holds(merged, one) || !holds(merged, two) {
			t.Fatalf("%q and %q are merged to %v", first, second, merged)
		}
	})
}

// holds reports whether whole has every value of part at its place.
func holds(whole, part any) bool {
	p, ok := part.(map[string]any)
	if !ok {
		return reflect.DeepEqual(whole, part)
	}
	w, ok := whole.(map[string]any)
	for k, v := range p {
		if e, found := w[k]; !found || !holds(e, v) {
			return false
		}
	}
	return ok
}

// overlap reports whether two files give a value to one path.
func overlap(a, b map[string]any) bool {
	for k, v := range a {
		w, found := b[k]
		x, ok1 := v.(map[string]any)
		y, ok2 := w.(map[string]any)
		if found && (!ok1 || !ok2 || overlap(x, y)) {
			return true
		}
	}
	return false
}
