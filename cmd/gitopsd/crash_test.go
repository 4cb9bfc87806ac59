//go:build failpoint

package main

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	apiv1 "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/gittest"
)

var (
	crashKills = flag.Int("crash.kills", 60, "how many times TestCrash kills the daemon")
	crashSeed  = flag.Uint64("crash.seed", 0, "seed of TestCrash; 0 takes one from the clock and prints it")
	crashLives = flag.Int("crash.lives", 2, "how many hosts TestCrash keeps, side by side (see also -parallel)")
)

// hostEffects are the effects that a daemon with a Git source and a file target
// has. TestCrash fails if it has not died at each of them, before and after.
var hostEffects = []effect.Name{
	effect.StoreCommit, effect.FileWrite, effect.FileChmod, effect.FileRename, effect.FileRemove, effect.FileMkdir,
	effect.FileSymlink, effect.FileSyncDir, effect.FileBackup, effect.FileLedger, effect.CommandRun,
	effect.MirrorFetch, effect.MirrorKeep,
}

// TestCrash kills the real daemon (D-49): before and after every named effect and
// at random moments, while a repository moves and hands touch the host. After
// each kill the next start must bring the host to what Git says, with nothing
// else touched, an inventory that is what lies there, and a whole audit log.
func TestCrash(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-crash.seed=%d -crash.kills=%d -crash.lives=%d", seed, *crashKills, *crashLives)
	deaths := &deaths{count: map[string]int{}}
	t.Run("lives", func(t *testing.T) {
		for i := range *crashLives {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				l := newLife(t, rand.New(rand.NewPCG(seed, uint64(i))), deaths)
				for deaths.total() < *crashKills {
					l.die()
				}
			})
		}
	})
	t.Logf("%d deaths: %v", deaths.total(), deaths.count)
	if *crashKills < 100*len(hostEffects)/3 {
		return // too few to meet every place
	}
	for _, name := range hostEffects {
		for _, when := range []string{"before", "after"} {
			if at := string(name) + " " + when; deaths.count[at] == 0 {
				t.Errorf("the daemon never died %s", at)
			}
		}
	}
}

// deaths counts where the daemon ended, over all lives.
type deaths struct {
	mu    sync.Mutex
	count map[string]int
}

func (d *deaths) add(where string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count[where]++
}

// total counts the ends in the middle of work.
func (d *deaths) total() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for where, c := range d.count {
		if where != idle {
			n += c
		}
	}
	return n
}

// rarest returns the place of death met least, and ties at random.
func (d *deaths) rarest(r *rand.Rand) (effect.Name, string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var best []string
	least := -1
	for _, name := range hostEffects {
		for _, when := range []string{"before", "after"} {
			at := string(name) + " " + when
			switch n := d.count[at]; {
			case least < 0 || n < least:
				least, best = n, []string{at}
			case n == least:
				best = append(best, at)
			}
		}
	}
	name, when, _ := strings.Cut(best[r.IntN(len(best))], " ")
	return effect.Name(name), when
}

// thing is one declared object of the model.
type thing struct {
	app, kind, path, content, mode, hook string
	file                                 int // the manifest that holds it
}

// life is one host with its repository, over many daemons.
type life struct {
	t      *testing.T
	r      *rand.Rand
	deaths *deaths
	dir    string
	repo   *gittest.Repo
	things map[string]thing // desired, by name
	fresh  map[string]bool  // names that no commit has had yet
	fates  int
	steps  []string // what happened since the last check, for the failure
	canary map[string]string
	daemon *daemonProcess
}

const crashConfig = `
apiVersion: gitopsd.io/v1alpha1
kind: Source
metadata: {name: fleet}
spec:
  git: {url: "file://REPO", branch: main, interval: 1s}
---
apiVersion: gitopsd.io/v1alpha1
kind: Target
metadata: {name: host}
spec:
  file:
    prefix: DIR/host
    roots: [/etc, /srv]
    commands:
      syntax: {run: [grep, -q, content, "{file}"]}
      reload: {run: ["true"]}
`

const crashApplication = `---
apiVersion: gitopsd.io/v1alpha1
kind: Application
metadata: {name: APP}
spec:
  source: fleet
  path: APP
  targets: [{name: host}]
  adopt: always
  prune: {maxCount: -1, maxPercent: -1}
  contention: {threshold: 1000}
  retry: {max: 1s}
`

