package kubelet

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
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

// host is the root of a host, on which kubelet answers.
type host struct {
	t *testing.T
	// dir is the host's root, and root kubelet's folder on it.
	dir, root string
}

// serve returns a host with kubelet's folder root, and with the given checkpoint;
// empty: none.
func serve(t *testing.T, l podresources.PodResourcesListerServer, root, checkpoint string) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "kubelet") // socket paths are short
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: dir, root: root}
	for _, folder := range []string{"pod-resources", "device-plugins"} {
		if err := os.MkdirAll(h.path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", h.path("pod-resources", "kubelet.sock"))
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
		if err := os.WriteFile(h.path("device-plugins", "kubelet_internal_checkpoint"), []byte(checkpoint), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func (h *host) kubelet() *Kubelet { return New(h.dir, h.root, "self") }

// path is where a path in kubelet's folder is seen.
func (h *host) path(elements ...string) string {
	return filepath.Join(append([]string{h.dir, h.root}, elements...)...)
}

// logs makes the folder of a pod's logs, as those of namespace_name_uid.
func (h *host) logs(pod string) {
	h.t.Helper()
	if err := os.MkdirAll(filepath.Join(h.dir, podLogs, pod), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// pod makes a pod's own folder.
func (h *host) pod(uid string) {
	h.t.Helper()
	if err := os.MkdirAll(h.path("pods", uid), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// What kubelet 1.37 writes.
const checkpointFile = `{"Data":{"PodDeviceEntries":[
{"PodUID":"uid-one","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-0"],"-1":["GPU-1"]},"AllocResp":"CgA="},
{"PodUID":"uid-one","ContainerName":"init","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-0"]},"AllocResp":"CgA="},
{"PodUID":"uid-two","ContainerName":"main","ResourceName":"nvidia.com/gpu.shared","DeviceIDs":{"0":["GPU-1::3"]},"AllocResp":"CgA="},
{"PodUID":"uid-gone","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-7"]},"AllocResp":"CgA="}
],"RegisteredDevices":{"nvidia.com/gpu":["GPU-0","GPU-1"]}},"Checksum":1234}`

func TestUses(t *testing.T) {
	got, err := serve(t, lister{}, "/kubelet", checkpointFile).kubelet().Uses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]Use{
		"GPU-0":        {Pods: []string{"a/one"}, Resources: []string{"nvidia.com/gpu"}, UIDs: []types.UID{"uid-one"}},
		"GPU-1":        {Pods: []string{"a/one", "b/two"}, Resources: []string{"nvidia.com/gpu", "nvidia.com/gpu.shared"}, UIDs: []types.UID{"uid-one", "uid-two"}},
		"GPU-7":        {UIDs: []types.UID{"uid-gone"}, Starting: []types.UID{"uid-gone"}}, // over, or an init container
		"0000:18:00.1": {Pods: []string{"a/one"}, Resources: []string{"nvidia.com/vf"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("uses (-want +got):\n%s", diff)
	}
}

// Without the checkpoint, pods whose init containers have devices are overlooked.
func TestUsesWithoutAGoodCheckpoint(t *testing.T) {
	for name, test := range map[string]struct{ content, err string }{
		"missing":                 {"", "kubelet writes it when a device plugin registers"},
		"empty":                   {" ", "unexpected end of JSON input"},
		"half written":            {checkpointFile[:100], "unexpected end of JSON input"},
		"of another format":       {`{"version":"v3","data":"ENCODED"}`, "cannot unmarshal string"},
		"without entries":         {`{"Data":{"Entries":[]},"Checksum":1}`, "without Data.PodDeviceEntries"},
		"with entries that moved": {`{"Data":{"PodDeviceEntries":[{"pod":"uid","devices":["GPU-0"]}]}}`, "no PodUID or DeviceIDs"},
		"from before 1.20":        {`{"Data":{"PodDeviceEntries":[{"PodUID":"uid","DeviceIDs":["GPU-0"]}]}}`, "cannot unmarshal array"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := serve(t, lister{}, "/kubelet", test.content).kubelet().Uses(t.Context())
			if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), test.err) {
				t.Errorf("want an ErrIncomplete that says %q, got %v", test.err, err)
			}
			if len(got) != 3 {
				t.Errorf("%d devices are used by what the API says, want 3", len(got))
			}
		})
	}
}

func TestUsesWithoutPodsInTheCheckpoint(t *testing.T) {
	got, err := serve(t, lister{}, "/kubelet", `{"Data":{"PodDeviceEntries":null,"RegisteredDevices":{}},"Checksum":1}`).kubelet().Uses(t.Context())
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
		"kubelet does not run": {New("/", "/does/not/exist", ""), "ask kubelet which pods have which devices"},
		"kubelet fails":        {serve(t, lister{err: errors.New("not now")}, "/kubelet", checkpointFile).kubelet(), "not now"},
	} {
		t.Run(name, func(t *testing.T) {
			uses, err := test.kubelet.Uses(t.Context())
			if err == nil || uses != nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("want an error that says %q, got %v and %v", test.err, uses, err)
			}
		})
	}
}

// Links of the host are absolute on it, not where this process sees its root.
func TestKubeletsFolderIsALink(t *testing.T) {
	for name, link := range map[string]string{"folder": "var/lib/kubelet", "folder above": "var/lib"} {
		t.Run(name, func(t *testing.T) {
			root := "/data/kubelet"
			h := serve(t, lister{}, root, checkpointFile)
			target := strings.TrimSuffix(root, strings.TrimPrefix("var/lib/kubelet", link))
			if err := errors.Join(os.MkdirAll(filepath.Join(h.dir, filepath.Dir(link)), 0o755), os.Symlink(target, filepath.Join(h.dir, link))); err != nil {
				t.Fatal(err)
			}
			got, err := New(h.dir, "/var/lib/kubelet", "").Uses(t.Context())
			if err != nil || len(got) != 4 {
				t.Errorf("%d devices are used, want 4: %v", len(got), err)
			}
		})
	}
}

// listed answers with pods that have no devices.
type listed struct {
	podresources.UnimplementedPodResourcesListerServer
	names []string
}

func (l listed) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	answer := &podresources.ListPodResourcesResponse{}
	for _, name := range l.names {
		namespace, name, _ := strings.Cut(name, "/")
		answer.PodResources = append(answer.PodResources, &podresources.PodResources{Namespace: namespace, Name: name})
	}
	return answer, nil
}

// A pod may wait for minutes, with devices and without a process.
func TestPodsThatMayBeStarting(t *testing.T) {
	const file = `{"Data":{"PodDeviceEntries":[{"PodUID":"uid","ContainerName":"init","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-0"]}}]},"Checksum":1}`
	for name, test := range map[string]struct {
		listed, logs, pods []string
		want               bool
	}{
		"its sandbox runs, and its image is pulled": {listed: []string{"ns/init"}, logs: []string{"ns_init_uid"}, pods: []string{"uid"}, want: true},
		"it waits for a volume or a claim":          {listed: []string{"ns/init"}, pods: []string{"uid"}, want: true},
		"it waits for the network":                  {listed: []string{"ns/init"}, want: true},
		"it is over":                                {logs: []string{"ns_init_uid"}, pods: []string{"uid"}},
		"it was over before it started":             {pods: []string{"uid"}},
		"it is removed":                             {},
		"it is removed but for its logs":            {logs: []string{"ns_init_uid"}},
		"it is removed, and another one waits":      {listed: []string{"ns/other"}, pods: []string{"other"}},
		"it or another one waits for the network":   {listed: []string{"ns/other", "ns/init"}, pods: []string{"other"}, want: true},
		"it waits, and its name had logs before":    {listed: []string{"ns/init"}, logs: []string{"ns_init_former"}, pods: []string{"uid"}, want: true},
		"another pod of its name has started":       {listed: []string{"ns/init"}, logs: []string{"ns_init_other"}, pods: []string{"other"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, listed{names: append(test.listed, "ns/this")}, "/kubelet", file)
			for _, pod := range append(test.logs, "ns_this_this") {
				h.logs(pod)
			}
			for _, uid := range append(test.pods, "this") {
				h.pod(uid)
			}
			got, err := h.kubelet().Uses(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := Use{UIDs: []types.UID{"uid"}, Starting: []types.UID{}}
			if test.want {
				want.Starting = want.UIDs
			}
			if diff := cmp.Diff(map[string]Use{"GPU-0": want}, got); diff != "" {
				t.Errorf("uses (-want +got):\n%s", diff)
			}
		})
	}
}

// A kubelet that has started a moment ago names no pods.
func TestPodsOfAKubeletThatHasNotHeardOfAny(t *testing.T) {
	got, err := serve(t, listed{}, "/kubelet", checkpointFile).kubelet().Uses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]types.UID{"uid-gone"}, got["GPU-7"].Starting); diff != "" {
		t.Errorf("pods that may be starting (-want +got):\n%s", diff)
	}
}

