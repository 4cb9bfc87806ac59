package reconciler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// publish makes a new status from what the goroutine knows.
func (a *app) publish(st *appState) {
	old := a.status.Load()
	s := &Status{
		Application: a.Name, Source: a.Source, Path: a.Path, Targets: old.Targets,
		Revision: st.record.Revision, Candidate: st.shownCandidate(), ObservedAt: st.lookedAt,
		Suspended: a.suspension(), Round: st.rounds, SyncedAt: st.syncedAt,
		Orphaned: a.m.registry.orphans(a.Name),
	}
	if st.accepted != nil {
		s.Revision, s.Commit = st.accepted.revision, st.accepted.commit
		s.Objects.Desired = st.accepted.items.len()
		s.Warnings = append(st.accepted.findings(st.accepted.warned), st.remarks()...)
		s.Warnings = append(s.Warnings, st.accepted.findings(st.violations())...)
		s.Objects.Denied = st.accepted.denied.len()
	}
	s.Warnings = append(s.Warnings, st.cautionList()...)
	s.Drift = st.driftList()
	s.Failures = a.failureList(st)
	drifted := map[plan.Key]bool{}
	for _, d := range s.Drift {
		drifted[d.Key] = true
	}
	s.Objects.Owned = a.m.registry.count(a.Name)
	s.Objects.Drifted, s.Objects.Failed, s.Objects.Blocked = len(drifted), len(st.failures), len(st.blocked)
	s.Sync, s.Phase, s.Message = a.summary(st, s)
	s.Health = a.health(st, s)
	s.running, s.wishes = st.running != nil, a.m.registry.desire(a.Name).version
	a.status.Store(s)
	a.m.published(a, old, s)
	for _, w := range st.release {
		close(w)
	}
	st.release = nil
}

// shownCandidate is the newest revision, unless it only waits while something
// of the accepted one needs an approval.
func (st *appState) shownCandidate() *Candidate {
	if st.hold != nil && (st.candidate == nil || st.candidate.State == CandidatePending) {
		return st.hold
	}
	return st.candidate
}

func (st *appState) driftList() []DriftedField {
	list := make([]DriftedField, 0, len(st.drift))
	for _, d := range st.drift {
		if d.seen() {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(x, y DriftedField) int {
		return cmp.Or(x.Key.Compare(y.Key), strings.Compare(string(x.Change.Path), string(y.Change.Path)))
	})
	return list
}

// failureList holds what failed and what waits, sorted by key.
func (a *app) failureList(st *appState) []Failure {
	list := make([]Failure, 0, len(st.failures)+len(st.blocked))
	for _, f := range st.failures {
		list = append(list, f.Failure)
	}
	for k, why := range st.blocked {
		f := Failure{Key: k, Message: why, Class: appliers.Wait, Waits: true}
		if st.accepted != nil {
			if item, ok := st.accepted.items.get(k); ok {
				f.Origin = item.Source.Origin()
			}
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(x, y Failure) int { return x.Key.Compare(y.Key) })
	return list
}

// summary finds the words for the status. Staleness depends on the reader's
// clock and is added when the status is read.
func (a *app) summary(st *appState, s *Status) (SyncStatus, Phase, string) {
	sync, phase, message := a.situation(st, s)
	if err := a.m.policy(a.Policies).err; err != nil && st.accepted != nil {
		if why := firstLine(err.Error()); !strings.Contains(message, why) {
			message += "; new revisions wait: " + why
		}
	}
	if why := st.fights.said(st.drift); !strings.Contains(message, why) {
		message += why
	}
	if src := a.m.sourceStatus(a.Source); src.Error != "" && !a.departing {
		if why := firstLine(src.Error); !strings.Contains(message, why) {
			message += "; meanwhile " + why
		}
	}
	return sync, phase, message
}

// situation is summary without what holds new revisions back or keeps them away.
func (a *app) situation(st *appState, s *Status) (SyncStatus, Phase, string) {
	src := a.m.sourceStatus(a.Source)
	switch c := s.Candidate; {
	case s.Suspended != nil:
		return a.syncOf(st), PhaseSuspended, fmt.Sprintf("suspended by %s: %s; %s", s.Suspended.By, s.Suspended.Why, s.Suspended.end(a.Name))
	case c != nil && c.State == CandidateRefused:
		return OutOfSync, PhaseRefused, fmt.Sprintf("revision %s refused: %s", shortRevision(c.Revision), firstOf(c.Reason))
	case c != nil && c.State == CandidateHeld:
		return OutOfSync, PhaseHeld, firstLine(c.Reason)
	case c != nil:
		return OutOfSync, PhaseWaiting, firstLine(c.Reason)
	case len(st.failures) > 0:
		return OutOfSync, PhaseRetrying, fmt.Sprintf("%s failed: %s", counted(len(st.failures), "object"), describe(firstFailed(s.Failures, st.failures)))
	case len(st.blocked) > 0:
		return a.differs(st), PhaseRetrying, fmt.Sprintf("%s: %s", waiting(len(st.blocked)), describe(s.Failures[0]))
	case a.departing:
		return OutOfSync, PhaseDeleting, fmt.Sprintf("not configured any more, and its deletion policy was Delete: %s left to delete", counted(len(a.m.registry.kept(a.Name)), "object"))
	case st.message != "" && st.accepted == nil: // nothing is compared, so nothing is known to differ
		return SyncUnknown, PhaseWaiting, firstLine(st.message)
	case st.message != "":
		return OutOfSync, PhaseWaiting, firstLine(st.message)
	case len(st.pending) > 0:
		return OutOfSync, PhaseVerifying, fmt.Sprintf("written and not complete yet: %s", counted(len(st.pending), "object"))
	case src.Error != "":
		return a.syncOf(st), PhaseWaiting, firstLine(src.Error)
	case st.accepted == nil && s.Revision != "":
		return SyncUnknown, PhaseWaiting, fmt.Sprintf("%s was accepted before; since the start nothing has been looked at", shortRevision(s.Revision))
	case st.accepted == nil && st.running != nil && a.m.head(a.Source).seq > 0:
		return SyncUnknown, PhaseWaiting, "looking at the first revision of source " + a.Source
	case st.accepted == nil:
		return SyncUnknown, PhaseWaiting, "waiting for the first revision of source " + a.Source
	case len(st.drift) > 0:
		return OutOfSync, PhaseIdle, driftLeft(st.drift) + st.fights.said(st.drift)
	default:
		return a.syncOf(st), PhaseIdle, "in step with " + shortRevision(s.Revision) + deniedBesides(s.Objects.Denied)
	}
}

// end says what ends a suspension of an application.
func (s *Suspension) end(application string) string {
	switch resume := "gitopsd resume " + application; {
	case s.By == configuration:
		return "let it go on by taking suspend out of its spec"
	case s.Until.IsZero():
		return "let it go on with: " + resume
	default:
		return "until " + s.Until.UTC().Format(time.RFC3339) + ", or let it go on sooner with: " + resume
	}
}

// counted writes a number with its noun, as in "1 object" and "2 objects".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func waiting(n int) string {
	if n == 1 {
		return "1 object waits"
	}
	return counted(n, "object") + " wait"
}

// driftLeft counts what drifted and is not healed: fields, and whole objects.
func driftLeft(drift map[plan.FieldRef]DriftedField) string {
	gone := 0
	for ref := range drift {
		if ref.Path == "" {
			gone++
		}
	}
	fields := len(drift) - gone
	switch {
	case gone == 0 && fields == 1:
		return "1 field drifted and is left as it is"
	case gone == 0:
		return counted(fields, "field") + " drifted and are left as they are"
	case fields > 0:
		return fmt.Sprintf("%s drifted, %s deleted on the target; all is left as it is", counted(fields, "field"), wereCounted(gone, "object"))
	default:
		return wereCounted(gone, "object") + " deleted on the target and not made again"
	}
}

func wereCounted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return counted(n, noun) + " were"
}

