package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gitopsd": main})
}

// TestStories plays testdata/*.txtar: the whole program against real Git
// repositories and real files. Each story starts in its own folder with
//
//	host/     what stands for the host
//	fleet     a working clone of fleet.git, whose branch main is followed
//	etc/      the daemon's configuration, from the story
//
// and these commands besides those of testscript:
//
//	eventually CMD...  run a program again until it succeeds, for 30 s at most
//	never CMD...       run a program again and again for 1 s; it must not succeed once
//	push MESSAGE       commit all of fleet and push it
//	http STATUS LOG PATH  get PATH from the metrics address that the daemon of LOG (JSON) names until
//	                   the status is STATUS; the body is left in the file body
//
// A daemon is started by: exec gitopsd run $CONFIG $STATE $METRICS &daemon&
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "../../testdata", RequireUniqueNames: true, RequireExplicitExec: true,
		Setup: setUpStory,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"eventually": eventually, "never": never, "push": push, "http": httpGet,
		},
	})
}

func setUpStory(env *testscript.Env) error {
	home := env.WorkDir
	docs, err := filepath.Abs("../../docs")
	if err != nil {
		return err
	}
	for key, value := range map[string]string{
		"HOME": home, "GITOPSD_SOCKET": filepath.Join(home, "s"),
		"GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "Ada Admin", "GIT_AUTHOR_EMAIL": "ada@example.org",
		"GIT_COMMITTER_NAME": "Ada Admin", "GIT_COMMITTER_EMAIL": "ada@example.org", "NO_COLOR": "1",
		"CONFIG": "--config=" + filepath.Join(home, "etc"), "STATE": "--state-dir=" + filepath.Join(home, "state"),
		"METRICS": "--metrics-address=", "TZ": "UTC", "DOCS": docs,
		"SELF": strconv.Itoa(os.Getuid()),
	} {
		env.Setenv(key, value)
	}
	run := func(args ...string) error {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = home, env.Vars
		return cmd.Run()
	}
	// A story brings the first files of fleet; they are committed here.
	for _, dir := range []string{"host/etc", "fleet"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "-q", "--bare", "-b", "main", "fleet.git"}, {"init", "-q", "-b", "main", "fleet"},
		{"-C", "fleet", "remote", "add", "origin", filepath.Join(home, "fleet.git")},
		{"-C", "fleet", "add", "-A"}, {"-C", "fleet", "commit", "-q", "--allow-empty", "-m", "first"},
		{"-C", "fleet", "push", "-q", "origin", "main"},
	} {
		if err := run(args...); err != nil {
			return err
		}
	}
	return expandConfig(home)
}

// expandConfig puts the folder of the story in place of $WORK in its configuration.
func expandConfig(home string) error {
	files, err := filepath.Glob(filepath.Join(home, "etc", "*.yaml"))
	if err != nil {
		return err
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		text := os.Expand(string(data), func(name string) string {
			if name == "WORK" {
				return home
			}
			return "$" + name
		})
		if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

const (
	storyPatience = 30 * time.Second
	storyPause    = 50 * time.Millisecond
	storyNever    = time.Second
)

// eventually waits for a program to succeed. The pause between two tries only
// bounds the load; what is waited for is the condition.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	end := time.Now().Add(storyPatience)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("after %s %v still fails: %v", storyPatience, args, err)
		}
		pause(storyPause)
	}
}

func never(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(storyNever); time.Now().Before(end); pause(storyPause) {
		if err := ts.Exec(args[0], args[1:]...); err == nil {
			ts.Fatalf("%v succeeded, and must not", args)
		}
	}
}

func pause(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	<-ctx.Done()
}

func push(ts *testscript.TestScript, _ bool, args []string) {
	for _, git := range [][]string{
		{"add", "-A"}, {"commit", "-q", "--allow-empty", "-m", args[0]}, {"push", "-q", "origin", "main"},
	} {
		ts.Check(ts.Exec("git", append([]string{"-C", ts.MkAbs("fleet")}, git...)...))
	}
}

func httpGet(ts *testscript.TestScript, _ bool, args []string) {
	var last string
	for end := time.Now().Add(storyPatience); time.Now().Before(end); pause(storyPause) {
		status, body, err := fetchFrom(ts.MkAbs(args[1]), args[2])
		if err == nil && fmt.Sprint(status) == args[0] {
			ts.Check(os.WriteFile(ts.MkAbs("body"), body, 0o644))
			return
		}
		last = fmt.Sprintf("%d %s %v", status, body, err)
	}
	ts.Fatalf("%v: the last answer was %s", args, last)
}

// fetchFrom finds the address in the daemon's log and gets a path from it.
func fetchFrom(log, path string) (status int, body []byte, err error) {
	lines, err := os.ReadFile(log)
	if err != nil {
		return 0, nil, err
	}
	for line := range bytes.Lines(lines) {
		var record struct{ Msg, Metrics string }
		if err := json.Unmarshal(line, &record); err != nil {
			return 0, nil, fmt.Errorf("%s: %q: %w", log, line, err)
		}
		if record.Msg != "gitopsd started" {
			continue
		}
		res, err := http.Get("http://" + record.Metrics + path)
		if err != nil {
			return 0, nil, err
		}
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, body, errors.Join(err, res.Body.Close())
	}
	return 0, nil, errors.New("the daemon has not said where its metrics are")
}
