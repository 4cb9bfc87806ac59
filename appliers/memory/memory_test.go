package memory_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

func operation(a appliers.Applier, t *testing.T, action plan.Action, obj *manifest.Object) appliers.Operation {
	t.Helper()
	r, err := a.Resolve(obj)
	if err != nil {
		t.Fatal(err)
	}
	c := plan.Change{Key: plan.Key{Target: "mem", ID: obj.ID()}, Action: action, Desired: r.Object, Entry: plan.Entry{Locator: r.Locator}}
	if action == plan.Delete {
		c.Desired = nil
	}
	return appliers.Operation{Change: c, Application: "shop", Epoch: 1}
}

func apply(t *testing.T, a appliers.Applier, ops ...appliers.Operation) []appliers.Result {
	t.Helper()
	return a.Apply(t.Context(), ops)
}

func query(obj *manifest.Object, fields ...manifest.Pointer) appliers.Query {
	return appliers.Query{Key: plan.Key{Target: "mem", ID: obj.ID()}, Locator: memory.Locate(obj), Fields: fields}
}

func look(t *testing.T, a appliers.Applier, q appliers.Query) plan.Observed {
	t.Helper()
	seen, err := a.Observe(t.Context(), []appliers.Query{q})
	if err != nil {
		t.Fatal(err)
	}
	return seen[q.Key]
}

// Row D-56: the target adds fields and keeps amounts in its own form, and neither is a difference.
func TestDefaultsAndForms(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{
		FieldOwners: true, Defaults: map[manifest.Pointer]any{"/spec/restart": "Always"}, Normalize: memory.Quantities,
	})
	obj := object(t, "x", map[string]any{"memory": "1024Mi"})
	apply(t, a, operation(a, t, plan.Create, obj))
	live, _ := world.Get(memory.Locate(obj))
	if got, _ := manifest.Lookup(live.Content, "/spec/restart"); got != "Always" {
		t.Errorf("default field = %v", got)
	}
	if got, _ := manifest.Lookup(live.Content, "/spec/memory"); got != "1Gi" {
		t.Errorf("amount = %v, want the target's form", got)
	}
	seen := look(t, a, query(obj, "/spec/memory"))
	if got := seen.Object.Spec(); !manifest.Equal(got, map[string]any{"memory": "1Gi"}) {
		t.Errorf("projection = %v, want only the field that was asked for", got)
	}
	world.SetField("hpa", memory.Locate(obj), "/spec/replicas", int64(7))
	op := operation(a, t, plan.Update, object(t, "x", map[string]any{"memory": "2Gi"}))
	if r := apply(t, a, op)[0]; r.Outcome != appliers.Done {
		t.Fatal(r.Err)
	}
	live, _ = world.Get(memory.Locate(obj))
	if got, _ := manifest.Lookup(live.Content, "/spec/replicas"); got != int64(7) {
		t.Errorf("another writer's field = %v after an update, want it kept", got)
	}
}

// A field that is no longer desired is removed, where the target keeps other fields.
func TestRemovedField(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{FieldOwners: true})
	obj := object(t, "x", map[string]any{"a": "1", "b": "2"})
	apply(t, a, operation(a, t, plan.Create, obj))
	op := operation(a, t, plan.Update, object(t, "x", map[string]any{"a": "1"}))
	op.Change.Fields = []plan.FieldChange{{Path: "/spec/b", Op: plan.FieldRemove, Before: "2"}}
	apply(t, a, op)
	live, _ := world.Get(memory.Locate(obj))
	if got := live.Content["spec"]; !manifest.Equal(got, map[string]any{"a": "1"}) {
		t.Errorf("spec = %v", got)
	}
}

// Row D-53: a conflict names the field and the other writer.
func TestConflictNamesTheWriter(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{Conflicts: true})
	obj := object(t, "x", map[string]any{"replicas": int64(1), "image": "a"})
	apply(t, a, operation(a, t, plan.Create, obj))
	world.SetField("autoscaler", memory.Locate(obj), "/spec/replicas", int64(5))
	r := apply(t, a, operation(a, t, plan.Update, obj))[0]
	if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Stop ||
		!strings.Contains(r.Err.Error(), "autoscaler") || !strings.Contains(r.Err.Error(), "/spec/replicas") {
		t.Errorf("%v %v", r.Outcome, r.Err)
	}
}

