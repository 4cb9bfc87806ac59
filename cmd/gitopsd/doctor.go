package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/config"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/sources"
)

// The words of a diagnosis.
const (
	checkOK   = "OK"
	checkWarn = "WARN"
	checkFail = "FAIL"
)

// doctor runs checks and prints one line for each.
type doctor struct {
	*cli
	failed bool
}

func (c *cli) doctorCommand() *cobra.Command {
	var configPath, stateDir string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check configuration, credentials, sources, state and socket",
		Long: "Check what a daemon with this configuration needs, one line for each: OK, WARN or FAIL, with what to do. Sources\n" +
			"are asked for their refs; only what policy sets are made of is fetched, into a temporary directory. The exit code is 1 when\n" +
			"anything fails.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			d := &doctor{cli: c}
			if configPath == "" {
				configPath = defaultConfig(c.getenv, os.Geteuid())
			}
			if stateDir == "" {
				stateDir = defaultStateDir(c.getenv, os.Geteuid())
			}
			d.config(cmd.Context(), configPath, timeout)
			d.state(stateDir)
			d.daemon(cmd.Context(), timeout)
			if d.failed {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&configPath, "config", "", "configuration file or directory (default: "+systemConfig+", or for a user ~/.config/gitopsd/gitopsd.yaml)")
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "state directory of the daemon (default: "+systemStateDir+", or for a user ~/.local/state/gitopsd)")
	cmd.Flags().DurationVar(&timeout, "timeout", 15*time.Second, "longest time to wait for one answer")
	return cmd
}

// say prints a line; a multi-line text goes on below, indented.
func (d *doctor) say(state, what, text, hint string) {
	d.failed = d.failed || state == checkFail
	col := map[string]color{checkOK: green, checkWarn: yellow, checkFail: red}[state]
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	fmt.Fprintf(d.out, "%s %s: %s\n", d.outPaint(col, fmt.Sprintf("%-4s", state)), safe(what), safe(lines[0]))
	for _, line := range lines[1:] {
		fmt.Fprintf(d.out, "     %s\n", safe(line))
	}
	if hint != "" {
		fmt.Fprintf(d.out, "     -> %s\n", safe(hint))
	}
}

// verdict says OK with text, or FAIL with the error.
func (d *doctor) verdict(what string, err error, text, hint string) bool {
	if err != nil {
		d.say(checkFail, what, err.Error(), hint)
		return false
	}
	d.say(checkOK, what, text, "")
	return true
}

func (d *doctor) config(ctx context.Context, path string, timeout time.Duration) {
	what := "configuration " + path
	cfg, err := config.LoadPath(path)
	if err != nil {
		d.say(checkFail, what, strings.TrimPrefix(err.Error(), "configuration: "), "a daemon would not start with it, and a running one keeps the one it has")
		return
	}
	d.say(checkOK, what, countConfig(cfg).String(), "")
	d.writable(what, path)
	answers := map[string]bool{}
	for _, s := range cfg.Sources {
		answers[s.Name] = d.credentials(ctx, s) && d.source(ctx, s, timeout)
	}
	for _, p := range cfg.PolicySets {
		if from := p.Spec.Source; from != nil && !answers[from.Name] {
			d.say(checkWarn, "policy set "+p.Name, "was not read: source "+from.Name+" does not answer", "mend the source first")
			continue
		}
		d.policySet(ctx, cfg, p)
	}
	for _, t := range cfg.Targets {
		d.target(t)
	}
}

// configCounts say what a configuration holds.
type configCounts struct {
	Sources      int `json:"sources"`
	PolicySets   int `json:"policySets"`
	Targets      int `json:"targets"`
	Applications int `json:"applications"`
}

func countConfig(cfg *config.Config) *configCounts {
	return &configCounts{len(cfg.Sources), len(cfg.PolicySets), len(cfg.Targets), len(cfg.Applications)}
}

func (n *configCounts) String() string {
	return strings.Join([]string{
		plural(n.Sources, "source"), plural(n.PolicySets, "policy set"), plural(n.Targets, "target"), plural(n.Applications, "application"),
	}, ", ")
}

