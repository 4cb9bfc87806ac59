package plan

import "testing"

// TestFirstWrite goes through the states that a crash leaves a first write in
// (rows D-49 and GR-K7). The write in flight sets what wrote says; the desired
// object is one.
func TestFirstWrite(t *testing.T) {
	one := m{"mode": "0600", "content": "a\n"}
	other := m{"mode": "0644", "content": "b\n"}
	half := m{"mode": "0644", "content": ""}
	stranger := m{"mode": "0755", "content": "s\n"}
	cases := map[string]struct {
		wrote, live   m
		mark          string
		adopted, drop bool
		want          string
	}{
		"nothing was written":        {wrote: one, want: "create"},
		"written":                    {wrote: one, live: one, want: "none record"},
		"written, changed in Git":    {wrote: other, live: other, want: "update"},
		"half written":               {wrote: other, live: half, want: "update adopting"},
		"half written, marked":       {wrote: other, live: half, mark: "web", want: "update"},
		"a stranger's":               {wrote: other, live: stranger, want: "update adopting BLOCKED"},
		"a stranger's, marked":       {wrote: other, live: stranger, mark: "shop", want: "none BLOCKED"},
		"adopted, not marked yet":    {wrote: one, live: one, adopted: true, want: "adopt"},
		"dropped, nothing there":     {wrote: other, drop: true, want: "forget"},
		"dropped, written":           {wrote: other, live: other, drop: true, want: "delete"},
		"dropped, half written":      {wrote: other, live: half, drop: true, want: "delete BLOCKED"},
		"dropped, half, marked":      {wrote: other, live: half, drop: true, mark: "web", want: "delete"},
		"dropped, a stranger's":      {wrote: other, live: stranger, drop: true, want: "forget"},
		"dropped, stranger's, mark":  {wrote: other, live: other, drop: true, mark: "shop", want: "forget"},
		"dropped, nothing to see":    {wrote: other, live: m{}, drop: true, want: "delete BLOCKED"},
		"dropped, adopted, as it is": {wrote: other, live: stranger, drop: true, adopted: true, want: "forget"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := newWorld().want("a", c.wrote).want("keep", one).applied().gone("a").want("a", one)
			w.entry("a", func(e *Entry) {
				e.State, e.Adopted, e.Writing, e.Applied = EntryPending, c.adopted, e.Applied, nil
			})
			if c.live != nil {
				w.there("a", c.live)
			}
			w.marks[path("a")] = c.mark
			if c.drop {
				w.drop("a")
			}
			p := w.build(t)
			if len(p.Changes) != 1 || p.Changes[0].Key != file("a") {
				t.Fatalf("want one change\n%s", story(t, p))
			}
			if got := facts(&p.Changes[0]); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestUnrecordedWriteStaysOurs: a first write succeeded unrecorded, the next
// one was only begun, and then the object is dropped. What is there is of the
// first and is deleted, not left behind (row D-49; S4).
func TestUnrecordedWriteStaysOurs(t *testing.T) {
	w := newWorld().want("keep", specN(1)).applied().want("a", specN(1))
	p := w.build(t)
	w.record(&p.Changes[0])
	w.write(&p.Changes[0])
	p = w.want("a", m{"mode": "0777", "content": "other\n"}).build(t)
	w.record(&p.Changes[0])
	p = w.drop("a").build(t)
	if len(p.Changes) != 1 || facts(&p.Changes[0]) != "delete" {
		t.Errorf("want a delete\n%s", story(t, p))
	}
}

func facts(c *Change) string {
	s := string(c.Action)
	if c.Adopting {
		s += " adopting"
	}
	if c.Record {
		s += " record"
	}
	if c.Blocked != "" {
		s += " BLOCKED"
	}
	return s
}

// TestOwnDeleteIsNoDrift: an object that we deleted is desired again, and the
// process dies before it is created. It must be created all the same, although
// objects that others delete are only reported (row D-49).
func TestOwnDeleteIsNoDrift(t *testing.T) {
	w := newWorld().want("a", specN(1)).want("b", specN(1)).applied().drop("a")
	w.opts.Drift = heal(DriftReport, "")
	p := w.build(t)
	w.record(&p.Changes[0])
	w.write(&p.Changes[0])
	for range 2 {
		w.want("a", specN(1))
		p = w.build(t)
		if len(p.Changes) != 1 || facts(&p.Changes[0]) != "create" {
			t.Fatalf("want a create\n%s", story(t, p))
		}
		w.record(&p.Changes[0])
	}
}
