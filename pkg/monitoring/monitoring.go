// Package monitoring is what a program of ours shows over HTTP: /metrics for
// Prometheus, /healthz and /readyz for kubelet's probes.
package monitoring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"
)

// checkTimeout bounds one probe, so that a stuck check shows as a failed one.
const checkTimeout = 5 * time.Second

// Check returns nil, or why the program is not healthy or not ready.
type Check func(ctx context.Context) error

// Handler serves the endpoints.
func Handler(metrics prometheus.Gatherer, healthy, ready Check) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle("GET /healthz", probe("healthz", healthy))
	mux.Handle("GET /readyz", probe("readyz", ready))
	return mux
}

func probe(name string, check Check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
		defer cancel()
		if err := check(ctx); err != nil {
			klog.FromContext(r.Context()).Error(err, "Probe failed", "probe", name)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		if _, err := fmt.Fprintln(w, "ok"); err != nil {
			klog.FromContext(r.Context()).V(4).Info("Probe's answer not sent", "probe", name, "err", err)
		}
	}
}

// NewRegistry returns a registry with the metrics that every Go program has.
func NewRegistry() (*prometheus.Registry, error) {
	registry := prometheus.NewRegistry()
	err := errors.Join(
		registry.Register(collectors.NewGoCollector()),
		registry.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})))
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return registry, nil
}

// Beside works with the endpoints beside it, until ctx is done; when one ends, so
// does the other. The address is the value of the flag --http-address, which all
// programs have: an error of listening names it, and nothing is no endpoints.
func Beside(ctx context.Context, address string, endpoints http.Handler, work func(context.Context) error) error {
	if address == "" {
		return work(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--http-address %q: %w", address, err)
	}
	var (
		wg      sync.WaitGroup
		httpErr error
	)
	wg.Go(func() {
		defer cancel()
		httpErr = serve(ctx, listener, endpoints)
	})
	err = work(ctx)
	cancel()
	wg.Wait()
	return errors.Join(err, httpErr)
}

// serve serves handler on listener until ctx is done.
func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: checkTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // Serve reports it
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics and probes on %s: %w", listener.Addr(), err)
	}
	return nil
}
