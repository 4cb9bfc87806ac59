package reconciler

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/sources"
)

// Metrics are the instruments of the loop; docs/metrics.md lists them. Labels
// are names from the configuration and fixed words, so their number is bounded
// by it, whatever is committed. A nil *Metrics measures nothing.
type Metrics struct {
	sync, health, drift, objects, observedAt *prometheus.GaugeVec
	breakerState                             *prometheus.GaugeVec
	polls                                    polledVecs
	requests, sourceRetries, targetRetries   *prometheus.CounterVec
	calls, observed, rounds, failures        *prometheus.CounterVec
	steps, callSeconds                       *prometheus.HistogramVec
}

// polledVecs are the instruments of polls: the number by result, and the time of
// the last answer.
type polledVecs struct {
	counter *prometheus.CounterVec
	gauge   *prometheus.GaugeVec
}

// The steps of a round whose duration is measured; a poll is one too.
const (
	stepPoll    = "poll"
	stepRender  = "render"
	stepPolicy  = "policy"
	stepObserve = "observe"
	stepPlan    = "plan"
	stepApply   = "apply"
)

var (
	syncWords    = []SyncStatus{Synced, OutOfSync, Stale, SyncUnknown}
	healthWords  = []appliers.HealthStatus{appliers.Healthy, appliers.Suspended, appliers.Progressing, appliers.Missing, appliers.Degraded, appliers.HealthUnknown}
	breakerWords = []string{"closed", "half-open", "open"}
)

// NewMetrics makes the instruments and registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "gitopsd", Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "gitopsd", Name: name, Help: help}, labels)
		reg.MustRegister(v)
		return v
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "gitopsd", Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(0.001, 4, 9),
		}, labels)
		reg.MustRegister(v)
		return v
	}
	return &Metrics{
		sync:         gauge("sync_status", "1 for the present sync status of an application, 0 for the others.", "application", "status"),
		health:       gauge("health_status", "1 for the present health of an application, 0 for the others.", "application", "status"),
		drift:        gauge("drifted_fields", "Fields that drifted and are not healed, by kind of object.", "application", "kind"),
		objects:      gauge("objects", "Objects of an application by state: desired, owned, drifted, failed, blocked, denied.", "application", "state"),
		observedAt:   gauge("observed_timestamp_seconds", "When all objects of an application were last known together, as Unix time.", "application"),
		rounds:       counter("rounds_total", "Rounds of an application.", "application"),
		observed:     counter("objects_observed_total", "Objects that targets were asked about.", "application"),
		failures:     counter("object_failures_total", "Objects that could not be brought to the desired state, once for each try, by what is done about it: retry, wait, stop.", "application", "class"),
		steps:        histogram("step_duration_seconds", "How long a step took: poll, render, policy, observe, plan, apply.", "step"),
		calls:        counter("target_calls_total", "Calls to a target by operation and result: ok, error.", "target", "operation", "result"),
		callSeconds:  histogram("target_call_duration_seconds", "How long a call to a target took.", "target", "operation"),
		breakerState: gauge("target_breaker_state", "1 for the present state of the breaker of a target: closed, half-open, open; 0 for the others.", "target", "state"),
		polls: polledVecs{
			counter: counter("source_polls_total", "Polls of a source by result: ok, error.", "source", "result"),
			gauge:   gauge("source_polled_timestamp_seconds", "When the server of a source last answered, as Unix time.", "source"),
		},
		requests:      counter("source_requests_total", "Requests to the server of a source by kind: refs, fetch; and result: ok, error.", "source", "request", "result"),
		sourceRetries: counter("source_retries_total", "Polls of a source that followed one that failed.", "source"),
		targetRetries: counter("target_retries_total", "Objects sent to a target again after a try that failed.", "target"),
	}
}

