package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// fakeReserve reserves devices by name.
type fakeReserve struct {
	mu    sync.Mutex
	names []string
	found map[string]int
	// problems counts those of devices.
	problems int
}

func (r *fakeReserve) Found(_ context.Context, family string, found device.Inventory, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.found == nil {
		r.found = map[string]int{}
	}
	r.found[family] = len(found.Devices)
	for _, d := range found.Devices {
		r.problems += len(d.Problems)
	}
}

func (r *fakeReserve) Reserves(d device.Device) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.names, d.Name)
}

func (r *fakeReserve) Watch(ctx context.Context, _ func()) { <-ctx.Done() }

// served makes a device the device plugin's.
func served(t *testing.T, d *Driver, name string, users ...string) {
	t.Helper()
	holder, err := d.store.Take("pci-"+name, claimstore.Holding{
		Claim:        device.Claim{Namespace: "device-plugin", Name: name, UID: "device-plugin-uid"},
		Device:       claimstore.Device{Family: "gpu", Device: name, Occupies: []string{"pci-" + name}},
		DevicePlugin: &claimstore.DevicePlugin{ID: "GPU-" + name, Kind: device.KindGPU, Resource: "nvidia.com/gpu", Users: users},
	})
	if err != nil || holder != nil {
		t.Fatal(holder, err)
	}
}

func TestReservedDevicesAreNotOffered(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1", "gpu-2")
	reserve := &fakeReserve{names: []string{"gpu-1"}}
	d := n.startWith(func(o *Options) { o.Reserve = reserve })
	if diff := cmp.Diff(map[string]int{"gpu": 3}, reserve.found); diff != "" {
		t.Errorf("what the reserve was told (-want +got):\n%s", diff)
	}
	var names []string
	for _, dev := range d.offered(d.inventory.devices()) {
		names = append(names, dev.Name)
	}
	if diff := cmp.Diff([]string{"gpu-0", "gpu-2"}, names); diff != "" {
		t.Errorf("offered (-want +got):\n%s", diff)
	}
}

// The scheduler does not see what a claim takes by a composite that is in no
// slice.
func TestThePartsOfAReservedCompositeThatAClaimHasAreNotOffered(t *testing.T) {
	d := newNode(t).startWith(func(o *Options) { o.Reserve = &fakeReserve{names: []string{"gpu-0", "gpu-0-vf", "gpu-1", "gpu-1-vf"}} })
	single := func(name string) owned { return owned{Device: device.Device{Name: name}, family: newFakeGPUs()} }
	devices := []owned{
		single("gpu-0"), single("gpu-1"), single("vf-0"), single("vf-1"),
		{Device: device.Device{Name: "gpu-0-vf"}, parts: []owned{single("gpu-0"), single("vf-0")}, held: true},
		{Device: device.Device{Name: "gpu-1-vf"}, parts: []owned{single("gpu-1"), single("vf-1")}},
	}
	var names []string
	for _, dev := range d.offered(devices) {
		names = append(names, dev.Name)
	}
	if diff := cmp.Diff([]string{"vf-1"}, names); diff != "" {
		t.Errorf("offered (-want +got):\n%s", diff)
	}
}

func TestAClaimWaitsForADeviceOfThePodThatHasItAsAResource(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	served(t, d, "gpu-0", "ns/user")
	result := prepare(t, d, newClaim("a", []string{"gpu-0"}))
	if result.Err == nil {
		t.Fatal("prepared for a claim while a pod has it as an extended resource")
	}
	for _, text := range []string{`device "gpu-0" is held by pod ns/user, which has it as an extended resource by the device plugin API`, "waited for its release"} {
		if !strings.Contains(result.Err.Error(), text) {
			t.Errorf("error %q does not say %q", result.Err, text)
		}
	}
	// Nobody releases it because the API knows no such claim.
	if _, err := d.releaseIfAbandoned(t.Context(), newNodeClaims(t, d)); err != nil {
		t.Error(err)
	}
	if err := d.whatIsLeft(t.Context()); err == nil || !strings.Contains(err.Error(), "delete the pods that use it") {
		t.Errorf("what is in the way of a removal: %v", err)
	}
	if err := d.store.Free("pci-gpu-0", "device-plugin-uid"); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
}

// The file that would tell may be unreadable.
func TestARemovalWaitsForADeviceThatAPodMayHave(t *testing.T) {
	reserve := &fakeReserve{names: []string{"gpu-0"}}
	d := newNode(t, "gpu-0").startWith(func(o *Options) { o.Reserve = reserve })
	if err := d.whatIsLeft(t.Context()); err == nil || !strings.Contains(err.Error(), `device "gpu-0" may be a pod's`) {
		t.Errorf("what is in the way of a removal: %v", err)
	}
	reserve.names = nil
	if err := d.whatIsLeft(t.Context()); err != nil {
		t.Error(err)
	}
}

// newNodeClaims fails the test if something that is no claim is taken for one.
func newNodeClaims(t *testing.T, d *Driver) device.Claim {
	t.Helper()
	claims, err := d.knownClaims()
	if err != nil {
		t.Fatal(err)
	}
	if len(claims) > 0 {
		t.Fatalf("taken for claims: %v", claims)
	}
	return device.Claim{Namespace: "ns", Name: "none", UID: "none"}
}

