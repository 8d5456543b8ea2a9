package deviceplugin

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

// A container for which files cannot be written would start without its device.
func TestADeviceWhoseFilesCannotBeWrittenIsUnhealthy(t *testing.T) {
	n := newNode(t)
	folder := filepath.Join(n.dir, "cdi")
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Unhealthy"})
	_, err := n.kubelet.allocate(gpuName, "GPU-0")
	wantError(t, err, "write the CDI spec of the device plugin", fmt.Sprintf("see that %s can be written and has room", folder))
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	n := newNode(t)
	n.claim("a", 2)
	p := n.open("gpu", gpus(0, 1, 2), nil)
	t.Cleanup(func() { _ = p.store.Close() })
	sick := gpus(0, 1, 2)
	sick.Devices[1].Problems = []device.Problem{{Reason: "XID", Message: "it fell off the bus"}}
	p.Found(t.Context(), "gpu", sick, nil)
	look(n, p)
	wantDevices(t, p, map[string]float64{"nvidia.com/gpu healthy": 1, "nvidia.com/gpu unhealthy": 1, "nvidia.com/gpu waiting": 1})

	s := sessionOf(t, p, &p.options.Resources[0])
	if _, err := s.ask(t, "GPU-0"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := s.ask(t, "GPU-2")
		wantError(t, err, "belongs to claim")
	}
	for outcome, want := range map[string]float64{"success": 1, "error": 2} {
		if got := testutil.ToFloat64(p.metrics.allocations.WithLabelValues(gpuName, outcome)); got != want {
			t.Errorf("%v allocations with the outcome %s, want %v", got, outcome, want)
		}
	}

	n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/pod"}})
	after := n.open("gpu", gpus(0, 1, 2), forClaims)
	t.Cleanup(func() { _ = after.store.Close() })
	look(n, after)
	wantDevices(t, after, map[string]float64{" draining": 1})
}

// wantDevices compares the number of devices by resource and state.
func wantDevices(t *testing.T, p *Plugin, want map[string]float64) {
	t.Helper()
	got := map[string]float64{}
	for _, resource := range []string{gpuName, ""} {
		for _, state := range []string{stateHealthy, stateUnhealthy, stateWaiting, stateDraining} {
			if n := testutil.ToFloat64(p.metrics.devices.WithLabelValues(resource, state)); n != 0 {
				got[resource+" "+state] = n
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

// names is a registerer that notes what metrics are called.
type names struct {
	prometheus.Registerer
	all []string
}

func (n *names) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 10)
	c.Describe(descs)
	close(descs)
	for desc := range descs {
		name, _, _ := strings.Cut(strings.TrimPrefix(desc.String(), `Desc{fqName: "`), `"`)
		n.all = append(n.all, name)
	}
	return nil
}

func TestEveryMetricIsDocumented(t *testing.T) {
	var registered names
	if _, err := newMetrics(&registered); err != nil {
		t.Fatal(err)
	}
	for page, format := range map[string]string{"device-plugin.md": "| `%s` |", "configuration.md": "`%s`"} {
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range registered.all {
			if !strings.Contains(string(text), fmt.Sprintf(format, name)) {
				t.Errorf("%s lacks the metric %s", page, name)
			}
		}
	}
	if len(registered.all) == 0 {
		t.Error("no metric is registered")
	}
}

func TestReadyIsWhenKubeletKnowsAllResources(t *testing.T) {
	n := newNode(t)
	n.kubelet.stop()
	both := func(o *Options) {
		o.Resources = append(o.Resources, Resource{Name: "example.com/other", Kind: device.KindGPU}, Resource{Name: "example.com/vf", Kind: device.KindVF})
	}
	waiting := n.open("gpu", gpus(0), both)
	t.Cleanup(func() { _ = waiting.store.Close() })
	wantError(t, waiting.Ready(t.Context()), "the device plugin is not started yet")
	p := n.start(gpus(0), both)
	eventually(t, "started", func() error {
		err := p.Ready(t.Context())
		if err == nil {
			return errors.New("ready without kubelet")
		}
		for _, resource := range []string{gpuName, "example.com/other"} {
			if want := fmt.Sprintf("resource %s is not registered with kubelet yet: see that it serves %s", resource, filepath.Join(n.kubelet.dir, "kubelet.sock")); !strings.Contains(err.Error(), want) {
				return fmt.Errorf("%w: want %s", err, want)
			}
		}
		return nil
	})
	n.kubelet.start()
	eventually(t, "ready", func() error { return p.Ready(t.Context()) })
	for _, resource := range []string{gpuName, "example.com/other"} {
		if got := testutil.ToFloat64(p.metrics.registrations.WithLabelValues(resource, "success")); got != 1 {
			t.Errorf("%v registrations of %s, want 1", got, resource)
		}
	}
}

// An instance that was killed leaves its sockets; those of others are theirs.
func TestSocketsOfInstancesThatAreGone(t *testing.T) {
	n := newNode(t)
	there := func(name string) bool {
		_, err := os.Lstat(filepath.Join(n.kubelet.dir, name))
		return err == nil
	}
	listen := func(name string) *net.UnixListener {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(n.kubelet.dir, name)})
		if err != nil {
			t.Fatal(err)
		}
		listener.SetUnlinkOnClose(false)
		return listener
	}
	for _, name := range []string{"eks-hybrid-dra-killed.sock", "other-killed.sock"} {
		if err := listen(name).Close(); err != nil {
			t.Fatal(err)
		}
	}
	alive := listen("eks-hybrid-dra-alive.sock")
	defer func() { _ = alive.Close() }()
	n.start(gpus(0), nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy"})
	for name, want := range map[string]bool{"eks-hybrid-dra-killed.sock": false, "eks-hybrid-dra-alive.sock": true, "other-killed.sock": true} {
		if there(name) != want {
			t.Errorf("%s is there: %v, want %v", name, !want, want)
		}
	}
}

// What kubelet was given before a reboot has no pod that is about to start.
func TestADeviceThatWasGivenIsUsedUntilKubeletCanSaySo(t *testing.T) {
	for name, test := range map[string]struct {
		boot string
		held bool
	}{"in this boot": {testBoot, true}, "before a reboot": {"boot-2", false}} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			before := n.open("gpu", gpus(0), nil)
			t.Cleanup(func() { _ = before.store.Close() })
			look(n, before)
			if _, err := sessionOf(t, before, &before.options.Resources[0]).ask(t, "GPU-0"); err != nil {
				t.Fatal(err)
			}
			after := n.open("gpu", gpus(0), func(o *Options) {
				forClaims(o)
				o.BootID, o.CommitWait = test.boot, time.Hour
			})
			t.Cleanup(func() { _ = after.store.Close() })
			look(n, after)
			if held := n.holder(0) != ""; held != test.held {
				t.Errorf("gpu-0 is held: %v, want %v", held, test.held)
			}
		})
	}
}

