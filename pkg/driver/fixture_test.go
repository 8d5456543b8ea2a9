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

	"github.com/prometheus/client_golang/prometheus"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/utils/ptr"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/pairs"
)

const (
	testDriver = "eks-hybrid-dra"
	testNode   = "dgx-0"
	testPool   = "dgx-0/eks-hybrid-dra"
)

// fakeGPUs is a family without hardware that remembers what it was asked.
type fakeGPUs struct {
	mu       sync.Mutex
	devices  []device.Device
	counters []resourceapi.CounterSet
	faults   []device.Fault
	err      error
	fail     map[string]error
	ready    map[string]types.UID
	prepares int
	changed  func()
}

func newFakeGPUs(names ...string) *fakeGPUs {
	f := &fakeGPUs{fail: map[string]error{}, ready: map[string]types.UID{}}
	for _, name := range names {
		f.devices = append(f.devices, device.Device{
			Name: name, Kind: device.KindGPU, Occupies: []string{"pci-" + name},
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{"type": {StringValue: ptr.To("gpu")}},
		})
	}
	return f
}

func (f *fakeGPUs) Name() string { return "gpu" }

func (f *fakeGPUs) NewConfig() runtime.Object { return v1alpha1.DefaultGpuConfig() }

func (f *fakeGPUs) Devices(context.Context) (device.Inventory, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return device.Inventory{Devices: f.devices, Counters: f.counters, Faults: f.faults}, f.err
}

func (f *fakeGPUs) Prepare(_ context.Context, g device.Grant) (device.Edits, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prepares++
	if err := f.fail[g.Device]; err != nil {
		return device.Edits{}, err
	}
	if !g.AdminAccess {
		if other := f.ready[g.Device]; other != "" && other != g.Claim.UID {
			return device.Edits{}, errors.New("given to two claims: " + string(other) + " and " + string(g.Claim.UID))
		}
		f.ready[g.Device] = g.Claim.UID
	}
	return device.Edits{
		Common: &cdispec.ContainerEdits{Env: []string{"COMMON=1"}},
		Device: &cdispec.ContainerEdits{Env: []string{"DEVICE_" + g.Device + "=1"}},
	}, nil
}

func (f *fakeGPUs) Release(_ context.Context, g device.Grant) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ready[g.Device] == g.Claim.UID {
		delete(f.ready, g.Device)
	}
	return nil
}

func (f *fakeGPUs) Watch(ctx context.Context, changed func()) {
	f.mu.Lock()
	f.changed = changed
	f.mu.Unlock()
	<-ctx.Done()
}

// set gives a device these problems, and tells whoever watches.
func (f *fakeGPUs) set(name string, problems ...device.Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices = slices.Clone(f.devices) // others may still read the old ones
	for n := range f.devices {
		if f.devices[n].Name == name {
			f.devices[n].Problems = problems
		}
	}
	if f.changed != nil {
		f.changed()
	}
}

// fakeProcesses are the pods that still run.
type fakeProcesses struct {
	mu   sync.Mutex
	pods map[types.UID]bool
}

func (f *fakeProcesses) Running(pods []types.UID) ([]types.UID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var running []types.UID
	for _, uid := range pods {
		if f.pods[uid] {
			running = append(running, uid)
		}
	}
	return running, nil
}

func (f *fakeProcesses) end(pod types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pods, pod)
}

// node is what stays when the plugin restarts.
type node struct {
	t         *testing.T
	dir       string
	gpus      *fakeGPUs
	client    *fake.Clientset
	processes *fakeProcesses
	bootID    string
	wait      time.Duration
	// families are the GPUs alone if it is nil.
	families   []Family
	pairs      *pairs.Options
	managed    v1alpha1.ManagedConfig
	attachHook string
	// registry has the metrics of the instance that was started last.
	registry *prometheus.Registry
}

func newNode(t *testing.T, devices ...string) *node {
	return &node{
		t: t, dir: t.TempDir(), gpus: newFakeGPUs(devices...), client: fake.NewClientset(),
		processes: &fakeProcesses{pods: map[types.UID]bool{}}, bootID: "boot-1", wait: 50 * time.Millisecond,
	}
}

// start returns an instance of the plugin, as after a (re)start.
func (n *node) start() *Driver {
	n.t.Helper()
	return n.startWith(func(*Options) {})
}

