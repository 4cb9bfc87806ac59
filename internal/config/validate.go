package config

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// check collects what the types alone cannot say about one decoded object.
type check struct{ problems []fieldProblem }

func (c *check) problem(at manifest.Pointer, msg, hint string) {
	c.problems = append(c.problems, fieldProblem{at, msg, hint})
}

// wrong notes err, whose text may end in "; hint".
func (c *check) wrong(at manifest.Pointer, err error) {
	if err != nil {
		msg, hint, _ := strings.Cut(err.Error(), "; ")
		c.problem(at, msg, hint)
	}
}

func (c *check) positive(at manifest.Pointer, d Duration, least time.Duration) {
	if time.Duration(d) < least {
		c.problem(at, "must be at least "+least.String(), "")
	}
}

func (c *check) source(s *SourceSpec) {
	if s.Dir != nil && s.Dir.Settle < 0 {
		c.problem("/spec/dir/settle", "must not be negative", "")
	}
	if s.Git == nil {
		return
	}
	g, at := s.Git, manifest.Pointer("/spec/git")
	addr, err := parseAddress(g.URL)
	c.wrong(at.Child("url"), err)
	if g.Branch != "" {
		c.wrong(at.Child("branch"), checkRefName(g.Branch))
	}
	if g.Tag != "" {
		c.wrong(at.Child("tag"), checkRefName(g.Tag))
	}
	// A poll more often than once a second is a mistake in the unit.
	c.positive(at.Child("interval"), g.Interval, time.Second)
	c.positive(at.Child("timeout"), g.Timeout, time.Second)
	if g.Proxy != "" {
		c.wrong(at.Child("proxy"), parseProxy(g.Proxy))
	}
	if err == nil {
		c.transport(g, addr)
	}
}

// transport holds each setting to the scheme that it is for.
func (c *check) transport(g *GitSource, addr address) {
	at := manifest.Pointer("/spec/git")
	web := addr.scheme == "https" || addr.scheme == "http"
	only := func(field, what string) {
		c.problem(at.Child(field), "is for "+what+" only, and the url is not", "change the url or remove it")
	}
	if g.CAFile != "" && addr.scheme != "https" {
		only("caFile", "https")
	}
	if g.ClientCert != nil && addr.scheme != "https" {
		only("clientCert", "https")
	}
	if g.Proxy != "" && !web {
		only("proxy", "http and https")
	}
	if g.Auth == nil {
		if addr.scheme == "ssh" {
			c.problem(at, "ssh needs a key", "set auth.ssh.keyFrom, or auth.ssh.agent: true")
		}
		return
	}
	switch {
	case g.Auth.SSH != nil:
		if addr.scheme != "ssh" {
			only("auth", "ssh")
		}
		if g.Auth.SSH.PassphraseFrom != nil && g.Auth.SSH.KeyFrom == nil {
			c.problem(at.Child("auth").Child("ssh").Child("passphraseFrom"), "belongs to keyFrom, which is not set", "")
		}
	case !web:
		only("auth", "https")
	case addr.scheme == "http" && !addr.loopback:
		c.problem(at.Child("auth"), "would send the secret without encryption", "change the url to https")
	}
}

func (c *check) policySet(p *PolicySetSpec) {
	if p.Source != nil {
		c.wrong("/spec/source/path", checkTreePath(p.Source.Path))
		p.Source.Path = path.Clean(p.Source.Path)
	}
	c.unique("/spec/library", p.Library)
	c.unique("/spec/namespaces", p.Namespaces)
	c.positive("/spec/timeout", p.Timeout, time.Millisecond)
}

func (c *check) application(a *ApplicationSpec) {
	c.wrong("/spec/path", checkTreePath(a.Path))
	a.Path = path.Clean(a.Path)
	c.unique("/spec/policies", a.Policies)
	c.unique("/spec/dependsOn", a.DependsOn)
	c.positive("/spec/interval", a.Interval, time.Second)
	if a.StaleAfter == 0 {
		a.StaleAfter = 3 * a.Interval
	}
	if a.StaleAfter <= a.Interval {
		c.problem("/spec/staleAfter", "must be longer than interval ("+a.Interval.String()+"), or the status is stale between two looks", "three intervals are usual")
	}
	c.positive("/spec/retry/max", a.Retry.Max, time.Second)
	c.positive("/spec/contention/window", a.Contention.Window, time.Second)
	c.positive("/spec/contention/cooldown", a.Contention.Cooldown, time.Second)
	if a.Protect == nil {
		a.Protect = DefaultProtect()
	}
	for i, rule := range a.Drift.Rules {
		if rule.Kind == "" && rule.Path == "" {
			c.problem(manifest.Pointer("/spec/drift/rules").Child(strconv.Itoa(i)), "matches everything", "set drift.mode instead")
		}
	}
}

func (c *check) unique(at manifest.Pointer, names []string) {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			c.problem(at.Child(strconv.Itoa(i)), "is listed twice", "")
		}
	}
}