// policySet reads and compiles a set as the daemon would. One of a source is
// fetched into a directory that is removed again.
func (d *doctor) policySet(ctx context.Context, cfg *config.Config, p config.PolicySet) {
	what := "policy set " + p.Name
	if p.Spec.Source == nil {
		_, err := loadPolicySet(ctx, p)
		d.policyVerdict(what, err, "compiles", "correct the PolicySet at "+p.Origin.String()+" or its files")
		return
	}
	from := p.Spec.Source
	files, revision, err := fetchPolicyFiles(ctx, cfg, from)
	if err != nil {
		d.policyVerdict(what, err, "", fmt.Sprintf("correct source %s, or the path of the PolicySet at %s", from.Name, p.Origin))
		return
	}
	_, err = compilePolicySet(ctx, p, files)
	d.policyVerdict(what, err, fmt.Sprintf("compiles, of source %s at %s", from.Name, short(revision)),
		fmt.Sprintf("correct its rules in source %s, of which this is %s", from.Name, short(revision)))
}

// policyVerdict is verdict for errors that name the set themselves.
func (d *doctor) policyVerdict(what string, err error, text, hint string) {
	if err != nil {
		err = errors.New(untitled(err, "policy "+strings.TrimPrefix(what, "policy set ")))
	}
	d.verdict(what, err, text, hint)
}

// target asks a target what it can say about itself without being written to.
func (d *doctor) target(t config.Target) {
	what := "target " + t.Name
	sealer, err := newSealer()
	var applier appliers.Applier
	if err == nil {
		applier, err = openTarget(t, sealer)
	}
	if err != nil {
		d.say(checkFail, what, untitled(err, what), "correct its section in the configuration")
		return
	}
	if checker, ok := appliers.Ability[interface{ Check() error }](applier); ok {
		if err := checker.Check(); err != nil {
			d.say(checkWarn, what, err.Error(), "until then its objects are neither changed nor pruned")
			return
		}
	}
	d.say(checkOK, what, "can be used", "")
}

// untitled is the text of err without the name that stands before it already.
func untitled(err error, names ...string) string {
	text := err.Error()
	for _, name := range names {
		text = strings.TrimPrefix(text, name+": ")
	}
	return text
}

// writable warns when others could change a file.
func (d *doctor) writable(what, path string) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o002 != 0 {
		d.say(checkWarn, what, fmt.Sprintf("everybody may write it (mode %04o)", info.Mode().Perm()), "chmod o-w "+path)
	}
}

// credentials tries to read every secret of a source.
func (d *doctor) credentials(ctx context.Context, s config.Source) bool {
	if s.Spec.Git == nil || s.Spec.Git.Auth == nil {
		return true
	}
	var refs []*config.SecretRef
	switch a := s.Spec.Git.Auth; {
	case a.Basic != nil:
		refs = append(refs, &a.Basic.PasswordFrom)
	case a.Bearer != nil:
		refs = append(refs, &a.Bearer.TokenFrom)
	case a.SSH != nil:
		refs = append(refs, a.SSH.KeyFrom, a.SSH.PassphraseFrom)
	}
	good := true
	for _, ref := range refs {
		if ref == nil {
			continue
		}
		_, err := secret(ref).Resolve(ctx)
		good = d.verdict("source "+s.Name+", secret", err, secretPlace(ref)+" can be read", "put the secret there, readable for the daemon's user only") && good
		if info, err := os.Stat(ref.File); ref.File != "" && err == nil && info.Mode().Perm()&0o077 != 0 {
			d.say(checkWarn, "source "+s.Name+", secret", fmt.Sprintf("%s is readable for others (mode %04o)", ref.File, info.Mode().Perm()), "chmod 600 "+ref.File)
		}
	}
	return good
}

// secretPlace names where a secret is, never the secret.
func secretPlace(r *config.SecretRef) string {
	switch {
	case r.Env != "":
		return "environment variable " + r.Env
	case r.File != "":
		return "file " + r.File
	default:
		return "credential " + r.Credential
	}
}

