package faults

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// gpuResource is what GPUs are served as.
const gpuResource = "nvidia.com/gpu"

// kubelet is a node's kubelet as far as device plugins see it. It stays when a
// plugin ends.
type kubelet struct {
	api.UnimplementedRegistrationServer
	podresources.UnimplementedPodResourcesListerServer
	node *node

	mu sync.Mutex
	// conn is that to the instance that registered last, and healthy the devices
	// that it has told of.
	conn    *grpc.ClientConn
	healthy map[string]bool
	// users are the pods by the devices that they have.
	users map[string]string
}

// startKubelet has a kubelet serve a node until the test ends.
func (n *node) startKubelet() *kubelet {
	n.t.Helper()
	k := &kubelet{node: n, users: map[string]string{}}
	plugins, resources := filepath.Join(n.dir, "device-plugins"), filepath.Join(n.dir, "pod-resources")
	n.write(filepath.Join(plugins, "kubelet_internal_checkpoint"), `{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}`)
	if err := os.MkdirAll(resources, 0o750); err != nil {
		n.t.Fatal(err)
	}
	for _, dir := range []string{plugins, resources} {
		listener, err := (&net.ListenConfig{}).Listen(n.t.Context(), "unix", filepath.Join(dir, "kubelet.sock"))
		if err != nil {
			n.t.Fatal(err)
		}
		server := grpc.NewServer()
		api.RegisterRegistrationServer(server, k)
		podresources.RegisterPodResourcesListerServer(server, k)
		go func() { _ = server.Serve(listener) }() // until it is stopped
		n.t.Cleanup(server.Stop)
	}
	n.t.Cleanup(k.hangUp)
	return k
}

func (k *kubelet) hangUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != nil {
		_ = k.conn.Close() // nothing is left to be lost
	}
	k.conn, k.healthy = nil, nil
}

// Register calls back, and goes on hearing of devices.
func (k *kubelet) Register(_ context.Context, request *api.RegisterRequest) (*api.Empty, error) {
	k.hangUp()
	conn, err := grpc.NewClient("unix://"+filepath.Join(k.node.dir, "device-plugins", request.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	stream, err := api.NewDevicePluginClient(conn).ListAndWatch(context.Background(), &api.Empty{})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	k.mu.Lock()
	k.conn = conn
	k.mu.Unlock()
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				return // the instance has ended
			}
			k.hear(conn, answer.GetDevices())
		}
	}()
	return &api.Empty{}, nil
}

func (k *kubelet) hear(from *grpc.ClientConn, devices []*api.Device) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn != from {
		return
	}
	k.healthy = map[string]bool{}
	for _, d := range devices {
		if d.GetHealth() == api.Healthy {
			k.healthy[d.GetID()] = true
		}
	}
}

// List names the pods that have devices, and one that has none.
func (k *kubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	answer := &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{{Namespace: "ns", Name: "other"}}}
	for id, pod := range k.users {
		answer.PodResources = append(answer.PodResources, &podresources.PodResources{
			Namespace: "ns", Name: pod,
			Containers: []*podresources.ContainerResources{{Name: "main", Devices: []*podresources.ContainerDevices{{ResourceName: gpuResource, DeviceIds: []string{id}}}}},
		})
	}
	return answer, nil
}

// use has a pod use a device.
func (k *kubelet) use(id, pod string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.users[id] = pod
}

// useNothing ends all pods.
func (k *kubelet) useNothing() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.users)
}

// oneOf waits until so many devices are healthy, and returns the first.
func (k *kubelet) oneOf(want int) string {
	k.node.t.Helper()
	var healthy []string
	eventually(k.node.t, "served", func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if healthy = slices.Sorted(maps.Keys(k.healthy)); len(healthy) != want {
			return fmt.Errorf("%d devices are healthy, want %d", len(healthy), want)
		}
		return nil
	})
	return healthy[0]
}

// allocate asks for a device for a container, and returns the CDI device that it
// is to have.
func (k *kubelet) allocate(id string) (string, error) {
	k.mu.Lock()
	conn := k.conn
	k.mu.Unlock()
	if conn == nil {
		return "", errors.New("no device plugin has registered")
	}
	ctx, cancel := context.WithTimeout(k.node.t.Context(), patience)
	defer cancel()
	answer, err := api.NewDevicePluginClient(conn).Allocate(ctx, &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{id}}}})
	if err != nil {
		return "", err
	}
	return answer.GetContainerResponses()[0].GetCdiDevices()[0].GetName(), nil
}
