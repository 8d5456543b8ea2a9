package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	healthpb "k8s.io/kubelet/pkg/apis/dra-health/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

var linkDown = device.Problem{Reason: "LinkDown", Message: "the port has no carrier: look at the cable"}

// startOnSockets runs a plugin that kubelet has accepted, until the test ends.
func startOnSockets(t *testing.T, n *node) *Driver {
	t.Helper()
	// Socket paths have at most 107 characters, which a test's folder can exceed.
	dir, err := os.MkdirTemp("", "dra")
	if err != nil {
		t.Fatal(err)
	}
	n.dir = dir
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(filepath.Join(dir, "registry"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := n.client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: testNode, UID: "node"}}, createOptions); err != nil {
		t.Fatal(err)
	}
	d := n.start()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "healthy", func() error { return d.Healthy(t.Context()) })
	register(t, filepath.Join(dir, "registry", testDriver+"-reg.sock"))
	eventually(t, "ready", func() error { return d.Ready(t.Context()) })
	return d
}

// published waits until the node's slices have exactly these devices, each
// written with its taints as "gpu-0=LinkDown,ZeroGUID".
func published(t *testing.T, n *node, want ...string) {
	t.Helper()
	eventually(t, "as published", func() error {
		list, err := n.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		var got []string
		for _, s := range list.Items {
			for _, d := range s.Spec.Devices {
				var reasons []string
				for _, taint := range d.Taints {
					reasons = append(reasons, taint.Value)
				}
				got = append(got, strings.TrimSuffix(d.Name+"="+strings.Join(reasons, ","), "="))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

func TestProblemsArePublishedAndTold(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("run", func(t *testing.T) {
		n := newNode(t, "gpu-0", "gpu-1")
		server := serveTaints(n)
		d := startOnSockets(t, n)
		if server.asked.Load() > 0 {
			t.Error("the API server was asked though all is well")
		}
		health := watchHealth(t, d)
		health.expect("gpu-0 HEALTHY", "gpu-1 HEALTHY")

		n.gpus.set("gpu-1", linkDown)
		published(t, n, "gpu-0", "gpu-1=LinkDown")
		health.expect("gpu-0 HEALTHY", "gpu-1 UNHEALTHY LinkDown: "+linkDown.Message)
		expect(t, n.registry, `
# HELP eks_hybrid_dra_device_problems_total How often a device got a problem of that reason.
# TYPE eks_hybrid_dra_device_problems_total counter
eks_hybrid_dra_device_problems_total{family="gpu",reason="LinkDown"} 1
# HELP eks_hybrid_dra_unhealthy_device 1 while a device has a problem of that reason; not there otherwise.
# TYPE eks_hybrid_dra_unhealthy_device gauge
eks_hybrid_dra_unhealthy_device{device="gpu-1",family="gpu",reason="LinkDown"} 1
# HELP eks_hybrid_dra_withheld_devices Devices with problems that are not published because the API server does not keep taints.
# TYPE eks_hybrid_dra_withheld_devices gauge
eks_hybrid_dra_withheld_devices 0
`, "eks_hybrid_dra_device_problems_total", "eks_hybrid_dra_unhealthy_device", "eks_hybrid_dra_withheld_devices")

		// Looks that find nothing new write nothing.
		writes := server.writes.Load()
		for range 3 {
			looked, _ := d.inventory.nextLook()
			n.gpus.set("gpu-1", linkDown)
			<-looked
		}
		n.gpus.set("gpu-1")
		published(t, n, "gpu-0", "gpu-1")
		health.expect("gpu-0 HEALTHY", "gpu-1 HEALTHY")
		if extra := server.writes.Load() - writes; extra != 1 {
			t.Errorf("%d writes for one change", extra)
		}
		expect(t, n.registry, `
# HELP eks_hybrid_dra_device_problems_total How often a device got a problem of that reason.
# TYPE eks_hybrid_dra_device_problems_total counter
eks_hybrid_dra_device_problems_total{family="gpu",reason="LinkDown"} 1
`, "eks_hybrid_dra_device_problems_total", "eks_hybrid_dra_unhealthy_device")
		if asked := server.asked.Load(); asked != 1 {
			t.Errorf("the API server was asked %d times whether it keeps taints", asked)
		}
	})
}

// A restarted plugin leaves the time in the API alone, and writes nothing.
func TestAProblemOutlivesTheProcess(t *testing.T) {
	n := newNode(t, "gpu-0")
	server := serveTaints(n)
	since := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	node := testNode
	_, err := n.client.ResourceV1().ResourceSlices().Create(t.Context(), &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:            "00000-" + testDriver + "-" + testNode + "-abcde",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: testNode, UID: "node", Controller: new(true)}},
		},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: testDriver, NodeName: &node, Pool: resourceapi.ResourcePool{Name: testPool, Generation: 1, ResourceSliceCount: 1},
			Devices: []resourceapi.Device{{
				Name: "gpu-0", Attributes: n.gpus.devices[0].Attributes,
				Taints: []resourceapi.DeviceTaint{{Key: "eks-hybrid-dra/unhealthy", Value: "LinkDown", Effect: "NoSchedule", TimeAdded: &since}},
			}},
		},
	}, createOptions)
	if err != nil {
		t.Fatal(err)
	}
	n.gpus.set("gpu-0", linkDown)
	writes := server.writes.Load()
	startOnSockets(t, n)
	list, err := n.client.ResourceV1().ResourceSlices().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	if got := list.Items[0].Spec.Devices[0].Taints[0].TimeAdded; !got.Equal(&since) {
		t.Errorf("the problem is said to be there since %v, it is since %v", got, since)
	}
	// The slice of a change comes after what was to be written before.
	n.gpus.set("gpu-0")
	published(t, n, "gpu-0")
	if extra := server.writes.Load() - writes; extra != 1 {
		t.Errorf("%d writes for one change", extra)
	}
}