// source asks a source for its ref, and reports whether it answers. A mirror that opening may prepare is put
// into a directory that is removed again.
func (d *doctor) source(ctx context.Context, s config.Source, timeout time.Duration) bool {
	what := "source " + s.Name
	scratch, err := os.MkdirTemp("", "gitopsd-doctor-")
	if err != nil {
		d.say(checkFail, what, err.Error(), "")
		return false
	}
	defer os.RemoveAll(scratch)
	w := &wiring{stateDir: scratch, log: slog.New(slog.DiscardHandler), seam: effect.Direct}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	src, err := w.source(s).Open()
	if err != nil {
		d.say(checkFail, what, untitled(err, what), "correct the source's configuration")
		return false
	}
	_, revision, err := src.Resolve(ctx)
	err = errors.Join(err, src.Repository.Close())
	if err == nil && s.Spec.Git != nil && s.Spec.Git.Commit != "" {
		d.say(checkOK, what, "pinned to "+short(revision)+", nothing to ask for", "")
		return true
	}
	if err != nil {
		d.say(checkFail, what, untitled(err, what), sourceHint(s, err))
		return false
	}
	d.say(checkOK, what, "answers, at "+short(revision), "")
	return true
}

// sourceHint is what to look at when a source does not answer.
func sourceHint(s config.Source, err error) string {
	switch {
	case s.Spec.Dir != nil:
		return "make the directory, or correct spec.dir.path"
	case errors.Is(err, sources.ErrRefNotFound):
		return "correct spec.git, or push the branch or tag again"
	case strings.HasPrefix(s.Spec.Git.URL, "file:"):
		return "correct spec.git.url; it names the folder of a repository, with or without .git"
	default:
		return "check address, network, certificate and credentials"
	}
}

func (d *doctor) state(dir string) {
	what := "state directory " + dir
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.say(checkWarn, what, "does not exist yet", "gitopsd run makes it, if it may")
	case err != nil:
		d.say(checkFail, what, err.Error(), "name another with --state-dir")
	case !info.IsDir():
		d.say(checkFail, what, "is no directory", "name another with --state-dir")
	case info.Mode().Perm()&0o077 != 0:
		d.say(checkWarn, what, fmt.Sprintf("is open to others (mode %04o)", info.Mode().Perm()), "chmod 700 "+dir)
	case unix.Access(dir, unix.W_OK|unix.X_OK) != nil:
		d.say(checkWarn, what, "is not writable for this user", "run doctor as the user of the daemon")
	default:
		d.say(checkOK, what, "exists, for its owner only", "")
	}
}

func (d *doctor) daemon(ctx context.Context, timeout time.Duration) {
	what := "daemon on " + d.socketPath()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	info, err := ask(ctx, d.cli, (*api.Client).Info, &pb.InfoRequest{})
	if err != nil {
		code, message, hint := d.explain(err)
		state := checkFail
		if code == exitNoDaemon {
			state = checkWarn // it may not have been started yet
		}
		var dial *api.DialError
		if errors.As(err, &dial) { // its text names the socket again
			message = dial.Err.Error()
		}
		d.say(state, what, message, hint)
		return
	}
	d.say(checkOK, what, fmt.Sprintf("version %s, up %s, you are %s with role %s",
		info.Version, age(d.now().Sub(info.Started.AsTime())), info.Principal, info.Role), "")
	if info.Version != release() {
		d.say(checkWarn, what, fmt.Sprintf("is version %s and this command %s", info.Version, release()), "restart the daemon after an upgrade")
	}
	if info.ConfigError != "" {
		d.say(checkFail, what, "its newest configuration was refused and an older one runs:\n"+info.ConfigError, "correct it; it is read again by itself")
	}
	for _, s := range info.Sources {
		if s.Error != "" {
			d.say(checkFail, "source "+s.Name+" in the daemon", s.Error, "what runs stays as it is until the source answers")
		}
	}
	for _, p := range info.PolicySets {
		if p.Error != "" {
			d.say(checkFail, "policy set "+p.Name+" in the daemon", untitled(errors.New(p.Error), "policy set "+p.Name), "the policies loaded before judge on, and new revisions wait: mend it, or its source")
		}
	}
	for _, t := range info.Targets {
		if t.Error != "" || t.Breaker == "open" {
			d.say(checkFail, "target "+t.Name+" in the daemon", t.Breaker+" "+t.Error, "")
		}
	}
}
