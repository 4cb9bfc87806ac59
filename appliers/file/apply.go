package file

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// Apply implements appliers.Applier. The steps, in this order: what is to be
// done goes into the ledger; files are written, directories before what is in
// them, and removed the other way round; touched directories are made durable;
// the ledger is confirmed; commands that wait for changes run.
func (a *Applier) Apply(ctx context.Context, ops []appliers.Operation) []appliers.Result {
	results := make([]appliers.Result, len(ops))
	if err := a.lock(ctx); err != nil {
		for i := range results {
			results[i] = refusal(fmt.Errorf("not begun: %w", err))
		}
		return results
	}
	defer a.unlock()
	r := &run{a: a, names: newNames(), trees: map[*root]*tree{}, dirs: map[string]*touched{}}
	defer r.close()
	for i, op := range ops {
		r.jobs = append(r.jobs, &job{op: op, result: &results[i]})
	}
	r.prepare(ctx)
	r.intend(ctx)
	r.write(ctx)
	r.removeStrangers(ctx)
	r.sync()
	r.confirm(ctx)
	r.reload(ctx)
	return results
}

func refusal(err error) appliers.Result {
	return appliers.Result{Outcome: appliers.Refused, Err: withClass(err)}
}

// run is one Apply. It is not for concurrent use.
type run struct {
	a       *Applier
	names   *names
	jobs    []*job
	trees   map[*root]*tree
	dirs    map[string]*touched
	pending map[string]pendingRun
}

// job is one operation under way.
type job struct {
	op     appliers.Operation
	result *appliers.Result
	tree   *tree
	path   string
	want   *spec // nil for a delete
	found  *look
	state  jobState
	old    *record // what the ledger says; nil when nothing
	rec    *record // what the ledger is to say when it is done
	noted  bool    // the ledger says that the write is about to be made
	keeps  bool    // what is there is kept before anything else
	backup string  // name of the backup to restore from
	marked bool    // a pending run was set for it by this Apply
	// released says that a delete leaves something at the path.
	released bool
}

type jobState uint8

const (
	jobOpen    jobState = iota // to be written
	jobSame                    // as desired already
	jobWritten                 // written, not yet durable
	jobEnded                   // has its result
)

func (j *job) end(r appliers.Result) {
	if r.Backup == "" {
		r.Backup = j.result.Backup
	}
	r.Removed = j.result.Removed
	*j.result, j.state = r, jobEnded
}

func (j *job) deletes() bool { return j.op.Change.Action == plan.Delete }

// owned reports whether the ledger shows the path as the application's, or as
// that of the application which handed it over.
func (j *job) owned() bool {
	return j.old != nil && (j.old.Application == j.op.Application || j.op.Change.Entry.WasOf(j.old.Application))
}

// done ends a job that has succeeded.
func (j *job) done() {
	if j.released {
		j.end(appliers.Result{Outcome: appliers.Released})
		return
	}
	j.end(appliers.Result{Outcome: appliers.Done})
}

func (r *run) close() {
	for _, d := range r.dirs {
		unix.Close(d.fd)
	}
	for _, t := range r.trees {
		t.close()
	}
}

// in returns the jobs in a state, in order.
func (r *run) in(s jobState) []*job {
	var list []*job
	for _, j := range r.jobs {
		if j.state == s {
			list = append(list, j)
		}
	}
	return list
}

// intend records, durably and before anything is touched, what is about to be written.
func (r *run) intend(ctx context.Context) {
	r.byTree(jobOpen, func(t *tree, jobs []*job) error {
		if err := t.settleIn(ctx); err != nil {
			return err
		}
		var recs []*record
		for _, j := range jobs {
			rec := *j.rec
			rec.Pending = true
			recs = append(recs, &rec)
		}
		if err := t.write(recs); err != nil {
			return err
		}
		for _, j := range jobs {
			j.noted = true
		}
		return nil
	})
	for _, j := range r.in(jobOpen) {
		if err := r.expect(ctx, j); err != nil {
			j.end(refusal(err))
		}
	}
}

// byTree calls f for the jobs of a state, root by root, and ends them all when it fails.
func (r *run) byTree(s jobState, f func(*tree, []*job) error) {
	byTree := map[*tree][]*job{}
	for _, j := range r.in(s) {
		byTree[j.tree] = append(byTree[j.tree], j)
	}
	for t, jobs := range byTree {
		err := f(t, jobs)
		if err == nil {
			continue
		}
		for _, j := range jobs {
			if s == jobOpen {
				j.end(refusal(err))
			} else {
				j.end(appliers.Result{Outcome: appliers.Uncertain, Err: withClass(err)})
			}
		}
	}
}

// confirm makes the ledger say what has been done, and what after all has not.
func (r *run) confirm(ctx context.Context) {
	for _, s := range []jobState{jobWritten, jobSame} {
		r.byTree(s, func(t *tree, jobs []*job) error {
			var recs []*record
			for _, j := range jobs {
				if rec := r.confirmed(j); rec != nil {
					recs = append(recs, rec)
				}
			}
			if len(recs) == 0 {
				return nil
			}
			if err := t.settleIn(ctx); err != nil {
				return err
			}
			return t.write(recs)
		})
	}
	r.retract()
}

// retract puts the ledger back for jobs that were refused after they had been
// noted. Should that fail too, the note stays, which only costs a look.
func (r *run) retract() {
	byTree := map[*tree][]*record{}
	for _, j := range r.in(jobEnded) {
		if !j.noted || j.result.Outcome != appliers.Refused {
			continue
		}
		rec := record{Path: j.path, ID: j.rec.ID, Epoch: j.op.Epoch, Gone: true}
		if j.old != nil {
			rec = *j.old
		}
		byTree[j.tree] = append(byTree[j.tree], &rec)
	}
	for t, recs := range byTree {
		if err := t.write(recs); err != nil {
			r.a.env.Log.Warn("the ledger still lists a write that was refused", "root", t.root.path, "error", err)
		}
	}
}

// confirmed is the record that ends a job; nil when the ledger says so already.
func (r *run) confirmed(j *job) *record {
	rec := *j.rec
	if j.deletes() {
		rec.Gone = true
		if !j.owned() {
			return nil
		}
		return &rec
	}
	rec.Known, rec.Was = true, ""
	if j.old != nil && !j.noted && same(*j.old, rec) {
		return nil
	}
	return &rec
}

// same compares what matters about two records of a path.
func same(a, b record) bool {
	a.Epoch, b.Epoch = 0, 0
	return a == b
}

// secret is what a job writes when that must not be shown, sealed; else nothing.
func (j *job) secret() manifest.Sensitive {
	var s manifest.Sensitive
	if j.want != nil && j.want.sensitive {
		s = j.tree.a.env.Sealer.Seal(string(j.want.content))
	}
	return s
}