// A device that a claim has but the node has not is unhealthy; of one whose
// family cannot tell nothing is known, nor of any while a look hangs.
func TestHealthOfDevicesThatAreGone(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	d := n.start()
	mustPrepare(t, d, newClaim("a", []string{"gpu-1"}))
	report := func(since time.Time) []string {
		var all []string
		for _, h := range d.healthReport(t.Context(), since).Devices {
			if h.PoolName != testPool || h.LastUpdated.IsZero() {
				t.Errorf("incomplete: %+v", h)
			}
			all = append(all, strings.TrimSpace(h.DeviceName+" "+string(h.Health)+" "+h.Message))
		}
		return all
	}
	look := func() {
		t.Helper()
		if err := d.inventory.refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n.gpus.devices = n.gpus.devices[:1]
	n.gpus.faults = []device.Fault{{Subject: "GPU 1", Reason: "NVMLHandle", Err: errors.New("fell off the bus")}}
	look()
	want := []string{"gpu-0 Healthy", "gpu-1 Unhealthy the device is not on the node any more: GPU 1: fell off the bus"}
	if diff := cmp.Diff(want, report(time.Time{})); diff != "" {
		t.Error(diff)
	}
	for _, got := range report(time.Now().Add(-lookLimit - time.Second))[:1] {
		if !strings.HasPrefix(got, "gpu-0 Unknown the hardware was last asked at ") {
			t.Error(got)
		}
	}
	n.gpus.devices, n.gpus.faults, n.gpus.err = nil, nil, errors.New("driver not loaded")
	look()
	if diff := cmp.Diff([]string{"gpu-1 Unknown driver not loaded"}, report(time.Time{})); diff != "" {
		t.Error(diff)
	}
}

// Kubelet forgets what it does not hear for 30 s.
func TestHealthIsToldAgain(t *testing.T) {
	n := newNode(t, "gpu-0")
	d := n.start()
	synctest.Test(t, func(t *testing.T) {
		// A channel of this bubble, or waiting for it would not count.
		d.inventory.looked = make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		reports := make(chan kubeletplugin.DeviceHealthReport)
		done := make(chan error, 1)
		go func() { done <- d.WatchHealthStatus(ctx, reports) }()
		last := time.Now()
		for range 20 {
			<-reports
			if pause := time.Since(last); pause > 15*time.Second {
				t.Errorf("nothing said for %v", pause)
			}
			last = time.Now()
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// An unhealthy device is given to a claim that has it already or tolerates the
// taint; if that fails, the problem is part of the answer.
func TestPrepareOfAnUnhealthyDevice(t *testing.T) {
	n := newNode(t, "gpu-0", "gpu-1")
	n.gpus.set("gpu-0", linkDown)
	n.gpus.set("gpu-1", device.Problem{Reason: "DriverUnbound", Message: "no driver"})
	n.gpus.fail["gpu-1"] = errors.New("no interface")
	d := n.start()
	mustPrepare(t, d, newClaim("a", []string{"gpu-0"}))
	err := prepare(t, d, newClaim("b", []string{"gpu-1"})).Err
	if err == nil || !strings.HasSuffix(err.Error(), `device "gpu-1" (request "r0"): no interface; the device is unhealthy: DriverUnbound: no driver`) {
		t.Errorf("got %v", err)
	}
}

// healthWatch is kubelet's end of the health service.
type healthWatch struct {
	t      *testing.T
	stream healthpb.DRAResourceHealth_NodeWatchResourcesClient
}

func watchHealth(t *testing.T, d *Driver) healthWatch {
	t.Helper()
	conn, err := dial(filepath.Join(d.options.DataDir, d.pluginSocket()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(func() {
		cancel()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	stream, err := healthpb.NewDRAResourceHealthClient(conn).NodeWatchResources(ctx, &healthpb.NodeWatchResourcesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return healthWatch{t, stream}
}

// expect waits for a report that says exactly this.
func (w healthWatch) expect(want ...string) {
	w.t.Helper()
	var got []string
	for {
		answer, err := w.stream.Recv()
		if err != nil {
			w.t.Fatalf("%v; the last report was %q, want %q", err, got, want)
		}
		got = nil
		for _, h := range answer.Devices {
			got = append(got, strings.TrimSpace(h.Device.DeviceName+" "+h.Health.String()+" "+h.Message))
		}
		if slices.Equal(got, want) {
			return
		}
	}
}
