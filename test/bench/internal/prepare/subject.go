package prepare

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	corev1 "k8s.io/api/core/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// subject is a driver that is measured.
type subject struct {
	suite *Suite
	whose string
	kind  plugin.Kind
	place plugin.Place

	process *plugin.Process
	kubelet *draclient.Plugin
	// devices are the driver's, as published.
	devices []draclient.Result
	// claims are as many as devices, one for each.
	claims []draclient.Claim
}

func (s *subject) keep(name string, value float64) {
	s.suite.report.Keep(name, s.whose, figures.Samples{value})
}

// start starts the plugin on a node without slices, and returns how long its
// devices took to be in the API.
func (s *subject) start(ctx context.Context) (time.Duration, error) {
	if err := s.deleteSlices(ctx); err != nil {
		return 0, err
	}
	slices, err := s.watchSlices(ctx)
	if err != nil {
		return 0, err
	}
	defer slices.Stop()
	s.process, err = s.kind.Start(ctx, s.place, filepath.Join(s.suite.Work, s.whose+".log"))
	if err != nil {
		return 0, err
	}
	if s.devices, err = s.await(ctx, slices); err != nil {
		return 0, err
	}
	took := time.Since(s.process.Started)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.kubelet, err = draclient.Find(ctx, s.place.RegistrarDir(), s.kind.Driver)
	return took, err
}

// await reads slices until all devices are there.
func (s *subject) await(ctx context.Context, events watch.Interface) ([]draclient.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	published := map[string][]draclient.Result{}
	for {
		var event watch.Event
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %d devices of %s: %w; slices so far: %v", gpus, s.kind.Driver, context.Cause(ctx), published)
		case <-s.process.Ended():
			return nil, s.process.Failure()
		case event = <-events.ResultChan():
		}
		slice, ok := event.Object.(*resourceapi.ResourceSlice)
		if !ok {
			return nil, fmt.Errorf("wait for devices of %s: the watch ended with %T", s.kind.Driver, event.Object)
		}
		published[slice.Name] = nil
		for _, device := range slice.Spec.Devices {
			published[slice.Name] = append(published[slice.Name], draclient.Result{Driver: s.kind.Driver, Pool: slice.Spec.Pool.Name, Device: device.Name})
		}
		var all []draclient.Result
		for _, devices := range published {
			all = append(all, devices...)
		}
		if len(all) == gpus {
			return all, nil
		}
	}
}

func (s *subject) stop() error {
	if s.process == nil {
		return nil
	}
	var errs []error
	if s.kubelet != nil {
		errs = append(errs, s.kubelet.Close())
	}
	errs = append(errs, s.process.Stop())
	s.process, s.kubelet = nil, nil
	return errors.Join(errs...)
}

// explain adds the end of the plugin's log to an error that the plugin's own
// end caused.
func (s *subject) explain(err error) error {
	err = fmt.Errorf("%s: %w", s.kind.Title, err)
	if s.process == nil {
		return err
	}
	select {
	case <-s.process.Ended():
		return errors.Join(err, s.process.Failure())
	default:
		return err
	}
}

func (s *subject) slicesOnly() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.Set{
		resourceapi.ResourceSliceSelectorDriver: s.kind.Driver, resourceapi.ResourceSliceSelectorNodeName: node,
	}.String()}
}

// deleteSlices removes what the driver has published: a plugin leaves it when
// it stops.
func (s *subject) deleteSlices(ctx context.Context) error {
	err := s.suite.Cluster.Client.ResourceV1().ResourceSlices().DeleteCollection(ctx, metav1.DeleteOptions{}, s.slicesOnly())
	if err != nil {
		return fmt.Errorf("delete the slices of %s: %w", s.kind.Driver, err)
	}
	return nil
}

// watchSlices watches from now on.
func (s *subject) watchSlices(ctx context.Context) (watch.Interface, error) {
	slices := s.suite.Cluster.Client.ResourceV1().ResourceSlices()
	list, err := slices.List(ctx, s.slicesOnly())
	if err != nil {
		return nil, fmt.Errorf("list the slices of %s: %w", s.kind.Driver, err)
	}
	if len(list.Items) > 0 {
		return nil, fmt.Errorf("%s still has %d slices on %s after they were deleted: does another plugin publish there?", s.kind.Driver, len(list.Items), node)
	}
	options := s.slicesOnly()
	options.ResourceVersion = list.ResourceVersion
	events, err := slices.Watch(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("watch the slices of %s: %w", s.kind.Driver, err)
	}
	return events, nil
}

// newClaims makes n claims, allocated to the devices in turn.
func (s *subject) newClaims(ctx context.Context, prefix string, n int) ([]draclient.Claim, error) {
	claims := make([]draclient.Claim, n)
	for i := range claims {
		claim, err := draclient.CreateAllocated(ctx, s.suite.Cluster.Client, draclient.Allocation{
			Namespace: namespace, Name: fmt.Sprintf("%s-%s-%d", s.whose, prefix, i), Node: node,
			Results: []draclient.Result{s.devices[i%len(s.devices)]}, Pods: []*corev1.Pod{s.suite.pod},
		})
		if err != nil {
			return nil, err
		}
		claims[i] = draclient.ClaimOf(claim)
	}
	return claims, nil
}

// prepare and unprepare return how long the plugin took.
func (s *subject) prepare(ctx context.Context, claim draclient.Claim) (time.Duration, error) {
	start := time.Now()
	devices, err := s.kubelet.PrepareOne(ctx, claim)
	took := time.Since(start)
	if err == nil && len(devices) != 1 {
		err = fmt.Errorf("prepare claim %s: got the devices %v, want one", claim, devices)
	}
	return took, err
}

func (s *subject) unprepare(ctx context.Context, claim draclient.Claim) (time.Duration, error) {
	start := time.Now()
	err := s.kubelet.UnprepareOne(ctx, claim)
	return time.Since(start), err
}
