package reconciler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gitopsd/gitopsd/internal/plan"
)

// approvalExpiry is how long an approval holds when nobody says otherwise.
const approvalExpiry = 24 * time.Hour

var (
	errShutdown     = errors.New("the daemon is shutting down")
	errNotSuspended = fmt.Errorf("%w: it is not suspended", ErrPrecondition)
)

// suspension returns who stopped the application, or nil when it runs.
func (a *app) suspension() *Suspension {
	a.steering.mu.Lock()
	defer a.steering.mu.Unlock()
	s := a.steering.Suspended
	if s != nil && (s.Until.IsZero() || a.m.opts.Now().Before(s.Until)) {
		c := *s
		return &c
	}
	if a.Suspend {
		return &Suspension{By: configuration, Why: "spec.suspend is set"}
	}
	return nil
}

func (a *app) controlVersion() uint64 {
	a.steering.mu.Lock()
	defer a.steering.mu.Unlock()
	v := a.steering.Version << 1
	if s := a.steering.Suspended; s != nil && (s.Until.IsZero() || a.m.opts.Now().Before(s.Until)) {
		v |= 1 // a suspension that runs out changes the version too
	}
	return v
}

// approved returns a valid approval of this input that covers all gates, or nil.
func (a *app) approved(input string, gates []plan.Gate, now time.Time) *Approval {
	a.steering.mu.Lock()
	defer a.steering.mu.Unlock()
	for _, ap := range a.steering.Approvals {
		if ap.Input == input && now.Before(ap.Expires) && plan.CoveredBy(gates, ap.Changes) {
			return &ap
		}
	}
	return nil
}

