package sources_test

import (
	"context"
	"testing"

	"github.com/gitopsd/gitopsd/sources"
)

type keeping struct{ sources.Repository }

func (keeping) Watch(context.Context, func()) error { return nil }

type through struct{ sources.Repository }

func (t through) Unwrap() sources.Repository { return t.Repository }

type guarding struct{ through }

func (guarding) Ability(any) bool { return false }

// A decorator without a say is looked through; one with a say is never passed by.
func TestAbility(t *testing.T) {
	if _, ok := sources.Ability[sources.Watcher](through{keeping{}}); !ok {
		t.Error("a decorator without a say was not looked through")
	}
	if _, ok := sources.Ability[sources.Watcher](through{guarding{through{keeping{}}}}); ok {
		t.Error("a decorator that answers no was passed by")
	}
}
