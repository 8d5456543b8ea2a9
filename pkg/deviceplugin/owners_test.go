package deviceplugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"tags.cncf.io/container-device-interface/pkg/parser"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// wantHolder waits until a GPU is held, or is not.
func (n *node) wantHolder(gpu int, held bool) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("held: %v", held), func() error {
		if who := n.holder(gpu); (who != "") != held {
			return fmt.Errorf("gpu-%d is held by %q", gpu, who)
		}
		return nil
	})
}

// look has the plugin look at everything.
func (i *instance) look(n *node) { look(n, i.Plugin) }

// Kubelet may not answer at the start of a node whose devices are all for claims.
func TestKubeletIsAskedAgain(t *testing.T) {
	n := newNode(t)
	n.kubelet.use("GPU-1", kubelet.Use{Pods: []string{"ns/old"}})
	n.kubelet.beSilent(errors.New("no answer"))
	p := n.start(gpus(0, 1), forClaims)
	p.look(n)
	if who := n.holder(1); who != "" {
		t.Fatalf("gpu-1 is held by %s", who)
	}
	n.kubelet.beSilent(nil)
	n.wantHolder(1, true)
	if reserved := gpus(0, 1).Devices; p.Reserves(reserved[0]) || !p.Reserves(reserved[1]) {
		t.Errorf("gpu-0 is reserved: %v; gpu-1 is: %v", p.Reserves(reserved[0]), p.Reserves(reserved[1]))
	}
}

// An instance that is about to end takes what its successor has just given back.
func TestWhatTheFormerInstanceTookIsGivenBackAgain(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	before.stop()
	n.start(gpus(0), forClaims)
	n.wantHolder(0, false)
	i := &item{Device: gpus(0).Devices[0], family: n.gpus, id: uuid(0)}
	if holder, err := n.store.Take(device.PCIThing(address(0)), i.holding()); err != nil || holder != nil {
		t.Fatal(holder, err)
	}
	n.wantHolder(0, false)
}

// Kubelet's API does not name pods that have devices only for init containers.
func TestDevicesOfInitContainersAreUsed(t *testing.T) {
	for name, start := range map[string]func(n *node) *instance{
		"given by this plugin": func(n *node) *instance {
			before := n.start(gpus(0), nil)
			n.wantHealth(map[string]string{"GPU-0": "Healthy"})
			if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
				n.t.Fatal(err)
			}
			before.stop()
			return n.start(gpus(0), func(o *Options) { forClaims(o); o.CommitWait = 1 })
		},
		"given by another plugin": func(n *node) *instance { return n.start(gpus(0), forClaims) },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.kubelet.unnamed("GPU-0", "init")
			n.processes.set("init")
			p := start(n)
			for range 3 {
				p.look(n)
			}
			if n.holder(0) == "" || !p.Reserves(gpus(0).Devices[0]) {
				t.Error("claims are offered a device that an init container uses")
			}
			n.processes.set() // the checkpoint goes on naming the pod
			n.wantHolder(0, false)
		})
	}
}