func TestBatchIsConsistentOrRefused(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{Batch: true})
	if _, ok := appliers.Ability[appliers.Batcher](a); !ok {
		t.Fatal("no Batcher")
	}
	route := operation(a, t, plan.Create, object(t, "route", map[string]any{"refs": []any{"cluster"}}))
	cluster := operation(a, t, plan.Create, object(t, "cluster", map[string]any{}))
	r := apply(t, a, route)[0]
	if r.Outcome != appliers.Refused || appliers.ClassOf(r.Err) != appliers.Wait || !strings.Contains(r.Err.Error(), "cluster") {
		t.Errorf("half a set: %v %v", r.Outcome, r.Err)
	}
	for _, r := range apply(t, a, route, cluster) {
		if r.Outcome != appliers.Done {
			t.Errorf("the whole set: %v %v", r.Outcome, r.Err)
		}
	}
	if r := apply(t, a, operation(a, t, plan.Delete, object(t, "cluster", map[string]any{})))[0]; r.Outcome != appliers.Refused {
		t.Errorf("removing what is referred to: %v", r.Outcome)
	}
	if len(world.List()) != 2 {
		t.Errorf("%d objects", len(world.List()))
	}
}

func TestKinds(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{
		Kinds: func(gk manifest.GroupKind) bool { return gk.Kind == "Thing" },
	})
	gk := manifest.GroupKind{Group: "test.gitopsd.io", Kind: "Thing"}
	if answer, err := a.Takes(manifest.GroupKind{Kind: "Pod"}); answer != appliers.No || err != nil {
		t.Errorf("Pod: %v %v", answer, err)
	}
	down := errors.New("503")
	world.SetFaults(memory.Faults{UnknownKind: func(manifest.GroupKind) error { return down }})
	if answer, err := a.Takes(gk); answer != appliers.Unknown || !errors.Is(err, down) {
		t.Errorf("discovery down: %v %v", answer, err)
	}
}

// Two names with one address are one thing: a rename in Git does not touch it.
func TestOneAddress(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{Marks: true})
	old := object(t, "old", map[string]any{"address": "a1", "v": int64(1)})
	renamed := object(t, "new", map[string]any{"address": "a1", "v": int64(1)})
	apply(t, a, operation(a, t, plan.Create, old))
	if r := apply(t, a, operation(a, t, plan.Update, renamed))[0]; r.Outcome != appliers.Done {
		t.Fatal(r.Err)
	}
	if c := world.Counters(); c.Creates != 1 || c.Deletes != 0 || len(world.List()) != 1 {
		t.Errorf("counters %+v", c)
	}
	m, _ := appliers.Ability[appliers.Marker](a)
	if got, err := m.Marked(t.Context()); err != nil || len(got) != 1 || got[0].Key.ID.Name != "new" {
		t.Errorf("marks %v %v, want the new name", got, err)
	}
}

func TestSecretsAreMasked(t *testing.T) {
	world := memory.NewWorld()
	a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{})
	obj := object(t, "x", map[string]any{"secrets": map[string]any{"token": "CANARY"}})
	op := operation(a, t, plan.Create, obj)
	apply(t, a, op)
	seen := look(t, a, query(obj, "/spec/secrets"))
	for _, v := range []any{op.Change.Desired, seen.Object} {
		text, err := json.Marshal(v)
		if err != nil || strings.Contains(string(text), "CANARY") || strings.Contains(fmt.Sprintf("%+v", seen.Object.Content()), "CANARY") {
			t.Errorf("%s %v", text, err)
		}
	}
	if live, _ := world.Get(memory.Locate(obj)); !strings.Contains(fmt.Sprint(live.Content), "CANARY") {
		t.Errorf("the target itself did not get the secret: %v", live.Content)
	}
}

