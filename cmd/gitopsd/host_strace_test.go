//go:build failpoint && host

package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

var straceN = flag.Int("strace.n", 8, "TestStrace fails the first to the n-th call of each kind")

// straceCalls are the system calls that fail, by what they are for: the store
// writes with pwrite64, the file applier and the mirror with write.
var straceCalls = []string{"fsync,fdatasync", "renameat,renameat2,linkat", "write,pwrite64"}

var straceEffects = []string{"error=EIO", "error=ENOSPC", "signal=KILL"}

// TestStrace lets the kernel fail the daemon (D-49, D2-64, D2-65, D2-66, E-87,
// GR-FS1): the n-th sync, rename or write of each of its threads, be it for files
// of the host, the store, the ledger or the mirror, ends with EIO or ENOSPC or
// kills it. A daemon that lives on and says that it is in step must be. Whatever
// became of it, each file is the old or the new one, and the next daemon brings
// everything to what Git says.
func TestStrace(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-crash.seed=%d -strace.n=%d", seed, *straceN)
	type fault struct {
		call, effect string
		n            int
	}
	var faults []fault
	for n := 1; n <= *straceN; n++ {
		for _, call := range straceCalls {
			for _, effect := range straceEffects {
				faults = append(faults, fault{call, effect, n})
			}
		}
	}
	var mu sync.Mutex
	ends, hits := map[string]int{}, map[string]int{}
	t.Run("lives", func(t *testing.T) {
		for i := range *crashLives {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				l := newLife(t, rand.New(rand.NewPCG(seed, uint64(i))), nil)
				for k := i; k < len(faults); k += *crashLives {
					f := faults[k]
					end, hit := l.fault(f.call, f.effect, f.n)
					mu.Lock()
					ends[end]++
					hits[f.call+" "+f.effect] += hit
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("%d faults; how the daemons ended: %v; calls that failed: %v", len(faults), ends, hits)
	for _, call := range straceCalls {
		for _, effect := range straceEffects {
			if hits[call+" "+effect] == 0 {
				t.Errorf("no %s ended with %s: this proves nothing", call, effect)
			}
		}
	}
}

// fault lets the repository and the host move under a daemon whose n-th call
// fails, and checks it and the next one. hit says how many calls did.
func (l *life) fault(calls, effect string, n int) (end string, hit int) {
	edits := 2
	if strings.HasPrefix(calls, "rename") {
		edits = 10 // few calls are renames; most are of files of the host
	}
	declared, lying := l.move(edits)
	inject := fmt.Sprintf("inject=%s:%s:when=%d", calls, effect, n)
	l.steps = append(l.steps, inject)
	trace := l.path("trace")
	strace := []string{"strace", "-f", "-qqq", "-o", trace, "-e", "trace=" + calls, "-e", inject}
	if !strings.HasPrefix(effect, "signal") { // strace 6.1 sends no signal then, but everything else runs at full speed
		strace = append(strace, "--seccomp-bpf")
	}
	d := l.start(nil, strace...)
	finished, died := d.ends(l.t.Context(), straceLimit, l.converge)
	switch {
	case died:
		end = "died"
	case finished:
		end = "in step"
		l.check()
	default:
		end = "not in step until it was killed"
	}
	d.kill()
	b, err := os.ReadFile(trace)
	l.must(err)
	l.steps = append(l.steps, end)
	l.between(declared, lying)
	l.recover()
	if hit = strings.Count(string(b), "(INJECTED)"); died && strings.HasPrefix(effect, "signal") {
		hit++ // the call of one who is killed does not end
	}
	return end, hit
}

// straceLimit is how long a daemon with a fault may try; one whose store failed
// waits for a restart.
const straceLimit = 4 * time.Second
