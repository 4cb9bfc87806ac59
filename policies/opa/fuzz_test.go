package opa

import (
	"encoding/json"
	"errors"
	"testing"
)

// FuzzResult: whatever a rule gives, it is read as findings that say something
// or refused; nothing that is there is passed over.
func FuzzResult(f *testing.F) {
	for _, seed := range []string{
		`[]`, `["x"]`, `[{"msg":"x","a":[1]}]`, `[{"msg":""}]`, `[""]`, `[1]`, `[null]`, `[["x"]]`, `[{}]`,
		`true`, `"x"`, `{"msg":"x"}`, `null`, `["a",{"msg":"b"},7]`, `[{"msg":{"msg":"x"}}]`,
	} {
		f.Add(seed, "deny", `["deny"]`)
		f.Add(seed, "warn_x", `[{"a":1},"x"]`)
	}
	f.Fuzz(func(t *testing.T, text, name, exempted string) {
		var value, names any
		if json.Unmarshal([]byte(text), &value) != nil || json.Unmarshal([]byte(exempted), &names) != nil || !judged.MatchString(name) {
			return
		}
		r := rule{pkg: "main", name: name}
		said, err := findings(r, value)
		if err != nil {
			if !errors.Is(err, ErrResultType) || said != nil {
				t.Fatalf("%v with %v", err, said)
			}
		} else if list := value.([]any); len(said) != len(list) {
			t.Fatalf("%d findings of %d results", len(said), len(list))
		}
		for _, s := range said {
			if s.Msg == "" || s.Rule != "main."+name {
				t.Fatalf("finding says nothing: %+v", s)
			}
		}
		v, err2 := verdict([]rule{r}, []any{[]any{value}}, []any{names})
		if (err == nil) != (err2 == nil) {
			t.Fatalf("findings: %v, verdict: %v", err, err2)
		}
		if got := len(v.Deny) + len(v.Warn); got != len(said) && !isExempt(r, names) {
			t.Fatalf("%d findings in the verdict, want %d", got, len(said))
		}
		if _, err := verdict([]rule{r}, []any{[]any{}}, []any{names}); !errors.Is(err, ErrUndefined) {
			t.Fatalf("undefined: %v", err)
		}
	})
}
