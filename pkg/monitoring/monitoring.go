// Package monitoring is what a program of ours shows over HTTP: /metrics for
// Prometheus, /healthz and /readyz for kubelet's probes.
package monitoring

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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

// Serve serves handler on listener until ctx is done.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
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