// startWith is start with other options.
func (n *node) startWith(set func(*Options)) *Driver {
	n.t.Helper()
	n.registry = prometheus.NewRegistry()
	metrics, err := NewMetrics(n.registry)
	if err != nil {
		n.t.Fatal(err)
	}
	families := n.families
	if families == nil {
		families = []Family{n.gpus}
	}
	options := Options{
		DriverName: testDriver, NodeName: testNode,
		DataDir: filepath.Join(n.dir, "data"), RegistrarDir: filepath.Join(n.dir, "registry"), CDIDir: n.cdiDir(),
		BootID: n.bootID, KubeClient: n.client, Processes: n.processes,
		Families: families, Pairs: n.pairs, Managed: n.managed, Metrics: metrics, ReleaseWait: n.wait, EndWait: n.wait, AttachHook: n.attachHook,
	}
	set(&options)
	d, err := New(n.t.Context(), options)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := d.store.Close(); err != nil && !errors.Is(err, os.ErrClosed) { // Run closes it
			n.t.Error(err)
		}
	})
	if err := d.inventory.refresh(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	return d
}

func (n *node) cdiDir() string { return filepath.Join(n.dir, "cdi") }

// files returns everything that the plugin keeps, but for the lock file, spare
// files, and what was set aside.
func (n *node) files() []string {
	n.t.Helper()
	var files []string
	err := filepath.WalkDir(n.dir, func(path string, entry os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) { // the driver removed it in between
			return nil
		}
		if err != nil || entry.IsDir() || entry.Name() == "claims.lock" || strings.Contains(path, "/unreadable/") || strings.Contains(path, "/spare/") {
			return err
		}
		rel, err := filepath.Rel(n.dir, path)
		files = append(files, rel)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return files
}

type claimOption func(*resourceapi.ResourceClaim)

// newClaim returns a claim that is allocated the devices, one request each,
// called r0, r1...
func newClaim(uid string, devices []string, options ...claimOption) *resourceapi.ResourceClaim {
	claim := &resourceapi.ResourceClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "claim-" + uid, UID: types.UID(uid)},
		Status: resourceapi.ResourceClaimStatus{
			Allocation:  &resourceapi.AllocationResult{},
			ReservedFor: []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "pod-" + uid, UID: types.UID("pod-" + uid)}},
		},
	}
	for n, name := range devices {
		claim.Status.Allocation.Devices.Results = append(claim.Status.Allocation.Devices.Results, resourceapi.DeviceRequestAllocationResult{
			Request: "r" + string(rune('0'+n)), Driver: testDriver, Pool: testPool, Device: name,
		})
	}
	for _, option := range options {
		option(claim)
	}
	return claim
}

func withConfig(source resourceapi.AllocationConfigSource, raw string, requests ...string) claimOption {
	return func(claim *resourceapi.ResourceClaim) {
		claim.Status.Allocation.Devices.Config = append(claim.Status.Allocation.Devices.Config, resourceapi.DeviceAllocationConfiguration{
			Source: source, Requests: requests,
			DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
				Driver: testDriver, Parameters: runtime.RawExtension{Raw: []byte(raw)},
			}},
		})
	}
}

func withResult(change func(*resourceapi.DeviceRequestAllocationResult)) claimOption {
	return func(claim *resourceapi.ResourceClaim) { change(&claim.Status.Allocation.Devices.Results[0]) }
}

func prepare(t *testing.T, d *Driver, claim *resourceapi.ResourceClaim) kubeletplugin.PrepareResult {
	t.Helper()
	results, err := d.PrepareResourceClaims(t.Context(), []*resourceapi.ResourceClaim{claim})
	if err != nil {
		t.Fatal(err)
	}
	return results[claim.UID]
}

func mustPrepare(t *testing.T, d *Driver, claim *resourceapi.ResourceClaim) []kubeletplugin.Device {
	t.Helper()
	result := prepare(t, d, claim)
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	return result.Devices
}

func unprepare(t *testing.T, d *Driver, claim *resourceapi.ResourceClaim) error {
	t.Helper()
	results, err := d.UnprepareResourceClaims(t.Context(), []kubeletplugin.NamespacedObject{{
		UID: claim.UID, NamespacedName: types.NamespacedName{Namespace: claim.Namespace, Name: claim.Name},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return results[claim.UID]
}

func mustUnprepare(t *testing.T, d *Driver, claim *resourceapi.ResourceClaim) {
	t.Helper()
	if err := unprepare(t, d, claim); err != nil {
		t.Fatal(err)
	}
}

var (
	createOptions = metav1.CreateOptions{}
	deleteOptions = metav1.DeleteOptions{}
)

// errRecoverable is an error of the kubeletplugin helper that it goes on after.
func errRecoverable() error { return kubeletplugin.ErrRecoverable }

func failWith(err error) clienttesting.ReactionFunc {
	return func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err }
}

// waitForAction waits until the API server was asked.
func waitForAction(t *testing.T, client *fake.Clientset, verb, resource string) {
	t.Helper()
	waitFor(t, "asked the API server to "+verb+" "+resource, func() bool {
		return slices.ContainsFunc(client.Actions(), func(a clienttesting.Action) bool { return a.Matches(verb, resource) })
	})
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) { return so(), nil })
	if err != nil {
		t.Fatalf("never %s", what)
	}
}
