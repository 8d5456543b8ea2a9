package deviceplugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

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
	runs := func(n *node) {
		n.kubelet.set(map[string]kubelet.Use{"GPU-0": {UIDs: []types.UID{"init"}}}, nil)
		n.processes.set("init")
	}
	for name, start := range map[string]func(n *node) *instance{
		"given by this plugin": func(n *node) *instance {
			before := n.start(gpus(0), nil)
			n.wantHealth(map[string]string{"GPU-0": "Healthy"})
			if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
				n.t.Fatal(err)
			}
			runs(n)
			before.stop()
			return n.start(gpus(0), func(o *Options) { forClaims(o); o.CommitWait = 1 })
		},
		"given by another plugin": func(n *node) *instance {
			runs(n)
			return n.start(gpus(0), forClaims)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
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

// A pod may wait for its image for minutes before it has a process.
func TestDevicesOfPodsThatStartAreUsed(t *testing.T) {
	n := newNode(t)
	n.kubelet.set(map[string]kubelet.Use{"GPU-0": {UIDs: []types.UID{"init"}, Starting: []types.UID{"init"}}}, nil)
	p := n.start(gpus(0), forClaims)
	for range 3 {
		p.look(n)
	}
	if n.holder(0) == "" {
		t.Error("claims are offered a device of a pod that starts")
	}
	n.kubelet.set(map[string]kubelet.Use{"GPU-0": {UIDs: []types.UID{"init"}}}, nil)
	n.wantHolder(0, false)
}

// Without kubelet's checkpoint it is not known what init containers have.
func TestWithoutACheckpointNothingIsFreed(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	before.stop()
	incomplete := fmt.Errorf("%w: it is empty", kubelet.ErrIncomplete)
	n.kubelet.set(map[string]kubelet.Use{"GPU-1": {Pods: []string{"ns/old"}}}, incomplete)
	var log bytes.Buffer
	ctx := klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))))
	p := n.open("gpu", gpus(0, 1), forClaims)
	t.Cleanup(func() { _ = p.store.Close() })
	for range 3 {
		p.step(ctx)
	}
	for gpu := range 2 { // what is used is known all the same
		if n.holder(gpu) == "" {
			t.Errorf("gpu-%d is offered to claims", gpu)
		}
	}
	if got := strings.Count(log.String(), incomplete.Error()); got != 1 {
		t.Errorf("the reason is told %d times, want once:\n%s", got, &log)
	}
	n.kubelet.set(nil, nil)
	p.step(ctx)
	n.wantHolder(0, false)
	n.wantHolder(1, false)
}

// A node where no device plugin was ever used has none.
func TestAMissingCheckpointIsNothingToTellOfWhereNothingIsHeld(t *testing.T) {
	n := newNode(t)
	n.kubelet.set(map[string]kubelet.Use{}, fmt.Errorf("%w: %w", kubelet.ErrIncomplete, fs.ErrNotExist))
	var log bytes.Buffer
	p := n.open("gpu", gpus(0), forClaims)
	t.Cleanup(func() { _ = p.store.Close() })
	for range 2 {
		p.step(klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log)))))
	}
	if log.String() != "" {
		t.Errorf("told for nothing:\n%s", &log)
	}
}

// A GPU in MIG mode is a fault, and not served whole: whoever has a part of one
// shares it with nobody from here.
func TestMIGDevicesOfAnotherPlugin(t *testing.T) {
	n := newNode(t)
	n.kubelet.use("MIG-4b1f2a6c-0000-5000-8000-000000000000", kubelet.Use{Pods: []string{"ns/mig"}})
	found := gpus(0)
	found.Faults = []device.Fault{{Subject: "GPU 1", Reason: "MIGEnabled", Err: errors.New("MIG mode is on")}}
	p := n.start(found, nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	if got := len(p.items()); got != 1 {
		t.Errorf("%d devices can be served, want 1", got)
	}
}

// What another instance has given back last leaves no files behind either.
func TestFilesGoWithTheLastDevice(t *testing.T) {
	n := newNode(t)
	before := n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	before.stop()
	n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/pod"}})
	p := n.open("gpu", gpus(0), forClaims)
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	spec := filepath.Join(n.dir, "cdi", "eks-hybrid-dra_deviceplugin-gpu.json")
	if _, err := os.Stat(spec); err != nil {
		t.Fatal(err)
	}
	n.kubelet.use("GPU-0", kubelet.Use{})
	i := p.items()[0]
	if err := n.store.Free(i.Occupies[0], i.holder()); err != nil {
		t.Fatal(err)
	}
	look(n, p)
	if _, err := os.Stat(spec); !os.IsNotExist(err) {
		t.Errorf("the CDI spec is left: %v", err)
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