func result(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (m *Metrics) poll(source string, took time.Duration, at time.Time, err error) {
	if m == nil {
		return
	}
	m.polls.counter.WithLabelValues(source, result(err)).Inc()
	m.steps.WithLabelValues(stepPoll).Observe(took.Seconds())
	if err == nil {
		m.polls.gauge.WithLabelValues(source).Set(seconds(at))
	}
}

// asked counts the requests to a server since the last call.
func (m *Metrics) asked(source string, n sources.Requests) {
	if m == nil {
		return
	}
	for _, c := range []struct {
		request, result string
		n               int
	}{
		{"refs", "ok", n.Refs - n.RefsFailed}, {"refs", "error", n.RefsFailed},
		{"fetch", "ok", n.Fetches - n.FetchesFailed}, {"fetch", "error", n.FetchesFailed},
	} {
		m.requests.WithLabelValues(source, c.request, c.result).Add(float64(c.n))
	}
}

func (m *Metrics) sourceRetry(source string) {
	if m == nil {
		return
	}
	m.sourceRetries.WithLabelValues(source).Inc()
}

func (m *Metrics) targetRetry(target string, objects int) {
	if m == nil {
		return
	}
	m.targetRetries.WithLabelValues(target).Add(float64(objects))
}

func (m *Metrics) step(name string, took time.Duration) {
	if m == nil {
		return
	}
	m.steps.WithLabelValues(name).Observe(took.Seconds())
}

func (m *Metrics) targetCall(target, op string, took time.Duration, err error) {
	if m == nil {
		return
	}
	m.calls.WithLabelValues(target, op, result(err)).Inc()
	m.callSeconds.WithLabelValues(target, op).Observe(took.Seconds())
}

func (m *Metrics) breaker(target, state string) {
	if m == nil {
		return
	}
	for _, word := range breakerWords {
		m.breakerState.WithLabelValues(target, word).Set(oneIf(word == state))
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (m *Metrics) observedObjects(application string, n int) {
	if m == nil {
		return
	}
	m.observed.WithLabelValues(application).Add(float64(n))
}

func (m *Metrics) failed(application string, class appliers.Class) {
	if m == nil {
		return
	}
	m.failures.WithLabelValues(application, class.String()).Inc()
}

func (m *Metrics) round(application string) {
	if m == nil {
		return
	}
	m.rounds.WithLabelValues(application).Inc()
}

// status publishes the gauges of an application. Stale is told by the age of
// the observation, which the reader of the metrics computes.
func (m *Metrics) status(s *Status) {
	if m == nil {
		return
	}
	for _, word := range syncWords {
		m.sync.WithLabelValues(s.Application, string(word)).Set(oneIf(s.Sync == word))
	}
	for _, word := range healthWords {
		m.health.WithLabelValues(s.Application, string(word)).Set(oneIf(s.Health == word))
	}
	for state, n := range map[string]int{
		"desired": s.Objects.Desired, "owned": s.Objects.Owned, "drifted": s.Objects.Drifted,
		"failed": s.Objects.Failed, "blocked": s.Objects.Blocked, "denied": s.Objects.Denied,
	} {
		m.objects.WithLabelValues(s.Application, state).Set(float64(n))
	}
	m.drift.DeletePartialMatch(prometheus.Labels{"application": s.Application})
	for kind, n := range driftByKind(s.Drift) {
		m.drift.WithLabelValues(s.Application, kind).Set(float64(n))
	}
	if !s.ObservedAt.IsZero() {
		m.observedAt.WithLabelValues(s.Application).Set(seconds(s.ObservedAt))
	}
}

// maxKinds bounds the kinds that are told apart for one application: their names
// come from a repository, and the number of series must not.
const maxKinds = 20

// driftByKind counts drifted fields by kind; kinds beyond the bound, in the order
// of the drift, are counted together as "other".
func driftByKind(drift []DriftedField) map[string]int {
	out := map[string]int{}
	for _, d := range drift {
		kind := d.Key.ID.GroupKind().String()
		if _, known := out[kind]; !known && len(out) >= maxKinds {
			kind = "other"
		}
		out[kind]++
	}
	return out
}

// forgetApplication, forgetSource and forgetTarget drop the series of what is no
// longer configured.
func (m *Metrics) forgetApplication(name string) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"application": name}
	for _, v := range []*prometheus.GaugeVec{m.sync, m.health, m.drift, m.objects, m.observedAt} {
		v.DeletePartialMatch(labels)
	}
	for _, v := range []*prometheus.CounterVec{m.rounds, m.observed, m.failures} {
		v.DeletePartialMatch(labels)
	}
}

func (m *Metrics) forgetSource(name string) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"source": name}
	m.polls.counter.DeletePartialMatch(labels)
	m.polls.gauge.DeletePartialMatch(labels)
	m.requests.DeletePartialMatch(labels)
	m.sourceRetries.DeletePartialMatch(labels)
}

func (m *Metrics) forgetTarget(name string) {
	if m == nil {
		return
	}
	labels := prometheus.Labels{"target": name}
	m.calls.DeletePartialMatch(labels)
	m.callSeconds.DeletePartialMatch(labels)
	m.breakerState.DeletePartialMatch(labels)
	m.targetRetries.DeletePartialMatch(labels)
}
