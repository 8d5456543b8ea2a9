package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

const (
	testDriver = "eks-hybrid-dra"
	testBoot   = "boot-1"
	gpuName    = "nvidia.com/gpu"
)

// fakeFamily is hardware that is not there.
type fakeFamily struct {
	mu       sync.Mutex
	name     string
	fail     map[string]error
	prepared map[string]bool // by device, whether it may be changed
	released []string
	// held is what a preparation waits for.
	held func()
}

func (f *fakeFamily) Name() string { return f.name }

func (f *fakeFamily) NewConfig() runtime.Object { return v1alpha1.DefaultGpuConfig() }

func (f *fakeFamily) Prepare(_ context.Context, g device.Grant) (device.Edits, error) {
	f.mu.Lock()
	held := f.held
	f.mu.Unlock()
	if held != nil {
		held()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail[g.Device]; err != nil {
		return device.Edits{}, err
	}
	f.prepared[g.Device] = !g.AdminAccess
	return device.Edits{
		Common: &cdispec.ContainerEdits{
			Env:         []string{"NVIDIA_VISIBLE_DEVICES=void"},
			DeviceNodes: []*cdispec.DeviceNode{{Path: "/dev/nvidiactl", HostPath: "/driver/dev/nvidiactl", Permissions: "rwm"}},
			Mounts:      []*cdispec.Mount{{HostPath: "/usr/bin/nvidia-smi", ContainerPath: "/usr/bin/nvidia-smi", Options: []string{"ro", "bind"}}},
		},
		Device: &cdispec.ContainerEdits{DeviceNodes: []*cdispec.DeviceNode{{Path: "/dev/" + g.Device}}},
	}, nil
}

func (f *fakeFamily) Release(_ context.Context, g device.Grant) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.released = append(f.released, g.Device)
	return nil
}

// changed tells whether a device was prepared such that the family may change it.
func (f *fakeFamily) changed(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.prepared[name]
}

func (f *fakeFamily) spoil(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail[name] = err
}

func (f *fakeFamily) hold(held func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = held
}

func address(n int) string { return fmt.Sprintf("0000:%02x:00.0", n) }

func uuid(n int) string { return fmt.Sprint("GPU-", n) }

// gpus are GPUs with these numbers, four on each NUMA node.
func gpus(numbers ...int) device.Inventory {
	var found device.Inventory
	for _, n := range numbers {
		found.Devices = append(found.Devices, device.Device{
			Name: fmt.Sprint("gpu-", n), Kind: device.KindGPU, Occupies: []string{device.PCIThing(address(n))},
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"uuid": {StringValue: ptr.To(uuid(n))},
				deviceattribute.StandardDeviceAttributeNUMANode: {IntValue: ptr.To(int64(n / 4))},
			},
		})
	}
	return found
}

// processes are the pods that still run.
type processes struct {
	mu   sync.Mutex
	pods []types.UID
	// look is called for each look, and err is its outcome.
	look func()
	err  error
}

func (p *processes) Running(pods []types.UID) ([]types.UID, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.look != nil {
		p.look()
	}
	if p.err != nil {
		return nil, p.err
	}
	return slices.DeleteFunc(slices.Clone(pods), func(uid types.UID) bool { return !slices.Contains(p.pods, uid) }), nil
}

func (p *processes) onLook(look func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look = look
}

func (p *processes) spoil(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *processes) set(pods ...types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods = pods
}

// node is what stays when the plugin restarts.
type node struct {
	t         *testing.T
	dir       string
	kubelet   *fakeKubelet
	gpus      *fakeFamily
	processes *processes
	store     *claimstore.Store

	mu      sync.Mutex
	offered map[string]bool
	// silent has the API server not answer.
	silent bool
}

