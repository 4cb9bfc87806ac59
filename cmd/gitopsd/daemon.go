package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/gitopsd/gitopsd/appliers/file"
	"github.com/gitopsd/gitopsd/internal/api"
	"github.com/gitopsd/gitopsd/internal/audit"
	"github.com/gitopsd/gitopsd/internal/config"
	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/bolt"
	"github.com/gitopsd/gitopsd/reconciler"
)

// epoch is the fence of a daemon that has no rival: constant until there is
// high availability.
const epoch = 1

// daemonOptions are the flags of gitopsd run.
type daemonOptions struct {
	config   string
	stateDir string
	socket   string
	group    string // may connect to the socket; "" leaves it to roles
	roles    roleFlags
	metrics  string // address of /metrics, /healthz, /readyz; "" serves none
}

// daemon is one running gitopsd.
type daemon struct {
	daemonOptions
	log      *slog.Logger
	wiring   wiring
	manager  *reconciler.Manager
	audit    *audit.Log
	started  time.Time
	registry *prometheus.Registry

	mu           sync.Mutex
	configDigest string
	configErr    string
}

// runDaemon works until ctx ends. Ending changes nothing in the world.
func runDaemon(ctx context.Context, o daemonOptions, log *slog.Logger) (err error) {
	d := &daemon{daemonOptions: o, log: log, started: time.Now()}
	if err := d.absolutePaths(); err != nil {
		return err
	}
	roles, err := d.roles.roles(d.group)
	if err != nil {
		return err
	}
	cfg, err := config.LoadPath(d.config)
	if err != nil {
		return err
	}
	db, err := d.openState(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	ln, err := api.Listen(d.socket, d.roles.access(d.group))
	if err != nil {
		return err
	}
	first, err := d.take(cfg)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	metrics, err := d.listenMetrics()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	address := "none"
	if metrics != nil {
		address = metrics.listener.Addr().String()
	}
	log.Info("gitopsd started", "version", release(), "config", d.config, "state", d.stateDir, "socket", d.socket, "metrics", address)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.manager.Run(ctx, first) })
	group.Go(func() error {
		select { // who connects earlier waits: an empty status would be taken for the truth
		case <-d.manager.Ready():
		case <-ctx.Done():
			return ln.Close()
		}
		return api.Serve(ctx, ln, d.handler(), roles)
	})
	group.Go(func() error { return d.watchConfig(ctx) })
	if metrics != nil {
		group.Go(func() error { return serveHTTP(ctx, metrics.listener, metrics.handler) })
	}
	err = group.Wait()
	log.Info("gitopsd stopped")
	return err
}

func (d *daemon) absolutePaths() error {
	for _, p := range []*string{&d.config, &d.stateDir, &d.socket} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	return nil
}

// openState opens what the daemon knows: key, store, audit log and inventory.
func (d *daemon) openState(ctx context.Context) (db store.Store, err error) {
	if err := os.MkdirAll(d.stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w; name another with --state-dir", err)
	}
	seam, err := newSeam()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(d.stateDir, "gitopsd.db")
	db, err = bolt.Open(path, bolt.Options{Effect: seam})
	if errors.Is(err, bolt.ErrLocked) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w; nothing was changed (a damaged file can be moved aside: what is desired is found again in Git, and taken over where it is as desired; what has left Git since stays where it is)", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	sealer, err := loadSealer(filepath.Join(d.stateDir, "digest.key"), seam)
	if err != nil {
		return nil, err
	}
	d.audit, err = audit.Open(ctx, audit.Options{Store: db, Writer: "gitopsd", Now: time.Now, Epoch: func() uint64 { return epoch }})
	if err != nil {
		return nil, err
	}
	d.wiring = wiring{
		stateDir: d.stateDir, store: db, sealer: sealer, log: d.log, seam: seam, epoch: epoch,
		protected: []string{d.stateDir, d.config, d.socket}, locks: file.NewLocks(),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	d.manager, err = reconciler.New(ctx, reconciler.Options{
		Store: db, Sealer: sealer, Log: d.log, Epoch: epoch, Events: d.record, Metrics: reconciler.NewMetrics(registry),
	})
	d.registry = registry
	return db, err
}

// loadSealer reads the key of all digests, or makes one. Without the key what
// was last applied cannot be told from what drifted; nothing else is lost.
func loadSealer(path string, do effect.Seam) (*manifest.Sealer, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, 32)
		_, _ = rand.Read(key) // never fails (crypto/rand)
		err = writeKey(path, key, do)
	}
	if err != nil {
		return nil, fmt.Errorf("digest key: %w", err)
	}
	sealer, err := manifest.NewSealer(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup, or remove it to make a new one", path, err)
	}
	return sealer, nil
}

// writeKey puts a new key in place complete and durable, or not at all: half of
// one would count as damaged at the next start.
func writeKey(path string, key []byte, do effect.Seam) error {
	temp := path + ".new" // one daemon at a time has the state directory, and what a crash left is overwritten
	err := do(effect.FileWrite, temp, func() error {
		f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(key)
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err == nil {
		err = do(effect.FileRename, path, func() error { return os.Rename(temp, path) })
	}
	if err != nil {
		return err
	}
	return do(effect.FileSyncDir, filepath.Dir(path), func() error {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return err
		}
		return errors.Join(dir.Sync(), dir.Close())
	})
}

// record is where every event ends up: the audit log.
func (d *daemon) record(ctx context.Context, events []reconciler.Event) error {
	entries := make([]audit.Entry, 0, len(events))
	for _, e := range events {
		entries = append(entries, audit.Entry{
			At: e.At, Kind: string(e.Kind), Application: e.Application, Principal: cmp.Or(e.Principal, "gitopsd"), Message: e.Message, Data: e.Data,
		})
	}
	return d.audit.Append(ctx, entries...)
}

// take makes the loop's configuration of cfg and remembers its digest.
func (d *daemon) take(cfg *config.Config) (reconciler.Config, error) {
	out, err := d.wiring.reconcilerConfig(cfg)
	if err == nil {
		d.setConfig(cfg.Digest, nil)
	}
	return out, err
}

func (d *daemon) setConfig(digest string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.configErr = ""
	if err != nil {
		d.configErr = err.Error()
		return
	}
	d.configDigest = digest
}

// reload takes up a changed configuration; an invalid one is refused and said.
func (d *daemon) reload(ctx context.Context) {
	cfg, err := config.LoadPath(d.config)
	if err == nil {
		d.mu.Lock()
		same, refused := cfg.Digest == d.configDigest, d.configErr != ""
		d.mu.Unlock()
		if same {
			d.setConfig(cfg.Digest, nil)
			if refused {
				d.log.Info("the configuration is again the one that runs", "digest", cfg.Digest[:12])
			}
			return
		}
		var next reconciler.Config
		if next, err = d.wiring.reconcilerConfig(cfg); err == nil {
			err = d.manager.Reload(ctx, next)
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		d.setConfig("", err)
		d.log.Error("the new configuration is refused; the running one stays", "error", err)
		return
	}
	d.setConfig(cfg.Digest, nil)
	d.log.Info("configuration reloaded", "digest", cfg.Digest[:12])
}

func (d *daemon) handler() http.Handler {
	return api.NewHandler(d.manager, api.Options{
		Audit: auditLog{d.audit}, Log: d.log,
		Info: func() api.Info {
			d.mu.Lock()
			defer d.mu.Unlock()
			return api.Info{Version: release(), Started: d.started, ConfigDigest: d.configDigest, ConfigError: d.configErr}
		},
	})
}

type metricsServer struct {
	listener net.Listener
	handler  http.Handler
}
