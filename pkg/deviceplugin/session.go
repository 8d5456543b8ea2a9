package deviceplugin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/prefer"
)

// noteAfter is how long after its answer kubelet is asked who has the devices: it has
// then written its checkpoint.
const noteAfter = time.Second

// session answers kubelet on one socket, until ctx is done.
type session struct {
	api.UnimplementedDevicePluginServer
	*server
	ctx context.Context
}

func pluginOptions() *api.DevicePluginOptions {
	return &api.DevicePluginOptions{GetPreferredAllocationAvailable: true}
}

// GetDevicePluginOptions tells kubelet which calls are of use.
func (s *session) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return pluginOptions(), nil
}

// ListAndWatch tells kubelet of the devices, now and whenever one has changed.
func (s *session) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	s.mu.Lock()
	attempt := s.attempt
	s.mu.Unlock()
	for {
		devices, updated := s.plugin.listed(s.resource)
		if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
			go s.lost(s.ctx, attempt)
			return err
		}
		select {
		case <-s.ctx.Done():
			return nil
		case <-stream.Context().Done():
			go s.lost(s.ctx, attempt)
			return nil
		case <-updated:
		}
	}
}

// listed returns the devices of a resource for kubelet, and a channel that is
// closed when that is out of date.
func (p *Plugin) listed(r *Resource) ([]*api.Device, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var devices []*api.Device
	for _, i := range p.all {
		if i.resource != r {
			continue
		}
		d := &api.Device{ID: i.id, Health: api.Unhealthy}
		if s := p.states[i.id]; s.held && s.problem == "" {
			d.Health = api.Healthy
		}
		if node := i.numa(); node != prefer.NoNUMA {
			d.Topology = &api.TopologyInfo{Nodes: []*api.NUMANode{{ID: int64(node)}}}
		}
		devices = append(devices, d)
	}
	return devices, p.updated
}

// GetPreferredAllocation chooses among devices that kubelet could give.
func (s *session) GetPreferredAllocation(_ context.Context, request *api.PreferredAllocationRequest) (*api.PreferredAllocationResponse, error) {
	all := s.plugin.items()
	response := &api.PreferredAllocationResponse{}
	for _, container := range request.GetContainerRequests() {
		offered := map[string]bool{}
		for _, id := range container.GetAvailableDeviceIDs() {
			offered[id] = true
		}
		var available items
		for _, i := range all {
			if offered[i.id] {
				available = append(available, i)
			}
		}
		must, size := container.GetMustIncludeDeviceIDs(), int(container.GetAllocationSize())
		available = s.plugin.withoutLeftOver(s.ctx, available, must, size)
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerPreferredAllocationResponse{
			DeviceIDs: prefer.Choose(available.choices(), must, size),
		})
	}
	return response, nil
}

// Allocate tells kubelet what a container needs for its devices. One that claims
// have, or that cannot be used, is refused by a message that says why, which the
// pod's status then has.
func (s *session) Allocate(ctx context.Context, request *api.AllocateRequest) (_ *api.AllocateResponse, err error) {
	ctx = klog.NewContext(ctx, klog.FromContext(s.ctx).WithValues("resource", s.resource.Name))
	start := time.Now()
	defer func() {
		s.plugin.metrics.allocations.WithLabelValues(s.resource.Name, outcome(err)).Inc()
		if err != nil {
			klog.FromContext(ctx).Error(err, "Kubelet is refused devices")
			err = status.Error(codes.FailedPrecondition, err.Error())
		}
	}()
	response := &api.AllocateResponse{}
	var given []string
	for _, container := range request.GetContainerRequests() {
		answer, err := s.allocate(ctx, container.GetDevicesIds())
		if err != nil {
			return nil, err
		}
		response.ContainerResponses = append(response.ContainerResponses, answer)
		given = append(given, container.GetDevicesIds()...)
	}
	// Who has them is to be known before kubelet can forget it.
	time.AfterFunc(noteAfter, func() { signal(s.plugin.due) })
	klog.FromContext(ctx).Info("Kubelet gives devices to a container", "devices", given, "duration", time.Since(start))
	return response, nil
}

func (s *session) allocate(ctx context.Context, ids []string) (*api.ContainerAllocateResponse, error) {
	if err := s.plugin.awaitLeftOver(ctx, ids); err != nil {
		return nil, err
	}
	var given items
	for _, id := range ids {
		i, err := s.give(ctx, id)
		if err != nil {
			return nil, err
		}
		given = append(given, i)
	}
	if err := s.plugin.writeFiles(ctx); err != nil {
		return nil, err
	}
	answer := &api.ContainerAllocateResponse{Envs: map[string]string{}}
	for _, i := range given {
		// Since it was prepared here somebody else may have found that it cannot be:
		// it is then not in the files either.
		edits, err := s.plugin.editsOf(i)
		if err != nil {
			return nil, err
		}
		if s.plugin.options.EnvVar {
			fromEdits(answer, edits)
			continue
		}
		answer.CdiDevices = append(answer.CdiDevices, &api.CDIDevice{Name: s.plugin.specs.name(i)})
	}
	if s.resource.Variable != "" {
		answer.Envs[s.resource.Variable] = strings.Join(slices.Sorted(slices.Values(ids)), ",")
	}
	return answer, nil
}

// give makes a device ready for a container.
func (s *session) give(ctx context.Context, id string) (*item, error) {
	i := s.plugin.items().byID(id)
	if i == nil {
		return nil, fmt.Errorf("device %s of %s is no longer on this node: delete the pod, so that it gets another one", id, s.resource.Name)
	}
	if i.resource != s.resource {
		return nil, fmt.Errorf("device %q is not served as %s by the configuration any more: delete the pod, so that it gets another one", i.Name, s.resource.Name)
	}
	if err := s.plugin.stamp(ctx, i); err != nil {
		return nil, err
	}
	if err := s.plugin.prepare(ctx, i); err != nil {
		return nil, fmt.Errorf("device %q: %w", i.Name, err)
	}
	return i, nil
}
