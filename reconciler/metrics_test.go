package reconciler

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/sources"
)

func (s *sim) series() (names map[string]bool, n int) {
	s.t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	names = map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
		n += len(f.GetMetric())
	}
	return names, n
}

func (s *sim) metric(name string, labels ...string) float64 {
	s.t.Helper()
	families, err := s.reg.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			have := map[string]string{}
			for _, l := range m.GetLabel() {
				have[l.GetName()] = l.GetValue()
			}
			match := true
			for i := 0; i < len(labels); i += 2 {
				match = match && have[labels[i]] == labels[i+1]
			}
			if match {
				total += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return total
}

// The number of series is bounded by the configuration: a hundred rounds with
// ever new objects, failures and drift add none.
func TestSeriesAreBoundedByTheConfiguration(t *testing.T) {
	simulate(t, func(s *sim) {
		s.reg = prometheus.NewRegistry()
		s.judge = &rules{digest: "p"}
		s.app("web", "web", func(a *Application) { a.Budget.MaxCount = -1; a.Budget.MaxPercent = -1 })
		s.app("gone", "gone")
		s.commit(map[string]string{"web/k.yaml": thing("k", "1"), "gone/g.yaml": thing("g", "1")})
		s.start()
		fail := func(on bool) {
			s.worlds["one"].SetFaults(memapply.Faults{Refuse: func(appliers.Operation) error {
				if on {
					return appliers.WithClass(appliers.Wait, fmt.Errorf("no"))
				}
				return nil
			}})
		}
		life := func(i int) {
			kind := fmt.Sprintf("Kind%d", i)
			s.commit(map[string]string{
				fmt.Sprintf("web/n%d.yaml", i):   strings.Replace(thing(fmt.Sprintf("n%d", i), "1"), "kind: Thing", "kind: "+kind, 1),
				fmt.Sprintf("web/n%d.yaml", i-1): "",
			})
			fail(i%3 == 0)
			s.repo.FailRefs(fmt.Errorf("%w: try %d", sources.ErrUnavailable, i))
			s.pass(30 * time.Second)
			s.worlds["one"].SetField("hand", where("k"), "/spec/value", int64(i+10))
			s.pass(2 * time.Minute)
		}
		for i := 1; i < 10; i++ {
			life(i)
		}
		_, before := s.series()
		for i := 10; i < 112; i++ { // ends like the first nine: with a heal that failed
			life(i)
		}
		names, after := s.series()
		if after != before {
			t.Errorf("%d series, %d before a hundred rounds", after, before)
		}
		for _, name := range []string{"source_requests", "source_retries", "target_retries"} {
			if !names["gitopsd_"+name+"_total"] {
				t.Errorf("%s was not counted: the bound says nothing about it", name)
			}
		}
		docs, err := os.ReadFile("../docs/metrics.md")
		if err != nil {
			t.Fatal(err)
		}
		for name := range names {
			if !strings.Contains(string(docs), "`"+name+"`") {
				t.Errorf("docs/metrics.md does not explain %s", name)
			}
		}
		s.apps = s.apps[:1]
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		if n := s.metric("gitopsd_sync_status", "application", "gone"); n != 0 {
			t.Error("an application that is gone still has series")
		}
	})
}

// The gauges say what the status says.
func TestMetricsTellTheStatus(t *testing.T) {
	simulate(t, func(s *sim) {
		s.reg = prometheus.NewRegistry()
		s.app("web", ".")
		s.commit(map[string]string{"a.yaml": thing("a", "1"), "b.yaml": thing("b", "1")})
		s.start()
		for name, want := range map[string]float64{
			"gitopsd_source_polls_total": 1, "gitopsd_objects_observed_total": 4, "gitopsd_target_breaker_state": 1,
		} {
			if got := s.metric(name); got < want {
				t.Errorf("%s is %v, want at least %v", name, got, want)
			}
		}
		if s.metric("gitopsd_sync_status", "status", "Synced") != 1 || s.metric("gitopsd_health_status", "status", "Healthy") != 1 {
			t.Error("status")
		}
		if got := s.metric("gitopsd_objects", "state", "owned"); got != 2 {
			t.Errorf("owned %v", got)
		}
		for _, step := range []string{stepPoll, stepRender, stepObserve, stepPlan, stepApply} {
			if s.metric("gitopsd_step_duration_seconds", "step", step) == 0 {
				t.Errorf("step %s was not measured", step)
			}
		}
		s.worlds["one"].SetFaults(memapply.Faults{ReadErr: fmt.Errorf("dead")})
		s.pass(10 * time.Minute)
		if s.metric("gitopsd_target_breaker_state", "state", "closed") != 0 || s.metric("gitopsd_target_calls_total", "result", "error") == 0 {
			t.Error("the breaker is not told")
		}
		s.worlds["one"].SetFaults(memapply.Faults{Refuse: func(appliers.Operation) error { return fmt.Errorf("quota") }})
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(10 * time.Minute)
		if s.metric("gitopsd_object_failures_total", "class", "retry") == 0 || s.metric("gitopsd_objects", "state", "failed") != 1 {
			t.Error("failures are not told")
		}
	})
}

// Requests and retries are counted as the source and the target see them.
func TestRequestsAndRetriesAreCounted(t *testing.T) {
	simulate(t, func(s *sim) {
		s.reg = prometheus.NewRegistry()
		s.app("web", ".", func(a *Application) { a.Interval = time.Hour })
		s.commit(map[string]string{"a.yaml": thing("a", "1")})
		s.start()
		requests := func() sources.Requests {
			n := func(request, result string) int {
				return int(s.metric("gitopsd_source_requests_total", "source", "fleet", "request", request, "result", result))
			}
			return sources.Requests{
				Refs: n("refs", "ok") + n("refs", "error"), RefsFailed: n("refs", "error"),
				Fetches: n("fetch", "ok") + n("fetch", "error"), FetchesFailed: n("fetch", "error"),
			}
		}
		s.pass(time.Minute)
		if got := requests(); got != s.repo.Requests() || got.Refs < 5 || got.Fetches != 1 || got.RefsFailed+got.FetchesFailed != 0 {
			t.Errorf("a quiet minute: %+v, the source saw %+v", got, s.repo.Requests())
		}
		if n := s.metric("gitopsd_source_retries_total"); n != 0 {
			t.Errorf("%v retries without a failure", n)
		}
		s.repo.FailRefs(sources.ErrUnavailable, sources.ErrUnavailable)
		s.repo.FailFetch(sources.ErrUnavailable)
		s.commit(map[string]string{"a.yaml": thing("a", "2")})
		s.pass(5 * time.Minute)
		if got := requests(); got != s.repo.Requests() || got.RefsFailed != 2 || got.Fetches != 3 || got.FetchesFailed != 1 {
			t.Errorf("after an outage: %+v, the source saw %+v", got, s.repo.Requests())
		}
		if n := s.metric("gitopsd_source_retries_total", "source", "fleet"); n != 3 {
			t.Errorf("%v polls followed one of the three that failed", n)
		}
		s.wantValue("one", "a", int64(2))

		tries := 0
		s.worlds["one"].SetFaults(memapply.Faults{Refuse: func(appliers.Operation) error {
			if tries++; tries <= 3 {
				return fmt.Errorf("quota")
			}
			return nil
		}})
		s.commit(map[string]string{"a.yaml": thing("a", "3"), "b.yaml": thing("b", "1")})
		s.pass(5 * time.Minute)
		s.wantValue("one", "a", int64(3))
		s.wantValue("one", "b", int64(1))
		if n := s.metric("gitopsd_target_retries_total", "target", "one"); n != float64(tries-2) {
			t.Errorf("%v retries of %d tries at two objects", n, tries)
		}
	})
}
