package reconciler

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
	memstore "github.com/gitopsd/gitopsd/internal/store/memory"
	"github.com/gitopsd/gitopsd/sources"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// host notes what reaches one Git server.
type host struct {
	mu           sync.Mutex
	active, most int
}

func (h *host) enter() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active++
	h.most = max(h.most, h.active)
}

func (h *host) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active--
}

// noted is a repository on a host. It notes when it was asked for refs.
type noted struct {
	*memsource.Repository
	host *host

	mu    sync.Mutex
	asked []time.Time
	cut   int // fetches that failed
}

func (n *noted) Refs(ctx context.Context, patterns ...string) (map[string]string, error) {
	n.mu.Lock()
	n.asked = append(n.asked, time.Now())
	n.mu.Unlock()
	n.host.enter()
	defer n.host.leave()
	return n.Repository.Refs(ctx, patterns...)
}

func (n *noted) Fetch(ctx context.Context, ref, revision string) error {
	n.host.enter()
	defer n.host.leave()
	err := n.Repository.Fetch(ctx, ref, revision)
	if err != nil {
		n.mu.Lock()
		n.cut++
		n.mu.Unlock()
	}
	return err
}

// gaps returns the times between two polls.
func (n *noted) gaps() (out []time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := 1; i < len(n.asked); i++ {
		out = append(out, n.asked[i].Sub(n.asked[i-1]))
	}
	return out
}

// fleetOf is a loop that only polls: n repositories a host, each followed every
// ten seconds.
type fleetOf map[string][]*noted

func (f fleetOf) add(host *host, name string, n int, latency time.Duration) {
	for range n {
		r := memsource.New()
		r.CommitFiles("main", map[string]string{"a.yaml": thing("a", "1")})
		r.SetLatency(latency)
		f[name] = append(f[name], &noted{Repository: r, host: host})
	}
}

// poll runs the loop for d of fake time.
func (f fleetOf) poll(t *testing.T, budget int, d time.Duration) {
	t.Helper()
	sealer, err := manifest.NewSealer([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m, err := New(ctx, Options{
		Store: memstore.New(), Sealer: sealer, Log: slog.New(slog.DiscardHandler), Rand: rand.New(rand.NewPCG(3, 4)), HostBudget: budget,
	})
	if err != nil {
		t.Fatal(err)
	}
	var c Config
	for host, repos := range f {
		for i, r := range repos {
			name := fmt.Sprintf("%s-%d", host, i)
			c.Sources = append(c.Sources, SourceConfig{
				Name: name, Digest: "1", Identity: name, Host: host,
				Open: func() (*sources.Source, error) {
					return &sources.Source{Name: name, Repository: r, Ref: sources.Ref{Branch: "main"}, Interval: 10 * time.Second}, nil
				},
			})
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx, c) }()
	time.Sleep(d)
	synctest.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestPollsAreSpread: sources that start together do not go on asking together,
// and none asks earlier or later than a tenth of its interval.
func TestPollsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf{}
		f.add(&host{}, "git.example", 2, 0)
		f.poll(t, 4, time.Hour)
		var least, most time.Duration = time.Hour, 0
		for i, r := range f["git.example"] {
			gaps := r.gaps()
			if len(gaps) < 340 || len(gaps) > 380 {
				t.Errorf("source %d: %d polls in an hour, want one in about ten seconds", i, len(gaps))
			}
			for _, gap := range gaps {
				least, most = min(least, gap), max(most, gap)
			}
		}
		if least < 9*time.Second || most > 11*time.Second {
			t.Errorf("%s to %s between two polls, want 10s and at most a tenth more or less", least, most)
		}
		if least > 9500*time.Millisecond || most < 10500*time.Millisecond {
			t.Errorf("%s to %s between two polls: that is hardly any jitter", least, most)
		}
		together := 0
		for i, at := range f["git.example"][0].asked[1:] {
			if other := f["git.example"][1].asked; i+1 < len(other) && at.Sub(other[i+1]).Abs() < 10*time.Millisecond {
				together++
			}
		}
		if together > 5 {
			t.Errorf("%d polls of two sources came together: they go in lock-step", together)
		}
	})
}

// TestQueueLeavesTheTimeout: what a source waits for a busy host is not taken from
// the time of its poll, which would be cut short again and again.
func TestQueueLeavesTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf{}
		f.add(&host{}, "slow.example", 2, 20*time.Second) // 40 s for refs and a fetch
		f.poll(t, 1, 90*time.Second)
		for i, r := range f["slow.example"] {
			if r.cut > 0 || len(r.asked) == 0 {
				t.Errorf("source %d: %d fetches were cut short of %d polls", i, r.cut, len(r.asked))
			}
		}
	})
}

// TestHostBudget, A-6: however many repositories a host has, only so many requests to
// it are under way; the others get their turn, and other hosts do not wait.
func TestHostBudget(t *testing.T) {
	for name, c := range map[string]struct {
		repos, budget, hanging int
		latency, longest       time.Duration // longest wait between two polls of a source
		// first is the longest wait after the first poll, when all of them also fetch,
		// where that is more.
		first time.Duration
	}{
		"enough for all":   {repos: 12, budget: 3, latency: 2 * time.Second, longest: 20 * time.Second},
		"more than it can": {repos: 60, budget: 3, latency: 2 * time.Second, longest: time.Minute, first: 80 * time.Second},
		"one at a time":    {repos: 5, budget: 1, latency: time.Second, longest: 20 * time.Second},
		"two that hang":    {repos: 12, budget: 3, hanging: 2, latency: time.Second, longest: 30 * time.Second},
		"default budget":   {repos: 12, latency: 2 * time.Second, longest: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, busy, free := fleetOf{}, &host{}, &host{}
				f.add(busy, "busy.example", c.repos, c.latency)
				f.add(free, "free.example", 1, 0)
				for _, r := range f["busy.example"][:c.hanging] {
					r.SetLatency(24 * time.Hour)
				}
				f.poll(t, c.budget, 20*time.Minute)
				want := c.budget
				if want == 0 {
					want = 4 // as Options says
				}
				if busy.most != want {
					t.Errorf("%d requests were under way to one host, want %d", busy.most, want)
				}
				for i, r := range f["busy.example"][c.hanging:] {
					gaps := r.gaps()
					if len(gaps) < 10 {
						t.Errorf("source %d was polled %d times only", i, len(gaps)+1)
					}
					for n, gap := range gaps {
						longest := c.longest
						if n == 0 {
							longest = max(longest, c.first)
						}
						if gap > longest {
							t.Errorf("source %d waited %s for its turn, want at most %s", i, gap, longest)
							break
						}
					}
				}
				for _, gap := range f["free.example"][0].gaps() {
					if gap > 11*time.Second {
						t.Errorf("a source of another host waited %s", gap)
					}
				}
			})
		})
	}
}
