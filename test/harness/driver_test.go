package harness

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/utils/ptr"
)

func TestOnlyGPUsAreTakenForGPUs(t *testing.T) {
	device := func(name, kind string) resourceapi.Device {
		return resourceapi.Device{Name: name, Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"type": {StringValue: ptr.To(kind)}}}
	}
	c := &Cluster{Client: fake.NewClientset(&resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "one"},
		Spec: resourceapi.ResourceSliceSpec{Driver: DriverName, Devices: []resourceapi.Device{
			device("gpu-0", "gpu"), device("vf-0", "sriov"), {Name: "bare"}, device("gpu-1", "gpu"),
		}},
	})}
	devices, err := c.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range devices {
		names = append(names, d.Name)
	}
	if diff := cmp.Diff([]string{"gpu-0", "gpu-1"}, names); diff != "" {
		t.Errorf("GPUs (-want +got):\n%s", diff)
	}
}
