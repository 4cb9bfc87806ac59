package appliers_test

import (
	"context"
	"testing"

	"github.com/gitopsd/gitopsd/appliers"
)

type bare struct{ appliers.Applier }

type able struct{ bare }

func (able) Preflight(context.Context, []appliers.Operation) []appliers.Result {
	return []appliers.Result{{Outcome: appliers.Done}}
}

type through struct{ appliers.Applier }

func (t through) Unwrap() appliers.Applier { return t.Applier }

// guarding hands out its own form of one ability and no other.
type guarding struct {
	through
	hands bool
}

func (g guarding) Ability(target any) bool {
	p, ok := target.(*appliers.Preflight)
	if ok && g.hands {
		*p = guarded{}
	}
	return ok && g.hands
}

type guarded struct{}

func (guarded) Preflight(context.Context, []appliers.Operation) []appliers.Result {
	return []appliers.Result{{Outcome: appliers.Refused}}
}

// A decorator without a say is looked through; one with a say is never passed by.
func TestAbility(t *testing.T) {
	outcome := func(a appliers.Applier) (string, bool) {
		p, ok := appliers.Ability[appliers.Preflight](a)
		if !ok {
			return "", false
		}
		return p.Preflight(t.Context(), nil)[0].Outcome.String(), true
	}
	for name, c := range map[string]struct {
		a    appliers.Applier
		want string
	}{
		"itself":          {able{}, "done"},
		"not able":        {bare{}, ""},
		"looked through":  {through{through{able{}}}, "done"},
		"decides yes":     {through{guarding{through{able{}}, true}}, "refused"},
		"decides no":      {guarding{through{able{}}, false}, ""},
		"below not asked": {guarding{through{guarding{through{able{}}, true}}, false}, ""},
	} {
		if got, ok := outcome(c.a); got != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q %t, want %q", name, got, ok, c.want)
		}
	}
	if _, ok := appliers.Ability[appliers.Marker](guarding{through{able{}}, true}); ok {
		t.Error("an ability that the decorator does not know was handed out")
	}
}

// The worst wins, in this order.
func TestWorst(t *testing.T) {
	order := []appliers.HealthStatus{
		appliers.Healthy, appliers.Suspended, appliers.Progressing, appliers.Missing, appliers.Degraded, appliers.HealthUnknown,
	}
	for i, a := range order {
		for j, b := range order {
			if got := appliers.Worst(a, b); got != order[max(i, j)] {
				t.Errorf("Worst(%s, %s) = %s", a, b, got)
			}
		}
	}
}