// A VF that is in a pod, or on its way into one, is not on the host.
func TestAProblemThatItsUserMakesIsNone(t *testing.T) {
	const resource, one = "nvidia.com/vf", "0000:18:00.1"
	for name, test := range map[string]struct {
		wait time.Duration
		do   func(n *node, p *Plugin)
		want string
	}{
		"nobody has it": {time.Hour, func(*node, *Plugin) {}, "Unhealthy"},
		"kubelet was given it": {time.Hour, func(n *node, p *Plugin) {
			if _, err := sessionOf(n.t, p, &p.options.Resources[0]).ask(n.t, one); err != nil {
				n.t.Fatal(err)
			}
		}, "Healthy"},
		"kubelet names a pod": {1, func(n *node, _ *Plugin) {
			n.kubelet.use(one, kubelet.Use{Pods: []string{"ns/pod"}})
		}, "Healthy"},
		"a pod still runs": {1, func(n *node, _ *Plugin) {
			n.kubelet.set(map[string]kubelet.Use{one: {UIDs: []types.UID{"init"}, Starting: []types.UID{"init"}}}, nil)
			n.processes.set("init")
		}, "Healthy"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.gpus.name = "vf"
			p := n.open("vf", vfs(one), func(o *Options) {
				o.Kinds, o.CommitWait = []device.Kind{device.KindVF}, test.wait
				o.Resources = []Resource{{Name: resource, Kind: device.KindVF, InUse: []string{"InterfaceMissing"}}}
			})
			t.Cleanup(func() { _ = p.store.Close() })
			look(n, p)
			test.do(n, p)
			moved := vfs(one)
			moved.Devices[0].Problems = []device.Problem{{Reason: "InterfaceMissing", Message: "no interface"}}
			p.Found(t.Context(), "vf", moved, nil)
			look(n, p)
			devices, _ := p.listed(&p.options.Resources[0])
			got := map[string]string{}
			for _, d := range devices {
				got[d.GetID()] = d.GetHealth()
			}
			if want := map[string]string{one: test.want}; !maps.Equal(got, want) {
				t.Errorf("kubelet is told %v, want %v", got, want)
			}
		})
	}
}
