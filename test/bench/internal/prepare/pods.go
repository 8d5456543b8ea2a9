package prepare

import (
	"context"
	"errors"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/figures"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/pods"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	podStartPlain = "pod_start_plain"
	podStartClaim = "pod_start_claim"
	nodePartPlain = "pod_scheduled_to_running_plain"
	nodePartClaim = "pod_scheduled_to_running_claim"
	forceDelete   = "force_delete_next_pod"

	podNamespace = "bench-pods"
	image        = "nvidia/cuda:12.3.0-base-ubuntu22.04"
	template     = "one-gpu"
	firstGPU     = "gpu-0"
)

// pods measures what a user sees: pods on a node that a real kubelet runs, with
// the driver installed as users install it.
func (s *Suite) pods(ctx context.Context) (err error) {
	install, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.Cluster.InstallDriver(install, "deployments/manifests/simulated-dgx-h200"); err != nil {
		return err
	}
	if _, err := s.Cluster.WaitDevices(install, gpus); err != nil {
		return err
	}
	runner := s.runner()
	if err := runner.SetUp(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.TearDown(ctx)) }()
	selectors := map[string][]resourceapi.DeviceSelector{template: nil, firstGPU: {{CEL: &resourceapi.CELDeviceSelector{
		Expression: fmt.Sprintf("device.attributes[%q].index == 0", harness.DriverName),
	}}}}
	for name, selector := range selectors {
		if err := runner.NewTemplate(ctx, name, resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{
			Name: "gpu", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: harness.DeviceClass, Selectors: selector},
		}}}); err != nil {
			return err
		}
	}
	if err := s.Steps.Do("Pods with and without a claim", func() error { return s.podStarts(ctx) }); err != nil {
		return err
	}
	return s.Steps.Do("A pod after a force-deleted one", func() error { return s.forceDeletes(ctx) })
}

// podStarts starts pods with and without a claim in turn.
func (s *Suite) podStarts(ctx context.Context) error {
	kinds := []pods.Kind{{Name: podStartPlain}, {Name: podStartClaim, Template: template}}
	nodeParts := map[string]string{podStartPlain: nodePartPlain, podStartClaim: nodePartClaim}
	return s.runner().Compare(ctx, s.Size.Pods, kinds, func(kind pods.Kind, times pods.Times) {
		s.report.Keep(kind.Name, figures.Ours, figures.Samples{figures.Milliseconds(times.Running.Sub(times.Created))})
		s.report.Keep(nodeParts[kind.Name], figures.Ours, figures.Samples{figures.Milliseconds(times.Running.Sub(times.Scheduled))})
	})
}

func (s *Suite) runner() pods.Runner {
	return pods.Runner{Cluster: s.Cluster, Namespace: podNamespace, Image: image}
}
