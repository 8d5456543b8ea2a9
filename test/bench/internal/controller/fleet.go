package controller

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/rivals"
)

// fleet publishes machines as the plugin does it: as managed by the controller,
// as given by kube-scheduler, and as settling in between.
type fleet struct {
	client  kubernetes.Interface
	machine *published.Machine

	mu    sync.Mutex
	there map[string][]*resourceapi.ResourceSlice
}

func newFleet(client kubernetes.Interface, machine *published.Machine) *fleet {
	return &fleet{client: client, machine: machine, there: map[string][]*resourceapi.ResourceSlice{}}
}

// managed returns the slices of a machine whose devices the controller gives.
func (f *fleet) managed(node string) []*resourceapi.ResourceSlice {
	return given(f.machine.As(node), rivals.Controller)
}

// given marks devices with who gives them.
func given(slices []*resourceapi.ResourceSlice, by rivals.Allocator) []*resourceapi.ResourceSlice {
	allocator := device.AllocatorController
	for _, slice := range slices {
		for i := range slice.Spec.Devices {
			d, value := &slice.Spec.Devices[i], ""
			switch by {
			case rivals.Controller:
				value = v1alpha1.ManagedByController
				d.Attributes[device.AttributeAllocator] = resourceapi.DeviceAttribute{StringValue: &allocator}
			case rivals.Settling:
				value = v1alpha1.ManagedSettling
			case rivals.Scheduler:
				continue
			}
			d.Taints = append(d.Taints, resourceapi.DeviceTaint{Key: v1alpha1.TaintManaged, Value: value, Effect: resourceapi.DeviceTaintEffectNoSchedule})
		}
	}
	return slices
}

// hand publishes that the devices of a machine are given by an allocator.
func (f *fleet) hand(ctx context.Context, node string, to rivals.Allocator) error {
	before, err := f.before(ctx, node)
	if err != nil {
		return err
	}
	generation := int64(0)
	for _, slice := range before {
		generation = max(generation, slice.Spec.Pool.Generation)
	}
	var after []*resourceapi.ResourceSlice
	for i, slice := range given(f.machine.As(node), to) {
		slice.ObjectMeta = before[i].ObjectMeta
		slice.Spec.Pool.Generation = generation + 1
		updated, err := f.client.ResourceV1().ResourceSlices().Update(ctx, slice, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("publish slice %s: %w", slice.Name, err)
		}
		after = append(after, updated)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.there[node] = after
	return nil
}

// before returns a machine's slices as they are in the API. They are forgotten
// here until they are published anew: nobody knows them after an error.
func (f *fleet) before(ctx context.Context, node string) ([]*resourceapi.ResourceSlice, error) {
	f.mu.Lock()
	there := f.there[node]
	delete(f.there, node)
	f.mu.Unlock()
	if there != nil {
		return there, nil
	}
	for _, slice := range f.machine.As(node) {
		read, err := f.client.ResourceV1().ResourceSlices().Get(ctx, slice.Name, metav1.GetOptions{})
		if err != nil {
			return nil, fmt.Errorf("read slice %s: %w", slice.Name, err)
		}
		there = append(there, read)
	}
	return there, nil
}

// class returns the name of the class for a kind of devices.
func class(kind string, managed bool) string {
	name := kind + "." + harness.DriverName
	if managed {
		name = "managed-" + name
	}
	return name
}

// demand asks for devices of a kind.
type demand struct {
	kind  string
	count int64
}

// demands are what claims ask for in turn.
func demands() []demand {
	return []demand{
		{published.TypeGPU, 1}, {published.TypeGPU, 2}, {published.TypeGPU, 4}, {published.TypeGPU, 8},
		{published.TypePair, 1}, {published.TypePair, 4}, {published.TypeVF, 1}, {published.TypeVF, 8},
	}
}

// small are what the claims ask for that are there all the time: so many of them
// leave whole machines for others.
func small() []demand {
	return []demand{
		{published.TypeGPU, 1}, {published.TypeGPU, 2}, {published.TypeVF, 1}, {published.TypePair, 1}, {published.TypeVF, 2},
		{published.TypeGPU, 1}, {published.TypeVF, 1}, {published.TypeVF, 4}, {published.TypeGPU, 4}, {published.TypeVF, 1},
	}
}

func (d demand) of(managed bool) resourceapi.DeviceClaim {
	return resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{Name: "devices", Exactly: &resourceapi.ExactDeviceRequest{
		DeviceClassName: class(d.kind, managed), AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: d.count,
	}}}}
}

// race has both allocators fight over the first machines, and leaves these to
// the controller.
func (s *Suite) race(ctx context.Context) error {
	names := nodes(0, min(raceNodes, s.Size.Nodes))
	unmanaged := func(node string) []*resourceapi.ResourceSlice { return s.fleet.machine.As(node) }
	if err := published.Add(ctx, s.client, names, unmanaged, s.hearts); err != nil {
		return err
	}
	if err := s.start(ctx); err != nil {
		return err
	}
	result, err := s.contest(names).Run(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.fleet.hand(ctx, name, rivals.Controller); err != nil {
			return err
		}
	}
	s.count(race, len(result.Twice))
	s.count(raceClaims, result.ByController+result.ByScheduler)
	s.count(raceChanges, result.Handovers)
	s.report.Notes = append(s.report.Notes, fmt.Sprintf("In the %s of the race the controller allocated %d claims and kube-scheduler %d.", s.Size.Race, result.ByController, result.ByScheduler))
	for _, twice := range result.Twice {
		s.report.Notes = append(s.report.Notes, "Given twice: "+twice+".")
	}
	if result.ByController == 0 || result.ByScheduler == 0 {
		return fmt.Errorf("there was no race: the controller allocated %d claims, kube-scheduler %d", result.ByController, result.ByScheduler)
	}
	return nil
}

func (s *Suite) contest(nodes []string) rivals.Race {
	var managed, plain []resourceapi.DeviceClaim
	for _, d := range []demand{{published.TypeGPU, 1}, {published.TypeGPU, 2}, {published.TypeGPU, 4}, {published.TypePair, 1}, {published.TypePair, 2}, {published.TypeVF, 8}} {
		managed, plain = append(managed, d.of(true)), append(plain, d.of(false))
	}
	return rivals.Race{
		Client: s.client, Namespace: raceNamespace, Nodes: nodes, Hand: s.fleet.hand, Parts: s.fleet.machine.Parts,
		Managed: managed, Plain: plain, Settle: settle, Lasts: s.Size.Race,
		Place: func(spec *corev1.PodSpec) {
			spec.NodeSelector = map[string]string{published.Label: ""}
			spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		},
	}
}
