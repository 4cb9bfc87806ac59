package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
)

// defaultPath is the PATH of commands that set none.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// maxOutput is how much of a command's output is kept for its error.
const maxOutput = 4 << 10

// pendingRun says that the command of a changed file has not succeeded yet. It is
// durable from before the change until after the command, so that a reload that
// failed, or that never came because the process was killed, is still to be done.
type pendingRun struct {
	Path    string `json:"path"`
	Command string `json:"command"`
	Gone    bool   `json:"gone,omitempty"` // the change was a removal
}

const pendingPrefix = "pending/"

func pendingKey(p string) string {
	sum := sha256.Sum256([]byte(p))
	return pendingPrefix + hex.EncodeToString(sum[:])
}

// pending returns the runs that are still to be made, by path.
func (a *Applier) pending(ctx context.Context) (map[string]pendingRun, error) {
	all, err := a.env.KV.List(ctx, pendingPrefix)
	if err != nil {
		return nil, fmt.Errorf("list pending commands: %w", err)
	}
	runs := make(map[string]pendingRun, len(all))
	for key, value := range all {
		var p pendingRun
		if err := json.Unmarshal(value, &p); err != nil {
			return nil, fmt.Errorf("pending command %s: %w", key, err)
		}
		runs[p.Path] = p
	}
	return runs, nil
}

// expect notes durably that the job's command will have to run.
func (r *run) expect(ctx context.Context, j *job) error {
	name := j.rec.OnChange
	if name == "" {
		return nil
	}
	if old, ok := r.pending[j.path]; ok && old.Command == name && old.Gone == j.deletes() {
		return nil
	}
	value, err := json.Marshal(pendingRun{j.path, name, j.deletes()})
	if err != nil {
		return err
	}
	if err := r.a.env.KV.Put(ctx, pendingKey(j.path), value); err != nil {
		return fmt.Errorf("note that %s has to run: %w", name, err)
	}
	_, before := r.pending[j.path]
	j.marked = !before
	r.pending[j.path] = pendingRun{j.path, name, j.deletes()}
	return nil
}

// unexpect takes back what expect noted, because nothing was changed.
func (r *run) unexpect(ctx context.Context, j *job) {
	if j.marked && r.a.env.KV.Put(context.WithoutCancel(ctx), pendingKey(j.path), nil) == nil {
		delete(r.pending, j.path)
	}
}

// reload runs each command that a change waits for, once for all of its files,
// and ends the jobs that are left.
func (r *run) reload(ctx context.Context) {
	waiting := map[string][]*job{}
	for _, j := range append(r.in(jobWritten), r.in(jobSame)...) {
		p, ok := r.pending[j.path]
		wanted := j.want != nil && j.want.onChange != "" || j.want == nil && p.Gone
		if !ok || !wanted {
			j.done()
			continue
		}
		name := p.Command
		if j.want != nil {
			name = j.want.onChange
		}
		waiting[name] = append(waiting[name], j)
	}
	for _, name := range slices.Sorted(maps.Keys(waiting)) {
		err := r.runFor(ctx, name, waiting[name])
		for _, j := range waiting[name] {
			if err != nil {
				done := "in place"
				if j.deletes() {
					done = "gone"
				}
				j.end(appliers.Result{Outcome: appliers.Uncertain, Err: fmt.Errorf("%s is %s, but its onChange has not succeeded and is tried again: %w", j.path, done, err)})
				continue
			}
			j.done()
		}
	}
}

func (r *run) runFor(ctx context.Context, name string, jobs []*job) error {
	cmd, ok := r.a.config.Commands[name]
	if !ok {
		r.a.env.Log.Warn("a file that is pruned names a command that the target does not have any more; it is not run", "command", name)
	} else {
		var secrets []manifest.Sensitive
		for _, j := range jobs {
			secrets = append(secrets, j.secret())
		}
		if err := r.a.run(ctx, name, cmd, "", secrets); err != nil {
			return err
		}
	}
	for _, j := range jobs {
		if err := r.a.env.KV.Put(context.WithoutCancel(ctx), pendingKey(j.path), nil); err != nil {
			return fmt.Errorf("it ran, but that cannot be noted: %w", err)
		}
	}
	return nil
}

