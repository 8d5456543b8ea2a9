package deviceplugin

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

// fakeKubelet is kubelet as far as a device plugin sees it.
type fakeKubelet struct {
	api.UnimplementedRegistrationServer
	t   *testing.T
	dir string

	mu         sync.Mutex
	silent     error
	uses       map[string]kubelet.Use
	registered []*api.RegisterRequest
	// devices are what was told by ListAndWatch last, by resource.
	devices map[string]map[string]string
	server  *grpc.Server
	conns   []*grpc.ClientConn
}

func (k *fakeKubelet) Uses(context.Context) (map[string]kubelet.Use, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.uses), k.silent
}

func (k *fakeKubelet) use(id string, use kubelet.Use) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.uses = maps.Clone(k.uses)
	if k.uses == nil {
		k.uses = map[string]kubelet.Use{}
	}
	k.uses[id] = use
	if len(use.Pods) == 0 {
		delete(k.uses, id)
	}
}

// set has kubelet answer with that.
func (k *fakeKubelet) set(uses map[string]kubelet.Use, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.uses, k.silent = uses, err
}

func (k *fakeKubelet) beSilent(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.silent = err
}

// start is kubelet's start: it removes all sockets and makes its own.
func (k *fakeKubelet) start() {
	k.t.Helper()
	sockets, err := filepath.Glob(filepath.Join(k.dir, "*.sock"))
	if err != nil {
		k.t.Fatal(err)
	}
	for _, path := range sockets {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			k.t.Fatal(err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(k.t.Context(), "unix", filepath.Join(k.dir, kubeletSocket))
	if err != nil {
		k.t.Fatal(err)
	}
	server := grpc.NewServer()
	api.RegisterRegistrationServer(server, k)
	k.mu.Lock()
	k.server, k.devices = server, map[string]map[string]string{}
	k.mu.Unlock()
	go func() { _ = server.Serve(listener) }()
}

func (k *fakeKubelet) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server != nil {
		k.server.Stop()
	}
	for _, conn := range k.conns {
		_ = conn.Close()
	}
	k.server, k.conns = nil, nil
}

// Register calls back, as kubelet does.
func (k *fakeKubelet) Register(ctx context.Context, request *api.RegisterRequest) (*api.Empty, error) {
	conn, err := grpc.NewClient("unix://"+filepath.Join(k.dir, request.GetEndpoint()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	client := api.NewDevicePluginClient(conn)
	options, err := client.GetDevicePluginOptions(ctx, &api.Empty{})
	if err != nil {
		return nil, err
	}
	// Kubelet asks (PluginConnected in pkg/kubelet/cm/devicemanager/manager.go), but
	// the API has both.
	for from, o := range map[string]*api.DevicePluginOptions{"the registration": request.GetOptions(), "GetDevicePluginOptions": options} {
		if !o.GetGetPreferredAllocationAvailable() || o.GetPreStartRequired() {
			k.t.Errorf("options by %s: %v; want that kubelet asks which devices are preferred, and nothing before containers start", from, o)
		}
	}
	stream, err := client.ListAndWatch(context.Background(), &api.Empty{})
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.registered = append(k.registered, request)
	k.conns = append(k.conns, conn)
	k.mu.Unlock()
	go func() {
		for {
			answer, err := stream.Recv()
			if err != nil {
				return
			}
			devices := map[string]string{}
			for _, d := range answer.GetDevices() {
				devices[d.GetID()] = d.GetHealth()
			}
			k.mu.Lock()
			k.devices[request.GetResourceName()] = devices
			k.mu.Unlock()
		}
	}()
	return &api.Empty{}, nil
}

// hangUp ends all connections, as kubelets before 1.37 do when one of two
// instances ends.
func (k *fakeKubelet) hangUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, conn := range k.conns {
		_ = conn.Close()
	}
	clear(k.devices)
}

func (k *fakeKubelet) health(resource string) map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.devices[resource])
}

func (k *fakeKubelet) registrations() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.registered)
}

// allocate asks the instance that registered last for the devices of a container.
func (k *fakeKubelet) allocate(resource string, ids ...string) (*api.ContainerAllocateResponse, error) {
	k.t.Helper()
	var client api.DevicePluginClient
	k.mu.Lock()
	for n, request := range k.registered {
		if request.GetResourceName() == resource && n < len(k.conns) {
			client = api.NewDevicePluginClient(k.conns[n])
		}
	}
	k.mu.Unlock()
	if client == nil {
		k.t.Fatalf("nobody has registered %s", resource)
	}
	answer, err := client.Allocate(k.t.Context(), &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, err
	}
	return answer.GetContainerResponses()[0], nil
}