var crashApps = []string{"alpha", "beta"}

func newLife(t *testing.T, r *rand.Rand, d *deaths) *life {
	dir, err := os.MkdirTemp("", "crash") // short, for the socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l := &life{t: t, r: r, deaths: d, dir: dir, repo: gittest.NewRepo(t), things: map[string]thing{}, fresh: map[string]bool{}, canary: map[string]string{}}
	config := crashConfig
	for _, app := range crashApps {
		config += strings.ReplaceAll(crashApplication, "APP", app)
		// An application is never empty: that would be held, rightly.
		l.things[app+"-keeper"] = thing{app: app, kind: "File", path: "/etc/" + app, content: "content", mode: "0644"}
	}
	l.must(os.MkdirAll(l.host("/etc"), 0o755))
	l.must(os.MkdirAll(l.host("/srv"), 0o755))
	l.must(os.MkdirAll(l.host("/outside"), 0o755))
	l.write("gitopsd.yaml", strings.NewReplacer("REPO", l.repo.Dir, "DIR", dir).Replace(config))
	for _, p := range []string{"/etc/stranger", "/srv/stranger", "/outside/etc"} {
		l.must(os.WriteFile(l.host(p), []byte("not ours"), 0o640))
		l.canary[p] = l.identity(p)
	}
	return l
}

func (l *life) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatalf("%v\nsteps: %s", err, strings.Join(l.steps, "\n       "))
	}
}

func (l *life) host(p string) string { return filepath.Join(l.dir, "host", p) }

func (l *life) path(name string) string { return filepath.Join(l.dir, name) }

func (l *life) write(name, content string) {
	l.must(os.WriteFile(l.path(name), []byte(content), 0o644))
}

// identity is what changes when somebody writes a file or replaces it.
func (l *life) identity(p string) string {
	info, err := os.Lstat(l.host(p))
	l.must(err)
	stat := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("inode %d, changed %d.%d, mode %o", stat.Ino, stat.Ctim.Sec, stat.Ctim.Nsec, stat.Mode)
}

// die lets the repository and the host move, ends a daemon in the middle of it,
// and checks what the next one makes of it.
func (l *life) die() {
	declared, lying := l.move(1 + l.r.IntN(4))
	point, where, limit := l.fate()
	l.steps = append(l.steps, "failpoint "+point)
	d := l.start([]string{failpointEnv + "=" + point})
	finished, died := d.ends(l.t.Context(), limit, l.converge)
	switch {
	case died: // where it was meant to
	case finished: // the place is passed less often; it ends when all is done
		where = idle
	default:
		where = "at random"
	}
	d.kill()
	l.deaths.add(where)

	l.steps = append(l.steps, "died "+where)
	l.between(declared, lying)
	l.recover()
}

// recover starts the next daemon, undisturbed, and checks what it makes of what
// the last one left.
func (l *life) recover() {
	l.t.Helper()
	d := l.start(nil)
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	if err := l.converge(ctx); err != nil {
		l.must(fmt.Errorf("the next daemon does not converge: %w\n%s", err, d.said()))
	}
	l.check()
	if err := verifyAudit(ctx, l.dir); err != nil {
		l.must(err)
	}
	d.kill()
}

// move lets the repository, by some edits, and the host move. It returns what the host may show
// besides the new revision until it has that: how it was declared before, which
// drift is healed to, and how it lies there.
func (l *life) move(edits int) (declared, lying map[string]string) {
	l.steps = nil
	declared = l.desired()
	for range edits {
		l.edit()
	}
	l.commit()
	for range l.r.IntN(3) {
		l.touch()
	}
	return declared, l.tree()
}

// idle is an end after all work was done, which counts for less.
const idle = "idle"

// fate draws where the next daemon ends: at a named effect, which is waited for,
// or after a time.
func (l *life) fate() (point, where string, limit time.Duration) {
	name, when := hostEffects[l.r.IntN(len(hostEffects))], []string{"before", "after"}[l.r.IntN(2)]
	switch l.r.IntN(8) {
	case 0, 1:
		return "", "at random", time.Duration(l.r.IntN(300)) * time.Millisecond
	case 2, 3:
		name, when = l.deaths.rarest(l.r)
	}
	nth := 1
	for nth < 20 && l.r.IntN(3) == 0 {
		nth += 1 + l.r.IntN(3)
	}
	return fmt.Sprintf("%s:%d:%s", name, nth, when), string(name) + " " + when, time.Minute
}

