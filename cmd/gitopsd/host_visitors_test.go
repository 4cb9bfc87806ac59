//go:build failpoint && host

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// faultList collects what visitors and observer saw, without end of the test:
// they are goroutines of their own.
type faultList struct {
	mu    sync.Mutex
	first []string
	n     int
}

func (f *faultList) add(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n++; len(f.first) < 10 {
		f.first = append(f.first, fmt.Sprintf(format, args...))
	}
}

const (
	visitors  = 4
	askEvery  = 16 * time.Millisecond // each visitor: 250 requests a second in all
	leastRate = 200
	lookEvery = 20 * time.Millisecond
	pageCount = 38 // with the two files of nginx's configuration: 40; nobody visits the last page
)

func (s *site) startNginx() {
	s.t.Helper()
	s.nginx = exec.Command("nginx", "-c", s.host("/etc/nginx/nginx.conf"), "-g", "daemon off;")
	s.nginx.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	s.must(s.nginx.Start())
	end := time.Now().Add(10 * time.Second)
	for {
		err := s.ask(http.DefaultClient, 0)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			s.must(fmt.Errorf("nginx: %w", err))
		}
		pause(10 * time.Millisecond)
	}
	s.birth = s.nginxBirth()
}

// nginxBirth is the process and start time of nginx's master.
func (s *site) nginxBirth() string {
	pid, err := os.ReadFile(s.path("nginx.pid"))
	if err != nil {
		return err.Error()
	}
	stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
	if err != nil {
		return err.Error()
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):])) // from the state, field 3, on
	return fmt.Sprintf("process %s, started at tick %s", strings.TrimSpace(string(pid)), fields[22-2])
}

// allowed is what may lie at a path now.
func (s *site) allowed(p string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.may[p]
}

// ask gets a page as a visitor does.
func (s *site) ask(client *http.Client, i int) error {
	p := page(i)
	before := s.allowed(p)
	res, err := client.Get("http://" + s.address + "/" + filepath.Base(p))
	if err != nil {
		return err
	}
	body, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d", p, res.StatusCode)
	}
	if err == nil && !slices.Contains(before, string(body)) && !slices.Contains(s.allowed(p), string(body)) {
		err = fmt.Errorf("%s: %q is neither the old nor the new page", p, body)
	}
	return err
}

// look compares all files and nginx with what may be.
func (s *site) look() {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for p, may := range s.may {
		have := gone
		if b, err := os.ReadFile(s.host(p)); err == nil {
			have = string(b)
		} else if !errors.Is(err, fs.ErrNotExist) {
			have = err.Error()
		}
		if !slices.Contains(may, have) {
			s.faults.add("%s is %.60q, may be %.60q", p, have, may)
		}
	}
	if s.birth != "" {
		if now := s.nginxBirth(); now != s.birth {
			s.faults.add("nginx is %s, was %s", now, s.birth)
		}
	}
	s.samples.Add(1)
}

// observe starts visitors and observer, who are judged at the end.
func (s *site) observe() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	began := time.Now()
	for v := range visitors {
		// One visitor keeps its connection, the others come anew each time.
		client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: v > 0}}
		done.Go(func() {
			defer client.CloseIdleConnections()
			every(ctx, askEvery, func() {
				if err := s.ask(client, rand.IntN(pageCount-1)); err != nil {
					s.faults.add("visitor %d: %v", v, err)
				}
				s.probes.Add(1)
			})
		})
	}
	done.Go(func() { every(ctx, lookEvery, s.look) })
	s.judge = func() {
		cancel()
		done.Wait()
		rate := float64(s.probes.Load()) / time.Since(began).Seconds()
		s.t.Logf("%d requests, %.0f a second; %d looks; %d faults", s.probes.Load(), rate, s.samples.Load(), s.faults.n)
		if s.faults.n > 0 {
			s.t.Errorf("%d times something was amiss, first:\n%s\n%s", s.faults.n, strings.Join(s.faults.first, "\n"), s.daemon.said())
		}
		if rate < leastRate {
			s.t.Errorf("only %.0f requests a second: this proves too little", rate)
		}
	}
}

// every does work in a fixed rhythm until ctx ends. What comes late on a busy
// machine is made up for, also then.
func every(ctx context.Context, rhythm time.Duration, work func()) {
	for next := time.Now(); ; next = next.Add(rhythm) {
		timer := time.NewTimer(time.Until(next))
		select {
		case <-timer.C:
			work()
		case <-ctx.Done():
			timer.Stop()
			if time.Now().Before(next) {
				return
			}
			work()
		}
	}
}