// check runs a check command on new content that is not yet in place.
func (r *run) check(ctx context.Context, j *job, name, temp string) error {
	cmd, ok := r.a.config.Commands[name]
	if !ok {
		return appliers.WithClass(appliers.Stop, fmt.Errorf("the target has no command %q", name))
	}
	err := r.a.run(ctx, name, cmd, temp, []manifest.Sensitive{j.secret()})
	if err == nil || ctx.Err() != nil {
		return err
	}
	return appliers.WithClass(appliers.Stop, fmt.Errorf("the new content does not pass check %s, the old stays; correct the content, or the check: %w", name, err))
}

// run runs a command without a shell, in a process group of its own, with the
// environment that the configuration gives it. Its output is kept for the error
// alone, cut to maxOutput and without anything that also stands in a secret.
func (a *Applier) run(ctx context.Context, name string, c command, file string, secrets []manifest.Sensitive) error {
	return a.env.Effect(effect.CommandRun, name, func() error {
		a.count(func(s *Stats) { s.CommandsRun++ })
		limited, cancel := context.WithTimeout(ctx, c.limit)
		defer cancel()
		out := &bounded{}
		cmd := build(limited, c, file)
		cmd.Stdout, cmd.Stderr = out, out
		err := cmd.Run()
		switch {
		case err == nil || errors.Is(err, exec.ErrWaitDelay): // a daemon it started may hold the output open
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("command %s was stopped: %w", name, ctx.Err())
		case limited.Err() != nil:
			return fmt.Errorf("command %s was killed after its timeout of %s%s", name, c.limit, out.tail(secrets))
		}
		return fmt.Errorf("command %s failed: %w%s", name, err, out.tail(secrets))
	})
}

func build(ctx context.Context, c command, file string) *exec.Cmd {
	args := make([]string, len(c.Run))
	for i, arg := range c.Run {
		args[i] = strings.ReplaceAll(arg, "{file}", file)
	}
	env := append([]string{defaultPath}, c.Env...)
	cmd := exec.CommandContext(ctx, lookup(args[0], env), args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Env, cmd.Dir = env, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// lookup finds a program by the PATH that it will run with, not by the daemon's.
func lookup(program string, env []string) string {
	if strings.Contains(program, "/") {
		return program
	}
	dirs := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			dirs = v
		}
	}
	for _, dir := range filepath.SplitList(dirs) {
		full := filepath.Join(dir, program)
		if st, err := os.Stat(full); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return full
		}
	}
	return filepath.Join("/", "nonexistent", program) // fails with an error that names the program
}

// bounded keeps the first bytes that are written to it and swallows the rest.
type bounded struct {
	b   bytes.Buffer
	cut bool
}

func (o *bounded) Write(p []byte) (int, error) {
	room := maxOutput - o.b.Len()
	o.cut = o.cut || len(p) > room
	o.b.Write(p[:min(len(p), room)])
	return len(p), nil
}

// tail returns the output as the end of an error message.
func (o *bounded) tail(secrets []manifest.Sensitive) string {
	words := strings.Fields(strings.ToValidUTF8(o.b.String(), "?"))
	if o.cut && len(words) > 0 {
		words[len(words)-1] = "..." // the last word may be cut in the middle
	}
	for i, w := range words {
		for _, s := range secrets {
			if leaks(w, s.Reveal()) {
				words[i] = manifest.Mask
			}
		}
	}
	if len(words) == 0 {
		return "; it printed nothing: run it by hand to see why"
	}
	return ": " + strings.Join(words, " ")
}

// leaks reports whether a word of output tells something of a secret: any four
// letters in a row of it, or the whole word when it is shorter.
func leaks(word, secret string) bool {
	if secret == "" {
		return false
	}
	if len(word) < 4 {
		return strings.Contains(secret, word)
	}
	for i := 0; i+4 <= len(word); i++ {
		if strings.Contains(secret, word[i:i+4]) {
			return true
		}
	}
	return len(secret) < 4 && strings.Contains(word, strings.TrimSpace(secret))
}
