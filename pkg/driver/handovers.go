package driver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/managed"
)

// handovers are what the driver knows of who gives its devices to claims. All
// but the labels is used by publishing alone.
type handovers struct {
	*managed.Allocators
	kinds  []string
	settle time.Duration
	labels *nodeLabels

	// What was logged the last time.
	takenAlong   string
	unmanageable bool
	failure      string
}

func newHandovers(options Options) (*handovers, error) {
	settle, err := options.Managed.SettleTime()
	if err != nil {
		return nil, fmt.Errorf("managed.settle: %w", err)
	}
	selector := options.Managed.NodeSelector
	if len(options.Managed.Kinds) == 0 {
		selector = nil
	}
	return &handovers{
		Allocators: managed.New(managed.Options{Dir: options.DataDir, BootID: options.BootID, Settle: settle}),
		kinds:      options.Managed.Kinds,
		settle:     settle,
		labels:     &nodeLabels{client: options.KubeClient, node: options.NodeName, selector: selector},
	}, nil
}

// wantedAllocators is what the configuration and the node's labels want.
type wantedAllocators struct {
	devices []managed.Device
	kinds   map[string]string
	// count is how many devices are to be the controller's, and needTaints
	// tells that some are, or were.
	count      int
	needTaints bool
}

// wantedAllocators returns who is to give the devices. An error means that the
// API server does not say which labels the node has.
func (d *Driver) wantedAllocators(ctx context.Context, content pool) (wantedAllocators, error) {
	matches, err := d.handovers.labels.match(ctx)
	if err != nil {
		return wantedAllocators{}, err
	}
	w := wantedAllocators{kinds: make(map[string]string, len(content.devices))}
	for _, dev := range content.devices {
		wanted := managed.Device{Name: dev.Name, Managed: matches && slices.Contains(d.handovers.kinds, string(dev.Kind))}
		for _, c := range dev.Consumes {
			wanted.Shares = append(wanted.Shares, "counters "+c.CounterSet)
		}
		for _, thing := range dev.Occupies {
			wanted.Shares = append(wanted.Shares, "thing "+thing)
		}
		w.devices = append(w.devices, wanted)
		w.kinds[dev.Name] = string(dev.Kind)
		if wanted.Managed {
			w.count++
		}
	}
	along := managed.TakenAlong(w.devices)
	w.count += len(along)
	d.handovers.tellOfTakenAlong(ctx, along)
	w.needTaints = w.count > 0 || d.handovers.Known()
	return w, nil
}

// allocators brings the devices nearer to the allocators that they should have,
// and returns those that are not kube-scheduler's, and when to come back. An
// error means that nothing can be published now.
func (d *Driver) allocators(ctx context.Context, w wantedAllocators, kept features) (map[string]managed.Allocator, time.Duration, error) {
	h := d.handovers
	h.tellOfImpossible(ctx, d.options.Metrics, w, !kept.taints)
	question := managed.Question{Devices: w.devices, Impossible: !kept.taints}
	if h.WantsLook() {
		var err error
		if question.Seen, err = d.publishedAllocators(ctx); err != nil {
			h.tellOfFailure(ctx, err)
			return nil, 0, err
		}
	}
	decision, err := h.Decide(ctx, question)
	h.tellOfFailure(ctx, err)
	h.tellOfChanges(ctx, d.options.Metrics, w, decision.Changes)
	if !kept.taints {
		decision.Allocators = nil
	}
	d.options.Metrics.handovers.have(w, decision.Allocators)
	return decision.Allocators, decision.Next, nil
}

// publishedAllocators returns what the API says of who gives this node's
// devices.
func (d *Driver) publishedAllocators(ctx context.Context) (map[string]managed.Allocator, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	all, err := d.publishedSlices(ctx)
	if err != nil {
		return nil, fmt.Errorf("see who gives this node's devices: %w", err)
	}
	seen := map[string]managed.Allocator{}
	for _, s := range all {
		if s.Spec.Pool.Name != d.pool {
			continue
		}
		for _, dev := range s.Spec.Devices {
			// A device is in two slices while one replaces the other. As long
			// as somebody may give it, it has not settled.
			if said, ok := seen[dev.Name]; !ok || said == managed.Settling {
				seen[dev.Name] = allocatorOf(dev.Taints)
			}
		}
	}
	return seen, nil
}

