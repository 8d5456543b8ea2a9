package monitoring

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestEndpoints(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "answer"}, func() float64 { return 42 }))
	healthy := func(context.Context) error { return nil }
	ready := func(context.Context) error { return errors.New("kubelet has not registered the plugin yet") }

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, Handler(registry, healthy, ready)) }()

	for path, want := range map[string]struct {
		code int
		body string
	}{
		"/metrics": {http.StatusOK, "answer 42"},
		"/healthz": {http.StatusOK, "ok"},
		"/readyz":  {http.StatusServiceUnavailable, "kubelet has not registered the plugin yet"},
		"/other":   {http.StatusNotFound, ""},
	} {
		response, err := http.Get("http://" + listener.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != want.code || !strings.Contains(string(body), want.body) {
			t.Errorf("%s: got %d %q, want %d %q", path, response.StatusCode, body, want.code, want.body)
		}
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("stopping: %v", err)
	}
}
