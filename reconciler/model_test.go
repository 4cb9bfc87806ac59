package reconciler

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// action is one thing that happens to the system. What it does with its numbers
// is its own business, so that any list of actions is a valid life.
type action struct{ Kind, App, Name, Value int }

const actionKinds = 17

// model is what the outside world knows to be true.
type model struct {
	*sim
	files   map[string]string            // head of the branch: path -> content
	byRev   map[string]map[string]string // files by revision
	creates int                          // objects that may be created
	deletes int                          // objects that may be deleted
	byHand  int
	errs    []error
	// stale is until when reads may have shown what was there before: what was
	// seen then is corrected by the next complete look.
	stale time.Time
}

var modelApps = []string{"a", "b"}

func (m *model) failf(format string, args ...any) {
	m.errs = append(m.errs, fmt.Errorf(format, args...))
}

func file(app, name string) string { return app + "/" + name + ".yaml" }

// wanted returns the names that any application declares in files.
func wantedNames(files map[string]string) map[string]bool {
	out := map[string]bool{}
	for _, content := range files {
		if _, rest, ok := strings.Cut(content, "name: \""); ok {
			name, _, _ := strings.Cut(rest, "\"")
			out[name] = true
		}
	}
	return out
}

// push commits a change and counts what it may create and delete at most.
func (m *model) push(change map[string]string) {
	before := wantedNames(m.files)
	next := maps.Clone(m.files)
	for path, content := range change {
		if content == "" {
			delete(next, path)
		} else {
			next[path] = content
		}
	}
	if maps.Equal(next, m.files) {
		return
	}
	after := wantedNames(next)
	for name := range after {
		if !before[name] {
			m.creates++
		}
	}
	for name := range before {
		if !after[name] {
			m.deletes++
		}
	}
	m.files = next
	m.byRev[m.commit(change)] = next
}

func (m *model) do(a action) {
	app := modelApps[a.App%2]
	other := modelApps[(a.App+1)%2]
	name := fmt.Sprintf("n%d", a.Name%5)
	path := file(app, name)
	content, there := m.files[path]
	world := m.worlds["one"]
	switch a.Kind {
	case 0, 1:
		m.push(map[string]string{path: thing(name, fmt.Sprint(a.Value))})
	case 2:
		m.push(map[string]string{path: ""})
	case 3: // a rename of the file alone
		if there {
			m.push(map[string]string{path: "", file(app, "renamed/"+name): content})
		}
	case 4: // a move to the other application
		if there {
			m.push(map[string]string{path: "", file(other, name): content})
		}
	case 5:
		m.push(map[string]string{app + "/broken.yaml": "a: [b"})
	case 6:
		m.push(map[string]string{app + "/broken.yaml": ""})
	case 7:
		world.SetField("hand", where(name), "/spec/value", int64(1000+a.Value))
	case 8:
		if live, ok := world.Get(where(name)); ok && world.Delete(live.Locator) {
			m.byHand++
		}
	case 9:
		world.SetFaults([]memapply.Faults{
			{ReadErr: errors.New("no answer")},
			{LostReply: func(appliers.Operation) bool { return true }},
			{Refuse: func(appliers.Operation) error { return errors.New("quota") }},
			{Stale: true},
			{Unread: func(k plan.Key) string { return map[bool]string{true: "page lost"}[k.ID.Name == name] }},
			{Rest: func(appliers.Operation) error { return errors.New("reload failed") }},
		}[a.Value%6])
		m.stale = time.Now().Add(map[bool]time.Duration{true: 1000 * time.Hour, false: 4 * time.Minute}[a.Value%6 == 3])
	case 10:
		world.SetFaults(memapply.Faults{})
		m.stale = time.Now().Add(4 * time.Minute)
	case 11:
		m.crash.arm(0, false)
		m.restart()
	case 12:
		m.crash.arm(1+a.Value%6, a.Name%2 == 0)
	case 13:
		_, _ = m.m.Suspend(m.t.Context(), "ops", app, false, "model", time.Time{})
	case 14:
		_, _ = m.m.Resume(m.t.Context(), "ops", app, false, "model")
	case 15:
		_, _ = m.m.Approve(m.t.Context(), Approver{Name: "ops"}, app, m.heldDigest(app), "model", 0)
	case 16:
		m.configure(time.Duration(1+a.Value%3) * time.Minute)
		if err := m.reload(); err != nil {
			m.failf("reload: %w", err)
		}
	}
}

func (m *model) configure(interval time.Duration) {
	for _, app := range modelApps {
		m.app(app, app, func(a *Application) {
			a.Interval, a.RetryMax = interval, time.Minute
			a.Budget = plan.Budget{MaxCount: 2, MaxPercent: -1}
			a.Contention = Contention{Threshold: 4, Window: 5 * time.Minute, Cooldown: 10 * time.Minute}
		})
	}
}

