package reconciler

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/gitopsd/gitopsd/sources"
)

// Approver is who approves: the name for the record, and the words in which a
// commit would name them as its author.
type Approver struct {
	Name   string   // as it is recorded
	Login  string   // user name on the host; "" when it has none
	Emails []string // addresses that the operator says are theirs
}

// wrote reports whether an author, as a commit claims it, is the approver: the
// address is one of theirs, or its local part or the name is their user name.
// Case does not matter. In doubt it is: an approval by somebody else, or one word
// of the configuration, is cheap.
func (a Approver) wrote(author sources.Person) bool {
	same := func(word string) bool { return word != "" && strings.EqualFold(word, a.Login) }
	local, _, _ := strings.Cut(author.Email, "@")
	return same(author.Name) || same(local) ||
		slices.ContainsFunc(a.Emails, func(mine string) bool { return strings.EqualFold(mine, author.Email) })
}

// checkAuthor refuses an approval by the author of the commit that is held,
// unless the application allows it. It reports whether that was needed. A
// revision without a commit has no author.
func (a *app) checkAuthor(ctx context.Context, by Approver, revision string) (own bool, err error) {
	if a.departing { // by the configuration, not by a commit
		return false, nil
	}
	history, ok := sources.Ability[sources.History](a.m.source(a.Source).Repository)
	if !ok {
		return false, nil
	}
	commit, err := history.Commit(ctx, revision)
	if err != nil {
		return false, hinted(fmt.Errorf("application %s: %w: the author of %s cannot be told: %w", a.Name, ErrPrecondition, shortRevision(revision), err), "try again")
	}
	if !by.wrote(commit.Author) {
		return false, nil
	}
	if a.AllowAuthor {
		return true, nil
	}
	err = fmt.Errorf("application %s: %w: %s is the author of %s (%s <%s>), and somebody else is to approve",
		a.Name, ErrPrecondition, by.Name, shortRevision(revision), commit.Author.Name, commit.Author.Email)
	return true, hinted(err, "let another approver do it, or set spec.approval.allowAuthor of the application")
}
