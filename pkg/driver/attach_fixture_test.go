package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/attachsocket"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// fakeVFs is a family of devices that are joined to sandboxes. The device is
// called what its interface is called.
type fakeVFs struct {
	mu      sync.Mutex
	names   []string
	places  map[string]device.Sandbox
	fail    map[string]error
	living  map[string]bool // sandboxes from which nothing is taken
	moves   int
	entered chan string   // gets the device of each Attach, if not nil
	hang    chan struct{} // Attach returns when it is closed or its time is up
}

func newFakeVFs(names ...string) *fakeVFs {
	return &fakeVFs{names: names, places: map[string]device.Sandbox{}, fail: map[string]error{}, living: map[string]bool{}}
}

func (f *fakeVFs) Name() string { return "vf" }

func (f *fakeVFs) NewConfig() runtime.Object { return v1alpha1.DefaultVfConfig() }

func (f *fakeVFs) Devices(context.Context) (device.Inventory, error) {
	var inv device.Inventory
	for _, name := range f.names {
		inv.Devices = append(inv.Devices, device.Device{Name: name, Kind: device.KindVF, Occupies: []string{"pci-" + name}})
	}
	return inv, nil
}

func (f *fakeVFs) Prepare(_ context.Context, g device.Grant) (device.Edits, error) {
	env := "VF=1"
	if g.AdminAccess {
		env = "VF=looked-at"
	}
	return device.Edits{Device: &cdispec.ContainerEdits{Env: []string{env}}, Attach: true}, nil
}

func (f *fakeVFs) Release(_ context.Context, g device.Grant) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.places, g.Device)
	return nil
}

func (f *fakeVFs) Watch(ctx context.Context, _ func()) { <-ctx.Done() }

func (f *fakeVFs) Attach(ctx context.Context, g device.Grant, s device.Sandbox) (device.Attachment, error) {
	f.mu.Lock()
	entered, hang := f.entered, f.hang
	f.mu.Unlock()
	if entered != nil {
		entered <- g.Device
	}
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return device.Attachment{}, fmt.Errorf("rename the interface: %w", ctx.Err())
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail[g.Device]; err != nil {
		return device.Attachment{}, err
	}
	at, placed := f.places[g.Device]
	if placed && at.ID != s.ID && at.Pod.UID != s.Pod.UID && f.living[at.ID] {
		return device.Attachment{}, fmt.Errorf("pod %s has it", at.Pod)
	}
	changed := !placed || at.ID != s.ID
	if changed {
		f.moves++
	}
	s.Netns = nil
	f.places[g.Device] = s
	return device.Attachment{Interface: g.Device, HardwareAddress: "02:00:00:00:00:01", IPs: []string{"10.0.0.5/24"}, Changed: changed}, nil
}

func (f *fakeVFs) Detach(_ context.Context, g device.Grant, s device.Sandbox) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.places[g.Device].ID == s.ID {
		delete(f.places, g.Device)
	}
	return nil
}

// where returns in which sandbox a device is.
func (f *fakeVFs) where(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.places[name].ID
}

// moved returns how often a device was moved into a sandbox.
func (f *fakeVFs) moved() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moves
}

func (f *fakeVFs) set(change func(*fakeVFs)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// attachNode is a node with devices that are attached.
type attachNode struct {
	*node
	vfs        *fakeVFs
	attachWait time.Duration
}

func newAttachNode(t *testing.T, vfs ...string) *attachNode {
	return &attachNode{node: newNode(t, "gpu-0"), vfs: newFakeVFs(vfs...), attachWait: time.Minute}
}

func (n *attachNode) dataDir() string { return filepath.Join(n.dir, "data") }

// instance returns a plugin, as after a (re)start.
func (n *attachNode) instance(pod types.UID) *Driver {
	n.t.Helper()
	metrics, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		n.t.Fatal(err)
	}
	d, err := New(n.t.Context(), Options{
		DriverName: testDriver, NodeName: testNode, PodUID: pod,
		DataDir: n.dataDir(), RegistrarDir: filepath.Join(n.dir, "registry"), CDIDir: n.cdiDir(),
		BootID: n.bootID, KubeClient: n.client, Processes: n.processes,
		Families: []Family{n.gpus, n.vfs}, Metrics: metrics, ReleaseWait: n.wait, EndWait: n.wait,
		AttachHook: "/opt/attach-hook", AttachWait: n.attachWait,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := d.store.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			n.t.Error(err)
		}
	})
	if err := d.inventory.refresh(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	return d
}

// serve lets an instance answer attach hooks until stop is called.
func (n *attachNode) serve(d *Driver) (stop func()) {
	n.t.Helper()
	end, err := d.serveAttach(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := end(); err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(stop)
	return stop
}

// sandboxOf returns a sandbox, with the network namespace of this process.
func sandboxOf(t *testing.T, id, pod string) device.Sandbox {
	t.Helper()
	netns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Close(); err != nil {
			t.Error(err)
		}
	})
	return device.Sandbox{Pod: device.Pod{Namespace: "ns", Name: pod, UID: types.UID(pod)}, ID: id, Path: "/run/netns/" + id, Netns: netns}
}

func requestFor(claim string, s device.Sandbox) attachsocket.Request {
	return attachsocket.Request{
		Claim: claim, Pod: attachsocket.Pod{Namespace: s.Pod.Namespace, Name: s.Pod.Name, UID: string(s.Pod.UID)},
		SandboxID: s.ID, NetnsPath: s.Path, WaitMilliseconds: time.Minute.Milliseconds(),
	}
}

// ask calls an instance as the hook does.
func (n *attachNode) ask(socket, claim string, s device.Sandbox) (attachsocket.Answer, error) {
	return attachsocket.Call(n.t.Context(), filepath.Join(n.dataDir(), attachsocket.Folder), socket, requestFor(claim, s), s.Netns)
}

func (n *attachNode) mustAttach(d *Driver, claim string, s device.Sandbox) *claimstore.Record {
	n.t.Helper()
	record, err := d.attachClaim(n.t.Context(), types.UID(claim), s)
	if err != nil {
		n.t.Fatal(err)
	}
	return record
}

// record returns a claim's record as it is on disk.
func (n *attachNode) record(claim string) *claimstore.Record {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(n.dataDir(), "claims", claim+".json"))
	if err != nil {
		n.t.Fatal(err)
	}
	r := &claimstore.Record{}
	if err := json.Unmarshal(data, r); err != nil {
		n.t.Fatal(err)
	}
	return r
}

// attachedTo returns the sandboxes in a record and the devices in them.
func attachedTo(r *claimstore.Record) map[string][]string {
	all := map[string][]string{}
	for _, a := range r.Attached {
		for _, dev := range a.Devices {
			all[a.Sandbox.ID] = append(all[a.Sandbox.ID], dev.Device)
		}
		slices.Sort(all[a.Sandbox.ID])
	}
	return all
}
