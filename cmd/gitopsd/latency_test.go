package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/appliers"
	memapply "github.com/gitopsd/gitopsd/appliers/memory"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	memstore "github.com/gitopsd/gitopsd/internal/store/memory"
	"github.com/gitopsd/gitopsd/reconciler"
	"github.com/gitopsd/gitopsd/sources"
	memsource "github.com/gitopsd/gitopsd/sources/memory"
)

// crowd is how many applications a daemon has here, and hangs how many of them
// are on a target that never answers.
const (
	crowd = 1000
	hangs = 100
)

// crowded runs loop and API of a daemon on a socket, where one of two targets
// hangs for ever, and returns the socket once all applications
// of the other are in step.
func crowded(tb testing.TB) (socket string) {
	tb.Helper()
	d := &daemon{daemonOptions: daemonOptions{socket: filepath.Join(tb.TempDir(), "s")}, log: slog.New(slog.DiscardHandler), started: time.Now()}
	sealer, err := manifest.NewSealer([]byte(strings.Repeat("k", 32)))
	if err != nil {
		tb.Fatal(err)
	}
	// In memory, so that a busy disk is not what is measured.
	db := memstore.New()
	if d.manager, err = reconciler.New(tb.Context(), reconciler.Options{Store: db, Sealer: sealer}); err != nil {
		tb.Fatal(err)
	}
	hang := make(chan struct{})
	worlds := map[string]*memapply.World{"good": memapply.NewWorld(), "dead": memapply.NewWorld()}
	worlds["dead"].SetFaults(memapply.Faults{Hang: hang})
	config, files := reconciler.Config{}, map[string]string{}
	for i := range crowd {
		name, target := fmt.Sprintf("app%04d", i), "good"
		if i < hangs {
			target = "dead"
		}
		files[name+"/x.yaml"] = fmt.Sprintf("apiVersion: test.example/v1\nkind: Thing\nmetadata: {name: %s}\nspec: {value: 1}\n", name)
		config.Applications = append(config.Applications, reconciler.Application{
			Name: name, Digest: "1", Source: "fleet", Path: name, Interval: 30 * time.Second, StaleAfter: time.Hour, Routes: []appliers.Route{{Target: target}},
		})
	}
	repo := memsource.New()
	repo.CommitFiles("main", files)
	config.Sources = []reconciler.SourceConfig{{Name: "fleet", Digest: "1", Identity: "fleet", Open: func() (*sources.Source, error) {
		return &sources.Source{Name: "fleet", Repository: repo, Ref: sources.Ref{Branch: "main"}, Interval: time.Second}, nil
	}}}
	for name, world := range worlds {
		config.Targets = append(config.Targets, reconciler.TargetConfig{Name: name, Digest: "1", Open: func() (appliers.Applier, error) {
			return memapply.New(appliers.Env{Target: name, Now: time.Now, Sealer: sealer, Effect: effect.Direct}, world, memapply.Personality{}), nil
		}})
	}
	ln, err := api.Listen(d.socket, api.Access{})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- d.manager.Run(ctx, config) }()
	go func() {
		<-d.manager.Ready()
		ended <- api.Serve(ctx, ln, d.handler(), approvers())
	}()
	tb.Cleanup(func() {
		close(hang)
		cancel()
		if err := errors.Join(<-ended, <-ended, db.Close()); err != nil {
			tb.Error(err)
		}
	})
	for deadline := time.Now().Add(2 * time.Minute); ; pause(time.Second) {
		synced := 0
		for _, a := range statuses(tb, d.socket, time.Minute) {
			if a.Sync == "Synced" {
				synced++
			}
		}
		if synced == crowd-hangs {
			return d.socket
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%d applications are in step, want %d", synced, crowd-hangs)
		}
	}
}

// statuses asks as gitopsd status does: a new connection and one call.
func statuses(tb testing.TB, socket string, patience time.Duration) []*pb.ApplicationStatus {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client, err := api.Dial(ctx, socket)
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	res, err := client.GetStatus(ctx, connect.NewRequest(&pb.GetStatusRequest{}))
	if err != nil {
		tb.Fatal(err)
	}
	if len(res.Msg.Applications) != crowd {
		tb.Fatalf("%d applications, want %d", len(res.Msg.Applications), crowd)
	}
	return res.Msg.Applications
}

// TestStatusWhileATargetHangs: with a thousand applications and a target that
// hangs for ever, the status comes at once and tells the two kinds apart (row
// D-57). The bound is loose, so that a busy host does not fail it; how long it
// takes is measured by BenchmarkStatus.
func TestStatusWhileATargetHangs(t *testing.T) {
	socket := crowded(t)
	for _, a := range statuses(t, socket, 5*time.Second) {
		if dead := a.Application < fmt.Sprintf("app%04d", hangs); (a.Sync == "Synced") == dead {
			t.Errorf("%s is %s: %s", a.Application, a.Sync, a.Message)
		}
	}
	out, errOut, code := runCLI(t, streams{}, "status", "app0999", "--exit-code", "--timeout", "5s", "--socket", socket)
	if code != exitOK {
		t.Errorf("exit %d: %s%s", code, out, errOut)
	}
}

// BenchmarkStatus measures one gitopsd status of a thousand applications, while
// the loop works and a target hangs: connection, call, and all of the answer.
func BenchmarkStatus(b *testing.B) {
	socket := crowded(b)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		statuses(b, socket, time.Minute)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	b.ReportMetric(ms(took[len(took)/2]), "p50-ms")
	b.ReportMetric(ms(took[(len(took)*99-1)/100]), "p99-ms")
}