// check holds the invariants that must be true at every moment.
func (m *model) check(when string) {
	if live, ok := m.worlds["one"].Get(where("stranger")); !ok || live.Writer != "admin" {
		m.failf("%s: S1: the stranger was touched", when)
	}
	c := m.worlds["one"].Counters()
	if c.Creates > m.creates+m.byHand {
		m.failf("%s: S11: %d creates, at most %d", when, c.Creates, m.creates+m.byHand)
	}
	if c.Deletes > m.deletes {
		m.failf("%s: S3, S11: %d deletes, at most %d", when, c.Deletes, m.deletes)
	}
	at := map[string]bool{}
	m.m.registry.mu.RLock()
	for l := range m.m.registry.byLocator {
		at[l.address] = true
	}
	m.m.registry.mu.RUnlock()
	for _, live := range m.worlds["one"].List() {
		if live.Locator != where("stranger") && !at[live.Locator] && !m.crash.dead() {
			m.failf("%s: S4: %s is an orphan", when, live.Locator)
		}
	}
	for _, app := range modelApps {
		st := m.status(app)
		files, known := m.byRev[st.Revision]
		if st.Revision != "" && !known {
			m.failf("%s: S6: %s accepted %s, which was never committed", when, app, st.Revision)
		}
		if st.Sync == Synced && st.Suspended == nil && !m.crash.dead() && time.Now().After(m.stale) {
			m.synced(when, app, files)
		}
	}
}

// synced holds S15: Synced at a revision means that the world is as it says.
func (m *model) synced(when, app string, files map[string]string) {
	for path, content := range files {
		if !strings.HasPrefix(path, app+"/") || !strings.Contains(content, "kind: Thing") {
			continue
		}
		o := object(m.t, content)
		live, ok := m.worlds["one"].Get(where(o.ID().Name))
		if live.Owed {
			m.failf("%s: S15: %s is Synced, and the write of %s is unfinished", when, app, o.ID().Name)
		}
		if !ok || live.Content["spec"].(map[string]any)["value"] != o.Spec()["value"] {
			m.failf("%s: S15: %s is Synced at %s, and %s is %+v", when, app, m.status(app).Revision, o.ID().Name, live.Content)
		}
	}
}

// settle ends all faults and holds that everything converges and stays quiet.
func (m *model) settle() {
	m.worlds["one"].SetFaults(memapply.Faults{})
	m.stale = time.Now().Add(4 * time.Minute)
	m.crash.arm(0, false)
	m.restart()
	clean := map[string]string{"a/broken.yaml": "", "b/broken.yaml": "", "a/keep.yaml": thing("keepa", "1"), "b/keep.yaml": thing("keepb", "1")}
	names := map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(m.files)) {
		for name := range wantedNames(map[string]string{path: m.files[path]}) {
			if _, twice := names[name]; twice {
				clean[path] = ""
			}
			names[name] = path
		}
	}
	m.push(clean)
	for _, app := range modelApps {
		_, _ = m.m.Resume(m.t.Context(), "ops", app, false, "model")
	}
	for range 4 {
		m.pass(12 * time.Minute)
		for _, app := range modelApps {
			_, _ = m.m.Approve(m.t.Context(), Approver{Name: "ops"}, app, m.heldDigest(app), "model", 0)
		}
	}
	m.pass(12 * time.Minute)
	m.check("at the end")
	for _, app := range modelApps {
		if st := m.status(app); st.Sync != Synced {
			m.failf("at the end %s is %s (%s): %s %+v", app, st.Sync, st.Phase, st.Message, st.Failures)
		}
	}
	if live, want := len(m.worlds["one"].List()), len(wantedNames(m.files))+1; live != want {
		m.failf("at the end %d objects, want %d", live, want)
	}
	before := m.worlds["one"].Counters().Writes()
	m.pass(time.Hour)
	if n := m.worlds["one"].Counters().Writes() - before; n != 0 {
		m.failf("%d writes after it had converged", n)
	}
}

// A rapid state machine: any life of two applications keeps
// S1, S3, S4, S6, S11 and S15, and ends converged once faults stop.
func TestAnyLifeConverges(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		life := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) action {
			return action{
				Kind: rapid.IntRange(0, actionKinds-1).Draw(rt, "kind"), App: rapid.IntRange(0, 1).Draw(rt, "app"),
				Name: rapid.IntRange(0, 4).Draw(rt, "name"), Value: rapid.IntRange(0, 9).Draw(rt, "value"),
			}
		}), 5, 40).Draw(rt, "life")
		pauses := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{0, time.Second, 12 * time.Second, 40 * time.Second, 3 * time.Minute}), 40, 40).Draw(rt, "pauses")
		marks := rapid.Bool().Draw(rt, "marks")
		var errs []error
		simulate(t, func(s *sim) {
			m := &model{sim: s, files: map[string]string{}, byRev: map[string]map[string]string{}}
			s.is["one"] = memapply.Personality{Marks: marks}
			m.configure(time.Minute)
			s.worlds["one"].Set("admin", object(t, thing("stranger", "7")))
			m.push(map[string]string{"a/keep.yaml": thing("keepa", "1"), "b/keep.yaml": thing("keepb", "1")})
			s.start()
			for i, a := range life {
				if s.crash.dead() {
					s.restart()
				}
				m.do(a)
				s.pass(pauses[i])
				if m.check(fmt.Sprintf("after %d %+v", i, a)); len(m.errs) > 0 {
					break
				}
			}
			if len(m.errs) == 0 {
				m.settle()
			}
			errs = m.errs
		})
		if len(errs) > 0 {
			rt.Fatal(errors.Join(errs...))
		}
	})
}
