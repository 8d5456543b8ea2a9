package deviceplugin

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/testing/protocmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

func wantError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("want an error that says %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

func TestKubeletGetsDevicesByCDI(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0, 5), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-5": "Healthy"})
	answer, err := n.kubelet.allocate(gpuName, "GPU-5")
	if err != nil {
		t.Fatal(err)
	}
	want := &api.ContainerAllocateResponse{CdiDevices: []*api.CDIDevice{{Name: "eks-hybrid-dra/deviceplugin-gpu=GPU-5"}}}
	if diff := cmp.Diff(want, answer, protocmp.Transform(), protocmp.IgnoreEmptyMessages()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	spec := n.file("cdi", "eks-hybrid-dra_deviceplugin-gpu.json")
	for _, text := range []string{`"kind":"eks-hybrid-dra/deviceplugin-gpu"`, `"name":"GPU-5"`, `"path":"/dev/gpu-5"`, `"NVIDIA_VISIBLE_DEVICES=void"`} {
		if !strings.Contains(spec, text) {
			t.Errorf("the CDI spec does not say %s:\n%s", text, spec)
		}
	}
	if n.gpus.changed("gpu-5") {
		t.Error("the family was allowed to change the device")
	}
}

func TestKubeletGetsDevicesByVariablesNodesAndMounts(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0, 1), func(o *Options) {
		o.EnvVar = true
		o.Resources[0].Variable = "NVIDIA_VISIBLE_DEVICES"
	})
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	answer, err := n.kubelet.allocate(gpuName, "GPU-1", "GPU-0")
	if err != nil {
		t.Fatal(err)
	}
	want := &api.ContainerAllocateResponse{
		Envs: map[string]string{"NVIDIA_VISIBLE_DEVICES": "GPU-0,GPU-1"},
		Devices: []*api.DeviceSpec{ // what both need is there once
			{ContainerPath: "/dev/nvidiactl", HostPath: "/driver/dev/nvidiactl", Permissions: "rwm"},
			{ContainerPath: "/dev/gpu-1", HostPath: "/dev/gpu-1", Permissions: "rw"},
			{ContainerPath: "/dev/gpu-0", HostPath: "/dev/gpu-0", Permissions: "rw"},
		},
		Mounts: []*api.Mount{{ContainerPath: "/usr/bin/nvidia-smi", HostPath: "/usr/bin/nvidia-smi", ReadOnly: true}},
	}
	if diff := cmp.Diff(want, answer, protocmp.Transform()); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

