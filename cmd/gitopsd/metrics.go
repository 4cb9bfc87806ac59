package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gitopsd/gitopsd/reconciler"
)

// serveLimits of the metrics server: it answers small requests from one place.
const (
	metricsHeaderTimeout = 5 * time.Second
	metricsDrain         = 2 * time.Second
)

// listenMetrics opens the address of the metrics, or returns nil when there is none.
func (d *daemon) listenMetrics() (*metricsServer, error) {
	if d.metrics == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", d.metrics)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w; choose another address with --metrics-address, or none with --metrics-address=", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", d.ready)
	return &metricsServer{ln, mux}, nil
}

// ready answers 200 once every application has been looked at, whatever came of it.
func (d *daemon) ready(w http.ResponseWriter, _ *http.Request) {
	statuses, err := d.manager.Status()
	if err == nil {
		for _, s := range statuses {
			if s.Sync == reconciler.SyncUnknown && s.Candidate == nil {
				err = fmt.Errorf("application %s: %s", s.Application, s.Message)
				break
			}
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, ln net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: metricsHeaderTimeout}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	select {
	case err := <-done:
		return fmt.Errorf("metrics: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), metricsDrain)
	defer cancel()
	err := server.Shutdown(drain)
	if served := <-done; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
