package file

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// childEnv makes the test binary run a scenario in a process of its own, in a
// mount namespace of its own, with childDir as its directory.
const (
	childEnv = "GITOPSD_TEST_FILE_CHILD"
	childDir = "GITOPSD_TEST_FILE_DIR"
)

// isolated runs a scenario in a child with private mounts. Without root it uses
// a user namespace; where neither works the test fails, as it proved nothing.
func isolated(t *testing.T, scenario string) {
	t.Helper()
	dir := realDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+scenario, childDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", scenario, err, out)
	}
}

// childT is what scenarios need of a test: helpers panic out of them.
type childT struct {
	testing.TB
	dir    string
	failed bool
}

func (c *childT) Helper()         {}
func (c *childT) TempDir() string { return c.dir }
func (c *childT) Fatal(args ...any) {
	c.Errorf("%s", fmt.Sprint(args...))
	panic(errors.New("scenario ended"))
}
func (c *childT) Fatalf(format string, args ...any) { c.Fatal(fmt.Sprintf(format, args...)) }
func (c *childT) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	c.failed = true
}

func runChild(scenario string) (code int) {
	scenarios := map[string]func(*childT){
		"full": diskFull, "readonly": readOnly, "unmounted": unmounted, "mounts": mounts, "errors": denied, "descriptors": noDescriptors,
	}
	c := &childT{dir: os.Getenv(childDir)}
	if scenario == "holder" { // it needs no mounts of its own
		holdsRoot(c)
		return 0
	}
	defer func() {
		if p := recover(); p != nil {
			fmt.Fprintln(os.Stderr, p)
			code = 1
		}
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		c.Fatalf("private mounts: %v", err)
	}
	run, ok := scenarios[scenario]
	if !ok {
		c.Fatalf("unknown scenario %s", scenario)
	}
	run(c)
	if c.failed {
		return 1
	}
	return 0
}

func (c *childT) mount(fs, at, options string, flags uintptr) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		c.Fatal(err)
	}
	if err := unix.Mount(fs, at, fs, flags, options); err != nil {
		c.Fatalf("mount %s at %s: %v", fs, at, err)
	}
}

func file(c testing.TB, p, content string) *manifest.Object {
	return object(c, kindFile, strings.Trim(strings.ReplaceAll(p, "/", "-"), "-"), map[string]any{"path": p, "content": content})
}

