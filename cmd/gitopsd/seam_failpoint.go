//go:build failpoint

package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/internal/effect"
)

// Environment of a build with failpoints.
const (
	// failpointEnv says where this process ends: NAME:N:WHEN, with the name of an
	// effect or * for any, the how manieth of that name (from 1), and before or
	// after it. "error" instead of them lets the effect fail with EIO unrun, and
	// "panic" has it panic.
	failpointEnv = "GITOPSD_FAILPOINT"
	// journalEnv names a file to which every effect's name is appended before it runs.
	journalEnv = "GITOPSD_EFFECT_JOURNAL"
)

// failpoint is one place at which the world ends for this process.
type failpoint struct {
	name effect.Name // "" is any
	at   int         // counts down; the effect at which it reaches 0
	when string
}

// newSeam returns a seam that keeps a journal and ends the process with SIGKILL
// where the environment says.
func newSeam() (effect.Seam, error) {
	point, err := parseFailpoint(os.Getenv(failpointEnv))
	if err != nil {
		return nil, err
	}
	var journal *os.File
	if path := os.Getenv(journalEnv); path != "" {
		if journal, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return nil, err
		}
	}
	var mu sync.Mutex
	hit := func(name effect.Name) bool {
		mu.Lock()
		defer mu.Unlock()
		if journal != nil {
			_, _ = fmt.Fprintln(journal, name)
		}
		if point.at == 0 || point.name != "" && point.name != name {
			return false
		}
		point.at--
		return point.at == 0
	}
	return func(name effect.Name, key string, do func() error) error {
		if !hit(name) {
			return do()
		}
		switch point.when {
		case "before":
			die()
		case "error":
			return fmt.Errorf("%s %s: failpoint: %w", name, key, unix.EIO)
		case "panic":
			panic(fmt.Sprintf("%s %s: failpoint", name, key))
		}
		_ = do() // nobody is left to hear of it
		die()
		return nil
	}, nil
}

// die ends the process as the kernel would: no deferred call runs.
func die() {
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {}
}

func parseFailpoint(text string) (failpoint, error) {
	if text == "" {
		return failpoint{}, nil
	}
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return failpoint{}, fmt.Errorf("%s=%q: want NAME:N:before, after, error or panic", failpointEnv, text)
	}
	p := failpoint{name: effect.Name(parts[0]), when: parts[2]}
	if p.name == "*" {
		p.name = ""
	}
	var err error
	if p.at, err = strconv.Atoi(parts[1]); err != nil || p.at < 1 {
		return failpoint{}, fmt.Errorf("%s=%q: %q is no count", failpointEnv, text, parts[1])
	}
	return p, nil
}
