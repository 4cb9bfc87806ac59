package reconciler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/gitopsd/gitopsd/policies"
	"github.com/gitopsd/gitopsd/sources"
)

// Limits of a policy set read from a source.
const (
	maxPolicyFiles = 2000
	maxPolicyFile  = 1 << 20
	maxPolicyBytes = 16 << 20

	maxPolicyEntries = 100_000 // files and directories of any kind beside them
)

// policySet is one set of policies and what became of its newest revision. A
// revision that does not load leaves the one before in charge of what runs, and
// keeps new revisions of applications waiting. It is safe for concurrent use.
type policySet struct {
	config PolicySetConfig

	mu     sync.Mutex
	policy policies.Policy
	err    error
	unread error     // why the newest revision cannot be read; the one before judges on
	since  time.Time // when err or unread came up
	now    func() time.Time
	tried  bool   // a load was tried
	loaded string // revision that policy or err came from
}

// policySnapshot is what judges one application now.
type policySnapshot struct {
	policy policies.Policy // nil when there is none to ask
	// judge is the digest of policy; digest names err too.
	judge, digest string
	// err says why new revisions must wait; with a policy, what runs is judged by that.
	err error
}

// refresh loads the set from a tree, or without files when it has no source.
func (p *policySet) refresh(ctx context.Context, revision string, tree sources.Tree) (changed bool) {
	var files map[string][]byte
	var err error
	if tree != nil {
		if files, err = ReadPolicies(tree, p.config.Path); err != nil && !errors.Is(err, sources.ErrRefused) && !errors.Is(err, fs.ErrNotExist) {
			p.unavailable(err)
			return true
		}
	}
	var policy policies.Policy
	if err == nil {
		err = contained(func() error {
			policy, err = p.config.Load(ctx, files)
			return err
		})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loaded, p.tried = revision, true
	if err != nil {
		p.fail(err)
		return true
	}
	changed = p.policy == nil || p.err != nil || p.policy.Digest() != policy.Digest()
	p.policy, p.err, p.unread = policy, nil, nil
	return changed
}

// unavailable records that the source of the set cannot be read; it is tried
// again after the next poll.
func (p *policySet) unavailable(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy == nil || p.loaded == "" {
		p.fail(err)
		return
	}
	if p.err == nil && p.unread == nil {
		p.since = p.now()
	}
	p.unread = err
}

// fail records why the set does not load; the caller holds the lock.
func (p *policySet) fail(err error) {
	if p.err == nil {
		p.since = p.now()
	}
	p.err, p.unread = fmt.Errorf("policy set %s: %w", p.config.Name, err), nil
}

func (p *policySet) status() PolicySetStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := PolicySetStatus{Name: p.config.Name, Source: p.config.Source, Revision: p.loaded}
	switch {
	case p.err != nil:
		out.Error, out.Since = p.err.Error(), p.since
	case p.unread != nil:
		out.Error, out.Since = fmt.Sprintf("policy set %s: its newest revision cannot be read, and the one before judges: %v", p.config.Name, p.unread), p.since
	}
	return out
}

// inherit makes the policies of another set judge until those of this one have
// been loaded: a set that is configured anew and does not load changes nothing.
func (p *policySet) inherit(from *policySet) {
	from.mu.Lock()
	defer from.mu.Unlock()
	p.policy = from.policy
	p.err, p.since = fmt.Errorf("policy set %s: its new configuration is not loaded yet", p.config.Name), p.now()
}

// loadedOnce reports whether any load was tried.
func (p *policySet) loadedOnce() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tried
}

func (p *policySet) current() (policies.Policy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.policy == nil && p.err == nil {
		return nil, fmt.Errorf("policy set %s: not loaded yet", p.config.Name)
	}
	return p.policy, p.err
}

// ReadPolicies reads the Rego and data files of a policy set: those below root,
// by their path in the tree. It fails when they are more or larger than a set may be.
func ReadPolicies(tree sources.Tree, root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	total, met := 0, 0
	err := sources.Walk(tree, root, func(e sources.Entry) error {
		if met++; met > maxPolicyEntries { // a few trees that name each other often have no end
			return fmt.Errorf("%s: more than %d files and directories; give the policies a directory of their own", root, maxPolicyEntries)
		}
		if e.Mode == sources.ModeDir || !isPolicyFile(e.Path) {
			return nil
		}
		data, err := tree.ReadFile(e.Path, maxPolicyFile)
		if err != nil {
			return err
		}
		if total += len(data); total > maxPolicyBytes || len(files) >= maxPolicyFiles {
			return fmt.Errorf("%s: more than %d files or %d bytes of policies; split the set", root, maxPolicyFiles, maxPolicyBytes)
		}
		files[e.Path] = data
		return nil
	})
	return files, err
}

func isPolicyFile(path string) bool {
	for _, ext := range []string{".rego", ".json", ".yaml", ".yml"} {
		if strings.HasSuffix(strings.ToLower(path), ext) {
			return true
		}
	}
	return false
}

// policy returns what judges an application: all its sets together.
func (m *Manager) policy(names []string) policySnapshot {
	var snap policySnapshot
	var all []policies.Policy
	for _, name := range names {
		set := m.policySet(name)
		if set == nil {
			return policySnapshot{err: fmt.Errorf("policy set %s is not configured", name)}
		}
		p, err := set.current()
		if p == nil {
			return policySnapshot{err: err, digest: "unavailable"}
		}
		snap.err = errors.Join(snap.err, err)
		all = append(all, p)
	}
	if len(all) > 0 {
		snap.policy = policies.All(all...)
		snap.judge = snap.policy.Digest()
		snap.digest = snap.judge
	}
	if snap.err != nil {
		snap.digest += "!"
	}
	return snap
}
