// Package gittest gives tests real Git repositories and real servers for them on
// loopback: smart HTTP through git's own http-backend, SSH, and proxies between.
// It needs nothing but Go and the git command. Everything ends with the test
// that started it.
package gittest

import (
	"compress/zlib"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// File is one entry of a tree: its mode as git writes it, "" for "100644", and
// its content, which is the target of a link or the commit of a submodule.
type File struct {
	Mode string
	Data string
}

// The modes of a File.
const (
	ModeExec      = "100755"
	ModeSymlink   = "120000"
	ModeSubmodule = "160000"
	modeFile      = "100644"
	modeDir       = "40000"
)

// Repo is a bare repository on disk. Its methods write objects and refs directly
// and fail the test when they cannot; they are safe for concurrent use.
type Repo struct {
	Dir string

	t       testing.TB
	mu      sync.Mutex
	content map[string]map[string]File // by branch
	written map[string]bool
	commits int
	zlib    *zlib.Writer
}

// NewRepo makes an empty bare repository whose HEAD is refs/heads/main.
func NewRepo(t testing.TB) *Repo {
	t.Helper()
	r := &Repo{
		Dir: filepath.Join(t.TempDir(), "repo.git"), t: t,
		content: map[string]map[string]File{}, written: map[string]bool{},
	}
	r.must(os.MkdirAll(r.Dir, 0o755))
	r.Git("init", "-q", "--bare", "--initial-branch=main", ".")
	r.Git("config", "http.receivepack", "true")
	r.Git("config", "gc.auto", "0")
	return r
}

func (r *Repo) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("gittest: %v", err)
	}
}

// environment keeps the machine's own configuration out of every git command.
func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_AUTHOR_NAME=Test", "GIT_AUTHOR_EMAIL=test@example.com",
		"GIT_COMMITTER_NAME=Test", "GIT_COMMITTER_EMAIL=test@example.com",
	}
}

// Git runs a git command in the repository and returns its trimmed output.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.Dir
	cmd.Env = environment()
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("gittest: git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Write commits text files on top of what the branch has and returns the commit.
// Content "" of a path given in remove deletes it.
func (r *Repo) Write(branch string, files map[string]string, remove ...string) string {
	r.t.Helper()
	r.mu.Lock()
	all := maps.Clone(r.content[branch])
	r.mu.Unlock()
	if all == nil {
		all = map[string]File{}
	}
	for p, data := range files {
		all[p] = File{Data: data}
	}
	for _, p := range remove {
		delete(all, p)
	}
	return r.Commit(branch, all)
}

// Commit commits files as the whole content of the branch, on top of its tip.
func (r *Repo) Commit(branch string, files map[string]File) string {
	r.t.Helper()
	return r.commit(branch, files, time.Now(), false)
}

// CommitAt is Commit with a date of one's choice.
func (r *Repo) CommitAt(branch string, files map[string]File, when time.Time) string {
	r.t.Helper()
	return r.commit(branch, files, when, false)
}

// ForcePush replaces the branch by one commit without any history.
func (r *Repo) ForcePush(branch string, files map[string]File) string {
	r.t.Helper()
	return r.commit(branch, files, time.Now(), true)
}

func (r *Repo) commit(branch string, files map[string]File, when time.Time, orphan bool) string {
	r.t.Helper()
	ref := "refs/heads/" + branch
	tree := r.TreeOf(files)
	r.mu.Lock()
	r.commits++
	message := fmt.Sprintf("Commit %d\n", r.commits)
	r.mu.Unlock()
	var parents []string
	if tip := r.Ref(ref); tip != "" && !orphan {
		parents = []string{tip}
	}
	id := r.CommitTree(tree, message, when, parents...)
	r.SetRef(ref, id)
	r.mu.Lock()
	r.content[branch] = maps.Clone(files)
	r.mu.Unlock()
	return id
}

// CommitTree writes a commit object for a tree.
func (r *Repo) CommitTree(tree, message string, when time.Time, parents ...string) string {
	r.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	who := fmt.Sprintf("Test <test@example.com> %d +0000", when.Unix())
	fmt.Fprintf(&b, "author %s\ncommitter %s\n\n%s", who, who, message)
	return r.Object("commit", []byte(b.String()))
}

// SetRef points a full ref name at a commit, whatever it was before.
func (r *Repo) SetRef(ref, id string) {
	r.t.Helper()
	path := filepath.Join(r.Dir, filepath.FromSlash(ref))
	r.must(os.MkdirAll(filepath.Dir(path), 0o755))
	temp := fmt.Sprintf("%s.%d.lock", path, time.Now().UnixNano())
	r.must(os.WriteFile(temp, []byte(id+"\n"), 0o644))
	r.must(os.Rename(temp, path))
}

// Ref returns what a full ref name stands at, or "".
func (r *Repo) Ref(ref string) string {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Dir, filepath.FromSlash(ref)))
	if os.IsNotExist(err) {
		return ""
	}
	r.must(err)
	return strings.TrimSpace(string(data))
}

// DeleteRef removes a full ref name.
func (r *Repo) DeleteRef(ref string) {
	r.t.Helper()
	r.must(os.Remove(filepath.Join(r.Dir, filepath.FromSlash(ref))))
}

// AnnotatedTag writes a tag object for a commit and points refs/tags/name at it.
func (r *Repo) AnnotatedTag(name, commit string) string {
	r.t.Helper()
	id := r.Object("tag", fmt.Appendf(nil, "object %s\ntype commit\ntag %s\ntagger Test <test@example.com> %d +0000\n\nTag %s\n",
		commit, name, time.Now().Unix(), name))
	r.SetRef("refs/tags/"+name, id)
	return id
}