// allocatorOf returns what taints say of who gives a device.
func allocatorOf(taints []resourceapi.DeviceTaint) managed.Allocator {
	for _, taint := range taints {
		if taint.Key != v1alpha1.TaintManaged {
			continue
		}
		if taint.Value == v1alpha1.ManagedByController {
			return managed.Controller
		}
		return managed.Settling
	}
	return managed.Scheduler
}

// managedTaints are what says who gives a device.
func managedTaints(allocator managed.Allocator) []resourceapi.DeviceTaint {
	taint := resourceapi.DeviceTaint{Key: v1alpha1.TaintManaged, Effect: resourceapi.DeviceTaintEffectNoSchedule}
	switch allocator {
	case managed.Controller:
		taint.Value = v1alpha1.ManagedByController
	case managed.Settling:
		taint.Value = v1alpha1.ManagedSettling
	default:
		return nil
	}
	return []resourceapi.DeviceTaint{taint}
}

func (h *handovers) tellOfTakenAlong(ctx context.Context, names []string) {
	along := strings.Join(names, " ")
	if along == h.takenAlong {
		return
	}
	h.takenAlong = along
	if along != "" {
		klog.FromContext(ctx).Info("The controller also gets devices that share something with those that the configuration gives it", "devices", along)
	}
}

// tellOfImpossible logs once that devices cannot be managed.
func (h *handovers) tellOfImpossible(ctx context.Context, metrics *Metrics, w wantedAllocators, impossible bool) {
	impossible = impossible && w.count > 0
	if impossible {
		metrics.handovers.unmanageable.Set(float64(w.count))
	} else {
		metrics.handovers.unmanageable.Set(0)
	}
	if impossible && !h.unmanageable {
		klog.FromContext(ctx).Info("The API server does not keep the taints of devices, so the controller can manage none: kube-scheduler gives those that the configuration gives to the controller. Kubernetes 1.36 and later keep them", "devices", w.count)
	}
	h.unmanageable = impossible
}

// tellOfFailure logs once that devices stay with their allocators because
// nothing else can be found out or written down.
func (h *handovers) tellOfFailure(ctx context.Context, err error) {
	failure := ""
	if err != nil {
		failure = err.Error()
	}
	if failure != "" && failure != h.failure {
		klog.FromContext(ctx).Error(err, "No device changes its allocator now, it is tried again")
	}
	h.failure = failure
}

// tellOfChanges logs and counts the steps of handovers, those of the same kind
// together.
func (h *handovers) tellOfChanges(ctx context.Context, metrics *Metrics, w wantedAllocators, changes []managed.Change) {
	type step struct {
		now, target managed.Allocator
		astray      bool
	}
	devices := map[step][]string{}
	var steps []step
	for _, c := range changes {
		s := step{c.Now, c.Target, c.Astray}
		if devices[s] == nil {
			steps = append(steps, s)
		}
		devices[s] = append(devices[s], c.Devices...)
	}
	logger := klog.FromContext(ctx)
	for _, s := range steps {
		names := strings.Join(devices[s], " ")
		switch {
		case s.now == s.target:
			logger.Info("Devices have another allocator now", "allocator", s.target, "devices", names)
			metrics.handovers.done(w, devices[s], s.target)
		case s.astray:
			logger.Info("The API says of devices what this node did not publish: nobody gives them until that has settled", "allocator", s.target, "settle", h.settle, "devices", names)
		default:
			logger.Info("Devices change their allocator: nobody gives them until what is under way has settled", "allocator", s.target, "settle", h.settle, "devices", names)
		}
	}
}