// PCI functions are known by what slices say, whatever has the name here by now;
// what is none, by the name.
func TestOfferedSaysWhatTheAPIHas(t *testing.T) {
	n := newNode(t, "gpu-0-vf", "cpu-3", "cpu-4")
	n.gpus.devices[1].Occupies, n.gpus.devices[2].Occupies = []string{"cpu-3"}, []string{"cpu-4"}
	d := n.start()
	node := testNode
	attribute := func(address string) resourceapi.DeviceAttribute {
		return resourceapi.DeviceAttribute{StringValue: ptr.To(address)}
	}
	slice := &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "slice"},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: testDriver, NodeName: &node, Pool: resourceapi.ResourcePool{Name: testPool, Generation: 1, ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{Name: "gpu-0-vf", Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				deviceattribute.StandardDeviceAttributePCIBusID: attribute("0000:1b:00.0"), "vfPCIBusID": attribute("0000:18:00.1"),
			}}, {Name: "cpu-3"}, {Name: "gone"}},
		},
	}
	if _, err := n.client.ResourceV1().ResourceSlices().Create(t.Context(), slice, createOptions); err != nil {
		t.Fatal(err)
	}
	got, err := d.Offered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]bool{"pci-0000:1b:00.0": true, "pci-0000:18:00.1": true, "cpu-3": true}, got); diff != "" {
		t.Errorf("offered (-want +got):\n%s", diff)
	}
}

// Kubernetes before 1.34 serves no claims: everything is by the device plugin API.
func TestAnAPIServerWithoutClaimsIsNoHindranceWhereNothingIsForClaims(t *testing.T) {
	n := newNode(t, "gpu-0")
	n.dir = shortDir(t)
	missing := apierrors.NewNotFound(resourceapi.Resource("resourceslices"), "")
	n.client.PrependReactor("list", "resourceslices", failWith(missing))
	reserve := &fakeReserve{names: []string{"gpu-0"}}
	d := n.startWith(func(o *Options) { o.Reserve = reserve })
	if things, err := d.Offered(t.Context()); err != nil || things != nil {
		t.Errorf("offered: %v, %v", things, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	eventually(t, "ready", func() error { return d.Ready(t.Context()) })

	// Looks at the hardware go on.
	eventually(t, "told", func() error {
		n.gpus.set("gpu-0", device.Problem{Reason: "Sick", Message: "it is sick"})
		reserve.mu.Lock()
		defer reserve.mu.Unlock()
		if reserve.problems == 0 {
			return errors.New("not told of the problem")
		}
		return nil
	})
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("does not end")
	}
}

// What the API server serves changes with updates of the cluster alone, and every
// node looks after its slices every few seconds.
func TestTheAPIServerIsRarelyAskedWhatItServes(t *testing.T) {
	missing := apierrors.NewNotFound(resourceapi.Resource("resourceslices"), "")
	for name, test := range map[string]struct {
		answer error
		served bool
		asked  int // for three times that it is of interest
	}{
		"it has slices":      {nil, true, 1},
		"it has none":        {missing, false, 1},
		"it does not answer": {errors.New("connection refused"), true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "gpu-0")
			d := n.startWith(func(*Options) {})
			n.client.Resources = []*metav1.APIResourceList{{GroupVersion: resourceapi.SchemeGroupVersion.String()}}
			asked := 0
			n.client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
				asked++
				return test.answer != nil, nil, test.answer
			})
			for range 3 {
				if served := d.slicesServed(t.Context()); served != test.served {
					t.Errorf("slices are served: %t, want %t", served, test.served)
				}
			}
			if asked != test.asked {
				t.Errorf("asked %d times, want %d", asked, test.asked)
			}
			d.status.servedAsked = time.Now().Add(-servedFor)
			test.answer = nil
			if !d.slicesServed(t.Context()) || asked != test.asked+1 {
				t.Errorf("an update of the cluster is not noticed; asked %d times", asked)
			}
		})
	}
}

// Where it has no claims, nobody is waited for: not by a node without devices, and
// not by a driver that is removed.
func TestAnAPIServerWithoutClaims(t *testing.T) {
	missing := apierrors.NewNotFound(resourceapi.Resource("resourceslices"), "")
	tests := map[string]struct {
		devices []string
		set     func(*Options)
		ready   string // why it is not
	}{
		"a node without devices":  {},
		"devices that are wanted": {devices: []string{"gpu-0"}, ready: "add their kinds to devicePlugin.kinds"},
		"a driver that is removed": {devices: []string{"gpu-0"}, set: func(o *Options) {
			o.Removing, o.RemovalSettle = true, time.Millisecond
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, test.devices...)
			n.dir = shortDir(t)
			n.client.PrependReactor("list", "resourceslices", failWith(missing))
			var d *Driver
			_, stop := n.running(func(o *Options) {
				if test.set != nil {
					test.set(o)
				}
			}, &d)
			defer stop()
			if d.options.Removing {
				if err := d.Emptied(t.Context()); err != nil {
					t.Error(err)
				}
				return
			}
			if err := d.Ready(t.Context()); test.ready == "" && err != nil || test.ready != "" && (err == nil || !strings.Contains(err.Error(), test.ready)) {
				t.Errorf("not ready because of %q: got %v", test.ready, err)
			}
		})
	}
}

// shortDir returns a folder with the driver's own ones, at a path that is short
// enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dra")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, d := range []string{"data", "registry"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