func firstFailed(list []Failure, failed map[plan.Key]failure) Failure {
	i := slices.IndexFunc(list, func(f Failure) bool { _, ok := failed[f.Key]; return ok })
	return list[max(i, 0)]
}

// describe is a failure in one line that begins with its object, whether or not
// the message does.
func describe(f Failure) string {
	return firstLine(named(f.Origin, f.Key.ID, f.Message))
}

func (a *app) syncOf(st *appState) SyncStatus {
	switch {
	case st.accepted == nil || st.lookedAt.IsZero():
		return SyncUnknown
	case st.candidate != nil || !st.settled():
		return a.differs(st)
	default:
		return Synced
	}
}

// differs tells what is known to be otherwise than desired from what only could
// not be read: of that it is not known whether it differs. A prune that waits for
// being read is one of the first.
func (a *app) differs(st *appState) SyncStatus {
	if st.candidate != nil || st.hold != nil || st.message != "" || len(st.failures)+len(st.drift)+len(st.pending) > 0 {
		return OutOfSync
	}
	for k := range st.blocked {
		if o, asked := st.observed.get(k); !asked || o.Presence != plan.PresenceUnknown || !a.desires(st, k) {
			return OutOfSync
		}
	}
	return SyncUnknown
}

// settled reports whether the targets are known to be as the accepted revision says.
func (st *appState) settled() bool {
	return st.hold == nil && st.message == "" && len(st.failures)+len(st.blocked)+len(st.drift)+len(st.pending) == 0
}

// health is the worst of what is known of the objects.
func (a *app) health(st *appState, s *Status) appliers.HealthStatus {
	if st.accepted == nil || st.lookedAt.IsZero() {
		return appliers.HealthUnknown
	}
	worst := appliers.Healthy
	if s.Suspended != nil {
		worst = appliers.Suspended
	}
	if len(st.pending) > 0 {
		worst = appliers.Worst(worst, appliers.Progressing)
	}
	if len(st.failures) > 0 {
		worst = appliers.Worst(worst, appliers.Degraded)
	}
	for _, h := range st.unhealthy {
		worst = appliers.Worst(worst, h.Status)
	}
	return worst
}

// firstOf is the first line of a list of problems, and says when there are more.
func firstOf(s string) string {
	if line, _, several := strings.Cut(s, "\n"); several {
		return "several problems, the first: " + line
	}
	return s
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
