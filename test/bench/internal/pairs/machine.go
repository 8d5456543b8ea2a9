package pairs

import (
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// gpus is how many a DGX has, and so how many pairs.
const gpus = published.GPUs

const rootAttribute = "resource.kubernetes.io/pcieRoot"

// machine is what the driver publishes of a node.
type machine struct{ *published.Machine }

// ids names devices of a node as the allocator does.
func ids(node string, devices []resourceapi.Device) sets.Set[structured.DeviceID] {
	named := sets.New[structured.DeviceID]()
	for _, d := range devices {
		named.Insert(structured.MakeDeviceID(harness.DriverName, driver.PoolName(node, harness.DriverName), d.Name))
	}
	return named
}

// nicOfFirstGPU returns all VFs of the NIC that is beside the GPU that is tried
// first.
func (m *machine) nicOfFirstGPU() []resourceapi.Device {
	root := published.Text(m.Devices(published.TypeGPU)[0], rootAttribute)
	var vfs []resourceapi.Device
	for _, vf := range m.Devices(published.TypeVF) {
		if published.Text(vf, rootAttribute) == root {
			vfs = append(vfs, vf)
		}
	}
	return vfs
}

func nodeNamed(name string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
