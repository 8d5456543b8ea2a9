package measure

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/classes"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// Values of labels.
const (
	// AllocatorController and AllocatorScheduler are who allocates a claim.
	AllocatorController = "controller"
	AllocatorScheduler  = "scheduler"
	// ClassOther stands for every DeviceClass that is not there or has nothing
	// to do with this driver, so that names in claims make no new series.
	ClassOther = "other"
)

// Options are what [New] needs.
type Options struct {
	// Fleet has what must be known of the cluster beside claims.
	Fleet *fleet.Fleet
	// Clock is the real one if it is nil.
	Clock clock.PassiveClock
}

// Metrics are the controller's. Only a leader's are shown: it is a runnable of
// a controller manager, and shows nothing before Start is called and after it
// has returned. It is told of claims all the while. It is safe for concurrent
// use.
type Metrics struct {
	fleet   *fleet.Fleet
	clock   clock.PassiveClock
	classes *classes.Reader
	born    time.Time

	durations *prometheus.HistogramVec
	errors    *prometheus.CounterVec
	pending   *prometheus.Desc
	usage     *prometheus.Desc

	mu      sync.Mutex
	leading bool
	waiting map[types.UID]*waiting
}

// waiting is a claim of this driver that is not allocated.
type waiting struct {
	asked []classes.Asked
	since time.Time
	// again is whether the claim was allocated before.
	again bool
}

// New registers the metrics.
func New(registry prometheus.Registerer, options Options) (*Metrics, error) {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	ofClaims := []string{"device_class", "kind", "allocator"}
	m := &Metrics{
		fleet: options.Fleet, clock: options.Clock, classes: classes.NewReader(options.Fleet.DriverName()),
		born:    options.Clock.Now(),
		waiting: map[types.UID]*waiting{},
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "dra_allocation_duration_seconds",
			Help: "Time from a claim's creation to its first allocation, by whomever.",
			// From what the controller needs to what a full cluster makes users wait.
			Buckets: []float64{.005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200},
		}, ofClaims),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dra_allocation_errors_total",
			Help: "What went wrong when claims were to be allocated, by reason.",
		}, append([]string{"reason"}, ofClaims...)),
		pending: prometheus.NewDesc("dra_pending_claims_total",
			"Claims of this driver that are not allocated.", ofClaims, nil),
		usage: prometheus.NewDesc("dra_resource_utilization_ratio",
			"Which part of a node's devices cannot be given any more because they, or what they consist of, are allocated.",
			[]string{"node", "kind"}, nil),
	}
	if err := registry.Register(m); err != nil {
		return nil, fmt.Errorf("register the metrics of claims: %w", err)
	}
	return m, nil
}

// Start shows the metrics until ctx is done.
func (m *Metrics) Start(ctx context.Context) error {
	m.lead(true)
	defer m.lead(false)
	<-ctx.Done()
	return nil
}

// NeedLeaderElection tells a controller manager that only one replica counts.
func (m *Metrics) NeedLeaderElection() bool { return true }

func (m *Metrics) lead(leading bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leading = leading
}

// Failed counts something that went wrong with a claim.
func (m *Metrics) Failed(claim *resourceapi.ResourceClaim, reason Reason) {
	if !slices.Contains(Reasons(), reason) {
		reason = ReasonOther
	}
	l, _ := m.labelsOf(m.fleet.View(), classes.Of(&claim.Spec))
	m.errors.WithLabelValues(string(reason), l.class, l.kind, l.allocator).Inc()
}

// WriteFailed counts an API server's answer to the write of an allocation.
func (m *Metrics) WriteFailed(claim *resourceapi.ResourceClaim, err error) {
	reason := ReasonWriteFailed
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		reason = ReasonConflict
	case apierrors.IsTooManyRequests(err):
		reason = ReasonThrottled
	case apierrors.IsForbidden(err):
		reason = ReasonForbidden
	}
	m.Failed(claim, reason)
}
