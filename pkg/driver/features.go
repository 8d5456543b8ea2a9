package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

const (
	// askFor bounds a question to the API server whether it keeps something.
	askFor = 5 * time.Second
	// askEvery is how often it is asked again: it may have been upgraded, or
	// replaced by one without the feature. What such a one has stored before it
	// goes on showing, so nothing else tells, while the scheduler pays no heed to
	// it any more.
	askEvery = time.Minute
)

// features are what the API server keeps of a slice, of what it may drop.
type features struct {
	taints, counters bool
}

// feature is what is known of whether the API server keeps some fields of
// slices. Where the feature is off, as it is by default before Kubernetes 1.36,
// it drops them without a word, and the scheduler would give away devices that
// do not work, or one GPU twice.
type feature struct {
	// fields names what may be dropped, without names what is done then, and
	// gate is the feature gate of Kubernetes.
	fields, without, gate string
	// count returns how much of it a slice has, and add gives some to a device.
	count func(resourceapi.ResourceSliceSpec) int
	add   func(*resourceapi.Device)

	mu sync.Mutex
	// asked is when the API server has last answered; zero if never.
	asked time.Time
	kept  bool
	// silent tells that the last question got no answer.
	silent bool
}

// newTainting is about the taints of devices with problems.
func newTainting() *feature {
	return &feature{
		fields: "taints of devices", gate: "DRADeviceTaints",
		without: "devices with problems are not published at all, instead of with a taint",
		count: func(s resourceapi.ResourceSliceSpec) int {
			n := 0
			for _, dev := range s.Devices {
				n += len(dev.Taints)
			}
			return n
		},
		add: func(dev *resourceapi.Device) {
			dev.Taints = []resourceapi.DeviceTaint{{Key: v1alpha1.TaintUnhealthy, Effect: resourceapi.DeviceTaintEffectNoSchedule}}
		},
	}
}

// newCounting is about the counters of devices that share something.
func newCounting() *feature {
	return &feature{
		fields: "counters of devices", gate: "DRAPartitionableDevices",
		without: "only single devices are published, without those that are a GPU and a VF together",
		count: func(s resourceapi.ResourceSliceSpec) int {
			n := len(s.SharedCounters)
			for _, dev := range s.Devices {
				n += len(dev.ConsumesCounters)
			}
			return n
		},
		add: func(dev *resourceapi.Device) {
			dev.ConsumesCounters = []resourceapi.DeviceCounterConsumption{{
				CounterSet: "question", Counters: map[string]resourceapi.Counter{"question": {Value: *resource.NewQuantity(1, resource.DecimalSI)}},
			}}
		},
	}
}

// features tells what would be kept of what is to be published. It asks when
// that is first of importance. An error means that the API server does not
// answer, so that there is nobody to publish to either.
func (d *Driver) features(ctx context.Context, content pool) (features, error) {
	kept := features{taints: true, counters: true}
	for _, q := range []struct {
		feature *feature
		needed  bool
		kept    *bool
	}{
		{d.tainting, content.managed || len(content.ruled) > 0 || slices.ContainsFunc(content.devices, func(dev owned) bool { return len(dev.problems) > 0 }), &kept.taints},
		{d.counting, len(content.counters) > 0, &kept.counters},
	} {
		if !q.needed {
			continue
		}
		var err error
		if *q.kept, err = d.keeps(ctx, q.feature); err != nil {
			q.feature.noAnswer(ctx, err)
			return features{}, err
		}
	}
	return kept, nil
}

// keeps tells whether the API server keeps a feature's fields.
func (d *Driver) keeps(ctx context.Context, f *feature) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.asked.IsZero() && time.Since(f.asked) < askEvery {
		return f.kept, nil
	}
	kept, err := d.ask(ctx, f)
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		klog.FromContext(ctx).Error(err, "The API server refuses "+f.fields)
		kept = false
	case err != nil && f.asked.IsZero():
		return false, err
	case err != nil:
		kept = f.kept
	}
	f.learn(ctx, kept)
	return kept, nil
}

// ask asks the API server, by a slice that it does not store.
func (d *Driver) ask(ctx context.Context, f *feature) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	dev := resourceapi.Device{Name: "question"}
	f.add(&dev)
	slice := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "question-" + d.options.DriverName + "-"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: d.options.DriverName, NodeName: ptr.To(d.options.NodeName),
			Pool:    resourceapi.ResourcePool{Name: d.pool, Generation: 1, ResourceSliceCount: 1},
			Devices: []resourceapi.Device{dev},
		},
	}
	answer, err := d.options.KubeClient.ResourceV1().ResourceSlices().Create(ctx, slice, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return false, fmt.Errorf("ask the API server whether it keeps the %s: %w", f.fields, err)
	}
	return f.count(answer.Spec) == f.count(slice.Spec), nil
}

// learn notes an answer, and logs one that is news. The mutex is held.
func (f *feature) learn(ctx context.Context, kept bool) {
	switch {
	case !kept && (f.kept || f.asked.IsZero()):
		klog.FromContext(ctx).Info("The API server does not keep the " + f.fields + ": " + f.without + ". Kubernetes 1.36 and later have the feature " + f.gate + " on")
	case kept && !f.kept && !f.asked.IsZero():
		klog.FromContext(ctx).Info("The API server keeps the " + f.fields + " now: all devices are published")
	}
	f.asked, f.kept, f.silent = time.Now(), kept, false
}

// noAnswer logs once that the API server does not answer.
func (f *feature) noAnswer(ctx context.Context, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.silent {
		klog.FromContext(ctx).Error(err, "Publishing waits until the API server answers")
	}
	f.silent = true
}

// lastKnown tells whether the fields are kept, as far as it was asked.
func (f *feature) lastKnown() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked.IsZero() || f.kept
}

// fieldsDropped tells whether an error of publishing says that the API server
// has dropped fields, and notes that, so that they are not published again. It
// happens when the API server was replaced by one without the feature.
func (d *Driver) fieldsDropped(ctx context.Context, err error) bool {
	var dropped *resourceslice.DroppedFieldsError
	if !errors.As(err, &dropped) {
		return false
	}
	found := false
	for _, f := range []*feature{d.tainting, d.counting} {
		if f.count(dropped.DesiredSlice.Spec) <= f.count(dropped.ActualSlice.Spec) {
			continue
		}
		f.mu.Lock()
		f.learn(ctx, false)
		f.mu.Unlock()
		found = true
	}
	return found
}
