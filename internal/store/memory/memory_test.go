package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/memory"
	"github.com/gitopsd/gitopsd/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Harness {
		s := memory.New()
		return storetest.Harness{Open: func() (store.Store, error) {
			s = s.Reopen()
			return s, nil
		}}
	})
}
