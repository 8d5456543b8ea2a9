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
	go func() { done <- serve(ctx, listener, Handler(registry, healthy, ready)) }()

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

func TestBesideWork(t *testing.T) {
	failed := errors.New("the work has failed")
	// address is one that is free, at least for a moment.
	address := func() string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		return listener.Addr().String()
	}
	endpoints := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	t.Run("served while it goes on", func(t *testing.T) {
		at := address()
		err := Beside(t.Context(), at, endpoints, func(context.Context) error {
			response, err := http.Get("http://" + at)
			if err != nil {
				return err
			}
			return errors.Join(response.Body.Close(), failed)
		})
		if !errors.Is(err, failed) {
			t.Errorf("error %v", err)
		}
		if _, err := net.Dial("tcp", at); err == nil {
			t.Error("still served when the work has ended")
		}
	})
	t.Run("without", func(t *testing.T) {
		if err := Beside(t.Context(), "", endpoints, func(context.Context) error { return failed }); !errors.Is(err, failed) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("told to end", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		if err := Beside(ctx, address(), endpoints, func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	t.Run("address in use", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		at := listener.Addr().String()
		err = Beside(t.Context(), at, endpoints, func(context.Context) error {
			t.Error("worked all the same")
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), `--http-address "`+at+`"`) {
			t.Errorf("error %v", err)
		}
	})
}
