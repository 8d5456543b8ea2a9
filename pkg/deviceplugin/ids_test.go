package deviceplugin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"
	"tags.cncf.io/container-device-interface/pkg/parser"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

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

// What was found out about a GPU in its former place is not handed out.
func TestGPUsThatChangePlacesMeanwhile(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0, 1), nil)
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	p.Found(t.Context(), "gpu", swapped(), nil)
	if err := p.writeFiles(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "cdi", "eks-hybrid-dra_deviceplugin-gpu.json")); !os.IsNotExist(err) {
		t.Errorf("there is a CDI spec: %v\n%s", err, n.file("cdi", "eks-hybrid-dra_deviceplugin-gpu.json"))
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