// steer changes what people said about an application, durably, and wakes it.
func (a *app) steer(ctx context.Context, change func(*control) error) error {
	s := a.steering
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	next := s.control
	s.mu.Unlock()
	next.Approvals = slices.Clone(next.Approvals)
	if err := change(&next); err != nil {
		return err
	}
	next.Version++
	op, err := jsonOp(controlPrefix+a.Name, next)
	if err == nil {
		err = a.m.commit(ctx, op)
	}
	if err != nil {
		return fmt.Errorf("application %s: %w", a.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = next
	return nil
}

// Suspend stops an application, or all, until it is resumed or until has come.
// Observing and reporting go on.
func (m *Manager) Suspend(ctx context.Context, by, application string, all bool, why string, until time.Time) ([]string, error) {
	if why == "" {
		return nil, errNoReason
	}
	now := m.opts.Now()
	if !until.IsZero() && !until.After(now) {
		return nil, fmt.Errorf("%w: %s has passed", ErrInvalid, until.Format(time.RFC3339))
	}
	return m.each(application, all, func(a *app) error {
		err := a.steer(ctx, func(c *control) error {
			c.Suspended = &Suspension{By: by, Why: why, At: now, Until: until}
			return nil
		})
		if err == nil {
			m.event(ctx, Event{Kind: EventSuspended, Application: a.Name, Principal: by, Message: why})
			m.look(a.Name, nil)
		}
		return err
	})
}

// Resume ends the suspension of an application, or of all that are suspended, and
// returns the names of these.
func (m *Manager) Resume(ctx context.Context, by, application string, all bool, why string) ([]string, error) {
	return m.each(application, all, func(a *app) error {
		err := a.steer(ctx, func(c *control) error {
			if c.Suspended == nil && a.Suspend {
				return fmt.Errorf("application %s: %w: its configuration suspends it; take suspend out of its spec", a.Name, ErrPrecondition)
			}
			if c.Suspended == nil {
				return fmt.Errorf("application %s: %w", a.Name, errNotSuspended)
			}
			c.Suspended = nil
			return nil
		})
		if err == nil {
			m.event(ctx, Event{Kind: EventResumed, Application: a.Name, Principal: by, Message: why})
			m.look(a.Name, nil)
		}
		return err
	})
}

func (m *Manager) each(application string, all bool, do func(*app) error) ([]string, error) {
	apps := m.apps()
	if !all {
		a, err := m.app(application)
		if err != nil {
			return nil, err
		}
		apps = []*app{a}
	}
	var names []string
	for _, a := range apps {
		switch err := do(a); {
		case all && errors.Is(err, errNotSuspended): // nothing was said about this one
		case err != nil:
			return names, err
		default:
			names = append(names, a.Name)
		}
	}
	return names, nil
}

// Approve lets the held plan of an application go ahead. digest names what the
// caller looked at and is required (ErrInvalid): the set of changes, and the
// files and settings they come from. When something else is held by now, the
// approval is refused (ErrPrecondition), and so is one by the author of the held
// commit, unless the application allows it. validFor 0 means 24 hours.
func (m *Manager) Approve(ctx context.Context, by Approver, application, digest, why string, validFor time.Duration) (Approval, error) {
	a, err := m.app(application)
	if err != nil {
		return Approval{}, err
	}
	if why == "" {
		return Approval{}, errNoReason
	}
	if digest == "" {
		return Approval{}, hinted(fmt.Errorf("%w: name the digest of what you approve", ErrInvalid), "look at it first with: gitopsd diff %s", application)
	}
	held := m.status(a).Candidate
	if held == nil || held.State != CandidateHeld {
		return Approval{}, fmt.Errorf("application %s: %w: nothing waits for an approval", application, ErrPrecondition)
	}
	if digest != held.Digest {
		return Approval{}, hinted(fmt.Errorf("application %s: %w: what waits has changed since you looked", application, ErrPrecondition), "look again with: gitopsd diff %s", application)
	}
	own, err := a.checkAuthor(ctx, by, held.Revision)
	if err != nil {
		return Approval{}, err
	}
	if validFor <= 0 {
		validFor = approvalExpiry
	}
	now := m.opts.Now()
	ap := Approval{Application: application, Digest: held.Digest, Input: held.input, By: by.Name, Why: why, At: now, Expires: now.Add(validFor)}
	for _, g := range held.Gates {
		ap.Changes = append(ap.Changes, g.Changes...)
	}
	err = a.steer(ctx, func(c *control) error {
		c.Approvals = slices.DeleteFunc(c.Approvals, func(old Approval) bool { return !now.Before(old.Expires) })
		c.Approvals = append(c.Approvals, ap)
		return nil
	})
	if err != nil {
		return Approval{}, err
	}
	data := map[string]any{"digest": ap.Digest, "expires": ap.Expires, "changes": len(ap.Changes), "revision": held.Revision}
	if own {
		data["ownChange"] = true // the author approved, which the application allows
	}
	m.event(ctx, Event{Kind: EventApproved, Application: application, Principal: by.Name, Message: why, Data: data})
	m.look(a.Name, nil)
	return ap, nil
}

// AcceptHistory accepts, once, the rewritten branch of an application's source.
func (m *Manager) AcceptHistory(ctx context.Context, by, application, revision, why string) (string, string, error) {
	a, err := m.app(application)
	if err != nil {
		return "", "", err
	}
	if why == "" {
		return "", "", errNoReason
	}
	s := m.source(a.Source)
	if s == nil {
		return "", "", fmt.Errorf("application %s: %w: it is not configured any more, and follows no source", application, ErrPrecondition)
	}
	accepted, err := s.accept(ctx, revision)
	if err != nil {
		return "", "", err
	}
	m.event(ctx, Event{
		Kind: EventAccepting, Application: application, Principal: by, Message: why,
		Data: map[string]any{"source": a.Source, "revision": accepted},
	})
	return a.Source, accepted, nil
}

// Sync polls the source of an application, or of all, now, and those that its
// policies come from, and looks at every object. With wait it returns when the rounds that this started have ended, and
// open hand-overs between applications with them, and with the error of the poll
// when that failed.
func (m *Manager) Sync(ctx context.Context, by, application string, wait bool) error {
	apps := m.apps()
	if application != "" {
		a, err := m.app(application)
		if err != nil {
			return err
		}
		apps = []*app{a}
	}
	var pollErr error
	polled := map[string]bool{}
	var waiters []chan struct{}
	for _, a := range apps {
		m.journal.tell(Event{Kind: EventSync, Application: a.Name, Principal: by}, nil)
	}
	if err := m.journal.flush(ctx); err != nil {
		return err
	}
	for _, a := range apps {
		for _, name := range append(m.policySources(a), a.Source) { // what judges comes first
			s := m.source(name)
			if s == nil || polled[name] {
				continue
			}
			polled[name] = true
			if !wait {
				s.kick()
			} else if err := s.poll(ctx); err != nil {
				pollErr = errors.Join(pollErr, err)
			}
		}
	}
	for _, a := range apps {
		w := make(chan struct{})
		a.lookNow(w)
		waiters = append(waiters, w)
	}
	if !wait {
		return nil
	}
	for i, w := range waiters {
		select {
		case <-w:
		case <-apps[i].done:
			if !apps[i].departing { // that one ends when nothing is left of it
				return errShutdown
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.awaitMoves(ctx, apps)
	return pollErr
}
