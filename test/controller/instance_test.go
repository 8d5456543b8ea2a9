package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/consumers"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/measure"
)

// instance is a controller that leads, in this process, and may do no more than
// the deployed one.
type instance struct {
	s      *site
	cancel context.CancelFunc
	// started is closed when the controller knows the cluster.
	started chan struct{}
	ended   chan error
	once    sync.Once
}

// settings are what a test wants of its controller.
type settings struct {
	faults *faults
	// way, if not nil, is the way of the requests to the API server.
	way      func(next http.RoundTripper) http.RoundTripper
	unused   time.Duration
	gangs    time.Duration
	topology string
}

// start runs a controller until the test ends, or stop.
func (s *site) start(set settings) *instance {
	s.t.Helper()
	s.number++
	ctx, cancel := context.WithCancel(s.ctx)
	i := &instance{s: s, cancel: cancel, started: make(chan struct{}), ended: make(chan error, 1)}
	logger := klog.Background().WithValues("instance", fmt.Sprintf("%s-%d", s.name, s.number))
	ctx = klog.NewContext(ctx, logger)
	config := asController()
	config.QPS = -1
	if set.faults != nil {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &faulty{next: next, faults: set.faults} })
	}
	if set.way != nil {
		config.Wrap(set.way)
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: clientgoscheme.Scheme, Cache: allocation.CacheOptions(), Logger: logger,
		Metrics: metricsserver.Options{BindAddress: "0"}, BaseContext: func() context.Context { return ctx },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.wire(ctx, mgr, config, set); err != nil {
		s.t.Fatal(err)
	}
	err = mgr.Add(manager.RunnableFunc(func(context.Context) error {
		close(i.started)
		return nil
	}))
	if err != nil {
		s.t.Fatal(err)
	}
	go func() { i.ended <- mgr.Start(ctx) }()
	s.t.Cleanup(i.stop)
	return i
}

func (s *site) wire(ctx context.Context, mgr ctrl.Manager, config *rest.Config, set settings) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	known := fleet.New(s.name)
	metrics, err := measure.New(prometheus.NewRegistry(), measure.Options{Fleet: known})
	if err != nil {
		return err
	}
	_, err = allocation.Setup(ctx, mgr, allocation.Options{
		Name: fmt.Sprintf("%s-%d", s.name, s.number), DriverName: s.name, Namespace: s.name,
		Client: client, Fleet: known, Consumers: consumers.NewIndex(), Metrics: metrics,
		Events:      broadcaster.NewRecorder(clientgoscheme.Scheme, corev1.EventSource{Component: "controller"}),
		UnusedAfter: orLong(set.unused), GangTimeout: orLong(set.gangs), TopologyLabel: set.topology, Workers: 16,
	})
	return err
}

func orLong(d time.Duration) time.Duration {
	if d == 0 {
		return time.Hour
	}
	return d
}

// stop ends the controller and returns when it has ended. A second time does
// nothing.
func (i *instance) stop() {
	// A manager that is stopped while it starts never ends.
	select {
	case <-i.started:
	case <-time.After(patience):
		i.s.t.Error("the controller has not started")
	}
	i.cancel()
	i.once.Do(func() {
		if err := <-i.ended; err != nil && !strings.Contains(err.Error(), errCrashed.Error()) {
			i.s.t.Error(err)
		}
	})
}

var errCrashed = errors.New("this controller has crashed")

// faults say after which write to the API a controller is as good as dead.
type faults struct {
	// after is how many writes come through. After them, and with answer also in
	// place of the last one's answer, every request fails.
	after int
	// answer tells that the answer of the last write gets lost, too.
	answer bool
	// once tells that only that answer gets lost, and nothing else happens.
	once bool

	mu      sync.Mutex
	writes  int
	crashed chan struct{}
}

// faulty is the way of a controller's requests to the API server.
type faulty struct {
	next http.RoundTripper
	*faults
}

// RoundTrip implements [http.RoundTripper].
func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	write := r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/events")
	f.mu.Lock()
	if write {
		f.writes++
	}
	number := f.writes
	dead := !f.once && (number > f.after || f.answer && number >= f.after && !write)
	if dead {
		f.tell()
	}
	f.mu.Unlock()
	if dead {
		return nil, errCrashed
	}
	response, err := f.next.RoundTrip(r)
	if write && number == f.after && f.answer {
		f.mu.Lock()
		f.tell()
		f.mu.Unlock()
		if err == nil {
			_ = response.Body.Close()
		}
		return nil, errCrashed
	}
	return response, err
}

func (f *faulty) tell() {
	select {
	case <-f.crashed:
	default:
		close(f.crashed)
	}
}
