package git

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/sources"
)

// A fetch reads what a stranger wrote: a process of its own takes the damage.
// The daemon sends it a job on its standard input, secrets included, so that
// they are in no argument and no environment, and reads a report from its
// standard output. The process works on the mirror itself, under its lock, and
// what it leaves there is verified by hash before it is used.

// job is what a fetching process has to do.
type job struct {
	URL        string
	Dir        string
	Auth       jobAuth
	CA         *relayed
	KnownHosts []string
	Proxy      jobProxy
	Limits     Limits
	Compact    int
	Damaged    bool // the mirror is to be made anew
	Ref        string
	Revision   string
}

type jobAuth struct {
	Username, SSHAgent    string
	Password, Token       *relayed
	ClientCert, ClientKey *relayed
	SSHKey, SSHPassphrase *relayed
}

type jobProxy struct {
	URL, Username string
	Password      *relayed
}

// relayed is a secret that the daemon has read; it keeps the name of its place,
// which is a part of the mirror's identity.
type relayed struct{ Name, Value string }

func (r *relayed) String() string                          { return r.Name }
func (r *relayed) Resolve(context.Context) (string, error) { return r.Value, nil }

// Format keeps every verb from printing the value.
func (r *relayed) Format(s fmt.State, _ rune) { io.WriteString(s, r.Name) }

// report is what became of a job.
type report struct {
	Error string // "" for success
	Class int    // of Error: 1 + index in classes, 0 for none of them
	Stats Stats  // of the process
}

// classes are the errors that are told apart by those who call Fetch.
var classes = []error{
	sources.ErrUnavailable, sources.ErrRefNotFound, sources.ErrUnauthorized, sources.ErrUntrusted,
	sources.ErrHistoryRewritten, sources.ErrRefused, sources.ErrDamaged, ErrInvalid,
}

// reported is an error that another process met.
type reported struct {
	text  string
	class error
}

func (e *reported) Error() string { return e.text }
func (e *reported) Unwrap() error { return e.class }

const (
	maxReport = 1 << 20  // bytes of a report
	maxSaid   = 64 << 10 // bytes kept of what the process says when it fails
)

// fetchInChild has a process fetch a revision into the mirror.
func (r *Repository) fetchInChild(ctx context.Context, ref string, hash plumbing.Hash) error {
	input, err := r.job(ctx, ref, hash)
	if err != nil {
		return err
	}
	out, err := r.runChild(ctx, input)
	if err != nil {
		return err
	}
	r.count(func(s *Stats) {
		s.BytesFetched += out.Stats.BytesFetched
		s.Compactions += out.Stats.Compactions
		s.Reclones += out.Stats.Reclones
	})
	if err := r.mirror.store.reload(); err != nil {
		return err
	}
	if out.Stats.Reclones > 0 {
		r.closure.forget()
		r.trees.forget()
		r.mu.Lock()
		r.damaged = false
		r.mu.Unlock()
	}
	if out.Error != "" {
		e := &reported{text: out.Error}
		if i := out.Class - 1; i >= 0 && i < len(classes) {
			e.class = classes[i]
		}
		return e
	}
	if err := r.closure.verify(ctx, r.mirror.store, hash); err != nil {
		return r.noteDamage(unreachable(err))
	}
	return nil
}

// job reads the secrets and writes down what is to be done.
func (r *Repository) job(ctx context.Context, ref string, hash plumbing.Hash) ([]byte, error) {
	o, a := r.options, r.options.Auth
	r.mu.Lock()
	j := job{
		URL: o.URL, Dir: o.Dir, KnownHosts: o.KnownHosts, Limits: o.Limits, Compact: o.CompactPacks, Damaged: r.damaged,
		Auth: jobAuth{Username: a.Username, SSHAgent: a.SSHAgent}, Proxy: jobProxy{URL: o.Proxy.URL, Username: o.Proxy.Username},
		Ref: ref, Revision: hash.String(),
	}
	r.mu.Unlock()
	for _, s := range []struct {
		user string
		from Resolver
		to   **relayed
	}{
		{a.Username, a.Password, &j.Auth.Password}, {"", a.Token, &j.Auth.Token},
		{"", a.ClientCert, &j.Auth.ClientCert}, {"", a.ClientKey, &j.Auth.ClientKey},
		{"", a.SSHKey, &j.Auth.SSHKey}, {"", a.SSHPassphrase, &j.Auth.SSHPassphrase},
		{o.Proxy.Username, o.Proxy.Password, &j.Proxy.Password}, {"", o.CA, &j.CA},
	} {
		if s.from == nil {
			continue
		}
		value, err := s.from.Resolve(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: credential %s: %w", sources.ErrUnauthorized, s.from, err)
		}
		if s.from != o.CA && s.from != a.ClientCert { // these are public
			r.mask.add(s.user, value)
		}
		*s.to = &relayed{Name: s.from.String(), Value: value}
	}
	return json.Marshal(j)
}

