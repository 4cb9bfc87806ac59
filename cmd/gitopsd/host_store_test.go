//go:build failpoint && host

package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var storeDamages = flag.Int("store.damages", 24, "how many times TestStoreDamaged damages the store of a daemon")

// damageKinds are ways in which a disk loses what it was given. Half of them
// happen to a daemon that runs.
var damageKinds = []struct {
	name string
	do   func(r *rand.Rand, f *os.File, size int64) error
}{
	{"zeroed pages", func(r *rand.Rand, f *os.File, size int64) error {
		for range 1 + r.IntN(8) {
			if _, err := f.WriteAt(make([]byte, 4096), r.Int64N(size/4096)*4096); err != nil {
				return err
			}
		}
		return nil
	}},
	{"cut short", func(r *rand.Rand, f *os.File, size int64) error { return f.Truncate(r.Int64N(size)) }},
	{"flipped bytes", func(r *rand.Rand, f *os.File, size int64) error {
		b := make([]byte, 1)
		for range 16 {
			at := r.Int64N(size)
			if _, err := f.ReadAt(b, at); err != nil {
				return err
			}
			b[0] ^= byte(1 + r.IntN(255))
			if _, err := f.WriteAt(b, at); err != nil {
				return err
			}
		}
		return nil
	}},
}

// TestStoreDamaged damages the store of the real daemon (E-85), stopped or
// under its hands. The daemon never ends by a panic or a signal. It starts with
// what was last written, or says that the file is damaged and what to do; done
// so, it takes over what lies there. Nothing is deleted that is desired.
func TestStoreDamaged(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-crash.seed=%d -store.damages=%d", seed, *storeDamages)
	var mu sync.Mutex
	ends := map[string]int{}
	t.Run("lives", func(t *testing.T) {
		for i := range *crashLives {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				l := newLife(t, rand.New(rand.NewPCG(seed, uint64(i))), nil)
				l.move(3)
				l.recover()
				for k := i; k < *storeDamages; k += *crashLives {
					end := l.damage(k)
					mu.Lock()
					ends[end]++
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("what became of %d daemons: %v", *storeDamages, ends)
	if ends[refusedStore] == 0 {
		t.Error("no damage was noticed")
	}
}

const refusedStore = "the next daemon said that the store is damaged"

// damage damages the store once and checks what daemons make of it.
func (l *life) damage(k int) (end string) {
	kind, running := damageKinds[k%len(damageKinds)], k/len(damageKinds)%2 == 1
	l.steps = []string{kind.name}
	declared := l.desired()
	lying := l.tree()
	if !running {
		l.ruin(kind.do)
	} else {
		l.steps = append(l.steps, "while a daemon runs")
		d := l.start(nil)
		ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
		l.must(l.converge(ctx))
		cancel()
		l.ruin(kind.do)
		l.fates++
		l.add(fmt.Sprintf("t%d", l.fates))
		lying = l.tree()
		l.commit()
		_, died := d.ends(l.t.Context(), straceLimit, l.converge)
		l.sane(d, died)
		d.kill()
		l.between(declared, lying)
	}
	d := l.start(nil)
	finished, died := d.ends(l.t.Context(), time.Minute, l.converge)
	l.sane(d, died)
	switch {
	case finished:
		l.check()
		d.kill()
		end = "the next daemon went on"
	case died:
		l.between(declared, lying)
		if !strings.Contains(d.said(), "damaged") || !strings.Contains(d.said(), "can be moved aside") {
			l.must(fmt.Errorf("the daemon ended without saying what is wrong and what to do:\n%s", d.said()))
		}
		db := l.path("state/gitopsd.db")
		l.must(os.Rename(db, db+".damaged"))
		end = refusedStore
	default:
		l.must(fmt.Errorf("the daemon neither ended nor came in step:\n%s", d.said()))
	}
	l.recover() // nothing was lost
	l.move(3)
	l.recover() // and what was taken over is owned: it is changed, moved and deleted
	return end
}

// ruin opens the store past everybody and damages it.
func (l *life) ruin(do func(*rand.Rand, *os.File, int64) error) {
	l.t.Helper()
	f, err := os.OpenFile(l.path("state/gitopsd.db"), os.O_RDWR, 0)
	l.must(err)
	defer f.Close()
	info, err := f.Stat()
	l.must(err)
	l.must(do(l.r, f, info.Size()))
}

// sane fails when a daemon ended by a panic or a signal.
func (l *life) sane(d *daemonProcess, died bool) {
	l.t.Helper()
	if !died {
		return
	}
	state := d.cmd.ProcessState
	if state.Sys().(syscall.WaitStatus).Signaled() || strings.Contains(d.said(), "\ngoroutine ") {
		l.must(fmt.Errorf("the daemon ended with %s:\n%s", state, d.said()))
	}
}
