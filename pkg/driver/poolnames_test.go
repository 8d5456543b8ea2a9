package driver

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// fakeDisks is a family that claims cannot configure.
type fakeDisks struct {
	*fakeGPUs
	granted []device.Grant
}

func newFakeDisks(names ...string) *fakeDisks {
	f := &fakeDisks{fakeGPUs: newFakeGPUs(names...)}
	for n := range f.devices {
		f.devices[n].Kind = "disk"
	}
	return f
}

func (f *fakeDisks) Name() string { return "disk" }

func (f *fakeDisks) NewConfig() runtime.Object { return nil }

func (f *fakeDisks) Prepare(ctx context.Context, g device.Grant) (device.Edits, error) {
	f.granted = append(f.granted, g)
	return f.fakeGPUs.Prepare(ctx, g)
}

func TestDevicesThatDoNotFitInThePool(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	disks := newFakeDisks("gpu-1", "disk-0", "Disk/1", "disk-2")
	disks.devices[3].Occupies = nil
	n.families = []Family{n.gpus, disks}
	d := n.start()
	var names, families []string
	for _, dev := range d.inventory.devices() {
		names, families = append(names, dev.Name), append(families, dev.owner())
	}
	if diff := cmp.Diff([][]string{{"gpu-0", "gpu-1", "disk-0"}, {"gpu", "gpu", "disk"}}, [][]string{names, families}); diff != "" {
		t.Errorf("devices and their families (-want +got):\n%s", diff)
	}
	for device, want := range map[string]string{
		"disk-2": "occupies nothing", "Disk/1": "lower case",
	} {
		if err := prepare(t, d, newClaim("a", []string{device})).Err; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is prepared: got the error %v, want %q", device, err, want)
		}
	}
	if why := d.whyMissing(); !strings.Contains(why, `device "gpu-1": another device`) {
		t.Errorf("the name that is there twice is not told of: %s", why)
	}
}

func TestFamilyWithoutConfiguration(t *testing.T) {
	n := newNode(t, "gpu-0")
	disks := newFakeDisks("disk-0")
	n.families = []Family{n.gpus, disks}
	both := newClaim("a", []string{"gpu-0", "disk-0"}, withConfig(resourceapi.AllocationConfigSourceClaim, gpuConfig))
	mustPrepare(t, n.start(), both)
	d := n.start()
	mustPrepare(t, d, both) // from what was written down
	mustUnprepare(t, d, both)
	if len(disks.granted) == 0 || slices.ContainsFunc(disks.granted, func(g device.Grant) bool { return g.Config != nil }) {
		t.Errorf("granted %+v, want no configuration", disks.granted)
	}
	if left := n.files(); len(left) > 0 {
		t.Errorf("left on disk: %v", left)
	}
	wrong := newClaim("b", []string{"disk-0"}, withConfig(resourceapi.AllocationConfigSourceClaim, gpuConfig, "r0"))
	const want = "kind GpuConfig does not configure the devices of requests r0, which are of family disk"
	if err := prepare(t, d, wrong).Err; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
