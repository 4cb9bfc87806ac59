package memory

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/sources"
)

// Option changes what a scripted commit does beside writing its files.
type Option func(*change)

type change struct {
	sources.Commit
	fresh, orphan bool
	parents       []string
	edits         edits
}

// Delete removes files or whole directories.
func Delete(paths ...string) Option {
	return func(c *change) {
		for _, p := range paths {
			c.edits.at(p).removed = true
		}
	}
}

// File writes a plain file.
func File(path, content string) Option { return entry(path, content, sources.ModeFile) }

// Executable writes an executable file.
func Executable(path, content string) Option { return entry(path, content, sources.ModeExec) }

// Symlink writes a symbolic link.
func Symlink(path, target string) Option { return entry(path, target, sources.ModeSymlink) }

// Submodule writes an entry that stands for another repository.
func Submodule(path, commit string) Option { return entry(path, commit, sources.ModeSubmodule) }

func entry(path, content string, mode sources.Mode) Option {
	return func(c *change) { c.edits.at(path).leaf = newFile(content, mode) }
}

// Message sets the message; the default names the sequence number of the commit.
func Message(text string) Option { return func(c *change) { c.Message = text } }

// Author sets author and committer; the default is "Test <test@example.com>".
func Author(name, email string) Option {
	return func(c *change) { c.Author = sources.Person{Name: name, Email: email} }
}

// When sets the date; the default is time.Now.
func When(at time.Time) Option { return func(c *change) { c.When = at } }

// Replace starts from an empty tree instead of the first parent's.
func Replace() Option { return func(c *change) { c.fresh = true } }

// Orphan commits without a parent and forces the branch onto it: an unrelated
// history, or a rewritten one.
func Orphan() Option { return func(c *change) { c.orphan = true } }

// Parents commits on top of the given commits instead of the branch: a merge
// when there are several, a forced push when the branch is not among them.
func Parents(ids ...string) Option { return func(c *change) { c.parents = ids } }

// CommitFiles commits files (content by path) to a branch, which it creates when
// needed, on top of what the branch has, and returns the ID: 40 hexadecimal
// digits. It costs the paths written and not the repository. It panics on a path
// that is not clean and on parents that do not exist, as only a test can ask so.
func (r *Repository) CommitFiles(branch string, files map[string]string, options ...Option) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	c := change{Commit: sources.Commit{
		Message: fmt.Sprintf("commit %d", r.seq),
		Author:  sources.Person{Name: "Test", Email: "test@example.com"},
		When:    time.Now(),
	}}
	for p, content := range files {
		if p != path.Clean(p) || strings.HasPrefix(p, "/") || p == "." {
			panic("memory: path is not clean: " + p)
		}
		c.edits.at(p).leaf = newFile(content, sources.ModeFile)
	}
	for _, o := range options {
		o(&c)
	}
	c.Committer = c.Author
	ref := "refs/heads/" + branch
	switch tip := r.refs[ref]; {
	case c.orphan:
	case c.parents != nil:
		c.Commit.Parents = slices.Clone(c.parents)
	case tip != "":
		c.Commit.Parents = []string{tip}
	}
	root := newDir(nil)
	for i, p := range c.Commit.Parents {
		parent := r.commits[p]
		if parent == nil {
			panic("memory: no such parent: " + p)
		}
		if i == 0 && !c.fresh {
			root = parent.root
		}
	}
	if c.edits.below != nil {
		if root = c.edits.apply(root); root == nil {
			root = newDir(nil)
		}
	}
	c.ID = commitID(root, c.Commit, r.seq)
	r.commits[c.ID] = &commit{Commit: c.Commit, root: root}
	r.refs[ref] = c.ID
	r.moved()
	return c.ID
}

// Point forces a ref (full name, such as refs/heads/main) to a commit: a rewind,
// a forced push, a tag. The empty commit deletes the ref.
func (r *Repository) Point(ref, id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id == "" {
		delete(r.refs, ref)
	} else {
		if r.commits[id] == nil {
			panic("memory: no such commit: " + id)
		}
		r.refs[ref] = id
	}
	r.moved()
}

// Tip returns the commit a ref stands at on the server, or "".
func (r *Repository) Tip(ref string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refs[ref]
}

// FailRefs makes the next calls of Refs fail, one error each; nil lets one pass.
func (r *Repository) FailRefs(errs ...error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failRefs = append(r.failRefs, errs...)
}

// FailFetch makes the next calls of Fetch that go to the server fail, one error
// each; nil lets one pass.
func (r *Repository) FailFetch(errs ...error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failFetch = append(r.failFetch, errs...)
}

// SetDown makes every request fail with err until it is called with nil.
func (r *Repository) SetDown(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = err
}

// SetLatency makes every request take d, or until its context ends.
func (r *Repository) SetLatency(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.latency = d
}

// HideRefs makes the next answer of Refs a lie: it lacks the given refs, without
// any error.
func (r *Repository) HideRefs(refs ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ref := range refs {
		r.hidden[ref] = true
	}
}

// Damage breaks the local copy of a path of a fetched revision: reading it, also
// through trees that are open, fails with ErrDamaged until the revision has been
// fetched anew. It stands for a mirror on a bad disk and for a partial fetch.
func (r *Repository) Damage(revision, path string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.damaged[revision] == nil {
		r.damaged[revision] = map[string]bool{}
	}
	r.damaged[revision][clean(path)] = true
}

// DropMirror forgets everything fetched that is not kept, as the loss of the
// mirror's directory between two runs would.
func (r *Repository) DropMirror() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.fetched)
	for _, id := range r.kept {
		for _, a := range r.ancestry(id) {
			r.fetched[a] = true
		}
	}
}
