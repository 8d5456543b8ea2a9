package deviceplugin

import (
	"errors"
	"fmt"
	"testing"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// sessionOf is what answers kubelet of a plugin that does not run.
func sessionOf(t *testing.T, p *Plugin, resource *Resource) *session {
	t.Helper()
	return &session{server: &server{plugin: p, resource: resource}, ctx: t.Context()}
}

func (s *session) ask(t *testing.T, ids ...string) (*api.ContainerAllocateResponse, error) {
	t.Helper()
	answer, err := s.Allocate(t.Context(), &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, err
	}
	return answer.GetContainerResponses()[0], nil
}

// Steps prepare devices too, so that a device may fail after Allocate has prepared
// it. No container then starts without it.
func TestNoContainerIsGivenADeviceThatFailsMeanwhile(t *testing.T) {
	for mode, envVar := range map[string]bool{"cdi": false, "envvar": true} {
		for name, test := range map[string]struct {
			meanwhile func(n *node, p *Plugin)
			want      string
		}{
			"it fails": {func(n *node, p *Plugin) {
				n.gpus.spoil("gpu-0", errors.New("/dev/nvidia0 is not on the host"))
				_ = p.prepare(n.t.Context(), p.items().byID("GPU-0")) // fails
			}, `device "gpu-0": /dev/nvidia0 is not on the host`},
			"it is another place's": {func(n *node, p *Plugin) {
				p.Found(n.t.Context(), "gpu", swapped(), nil)
				if err := p.prepare(n.t.Context(), p.items().byID("GPU-0")); err != nil {
					n.t.Error(err)
				}
			}, `device "gpu-0" is not where it was a moment ago: delete the pod`},
			"it is not held any more": {func(_ *node, p *Plugin) {
				p.mu.Lock()
				defer p.mu.Unlock()
				delete(p.prepared, "GPU-0")
			}, `device "gpu-0" is not where it was a moment ago: delete the pod`},
		} {
			t.Run(mode+"/"+name, func(t *testing.T) {
				n := newNode(t)
				p := n.open("gpu", gpus(0, 1), func(o *Options) { o.EnvVar = envVar })
				t.Cleanup(func() { _ = p.store.Close() })
				look(n, p)
				asked := 0
				n.gpus.hold(func() {
					if asked++; asked == 2 { // gpu-0 is prepared, gpu-1 is about to be
						n.gpus.hold(nil)
						test.meanwhile(n, p)
					}
				})
				answer, err := sessionOf(t, p, &p.options.Resources[0]).ask(t, "GPU-0", "GPU-1")
				wantError(t, err, test.want)
				if answer != nil {
					t.Errorf("the container gets %v", answer)
				}
			})
		}
	}
}

// BenchmarkGetPreferredAllocation is of the whole answer, since kubelet waits for
// it while it admits a pod.
func BenchmarkGetPreferredAllocation(b *testing.B) {
	for _, count := range []int{8, 128} {
		var numbers []int
		for n := range count {
			numbers = append(numbers, n)
		}
		family := &fakeFamily{name: "gpu"}
		p := &Plugin{
			options: Options{Processes: &processes{}, Families: []Family{family}, Kinds: []device.Kind{device.KindGPU}, Resources: []Resource{{Name: gpuName, Kind: device.KindGPU}}},
			found:   map[string]device.Inventory{"gpu": gpus(numbers...)},
		}
		p.all = p.list()
		s := &session{server: &server{plugin: p, resource: &p.options.Resources[0]}}
		request := &api.ContainerPreferredAllocationRequest{AllocationSize: 8}
		for _, i := range p.all {
			request.AvailableDeviceIDs = append(request.AvailableDeviceIDs, i.id)
		}
		b.Run(fmt.Sprintf("8 of %d", count), func(b *testing.B) {
			for b.Loop() {
				answer, err := s.GetPreferredAllocation(b.Context(), &api.PreferredAllocationRequest{ContainerRequests: []*api.ContainerPreferredAllocationRequest{request}})
				if err != nil || len(answer.GetContainerResponses()[0].GetDeviceIDs()) != 8 {
					b.Fatal(answer, err)
				}
			}
		})
	}
}
