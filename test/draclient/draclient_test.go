package draclient

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	drav1beta1 "k8s.io/kubelet/pkg/apis/dra/v1beta1"
)

// plugin is a driver that gives each claim the device it was allocated, and
// refuses claims called "bad".
type plugin struct{}

func (plugin) PrepareResourceClaims(_ context.Context, claims []*resourceapi.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		if claim.Name == "bad" {
			results[claim.UID] = kubeletplugin.PrepareResult{Err: errors.New("it is bad")}
			continue
		}
		r := claim.Status.Allocation.Devices.Results[0]
		results[claim.UID] = kubeletplugin.PrepareResult{Devices: []kubeletplugin.Device{{
			Requests: []string{r.Request}, PoolName: r.Pool, DeviceName: r.Device, CDIDeviceIDs: []string{"v/c=" + r.Device},
		}}}
	}
	return results, nil
}

func (plugin) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		results[claim.UID] = nil
		if claim.Name == "bad" {
			results[claim.UID] = errors.New("it stays bad")
		}
	}
	return results, nil
}

func (plugin) HandleError(context.Context, error, string) {}

func (plugin) WatchHealthStatus(context.Context, chan<- kubeletplugin.DeviceHealthReport) error {
	return kubeletplugin.ErrHealthNotSupported
}

// startPlugin runs the plugin of a driver and returns the folder of registrar
// sockets and the API server's client.
func startPlugin(t *testing.T, driver string) (string, *fake.Clientset) {
	t.Helper()
	// Paths of sockets must be short.
	dir, err := os.MkdirTemp("", "dra")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	client := fake.NewClientset()
	registry, data := filepath.Join(dir, "registry"), filepath.Join(dir, "data")
	for _, folder := range []string{registry, data} {
		if err := os.Mkdir(folder, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	helper, err := kubeletplugin.Start(t.Context(), plugin{}, kubeletplugin.DriverName(driver), kubeletplugin.NodeName("node"),
		kubeletplugin.KubeClient(client), kubeletplugin.RegistrarDirectoryPath(registry), kubeletplugin.PluginDataDirectoryPath(data),
		kubeletplugin.HealthService(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(helper.Stop)
	return registry, client
}

func newClaim(t *testing.T, client *fake.Clientset, name string) Claim {
	t.Helper()
	created, err := CreateAllocated(t.Context(), client, Allocation{
		Namespace: "ns", Name: name, Node: "node",
		Results: []Result{{Driver: "example.com", Pool: "node", Device: "gpu-3"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ClaimOf(created)
}

func TestPrepareAndUnprepare(t *testing.T) {
	registry, client := startPlugin(t, "example.com")
	good, bad := newClaim(t, client, "good"), newClaim(t, client, "bad")
	good.UID, bad.UID = "1", "2" // the fake API server gives none
	for _, claim := range []Claim{good, bad} {
		stored, err := client.ResourceV1().ResourceClaims("ns").Get(t.Context(), claim.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		stored.UID = claim.UID
		if err := client.Tracker().Update(resourceapi.SchemeGroupVersion.WithResource("resourceclaims"), stored, "ns"); err != nil {
			t.Fatal(err)
		}
	}
	for _, services := range [][]string{Services(), {drav1beta1.DRAPluginService}} {
		t.Run(services[0], func(t *testing.T) {
			p, err := RegisterWith(t.Context(), filepath.Join(registry, "example.com-reg.sock"), services...)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			answers, err := p.Prepare(t.Context(), good, bad)
			if err != nil {
				t.Fatal(err)
			}
			want := []Device{{Requests: []string{"r0"}, Pool: "node", Device: "gpu-3", CDIDeviceIDs: []string{"v/c=gpu-3"}}}
			if diff := cmp.Diff(want, answers["1"].Devices); diff != "" || answers["1"].Err != nil {
				t.Errorf("error %v, devices (-want +got):\n%s", answers["1"].Err, diff)
			}
			if err := answers["2"].Err; err == nil || !strings.Contains(err.Error(), "ns/bad:2: it is bad") {
				t.Errorf("error %v", err)
			}
			if err := p.UnprepareOne(t.Context(), good); err != nil {
				t.Error(err)
			}
			if err := p.UnprepareOne(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "it stays bad") {
				t.Errorf("error %v", err)
			}
		})
	}
	if _, err := RegisterWith(t.Context(), filepath.Join(registry, "example.com-reg.sock"), "v9.DRAPlugin"); err == nil {
		t.Error("registered with a service that the plugin does not offer")
	}
}

func TestFindWaitsAndPassesOver(t *testing.T) {
	registry, _ := startPlugin(t, "other.com")
	found := make(chan error, 1)
	go func() {
		p, err := Find(t.Context(), registry, "example.com")
		if err == nil {
			err = p.Close()
		}
		found <- err
	}()
	client := fake.NewClientset()
	helper, err := kubeletplugin.Start(t.Context(), plugin{}, kubeletplugin.DriverName("example.com"), kubeletplugin.NodeName("node"),
		kubeletplugin.KubeClient(client), kubeletplugin.RegistrarDirectoryPath(registry), kubeletplugin.PluginDataDirectoryPath(t.TempDir()),
		kubeletplugin.HealthService(false))
	if err != nil {
		t.Fatal(err)
	}
	defer helper.Stop()
	if err := <-found; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Find(ctx, registry, "nobody.com"); err == nil {
		t.Error("found a plugin of nobody.com")
	}
}

func TestDeleteFreesAClaim(t *testing.T) {
	_, client := startPlugin(t, "example.com")
	claim := newClaim(t, client, "good")
	for range 2 { // the second finds nothing
		if err := Delete(t.Context(), client, claim); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.ResourceV1().ResourceClaims("ns").Get(t.Context(), "good", metav1.GetOptions{}); err == nil {
		t.Error("the claim is still there")
	}
}
