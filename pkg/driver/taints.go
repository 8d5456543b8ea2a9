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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceslice"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

const (
	// askTaintsFor bounds the question to the API server whether it keeps
	// taints.
	askTaintsFor = 5 * time.Second
	// askTaintsEvery is how often one that does not keep them is asked again:
	// it may have been upgraded.
	askTaintsEvery = 5 * time.Minute
)

// tainting is what is known of whether the API server keeps the taints of
// devices. Where the feature is off, as it is by default before Kubernetes
// 1.36, it drops them without a word, and the scheduler would give away devices
// that do not work.
type tainting struct {
	mu sync.Mutex
	// asked is when the API server has last answered; zero if never.
	asked time.Time
	kept  bool
	// silent tells that the last question got no answer.
	silent bool
}

// canTaint tells whether taints would be kept. It asks when that is first of
// importance: when a device has a problem. An error means that the API server
// does not answer, so that there is nobody to publish to either.
func (d *Driver) canTaint(ctx context.Context, devices []owned) (bool, error) {
	unhealthy := func(dev owned) bool { return len(dev.problems) > 0 }
	if !slices.ContainsFunc(devices, unhealthy) {
		return true, nil
	}
	t := &d.tainting
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.asked.IsZero() && (t.kept || time.Since(t.asked) < askTaintsEvery) {
		return t.kept, nil
	}
	kept, err := d.askTaints(ctx)
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		klog.FromContext(ctx).Error(err, "The API server refuses devices with taints")
		kept = false
	case err != nil && t.asked.IsZero():
		return false, err
	case err != nil:
		kept = t.kept
	}
	t.learn(ctx, kept)
	return kept, nil
}

// learn notes an answer. The mutex is held.
func (t *tainting) learn(ctx context.Context, kept bool) {
	if !kept && (t.kept || t.asked.IsZero()) {
		klog.FromContext(ctx).Info("The API server does not keep the taints of devices: devices with problems are not published at all, instead of with a taint. Kubernetes 1.36 and later have the feature DRADeviceTaints on")
	}
	t.asked, t.kept, t.silent = time.Now(), kept, false
}

// noAnswer logs once that the API server does not answer.
func (t *tainting) noAnswer(ctx context.Context, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.silent {
		klog.FromContext(ctx).Error(err, "Publishing waits until the API server answers")
	}
	t.silent = true
}

// offers tells whether a device is to be in the slices.
func (t *tainting) offers(d owned) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(d.problems) == 0 || t.asked.IsZero() || t.kept
}

// askTaints asks the API server, by a slice that it does not store, whether it
// keeps taints.
func (d *Driver) askTaints(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTaintsFor)
	defer cancel()
	slice := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "question-" + d.options.DriverName + "-"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: d.options.DriverName, NodeName: ptr.To(d.options.NodeName),
			Pool: resourceapi.ResourcePool{Name: d.pool, Generation: 1, ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "question", Taints: []resourceapi.DeviceTaint{{
				Key: v1alpha1.TaintUnhealthy, Effect: resourceapi.DeviceTaintEffectNoSchedule,
			}}}},
		},
	}
	answer, err := d.options.KubeClient.ResourceV1().ResourceSlices().Create(ctx, slice, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return false, fmt.Errorf("ask the API server whether it keeps the taints of devices: %w", err)
	}
	return len(answer.Spec.Devices) == 1 && len(answer.Spec.Devices[0].Taints) == 1, nil
}

// taintsDropped tells whether an error of publishing says that the API server
// has dropped taints, and notes that, so that they are not published again. It
// happens when the API server was replaced by one without the feature.
func (d *Driver) taintsDropped(ctx context.Context, err error) bool {
	var dropped *resourceslice.DroppedFieldsError
	if !errors.As(err, &dropped) || countTaints(dropped.DesiredSlice) <= countTaints(dropped.ActualSlice) {
		return false
	}
	d.tainting.mu.Lock()
	defer d.tainting.mu.Unlock()
	d.tainting.learn(ctx, false)
	return true
}

func countTaints(slice *resourceapi.ResourceSlice) int {
	n := 0
	for _, dev := range slice.Spec.Devices {
		n += len(dev.Taints)
	}
	return n
}