// temps lists temporary files below a directory.
func temps(t testing.TB, dir string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && tempName(d.Name()) {
			found = append(found, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Row D2-64: a full disk leaves the old content and no temporary file, and the
// other files of the same Apply are not affected.
func TestDiskFull(t *testing.T) { isolated(t, "full") }

func diskFull(c *childT) {
	root := filepath.Join(c.dir, "small")
	c.mount("tmpfs", root, "size=1m", 0)
	h := hostAt(c, root, "")
	h.must(c, h.op(c, plan.Create, file(c, h.path("app.conf"), "old\n")))
	big := file(c, h.path("app.conf"), strings.Repeat("x", 100<<10)+"\n"+strings.Repeat("y\n", 1<<20))
	small := file(c, h.path("other.conf"), "fits\n")
	got := h.apply(h.op(c, plan.Update, big), h.op(c, plan.Create, small))
	if got[0].Outcome != appliers.Refused || !errors.Is(got[0].Err, unix.ENOSPC) || appliers.ClassOf(got[0].Err) != appliers.Retry {
		c.Errorf("the big file: %v %v", got[0].Outcome, got[0].Err)
	}
	if got[1].Outcome != appliers.Done {
		c.Errorf("the small file: %v %v", got[1].Outcome, got[1].Err)
	}
	if h.content(c, "app.conf") != "old\n" {
		c.Errorf("the old content is gone")
	}
	if left := temps(c, root); len(left) > 0 {
		c.Errorf("left behind: %v", left)
	}
	// Full to the last byte: not even the ledger can be written, and nothing is touched.
	filler, err := os.Create(h.path("filler"))
	if err != nil {
		c.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	filler.Close()
	for i := range 200 {
		r := h.apply(h.op(c, plan.Update, file(c, h.path("app.conf"), fmt.Sprintf("new %d %s\n", i, strings.Repeat("z", 2000)))))[0]
		if r.Outcome == appliers.Done {
			c.Errorf("try %d on a full disk: done", i)
		}
		if h.content(c, "app.conf") != "old\n" {
			c.Fatalf("try %d on a full disk: %v, and the old content is gone", i, r.Err)
		}
	}
	if err := os.Remove(h.path("filler")); err != nil {
		c.Fatal(err)
	}
	last := file(c, h.path("app.conf"), "new\n")
	h.must(c, h.op(c, plan.Update, last))
	h.converged(c, last)
	if left := temps(c, root); len(left) > 0 {
		c.Errorf("left behind: %v", left)
	}
}

// Row D2-65 (EROFS) and GR-FS4: a file system that turned read-only refuses its
// files, and the other root goes on.
func TestReadOnly(t *testing.T) { isolated(t, "readonly") }

func readOnly(c *childT) {
	root := filepath.Join(c.dir, "ro")
	other := filepath.Join(c.dir, "rw")
	c.mount("tmpfs", root, "size=1m", 0)
	if err := os.MkdirAll(other, 0o755); err != nil {
		c.Fatal(err)
	}
	h := hostAt(c, root, fmt.Sprintf(`, "protected": [%q]`, filepath.Join(other, "protected")))
	h.config.Roots = append(h.config.Roots, other)
	h.Applier = newApplier(h.env, h.config)
	a, b := file(c, h.path("a"), "old\n"), file(c, filepath.Join(other, "b"), "b\n")
	h.must(c, h.op(c, plan.Create, a))
	if err := unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		c.Fatal(err)
	}
	got := h.apply(h.op(c, plan.Update, file(c, h.path("a"), "new\n")), h.op(c, plan.Create, b), h.op(c, plan.Delete, a))
	for _, i := range []int{0, 2} {
		if got[i].Outcome != appliers.Refused || !errors.Is(got[i].Err, unix.EROFS) || appliers.ClassOf(got[i].Err) != appliers.Wait {
			c.Errorf("operation %d: %v %v", i, got[i].Outcome, got[i].Err)
		}
	}
	if got[1].Outcome != appliers.Done || h.content(c, "a") != "old\n" {
		c.Errorf("the other root: %v %v; content %q", got[1].Outcome, got[1].Err, h.content(c, "a"))
	}
	h.converged(c, a)
}

// GR-FS4: a file system that is not mounted looks like an empty directory, and
// is not taken for one: nothing is absent, nothing is written.
func TestUnmounted(t *testing.T) { isolated(t, "unmounted") }

func unmounted(c *childT) {
	root := filepath.Join(c.dir, "disk")
	c.mount("tmpfs", root, "size=1m", 0)
	h := hostAt(c, root, "")
	a := file(c, h.path("a"), "a\n")
	h.must(c, h.op(c, plan.Create, a))
	if err := unix.Unmount(root, unix.MNT_DETACH); err != nil { // the lock keeps it busy
		c.Fatal(err)
	}
	for _, applier := range []*Applier{h.Applier, h.reopen(c)} {
		h.Applier = applier
		if o := h.see(c, a); o.Presence != plan.PresenceUnknown || !strings.Contains(o.Reason, "mounted") {
			c.Errorf("unmounted: %v %q", o.Presence, o.Reason)
		}
		r := h.apply(h.op(c, plan.Create, a))[0]
		if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Wait || !errors.Is(r.Err, ErrRoot) {
			c.Errorf("write: %v %v", r.Outcome, r.Err)
		}
	}
	if list, err := os.ReadDir(root); err != nil || len(list) > 0 {
		c.Errorf("written into the mount point: %v %v", list, err)
	}
}

// Row D2-62 (bind mount, proc mounted elsewhere).
func TestMounts(t *testing.T) { isolated(t, "mounts") }

func mounts(c *childT) {
	root := filepath.Join(c.dir, "root")
	outside := filepath.Join(c.dir, "outside")
	for _, d := range []string{filepath.Join(root, "bound"), filepath.Join(root, "dir"), filepath.Join(root, "proc"), outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			c.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "can"), []byte("CAN"), 0o644); err != nil {
		c.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "one"), nil, 0o644); err != nil {
		c.Fatal(err)
	}
	for from, to := range map[string]string{outside: filepath.Join(root, "bound"), filepath.Join(outside, "can"): filepath.Join(root, "one"), "/proc": filepath.Join(root, "proc")} {
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			c.Fatalf("bind %s: %v", from, err)
		}
	}
	for _, walk := range []bool{false, true} {
		for _, cross := range []bool{false, true} {
			h := hostAt(c, root, fmt.Sprintf(`, "crossMounts": %v`, cross))
			h.roots[0].walk = walk
			for _, p := range []string{"bound/can", "one", "proc/sys/kernel/core_pattern", "proc/self/root/etc/gitopsd-can"} {
				if cross && p == "bound/can" {
					continue // asked for
				}
				for _, action := range []plan.Action{plan.Create, plan.Delete} {
					o := h.op(c, action, file(c, h.path(p), "overwritten"))
					o.Change.Adopting = true
					if r := h.apply(o)[0]; r.Outcome == appliers.Done && !(cross && p[0] == 'p' && action == plan.Delete) {
						c.Errorf("walk %v, cross %v: %s %s: done", walk, cross, action, p)
					}
				}
			}
		}
	}
	if b, err := os.ReadFile(filepath.Join(outside, "can")); err != nil || string(b) != "CAN" {
		c.Errorf("outside: %q %v", b, err)
	}
}

// Row D2-65 (EACCES, chattr +i, ENOTDIR): each file has its own error, the others go on.
func TestDenied(t *testing.T) { isolated(t, "errors") }