func TestHealthIsTold(t *testing.T) {
	n := newNode(t)
	p := n.start(gpus(0, 1), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	sick := gpus(0, 1)
	sick.Devices[1].Problems = []device.Problem{{Reason: "XID", Message: "it fell off the bus"}}
	p.Found(t.Context(), "gpu", sick, nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Unhealthy"})
	p.Found(t.Context(), "gpu", gpus(0, 1), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	p.Found(t.Context(), "gpu", device.Inventory{}, errors.New("no driver"))
	n.wantHealth(map[string]string{"GPU-0": "Unhealthy", "GPU-1": "Unhealthy"})
	n.gpus.spoil("gpu-0", errors.New("/dev/nvidia0 is not on the host"))
	p.Found(t.Context(), "gpu", gpus(0, 1), nil)
	n.wantHealth(map[string]string{"GPU-0": "Unhealthy", "GPU-1": "Healthy"})
	_, err := n.kubelet.allocate(gpuName, "GPU-0")
	wantError(t, err, `device "gpu-0": /dev/nvidia0 is not on the host`)
}

func TestADeviceOfAClaimComesWhenItIsFree(t *testing.T) {
	n := newNode(t)
	if holder := n.claim("a", 1); holder != nil {
		t.Fatalf("held by %s", holder.Holder())
	}
	p := n.start(gpus(0, 1), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Unhealthy"})
	_, err := n.kubelet.allocate(gpuName, "GPU-1")
	wantError(t, err, `device "gpu-1" belongs to claim ns/claim-a:a`)
	for _, d := range gpus(0, 1).Devices {
		if !p.Reserves(d) {
			t.Errorf("device %s is offered to claims", d.Name)
		}
	}
	if holder := n.claim("b", 0); holder == nil || holder.DevicePlugin == nil {
		t.Errorf("a claim got what the device plugin has: %v", holder)
	}
	n.unclaim("a", 1)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
}

func TestDevicesOfPodsGoToClaimsWhenTheyAreFree(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0, 1, 2), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy", "GPU-2": "Healthy"})
	for _, id := range []string{"GPU-0", "GPU-1"} {
		if _, err := n.kubelet.allocate(gpuName, id); err != nil {
			t.Fatal(err)
		}
		n.kubelet.use(id, kubelet.Use{Pods: []string{"ns/" + id}, UIDs: []types.UID{types.UID(id)}})
	}
	n.processes.set("GPU-0", "GPU-1")
	before.stop()

	after := n.start(gpus(0, 1, 2), forClaims)
	eventually(t, "free", func() error {
		if who := n.holder(2); who != "" {
			return errors.New(who)
		}
		return nil
	})
	reserves := func() (names []string) {
		for _, d := range gpus(0, 1, 2).Devices {
			if after.Reserves(d) {
				names = append(names, d.Name)
			}
		}
		return names
	}
	eventually(t, "offered to claims", func() error { // a moment after it is free
		if diff := cmp.Diff([]string{"gpu-0", "gpu-1"}, reserves()); diff != "" {
			return fmt.Errorf("reserved (-want +got):\n%s", diff)
		}
		return nil
	})
	if who := n.holder(0); who != "pod ns/GPU-0, which has it as an extended resource by the device plugin API" {
		t.Errorf("gpu-0 is held by %s", who)
	}
	// Containers that start again find their devices.
	eventually(t, "in the CDI spec", func() error {
		if spec := n.file("cdi", "eks-hybrid-dra_deviceplugin-gpu.json"); strings.Contains(spec, "gpu-2") || !strings.Contains(spec, "gpu-1") {
			return errors.New(spec)
		}
		return nil
	})

	// A pod that kubelet does not look after any more may still have processes.
	n.kubelet.use("GPU-0", kubelet.Use{})
	n.kubelet.use("GPU-1", kubelet.Use{})
	n.processes.set("GPU-1")
	eventually(t, "free", func() error {
		if who := n.holder(0); who != "" {
			return errors.New(who)
		}
		return nil
	})
	if n.holder(1) == "" {
		t.Error("a device was given back while processes of its pod run")
	}
	n.kubelet.beSilent(errors.New("no answer"))
	n.processes.set()
	look(n, after.Plugin)
	if n.holder(1) == "" {
		t.Error("a device was given back though kubelet did not say that it is free")
	}
	n.kubelet.beSilent(nil)
	eventually(t, "nothing reserved", func() error {
		if names := reserves(); len(names) > 0 {
			return fmt.Errorf("%v", names)
		}
		return nil
	})
	eventually(t, "gone", func() error {
		if _, err := os.Stat(filepath.Join(n.dir, "cdi", "eks-hybrid-dra_deviceplugin-gpu.json")); !os.IsNotExist(err) {
			return fmt.Errorf("the CDI spec: %w", err)
		}
		return nil
	})
}

// Kubelet may be given a device and not use it after all, since the pod was
// refused for something else, or the plugin or kubelet ended in between.
func TestADeviceThatWasAllocatedForNothingIsGivenBack(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	allocated := time.Now()
	if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
		t.Fatal(err)
	}
	before.stop()
	wait := 200 * time.Millisecond
	n.start(gpus(0), func(o *Options) {
		forClaims(o)
		o.CommitWait = wait
	})
	eventually(t, "free", func() error {
		if who := n.holder(0); who != "" {
			return errors.New(who)
		}
		return nil
	})
	if waited := time.Since(allocated); waited < wait {
		t.Errorf("given back after %s, before kubelet could say that a pod has it", waited)
	}
}

// What another device plugin has given out is used, too.
func TestDevicesOfAnotherPluginAreNotOffered(t *testing.T) {
	n := newNode(t)
	n.kubelet.use("GPU-1", kubelet.Use{Pods: []string{"ns/old"}})
	p := n.start(gpus(0, 1), forClaims)
	reserved := gpus(0, 1).Devices
	if p.Reserves(reserved[0]) || !p.Reserves(reserved[1]) {
		t.Errorf("gpu-0 is reserved: %v; gpu-1 is: %v", p.Reserves(reserved[0]), p.Reserves(reserved[1]))
	}
	n.kubelet.use("GPU-1", kubelet.Use{})
	eventually(t, "free", func() error {
		if who := n.holder(1); who != "" {
			return errors.New(who)
		}
		return nil
	})
}

func TestKubeletRestarts(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	for range 3 {
		n.kubelet.stop()
		n.kubelet.start()
		n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	}
	if got := n.kubelet.registrations(); got != 4 {
		t.Errorf("registered %d times, want 4", got)
	}
}

func TestKubeletHangsUp(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	n.kubelet.hangUp()
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	if got := n.kubelet.registrations(); got != 2 {
		t.Errorf("registered %d times, want 2", got)
	}
}

func TestTwoInstancesSideBySide(t *testing.T) {
	n := newNode(t)
	old := n.start(gpus(0, 1), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	n.start(gpus(0, 1), func(o *Options) { o.PodUID = "two" })
	eventually(t, "registered", func() error {
		if got := n.kubelet.registrations(); got != 2 {
			return fmt.Errorf("%d registrations", got)
		}
		return nil
	})
	old.stop()
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
		t.Error(err)
	}
}

// Kubelet's topology manager aligns what it is told the NUMA node of.
func TestKubeletIsToldNUMANodes(t *testing.T) {
	found := gpus(0, 5, 6)
	delete(found.Devices[2].Attributes, deviceattribute.StandardDeviceAttributeNUMANode)
	p := newNode(t).start(found, nil)
	devices, _ := p.listed(&p.options.Resources[0])
	got := map[string][]int64{}
	for _, d := range devices {
		got[d.GetID()] = nil
		for _, node := range d.GetTopology().GetNodes() {
			got[d.GetID()] = append(got[d.GetID()], node.GetID())
		}
	}
	want := map[string][]int64{"GPU-0": {0}, "GPU-5": {1}, "GPU-6": nil}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("NUMA nodes (-want +got):\n%s", diff)
	}
}

func TestPreferredAllocation(t *testing.T) {
	n := newNode(t)
	p := n.start(gpus(0, 1, 2, 3, 4, 5, 6, 7), nil)
	s := &session{server: &server{plugin: p.Plugin, resource: &p.options.Resources[0]}}
	answer, err := s.GetPreferredAllocation(t.Context(), &api.PreferredAllocationRequest{ContainerRequests: []*api.ContainerPreferredAllocationRequest{
		{AvailableDeviceIDs: []string{"GPU-7", "GPU-6", "GPU-5", "GPU-3", "GPU-1"}, AllocationSize: 2},
		{AvailableDeviceIDs: []string{"GPU-7", "GPU-6", "GPU-5", "GPU-3", "GPU-1"}, MustIncludeDeviceIDs: []string{"GPU-6"}, AllocationSize: 2},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"GPU-1", "GPU-3"}, {"GPU-6", "GPU-5"}}
	for n, container := range answer.GetContainerResponses() {
		if diff := cmp.Diff(want[n], container.GetDeviceIDs()); diff != "" {
			t.Errorf("container %d (-want +got):\n%s", n, diff)
		}
	}
}

func TestWithoutKubeletsFolder(t *testing.T) {
	n := newNode(t)
	p, err := New(t.Context(), Options{
		DriverName: testDriver, DataDir: filepath.Join(n.dir, "data"), Dir: filepath.Join(n.dir, "missing"), Kubelet: n.kubelet, Processes: n.processes,
		Kinds: []device.Kind{device.KindGPU}, Resources: []Resource{{Name: gpuName, Kind: device.KindGPU}}, Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, p.Run(t.Context(), n.published), "missing", "see that it is mounted, or that the configuration's devicePlugin.kinds is empty")
}

// vfs are VFs of one port, named by their addresses.
func vfs(addresses ...string) device.Inventory {
	var found device.Inventory
	for n, a := range addresses {
		found.Devices = append(found.Devices, device.Device{
			Name: "vf-" + strings.NewReplacer(":", "-", ".", "-").Replace(a), Kind: device.KindVF, Occupies: []string{device.PCIThing(a)},
			Place:      &device.Place{PCI: a, Parent: "0000:18:00.0", Index: n},
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{device.AttributeRDMADevice: {StringValue: ptr.To("mlx5_2")}},
		})
	}
	return found
}

func TestVFsForMultus(t *testing.T) {
	const resource, one, two = "nvidia.com/vf", "0000:18:00.1", "0000:18:00.2"
	n := newNode(t)
	set := func(o *Options) {
		o.Kinds = []device.Kind{device.KindVF}
		o.Resources = []Resource{{
			Name: resource, Kind: device.KindVF, Variable: "PCIDEVICE_NVIDIA_COM_VF", Network: true, InUse: []string{"InterfaceMissing"},
			Selects: func(d device.Device) bool { return d.Place.PCI != two },
			Grant:   func(device.Device) (runtime.Object, bool) { return v1alpha1.DefaultVfConfig(), true },
		}}
	}
	n.gpus.name = "vf"
	p := n.startFamily("vf", vfs(one, two), set)
	want := func(health string) {
		t.Helper()
		eventually(t, "told to kubelet", func() error {
			if got := n.kubelet.health(resource); !cmp.Equal(got, map[string]string{one: health}) {
				return fmt.Errorf("kubelet was told %v", got)
			}
			return nil
		})
	}
	want("Healthy")
	answer, err := n.kubelet.allocate(resource, one)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.GetEnvs()["PCIDEVICE_NVIDIA_COM_VF"]; got != one {
		t.Errorf("PCIDEVICE_NVIDIA_COM_VF is %q", got)
	}
	info := n.file("devinfo", "nvidia.com-vf-"+one+"-device.json")
	if want := `{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:18:00.1","rdma-device":"mlx5_2","pf-pci-address":"0000:18:00.0"}}`; info != want {
		t.Errorf("the description for Multus is %s, want %s", info, want)
	}

	// A VF that is in a pod is not on the host, which is no problem of it.
	n.kubelet.use(one, kubelet.Use{Pods: []string{"ns/pod"}})
	moved := vfs(one, two)
	moved.Devices[0].Problems = []device.Problem{{Reason: "InterfaceMissing", Message: "no interface"}}
	eventually(t, "known to be used", func() error {
		if i := p.items().byID(one); !p.used(i) {
			return errors.New("not yet")
		}
		return nil
	})
	p.Found(t.Context(), "vf", moved, nil)
	look(n, p.Plugin)
	want("Healthy")
	down := vfs(one, two)
	down.Devices[0].Problems = append(moved.Devices[0].Problems, device.Problem{Reason: "LinkDown", Message: "no link"})
	p.Found(t.Context(), "vf", down, nil)
	want("Unhealthy")
	p.stop()

	n.kubelet.use(one, kubelet.Use{})
	n.startFamily("vf", vfs(one, two), forClaims)
	eventually(t, "gone", func() error {
		left, err := filepath.Glob(filepath.Join(n.dir, "devinfo", "*"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%v", left)
		}
		return err
	})
	eventually(t, "released", func() error {
		n.gpus.mu.Lock()
		defer n.gpus.mu.Unlock()
		if len(n.gpus.released) != 2 {
			return fmt.Errorf("released: %v", n.gpus.released)
		}
		return nil
	})
}