// start starts a daemon, with more in its environment and, if they are given,
// under the program and arguments of a wrapper.
func (l *life) start(env []string, wrapper ...string) *daemonProcess {
	p, err := launch(l.dir, env, wrapper...)
	l.must(err)
	l.daemon = p
	return p
}

// converge asks for a round and waits until both applications are in step with
// the branch.
func (l *life) converge(ctx context.Context) error {
	head := l.repo.Ref("refs/heads/main")
	return watchStatus(ctx, l.dir, true, func(apps []*apiv1.ApplicationStatus) error { return l.settled(apps, head) })
}

// settled says what is missing until everything is as head wants it.
func (l *life) settled(apps []*apiv1.ApplicationStatus, head string) error {
	if len(apps) != len(crashApps) {
		return fmt.Errorf("%d applications", len(apps))
	}
	for _, a := range apps {
		want := 0
		for _, x := range l.things {
			if x.app == a.GetApplication() {
				want++
			}
		}
		o := a.GetObjects()
		if a.GetSync() != "Synced" || a.GetRevision() != head || len(a.GetFailures()) > 0 || a.GetPhase() != "Idle" ||
			int(o.GetDesired()) != want || int(o.GetOwned()) != want {
			return fmt.Errorf("%s: %d objects expected at %s: %v", a.GetApplication(), want, head, a)
		}
	}
	return nil
}

// desired is what the host has to be, in the form of tree. It fails if a file
// outside of it was touched.
func (l *life) desired() map[string]string {
	l.t.Helper()
	want := map[string]string{}
	for _, x := range l.things {
		switch x.kind {
		case "File":
			want[x.path] = "file " + x.mode + " " + x.content
		case "Directory":
			want[x.path] = "directory " + x.mode
		case "Symlink":
			want[x.path] = "link to " + x.content
		}
	}
	for p, id := range l.canary {
		if now := l.identity(p); now != id {
			l.must(fmt.Errorf("%s was touched: %s, before %s", p, now, id))
		}
		want[p] = "file 0640 not ours"
	}
	return want
}

// between fails unless everything on the host is as it was before or as it is to
// be: nothing halfway, and nothing else but temporary files (GR-FS1).
func (l *life) between(declared, lying map[string]string) {
	l.t.Helper()
	want, have := l.desired(), l.tree()
	all := map[string]string{}
	for _, m := range []map[string]string{declared, lying, want, have} {
		maps.Copy(all, m)
	}
	for p := range all {
		allowed := []string{declared[p], lying[p], want[p]}
		if strings.HasPrefix(want[p], "directory ") {
			allowed = append(allowed, "directory 0700") // new, and nobody else's until its owner is set
		}
		if !slices.Contains(allowed, have[p]) && !strings.HasPrefix(filepath.Base(p), ".gitopsd-tmp-") {
			l.must(fmt.Errorf("%s is %q, and was %q, declared as %q before and as %q now\n%s",
				p, have[p], lying[p], declared[p], want[p], l.daemon.said()))
		}
	}
}

// check compares the host with the model.
func (l *life) check() {
	l.t.Helper()
	want, have := l.desired(), l.tree()
	for _, p := range slices.Sorted(maps.Keys(want)) {
		if have[p] != want[p] {
			l.must(fmt.Errorf("%s is %q, want %q\n%s", p, have[p], want[p], l.daemon.said()))
		}
		delete(have, p)
	}
	if len(have) > 0 {
		l.must(fmt.Errorf("nobody declared %v\n%s", have, l.daemon.said()))
	}
}

// tree lists the host, without what gitopsd keeps for itself.
func (l *life) tree() map[string]string {
	have := map[string]string{}
	top := l.host("/")
	l.must(filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := "/" + strings.TrimPrefix(strings.TrimPrefix(p, filepath.Clean(top)), "/")
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.Name() == ".gitopsd":
			return filepath.SkipDir
		case rel == "/" || rel == "/etc" || rel == "/srv" || rel == "/outside":
		case d.IsDir():
			have[rel] = fmt.Sprintf("directory %04o", info.Mode().Perm())
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			have[rel] = "link to " + target
		default:
			content, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			have[rel] = fmt.Sprintf("file %04o %s", info.Mode().Perm(), content)
		}
		return nil
	}))
	return have
}