// The seam is asked for every write, and an error after the write is uncertain, not refused.
func TestSeam(t *testing.T) {
	world := memory.NewWorld()
	var names []effect.Name
	a := memory.New(appliers.Env{Target: "mem", Effect: func(name effect.Name, _ string, do func() error) error {
		names = append(names, name)
		_ = do()
		return errors.New("the fault comes after the write")
	}}, world, memory.Personality{})
	obj := object(t, "x", map[string]any{})
	if r := apply(t, a, operation(a, t, plan.Create, obj))[0]; r.Outcome != appliers.Uncertain || len(world.List()) != 1 {
		t.Errorf("create: %v, %d objects", r.Outcome, len(world.List()))
	}
	if r := apply(t, a, operation(a, t, plan.Delete, obj))[0]; r.Outcome != appliers.Uncertain || len(world.List()) != 0 {
		t.Errorf("delete: %v, %d objects", r.Outcome, len(world.List()))
	}
	if len(names) != 2 || names[0] != effect.TargetApply || names[1] != effect.TargetDelete {
		t.Errorf("effects %v", names)
	}
}

// In a bubble: time passes by itself, a call that hangs ignores its context
// until it is released, latency takes its time.
func TestInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := memory.NewWorld()
		a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{Async: &memory.Async{After: 10 * time.Second}})
		obj := object(t, "x", map[string]any{"v": int64(1)})
		r := apply(t, a, operation(a, t, plan.Create, obj))[0]
		if r.Outcome != appliers.Pending || r.CheckAfter != 10*time.Second {
			t.Fatalf("%v after %v", r.Outcome, r.CheckAfter)
		}
		if h, _ := appliers.Ability[appliers.HealthChecker](a); h == nil {
			t.Fatal("no HealthChecker")
		} else if got, _ := h.Health(t.Context(), []appliers.Query{query(obj)}); got[query(obj).Key].Status != appliers.Progressing {
			t.Errorf("health %v while pending", got)
		}
		if o := look(t, a, query(obj)); o.Presence != plan.Absent {
			t.Errorf("there too early")
		}
		time.Sleep(10 * time.Second)
		if o := look(t, a, query(obj)); o.Presence != plan.Present {
			t.Errorf("not there in time")
		}
		release, start := make(chan struct{}), time.Now()
		world.SetFaults(memory.Faults{Hang: release, Latency: func(context.Context, string) { time.Sleep(time.Second) }})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := a.Observe(ctx, []appliers.Query{query(obj)})
			ended <- err
		}()
		time.Sleep(time.Hour)
		select {
		case err := <-ended:
			t.Errorf("a call that should hang ended: %v", err)
		default:
		}
		close(release)
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestWatchReportsHandsAndLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := memory.NewWorld()
		a := memory.New(appliers.Env{Target: "mem"}, world, memory.Personality{})
		w, _ := appliers.Ability[appliers.Watcher](a)
		x, y := object(t, "x", map[string]any{}), object(t, "y", map[string]any{})
		w.SetWatched("shop", []appliers.Query{query(x)})
		ctx, cancel := context.WithCancel(t.Context())
		var reports [][]plan.Key
		ended := make(chan error, 1)
		var losses int
		go func() {
			ended <- w.Watch(ctx, func(keys []plan.Key, lost bool) {
				if lost {
					losses++
					return
				}
				reports = append(reports, keys)
			})
		}()
		synctest.Wait()
		world.Set("bob", y)
		synctest.Wait()
		world.Set("bob", x)
		world.Delete(memory.Locate(x))
		synctest.Wait()
		world.LoseEvents()
		synctest.Wait()
		cancel()
		<-ended
		if len(reports) != 1 || len(reports[0]) != 1 || reports[0][0].ID.Name != "x" || losses != 2 {
			t.Errorf("reports %v and %d losses, want a loss of what was before, x, and a loss", reports, losses)
		}
		if world.Watches() != 0 {
			t.Errorf("%d watches left", world.Watches())
		}
	})
}