func TestIDsOfOtherPlugins(t *testing.T) {
	for id, want := range map[string]string{
		"GPU-1":           "GPU-1",
		"GPU-1::0":        "GPU-1",
		"0000:18:00.1":    "0000:18:00.1",
		"MIG-GPU-1/3/0":   "GPU-1",
		"MIG-GPU-1/3/0::": "GPU-1",
		"MIG-4b1f2a6c":    "MIG-4b1f2a6c", // its GPU is not known
	} {
		if got := deviceID(id); got != want {
			t.Errorf("%s stands for %s, want %s", id, got, want)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add([]byte(checkpointFile))
	f.Add([]byte(`{"Data":{"PodDeviceEntries":[{"DeviceIDs":{"":null}}]}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, err := decodeCheckpoint(content)
		if err != nil && entries != nil {
			t.Errorf("both an answer and an error: %v, %v", entries, err)
		}
		for _, entry := range entries {
			if entry.PodUID == "" {
				t.Error("a pod without a UID")
			}
		}
	})
}

// So long as the API server is away, a kubelet that has started knows of no others.
func TestAKubeletThatHasHeardOfStaticPodsAlone(t *testing.T) {
	const file = `{"Data":{"PodDeviceEntries":[{"PodUID":"uid","ContainerName":"main","ResourceName":"nvidia.com/gpu","DeviceIDs":{"0":["GPU-0"]}}]},"Checksum":1}`
	for name, test := range map[string]struct {
		named []string
		want  bool
	}{
		"static pods alone":     {[]string{"kube-system/proxy-node1"}, true},
		"this process's own":    {[]string{"kube-system/proxy-node1", "ns/plugin"}, false},
		"and that of the UID":   {[]string{"kube-system/proxy-node1", "ns/plugin", "ns/gpu"}, true},
		"that of the UID alone": {[]string{"kube-system/proxy-node1", "ns/gpu"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			h := serve(t, listed{names: test.named}, "/kubelet", file)
			for uid, logs := range map[string]string{"static": "kube-system_proxy-node1", "self": "ns_plugin", "uid": "ns_gpu"} {
				h.logs(logs + "_" + uid)
				h.pod(uid)
			}
			got, err := h.kubelet().Uses(t.Context())
			if err != nil || slices.Contains(got["GPU-0"].Starting, "uid") != test.want {
				t.Errorf("got %+v, want that the pod may be looked after: %v; %v", got["GPU-0"], test.want, err)
			}
		})
	}
}
