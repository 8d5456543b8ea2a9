package attach

import (
	"context"
	"errors"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/pods"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	podNamespace = "bench-vf-pods"
	image        = "nvidia/cuda:12.3.0-base-ubuntu22.04"
	template     = "one-vf"
	class        = "vf.eks-hybrid-dra"
	// gpus is how many the simulated machine has.
	gpus = 8
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
	runner := pods.Runner{Cluster: s.Cluster, Namespace: podNamespace, Image: image}
	if err := runner.SetUp(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, runner.TearDown(ctx)) }()
	devices := resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "vf", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: class}}},
		Config: []resourceapi.DeviceClaimConfiguration{{DeviceConfiguration: resourceapi.DeviceConfiguration{
			Opaque: &resourceapi.OpaqueDeviceConfiguration{Driver: harness.DriverName, Parameters: runtime.RawExtension{Raw: []byte(staticAddress)}},
		}}},
	}
	if err := runner.NewTemplate(ctx, template, devices); err != nil {
		return err
	}
	kinds := []pods.Kind{{Name: podStartPlain}, {Name: podStartVF, Template: template}}
	return runner.Compare(ctx, s.Size.Pods, kinds, func(kind pods.Kind, times pods.Times) {
		s.keep(kind.Name, times.Running.Sub(times.Created))
	})
}