func newNode(t *testing.T) *node {
	t.Helper()
	// Paths of sockets have at most 107 characters, which a test's folder can
	// exceed.
	dir, err := os.MkdirTemp("", "dp")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{
		t: t, dir: dir, processes: &processes{},
		gpus: &fakeFamily{name: "gpu", fail: map[string]error{}, prepared: map[string]bool{}},
	}
	for _, d := range []string{"data", "device-plugins"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n.kubelet = &fakeKubelet{t: t, dir: filepath.Join(dir, "device-plugins")}
	n.kubelet.start()
	if n.store, err = claimstore.Open(t.Context(), filepath.Join(dir, "data")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kubelet.stop()
		if err := errors.Join(n.store.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) offer(things ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.offered = map[string]bool{}
	for _, thing := range things {
		n.offered[thing] = true
	}
}

// beSilent has the API server not answer any more.
func (n *node) beSilent() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.silent = true
}

func (n *node) published(ctx context.Context) (map[string]bool, error) {
	n.mu.Lock()
	offered, silent := maps.Clone(n.offered), n.silent
	n.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return offered, nil
}

// instance is a plugin that runs.
type instance struct {
	*Plugin
	stop func()
}

// start runs a plugin that serves GPUs as nvidia.com/gpu, unless set says
// otherwise.
func (n *node) start(found device.Inventory, set func(*Options)) *instance {
	n.t.Helper()
	return n.startFamily("gpu", found, set)
}

// open returns a plugin that has found devices, and does not run.
func (n *node) open(family string, found device.Inventory, set func(*Options)) *Plugin {
	n.t.Helper()
	options := Options{
		DriverName: testDriver, PodUID: "one", DataDir: filepath.Join(n.dir, "data"), Dir: n.kubelet.dir,
		CDIDir: filepath.Join(n.dir, "cdi"), DeviceInfoDir: filepath.Join(n.dir, "devinfo"), BootID: testBoot,
		Kubelet: n.kubelet, Processes: n.processes, Families: []Family{n.gpus},
		Kinds: []device.Kind{device.KindGPU}, Resources: []Resource{{Name: gpuName, Kind: device.KindGPU}},
		Registry: prometheus.NewRegistry(), Interval: 20 * time.Millisecond, CommitWait: 50 * time.Millisecond,
	}
	if set != nil {
		set(&options)
	}
	p, err := New(n.t.Context(), options)
	if err != nil {
		n.t.Fatal(err)
	}
	p.Found(n.t.Context(), family, found, nil)
	return p
}

// startFamily is start for a family of another name.
func (n *node) startFamily(family string, found device.Inventory, set func(*Options)) *instance {
	n.t.Helper()
	p := n.open(family, found, set)
	ctx, cancel := context.WithCancel(n.t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx, n.published) }()
	i := &instance{Plugin: p, stop: sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})}
	n.t.Cleanup(i.stop)
	return i
}

// forClaims has everything served to claims.
func forClaims(o *Options) { o.Kinds, o.Resources = nil, nil }

// claim takes a GPU for a claim, as the driver does.
func (n *node) claim(uid types.UID, gpu int) *claimstore.Holding {
	n.t.Helper()
	holder, err := n.store.Take(device.PCIThing(address(gpu)), claimstore.Holding{
		Claim:  device.Claim{Namespace: "ns", Name: "claim-" + string(uid), UID: uid},
		Device: claimstore.Device{Family: "gpu", Device: fmt.Sprint("gpu-", gpu), Occupies: []string{device.PCIThing(address(gpu))}},
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return holder
}

func (n *node) unclaim(uid types.UID, gpu int) {
	n.t.Helper()
	if err := n.store.Free(device.PCIThing(address(gpu)), uid); err != nil {
		n.t.Fatal(err)
	}
}

// holder says who has a GPU.
func (n *node) holder(gpu int) string {
	n.t.Helper()
	h, err := n.store.Holder(device.PCIThing(address(gpu)))
	if err != nil {
		n.t.Fatal(err)
	}
	if h == nil {
		return ""
	}
	return h.Holder()
}

func (n *node) file(path ...string) string {
	n.t.Helper()
	data, err := os.ReadFile(filepath.Join(append([]string{n.dir}, path...)...))
	if err != nil {
		n.t.Fatal(err)
	}
	return string(data)
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, time.Minute, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("not %s: %v", what, last)
	}
}

// wantHealth waits until kubelet was told so of the devices.
func (n *node) wantHealth(want map[string]string) {
	n.t.Helper()
	n.wantHealthOf(gpuName, want)
}

func (n *node) wantHealthOf(resource string, want map[string]string) {
	n.t.Helper()
	eventually(n.t, "told to kubelet", func() error {
		if got := n.kubelet.health(resource); !maps.Equal(got, want) {
			return fmt.Errorf("kubelet was told %v, want %v", got, want)
		}
		return nil
	})
}

// look has a plugin look at everything, and take what it can.
func look(n *node, p *Plugin) {
	n.t.Helper()
	p.step(n.t.Context())
	if len(p.lacks()) > 0 {
		p.acquire(n.t.Context(), n.published)
		p.step(n.t.Context())
	}
}