// childEnvironment are the variables that a fetch may depend on.
var childEnvironment = []string{
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "SSH_AUTH_SOCK",
}

// runChild runs one process to its end. It is killed with ctx, and dies with the
// daemon.
func (r *Repository) runChild(ctx context.Context, input []byte) (out report, err error) {
	// The kernel sends the signal of a parent's death when the thread ends that
	// started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := r.options.Child
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Args[0] = "gitopsd" // what a list of processes shows, whatever file is run
	cmd.Dir = "/"
	cmd.Env = []string{} // nil would be all of ours
	for _, name := range childEnvironment {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdin = bytes.NewReader(input)
	stdout, stderr := &capped{limit: maxReport}, &capped{limit: maxSaid}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	failed := cmd.Run()
	if err := ctx.Err(); err != nil {
		return out, ended(ctx, fmt.Errorf("%w: the fetch was ended: %w", sources.ErrUnavailable, err))
	}
	if failed == nil {
		if err := json.Unmarshal(stdout.Bytes(), &out); err == nil {
			return out, nil
		}
		failed = errors.New("its report cannot be read")
	}
	first, _, _ := strings.Cut(stderr.String(), "\n")
	if outOfMemory(cmd.ProcessState, first) {
		return out, fmt.Errorf("%w: fetching needs more than %d MiB of memory (raise git.limits.memoryMiB if the repository is as large as it should be): %s",
			sources.ErrRefused, r.options.Limits.MemoryBytes/mib, serverText(first))
	}
	return out, fmt.Errorf("%w: the fetching process failed: %w: %s", sources.ErrUnavailable, failed, serverText(first))
}

// outOfMemory reports whether a process ended because it got no more memory. The
// Go runtime says so, or, where it does not check, follows a nil pointer of its
// own; what goes wrong in Go code is a panic.
func outOfMemory(ended *os.ProcessState, first string) bool {
	return ended != nil && ended.ExitCode() == 2 &&
		(strings.HasPrefix(first, "fatal error: ") || strings.HasPrefix(first, "SIGSEGV: ") || strings.HasPrefix(first, "runtime: "))
}

// capped keeps the first bytes of what is written to it.
type capped struct {
	bytes.Buffer
	limit int
}

func (c *capped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), c.limit-c.Len())])
	return len(p), nil
}

// ServeFetch is the main function of a fetching process (Options.Child): it
// reads one job from in, does it, and writes the report to out. It lowers limits
// of the whole process. The result is the exit code.
func ServeFetch(ctx context.Context, in io.Reader, out io.Writer) int {
	var j job
	if err := json.NewDecoder(in).Decode(&j); err != nil {
		fmt.Fprintln(os.Stderr, "no job:", err)
		return 2
	}
	if err := confine(j.Limits); err != nil {
		fmt.Fprintln(os.Stderr, "limits:", err)
		return 2
	}
	result := j.run(ctx)
	if err := json.NewEncoder(out).Encode(result); err != nil {
		return 2
	}
	return 0
}

// confine bounds what this process may take. Of the memory only data counts:
// the Go runtime reserves far more address space than it uses.
func confine(l Limits) error {
	debug.SetMemoryLimit(l.MemoryBytes / 4 * 3)
	for resource, limit := range map[int]uint64{unix.RLIMIT_DATA: uint64(l.MemoryBytes), unix.RLIMIT_CORE: 0} {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
			return err
		}
	}
	return nil
}

func (j job) run(ctx context.Context) report {
	o := Options{
		URL: j.URL, Dir: j.Dir, KnownHosts: j.KnownHosts, Limits: j.Limits, CompactPacks: j.Compact,
		CA:    resolver(j.CA),
		Proxy: Proxy{URL: j.Proxy.URL, Username: j.Proxy.Username, Password: resolver(j.Proxy.Password)},
		Auth: Auth{
			Username: j.Auth.Username, Password: resolver(j.Auth.Password), Token: resolver(j.Auth.Token),
			ClientCert: resolver(j.Auth.ClientCert), ClientKey: resolver(j.Auth.ClientKey),
			SSHKey: resolver(j.Auth.SSHKey), SSHPassphrase: resolver(j.Auth.SSHPassphrase), SSHAgent: j.Auth.SSHAgent,
		},
	}
	r, err := Open(o)
	if err == nil {
		r.damaged = j.Damaged
		err = r.mask.err(r.fetch(ctx, j.Ref, j.Revision)) // the daemon adds which repository it was
		err = errors.Join(err, r.Close())
	}
	if err == nil {
		return report{Stats: r.Stats()}
	}
	out := report{Error: err.Error(), Class: 1 + slices.IndexFunc(classes, func(class error) bool { return errors.Is(err, class) })}
	if r != nil {
		out.Stats = r.Stats()
	}
	return out
}

// resolver keeps a missing secret from becoming one that is there and empty.
func resolver(r *relayed) Resolver {
	if r == nil {
		return nil
	}
	return r
}