// Kubelet counts the devices of each resource by themselves.
func TestADeviceIsServedAsAnotherResourceWhenItIsFree(t *testing.T) {
	const other = "example.com/gpu"
	renamed := func(o *Options) { o.Resources[0].Name = other }
	for name, first := range map[string]func(n *node){
		"this plugin's before": func(n *node) {
			before := n.start(gpus(0, 1), nil)
			n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
			if _, err := n.kubelet.allocate(gpuName, "GPU-1"); err != nil {
				n.t.Fatal(err)
			}
			before.stop()
		},
		"another plugin's": func(*node) {},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			first(n)
			n.kubelet.use("GPU-1", kubelet.Use{Pods: []string{"ns/old"}, Resources: []string{gpuName}, UIDs: []types.UID{"old"}})
			n.start(gpus(0, 1), renamed)
			n.wantHealthOf(other, map[string]string{"GPU-0": "Healthy", "GPU-1": "Unhealthy"})
			_, err := n.kubelet.allocate(other, "GPU-1")
			wantError(t, err, `device "gpu-1" is not served as example.com/gpu yet: pod ns/old still has it as nvidia.com/gpu`)
			n.kubelet.use("GPU-1", kubelet.Use{})
			n.wantHealthOf(other, map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
			if _, err := n.kubelet.allocate(other, "GPU-1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// What is held is known by its place; kubelet knows it by its UUID.
func TestAGPUThatWasReplacedIsUsedByItsNewID(t *testing.T) {
	replaced := gpus(0)
	replaced.Devices[0].Attributes["uuid"] = gpus(7).Devices[0].Attributes["uuid"]
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	before.stop()

	after := n.start(replaced, nil)
	n.wantHealth(map[string]string{"GPU-7": "Healthy"})
	if _, err := n.kubelet.allocate(gpuName, "GPU-7"); err != nil {
		t.Fatal(err)
	}
	n.kubelet.use("GPU-7", kubelet.Use{Pods: []string{"ns/new"}})
	after.stop()
	claims := n.open("gpu", replaced, func(o *Options) { forClaims(o); o.CommitWait = 1 })
	t.Cleanup(func() { _ = claims.store.Close() })
	for range 3 {
		look(n, claims)
		if n.holder(0) == "" {
			t.Fatal("given back while a pod uses it")
		}
	}
	n.kubelet.use("GPU-7", kubelet.Use{})
	look(n, claims)
	n.wantHolder(0, false)
}

// A pod that kubelet starts again from its checkpoint asks for the GPU's place.
func TestAGPUThatWasReplacedIsFirstThatOfItsFormerPods(t *testing.T) {
	replaced := gpus(0)
	replaced.Devices[0].Attributes["uuid"] = gpus(7).Devices[0].Attributes["uuid"]
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	before.stop()
	n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/old"}})
	n.start(replaced, nil)
	n.wantHealth(map[string]string{"GPU-7": "Unhealthy"})
	_, err := n.kubelet.allocate(gpuName, "GPU-7")
	wantError(t, err, "pod ns/old still has it as nvidia.com/gpu GPU-0")
	n.kubelet.use("GPU-0", kubelet.Use{})
	n.wantHealth(map[string]string{"GPU-7": "Healthy"})
}

// A plugin that starts while its hardware cannot be seen takes nothing from
// containers that start again.
func TestSpecsStayWhileTheHardwareCannotBeSeen(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	before.stop()
	spec := n.file("cdi", "eks-hybrid-dra_deviceplugin-gpu.json")
	blind := n.open("gpu", device.Inventory{}, nil)
	t.Cleanup(func() { _ = blind.store.Close() })
	blind.Found(t.Context(), "gpu", device.Inventory{}, errors.New("no driver"))
	look(n, blind)
	if diff := cmp.Diff(spec, n.file("cdi", "eks-hybrid-dra_deviceplugin-gpu.json")); diff != "" {
		t.Errorf("the CDI spec (-before +after):\n%s", diff)
	}
}

// Of all who want a device at the same time, two instances and claims, one has it.
func TestOneOwner(t *testing.T) {
	n := newNode(t)
	one := n.start(gpus(0), nil)
	two := n.start(gpus(0), func(o *Options) { o.PodUID = "two" })
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	i := one.items().byID("GPU-0")
	thing := device.PCIThing(address(0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	claims := make(chan error, 1)
	go func() {
		defer close(claims)
		for uid := types.UID("claim"); ctx.Err() == nil; {
			holder, err := n.store.Take(thing, claimstore.Holding{Claim: device.Claim{Namespace: "ns", Name: "claim", UID: uid}, Device: claimstore.Device{Family: "gpu", Device: "gpu-0", Occupies: i.Occupies}})
			if err == nil && holder == nil {
				for _, p := range []*instance{one, two} {
					if stampErr := p.stamp(ctx, i); stampErr == nil {
						err = errors.Join(err, errors.New("kubelet was given the device of a claim"))
					}
				}
				err = errors.Join(err, n.store.Free(thing, uid))
			}
			if err != nil {
				claims <- err
				return
			}
		}
	}()
	// Each round the device plugin gives the device back, and takes it again.
	for range 50 {
		if err := n.store.Free(thing, i.holder()); err != nil {
			t.Error(err)
		}
		for _, p := range []*instance{one, two} {
			p.look(n)
		}
	}
	cancel()
	if err := <-claims; err != nil {
		t.Error(err)
	}
}

// unnamed has only kubelet's checkpoint name the pods of a device.
func (k *fakeKubelet) unnamed(id string, uids ...types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.uses = map[string]kubelet.Use{id: {UIDs: uids}}
}

// swapped are GPUs 0 and 1, each in the other's place.
func swapped() device.Inventory {
	found := gpus(0, 1)
	a, b := found.Devices[0].Attributes, found.Devices[1].Attributes
	a["uuid"], b["uuid"] = b["uuid"], a["uuid"]
	return found
}

// Kubelet hands containers that start again the name that it was told at first.
func TestWhatKubeletKeepsMeansTheSameGPU(t *testing.T) {
	nodeOf := func(n *node, id string) string {
		var spec cdispec.Spec
		if err := json.Unmarshal([]byte(n.file("cdi", "eks-hybrid-dra_deviceplugin-gpu.json")), &spec); err != nil {
			t.Fatal(err)
		}
		for _, d := range spec.Devices {
			if spec.Kind+"="+d.Name == id {
				return d.ContainerEdits.DeviceNodes[0].Path
			}
		}
		return ""
	}
	replaced := gpus(0, 1)
	replaced.Devices[0].Attributes["uuid"] = gpus(7).Devices[0].Attributes["uuid"]
	for name, test := range map[string]struct {
		now  device.Inventory
		node string
	}{
		"as it was":                   {gpus(0, 1), "/dev/gpu-0"},
		"GPUs have changed places":    {swapped(), "/dev/gpu-1"},
		"another GPU is in its place": {replaced, ""},
		"its place is empty":          {gpus(1), ""},
		"there is another GPU only":   {gpus(5), ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			before := n.start(gpus(0, 1), nil)
			n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
			answer, err := n.kubelet.allocate(gpuName, "GPU-0")
			if err != nil {
				t.Fatal(err)
			}
			before.stop()
			n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/pod"}, Resources: []string{gpuName}})
			after := n.open("gpu", test.now, nil)
			t.Cleanup(func() { _ = after.store.Close() })
			look(n, after)
			if got := nodeOf(n, answer.GetCdiDevices()[0].GetName()); got != test.node {
				t.Errorf("the container gets %q, want %q", got, test.node)
			}
		})
	}
}

// After a reboot kubelet admits pods with their former devices, if these are
// healthy.
func TestGPUsThatChangedPlacesAreHealthy(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0, 1), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	before.stop()
	for _, id := range []string{"GPU-0", "GPU-1"} {
		n.kubelet.use(id, kubelet.Use{Pods: []string{"ns/" + id}, Resources: []string{gpuName}})
	}
	n.start(swapped(), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
}

func TestNamesOfCDIDevices(t *testing.T) {
	for _, d := range append(vfs("0000:18:00.1").Devices, device.Device{Name: "gpu-0", Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
		"uuid": {StringValue: ptr.To("GPU-6a1c3b9e-4d5f-4c6e-9c1b-0f3de1a8b7c2")},
	}}, device.Device{Name: "other-0"}) {
		if err := parser.ValidateDeviceName(idOf(d)); err != nil {
			t.Errorf("%s: %v", d.Name, err)
		}
	}
}
