package nodelabels

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

const (
	// steadyFor is how long fewer GPUs than the labels say must have been seen
	// before the labels say so: longer than it takes a driver to load, or to be
	// replaced.
	steadyFor = 2 * time.Minute
	// lookEvery is how often is looked whether the labels are still there.
	lookEvery = 5 * time.Minute
	// retryAfter is how long after a failure the next try comes.
	retryAfter = 15 * time.Second
	// askFor bounds one call of the API server.
	askFor = 10 * time.Second
)

// Options are what [New] needs. Durations that are 0 have defaults.
type Options struct {
	Client kubernetes.Interface
	Node   string
	// Manager is the name under which the labels are owned.
	Manager string
	Config  v1alpha1.NodeLabelsConfig
	// SteadyFor is how long fewer GPUs than before must have been seen before
	// the labels say so. Default 2 min.
	SteadyFor time.Duration
	// RetryAfter is how long after a failure the next try comes. Default 15 s.
	RetryAfter time.Duration
}

// Keeper keeps the labels. A nil one keeps none.
type Keeper struct {
	options   Options
	conflicts *prometheus.GaugeVec
	news      chan struct{}

	mu    sync.Mutex
	found *finding
	// fewerSince is since when the same number of GPUs is seen, fewer, that is
	// less than the labels say. It is zero if there are not less.
	fewerSince time.Time
	fewer      int

	// told is what was last logged, so that it is said once.
	told string
}

// finding is what one look at the hardware brought.
type finding struct {
	products []string
	// whole says that nothing was left out because something could not tell.
	whole bool
}

// New returns a keeper that keeps nothing before [Keeper.Run], and registers its
// metric.
func New(options Options, registry prometheus.Registerer) (*Keeper, error) {
	if options.SteadyFor == 0 {
		options.SteadyFor = steadyFor
	}
	if options.RetryAfter == 0 {
		options.RetryAfter = retryAfter
	}
	k := &Keeper{options: options, news: make(chan struct{}, 1), conflicts: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "eks_hybrid_dra_node_label_conflict",
		Help: "1 while a label of the node that the plugin is to set has been set to another value by somebody else.",
	}, []string{"label"})}
	if err := registry.Register(k.conflicts); err != nil {
		return nil, fmt.Errorf("register the metric of the node's labels: %w", err)
	}
	return k, nil
}

// Found tells which products the node's GPUs are. Whole says that every family
// of devices could tell what is there. It never blocks.
func (k *Keeper) Found(products []string, whole bool) {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.found = &finding{products: products, whole: whole}
	k.mu.Unlock()
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// Run keeps the labels until ctx is done. They stay then: another instance of
// the plugin may keep them, and they are still true.
func (k *Keeper) Run(ctx context.Context) {
	if k == nil {
		return
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.news:
		case <-timer.C:
		}
		next, err := k.step(ctx, time.Now())
		k.tell(ctx, err)
		timer.Reset(next)
	}
}

// Remove takes away the labels that were set under this manager's name.
func (k *Keeper) Remove(ctx context.Context) error {
	if k == nil {
		return nil
	}
	node, err := k.node(ctx)
	if err != nil {
		return err
	}
	if len(owned(node, k.options.Manager)) == 0 {
		return nil
	}
	_, err = k.apply(ctx, nil)
	return err
}

// step brings the labels up to date, and returns after which time to look again.
func (k *Keeper) step(ctx context.Context, now time.Time) (time.Duration, error) {
	node, err := k.node(ctx)
	if err != nil {
		return k.options.RetryAfter, err
	}
	has := owned(node, k.options.Manager)
	wanted, next := k.decide(has, now)
	if wanted == nil {
		return next, nil
	}
	var conflicts map[string]string
	if !maps.Equal(wanted, has) {
		if conflicts, err = k.apply(ctx, wanted); err != nil {
			return k.options.RetryAfter, err
		}
	}
	k.conflicts.Reset()
	for key := range conflicts {
		k.conflicts.WithLabelValues(key).Set(1)
	}
	if len(conflicts) > 0 {
		return next, &conflictError{node: k.options.Node, labels: conflicts}
	}
	return next, nil
}

// decide returns the labels that the node should have, nil if they are to stay
// as they are, and after which time to decide again.
func (k *Keeper) decide(has map[string]string, now time.Time) (map[string]string, time.Duration) {
	config := k.options.Config
	if !config.Enabled {
		return map[string]string{}, lookEvery
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.found == nil {
		return nil, lookEvery
	}
	// What is no number was not written here; every count is more than that.
	before, err := strconv.Atoi(has[config.GPUCount])
	if err != nil {
		before = 0
	}
	count := len(k.found.products)
	if count >= before {
		k.fewerSince = time.Time{}
	} else {
		if !k.found.whole {
			k.fewerSince = time.Time{}
			return nil, lookEvery
		}
		if k.fewerSince.IsZero() || k.fewer != count {
			k.fewerSince, k.fewer = now, count
		}
		if left := k.options.SteadyFor - now.Sub(k.fewerSince); left > 0 {
			return nil, left
		}
	}
	labels := map[string]string{}
	if count > 0 {
		labels[config.GPUCount] = strconv.Itoa(count)
		if model := modelOf(k.found.products); model != "" {
			labels[config.GPU] = model
		}
	}
	return labels, lookEvery
}

// tell logs what is wrong once, and that it is over.
func (k *Keeper) tell(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == k.told || ctx.Err() != nil {
		return
	}
	k.told = text
	if err != nil {
		klog.FromContext(ctx).Error(err, "The node's labels do not say what GPUs it has")
		return
	}
	klog.FromContext(ctx).Info("The node's labels say what GPUs it has")
}

func (k *Keeper) node(ctx context.Context) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	// Not from a cache: what was written a moment ago must be seen.
	node, err := k.options.Client.CoreV1().Nodes().Get(ctx, k.options.Node, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask for the labels of node %s: %w", k.options.Node, err)
	}
	return node, nil
}