func denied(c *childT) {
	h := newHost(c, "")
	good, plain := file(c, h.path("good"), "good\n"), h.path("plain")
	h.put(c, "plain", "not a directory")
	h.put(c, "immutable", "old\n")
	if err := os.Mkdir(h.path("closed"), 0o755); err != nil {
		c.Fatal(err)
	}
	f, err := os.Open(h.path("immutable"))
	if err != nil {
		c.Fatal(err)
	}
	defer f.Close()
	immutable := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0x10) == nil // FS_IMMUTABLE_FL, root only
	if !immutable && os.Getuid() == 0 {
		fmt.Fprintln(os.Stderr, "this file system has no immutable files; that case ran without")
	}
	o := h.op(c, plan.Update, file(c, h.path("immutable"), "new\n"))
	o.Change.Adopting = true
	got := h.apply(h.op(c, plan.Create, file(c, filepath.Join(plain, "x"), "x")), o, h.op(c, plan.Create, good))
	if got[0].Outcome != appliers.Refused || !errors.Is(got[0].Err, unix.ENOTDIR) || appliers.ClassOf(got[0].Err) != appliers.Wait {
		c.Errorf("below a file: %v %v", got[0].Outcome, got[0].Err)
	}
	if immutable {
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0); err != nil {
			c.Fatal(err)
		}
	}
	if immutable && (got[1].Outcome != appliers.Refused || !errors.Is(got[1].Err, unix.EPERM) || h.content(c, "immutable") != "old\n") {
		c.Errorf("immutable: %v %v", got[1].Outcome, got[1].Err)
	}
	if got[2].Outcome != appliers.Done {
		c.Errorf("the good one: %v %v", got[2].Outcome, got[2].Err)
	}
	if left := temps(c, h.root); len(left) > 0 {
		c.Errorf("left behind: %v", left)
	}
	if err := os.Mkdir(h.path("hidden"), 0o700); err != nil {
		c.Fatal(err)
	}
	for p, mode := range map[string]os.FileMode{h.root: 0o777, filepath.Dir(h.root): 0o711} {
		if err := os.Chmod(p, mode); err != nil && os.Getuid() == 0 {
			c.Fatal(err)
		}
	}
	// As nobody, a directory that may not be written to.
	if err := os.Chmod(h.path(stateDir), 0o777); err != nil {
		c.Fatal(err)
	}
	if os.Getuid() == 0 {
		for _, p := range []string{stateDir + "/id", stateDir + "/ledger"} {
			if err := os.Chmod(h.path(p), 0o666); err != nil {
				c.Fatal(err)
			}
		}
		if err := syscall.Setuid(65534); err != nil && !errors.Is(err, unix.EINVAL) { // one id only in a user namespace
			c.Fatal(err)
		}
	}
	if os.Getuid() != 65534 {
		return
	}
	r := h.apply(h.op(c, plan.Create, file(c, h.path("closed/x"), "x")))[0]
	if r.Outcome != appliers.Refused || !errors.Is(r.Err, unix.EACCES) || appliers.ClassOf(r.Err) != appliers.Wait || errors.Is(r.Err, ErrRoot) {
		c.Errorf("closed directory: %v %v", r.Outcome, r.Err)
	}
	const access = "permission denied; run gitopsd as root, or give its user access to it"
	if seen := h.see(c, file(c, h.path("hidden/x"), "x")); seen.Presence != plan.PresenceUnknown || !strings.Contains(seen.Reason, access) {
		c.Errorf("hidden directory: %v %s", seen.Presence, seen.Reason)
	}
	given := object(c, kindFile, "given", map[string]any{"path": h.path("given"), "content": "x", "owner": int64(0)})
	r = h.apply(h.op(c, plan.Create, given))[0]
	if r.Outcome != appliers.Refused || !errors.Is(r.Err, unix.EPERM) || !strings.Contains(r.Err.Error(), "only root may do that: run gitopsd as root, or leave owner and group out") {
		c.Errorf("given to root: %v %v", r.Outcome, r.Err)
	}
}

// Row D2-65 (EMFILE): without descriptors every key is unknown and every write
// refused; with them everything goes on.
func TestNoDescriptors(t *testing.T) { isolated(t, "descriptors") }

func noDescriptors(c *childT) {
	h := newHost(c, "")
	a := file(c, h.path("a"), "a\n")
	h.must(c, h.op(c, plan.Create, a))
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		c.Fatal(err)
	}
	update := h.op(c, plan.Update, file(c, h.path("a"), "b\n"))
	q := query(key(a), h.resolve(c, a))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		c.Fatal(err)
	}
	o, r := h.ask(c, q), h.apply(update)[0]
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		c.Fatal(err)
	}
	if o.Presence != plan.PresenceUnknown || o.Reason == "" {
		c.Errorf("observed without descriptors: %v", o.Presence)
	}
	if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Retry {
		c.Errorf("written without descriptors: %v %v", r.Outcome, r.Err)
	}
	h.must(c, update)
}
