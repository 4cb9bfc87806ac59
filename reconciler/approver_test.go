package reconciler

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gitopsd/gitopsd/sources"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

func TestWhoWroteACommit(t *testing.T) {
	ada := Approver{Name: "ada (uid 1000)", Login: "ada", Emails: []string{"lovelace@example.org"}}
	for _, c := range []struct {
		by          Approver
		name, email string
		want        bool
	}{
		{ada, "Ada Lovelace", "lovelace@example.org", true},
		{ada, "Ada Lovelace", "Lovelace@Example.org", true},
		{ada, "Ada Lovelace", "ada@elsewhere.example", true},
		{ada, "ADA", "x@example.org", true},
		{ada, "Ada Lovelace", "ada.lovelace@example.org", false},
		{ada, "Grace", "grace@example.org", false},
		{ada, "adam", "adam@example.org", false},
		{ada, "", "", false},
		{Approver{Name: "uid 7"}, "", "", false}, // no user name is no name to match
		{Approver{Name: "uid 7"}, "", "@example.org", false},
		{Approver{Name: "uid 7", Emails: []string{"seven@example.org"}}, "Seven", "seven@example.org", true},
	} {
		if got := c.by.wrote(sources.Person{Name: c.name, Email: c.email}); got != c.want {
			t.Errorf("%s and %s <%s>: %v, want %v", c.by.Name, c.name, c.email, got, c.want)
		}
	}
}

// The author of a commit does not approve what it is held for, unless the
// application says so; then the record says so too.
func TestAuthorDoesNotApprove(t *testing.T) {
	simulate(t, func(s *sim) {
		ada, grace := Approver{Name: "ada (uid 1)", Login: "ada"}, Approver{Name: "grace (uid 2)", Login: "grace"}
		s.app("web", "web", func(a *Application) { a.Budget.MaxCount = 1; a.Budget.MaxPercent = -1 })
		s.commit(things("web", 6, "1"))
		s.start()
		drop := func(from, n int) {
			var gone []string
			for i := from; i < from+n; i++ {
				gone = append(gone, "web/000/"+objectName(i)+".yaml")
			}
			s.repo.CommitFiles("main", nil, memsource.Delete(gone...), memsource.Author("Ada", "ada@example.org"))
			s.pass(15 * time.Second)
		}
		approve := func(by Approver) error {
			_, err := s.m.Approve(s.t.Context(), by, "web", s.status("web").Candidate.Digest, "cleaning up", 0)
			return err
		}
		drop(0, 2)
		err := approve(ada)
		if !errors.Is(err, ErrPrecondition) || !strings.Contains(err.Error(), "Ada <ada@example.org>") || !strings.Contains(err.Error(), "spec.approval.allowAuthor") {
			t.Fatalf("the author approves: %v", err)
		}
		s.pass(time.Minute)
		s.wantCounts("one", 6, 0, 0)
		if err := approve(grace); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantCounts("one", 6, 0, 2)

		s.app("web", "web", func(a *Application) { a.Budget.MaxCount = 1; a.Budget.MaxPercent = -1; a.AllowAuthor = true })
		if err := s.reload(); err != nil {
			t.Fatal(err)
		}
		drop(2, 2)
		if err := approve(ada); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.wantCounts("one", 6, 0, 4)
		var own []any
		for _, e := range s.happened() {
			if e.Kind == EventApproved {
				own = append(own, e.Principal, e.Data["ownChange"])
			}
		}
		if len(own) != 4 || own[0] != grace.Name || own[1] != nil || own[2] != ada.Name || own[3] != true {
			t.Errorf("recorded: %v", own)
		}
	})
}
