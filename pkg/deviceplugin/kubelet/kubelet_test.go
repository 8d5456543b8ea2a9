package kubelet

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// lister answers as kubelet does.
type lister struct {
	podresources.UnimplementedPodResourcesListerServer
	err error
}

func (l lister) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	container := func(resource string, ids ...string) *podresources.ContainerResources {
		return &podresources.ContainerResources{Devices: []*podresources.ContainerDevices{{ResourceName: resource, DeviceIds: ids}}}
	}
	return &podresources.ListPodResourcesResponse{PodResources: []*podresources.PodResources{
		{Namespace: "a", Name: "one", Containers: []*podresources.ContainerResources{
			container("nvidia.com/gpu", "GPU-0", "GPU-1"), container("nvidia.com/gpu", "GPU-0"), container("nvidia.com/vf", "0000:18:00.1"),
		}},
		{Namespace: "b", Name: "two", Containers: []*podresources.ContainerResources{container("nvidia.com/gpu.shared", "GPU-1::3")}},
		{Namespace: "c", Name: "none"},
	}}, l.err
}

// serve returns a kubelet that answers, with the given checkpoint; empty: none.
func serve(t *testing.T, l lister, checkpoint string) *Kubelet {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubelet") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	socket, file := filepath.Join(dir, "kubelet.sock"), filepath.Join(dir, "checkpoint")
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(server, l)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if checkpoint != "" {
		if err := os.WriteFile(file, []byte(checkpoint), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return New(socket, file)
}

// What kubelet 1.37 writes.
const checkpointFile = `{"Data":{"PodDeviceEntries":[
{"PodUID":"uid-one","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-0"],"-1":["GPU-1"]},"AllocResp":"CgA="},
{"PodUID":"uid-one","ContainerName":"init","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-0"]},"AllocResp":"CgA="},
{"PodUID":"uid-two","ContainerName":"main","ResourceName":"nvidia.com/gpu.shared","DeviceIDs":{"0":["GPU-1::3"]},"AllocResp":"CgA="},
{"PodUID":"uid-gone","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-7"]},"AllocResp":"CgA="}
],"RegisteredDevices":{"nvidia.com/gpu":["GPU-0","GPU-1"]}},"Checksum":1234}`

func TestUses(t *testing.T) {
	got, err := serve(t, lister{}, checkpointFile).Uses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Use{
		"GPU-0":        {Pods: []string{"a/one"}, Resources: []string{"nvidia.com/gpu"}, UIDs: []types.UID{"uid-one"}},
		"GPU-1":        {Pods: []string{"a/one", "b/two"}, Resources: []string{"nvidia.com/gpu", "nvidia.com/gpu.shared"}, UIDs: []types.UID{"uid-one", "uid-two"}},
		"GPU-7":        {UIDs: []types.UID{"uid-gone"}}, // over, or an init container
		"0000:18:00.1": {Pods: []string{"a/one"}, Resources: []string{"nvidia.com/vf"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("uses (-want +got):\n%s", diff)
	}
}

func TestUsesWithoutACheckpoint(t *testing.T) {
	got, err := serve(t, lister{}, "").Uses(t.Context())
	if err != nil || len(got) != 3 {
		t.Errorf("%d devices are used, want 3: %v", len(got), err)
	}
}

// What is not known is never taken for unused.
func TestUsesAreUnknown(t *testing.T) {
	for name, test := range map[string]struct {
		kubelet *Kubelet
		err     string
	}{
		"kubelet does not run":    {New("/does/not/exist.sock", "/does/not/exist"), "ask kubelet which pods have which devices"},
		"kubelet fails":           {serve(t, lister{err: errors.New("not now")}, ""), "not now"},
		"no checkpoint, but junk": {serve(t, lister{}, "{"), "which pods have which devices from"},
	} {
		t.Run(name, func(t *testing.T) {
			uses, err := test.kubelet.Uses(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("want an error that says %q, got %v and %v", test.err, uses, err)
			}
		})
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(checkpointFile))
	f.Add([]byte(`{"Data":{"PodDeviceEntries":[{"DeviceIDs":{"":null}}]}}`))
	path := filepath.Join(f.TempDir(), "checkpoint")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if uids, err := New("", path).uids(); err != nil && uids != nil {
			t.Errorf("both an answer and an error: %v, %v", uids, err)
		}
	})
}
