package deviceplugin

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

// runPod has a pod run that kubelet gives GPU-0, and waits until that is noted.
func (n *node) runPod(uid types.UID) {
	n.t.Helper()
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
	if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
		n.t.Fatal(err)
	}
	n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/" + string(uid)}, UIDs: []types.UID{uid}})
	n.processes.set(uid)
	eventually(n.t, "noted", func() error {
		h, err := n.store.Holder(device.PCIThing(address(0)))
		if err == nil && (h == nil || !slices.Contains(h.Pods, uid)) {
			err = fmt.Errorf("the holding is %v", h)
		}
		return err
	})
}

// Kubelet forgets a pod that is deleted by force, and all if its checkpoint is lost,
// while their containers run on.
func TestADeviceOfAPodThatKubeletHasForgottenIsGivenWhenItsProcessesHaveEnded(t *testing.T) {
	for name, forgets := range map[string]map[string]kubelet.Use{
		"its checkpoint names the pod": {"GPU-0": {UIDs: []types.UID{"old"}}},
		"its checkpoint was lost":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.start(gpus(0, 1), func(o *Options) { o.LeftOverWait = 1 })
			n.runPod("old")
			n.kubelet.set(forgets, nil)
			_, err := n.kubelet.allocate(gpuName, "GPU-0")
			wantError(t, err, `device "gpu-0" is still used by processes of a pod that kubelet has forgotten, with the UID old`, "wait until they have ended, or end them")
			n.wantHealth(map[string]string{"GPU-0": "Unhealthy", "GPU-1": "Healthy"})
			n.processes.set()
			n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Healthy"})
			if _, err := n.kubelet.allocate(gpuName, "GPU-0"); err != nil {
				t.Error(err)
			}
		})
	}
}

// Kubelet never asks again for a pod that was refused.
func TestKubeletWaitsForTheProcessesOfAForgottenPod(t *testing.T) {
	n := newNode(t)
	p := n.start(gpus(0, 1), func(o *Options) { o.LeftOverWait = time.Hour })
	n.runPod("old")
	n.kubelet.set(nil, nil)
	asked := make(chan struct{})
	n.processes.onLook(func() {
		select {
		case <-asked:
		default:
			close(asked)
		}
	})
	given := make(chan error, 1)
	go func() {
		_, err := n.kubelet.allocate(gpuName, "GPU-1", "GPU-0")
		given <- err
	}()
	<-asked
	// Others do not wait. A pod that is admitted while all is unhealthy fails at once.
	sick := gpus(0, 1)
	sick.Devices[1].Problems = []device.Problem{{Reason: "XID", Message: "it fell off the bus"}}
	p.Found(t.Context(), "gpu", sick, nil)
	n.wantHealth(map[string]string{"GPU-0": "Healthy", "GPU-1": "Unhealthy"})
	select {
	case err := <-given:
		t.Fatalf("answered while processes of the former pod run: %v", err)
	default:
	}
	n.processes.set()
	if err := <-given; err != nil {
		t.Error(err)
	}
}

// What runs is told from what was forgotten by kubelet's checkpoint and its names of
// pods.
func TestADeviceOfAPodThatKubeletDoesNotNameStaysHealthy(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0), func(o *Options) { o.LeftOverWait = 1 })
	t.Cleanup(func() { _ = p.store.Close() })
	n.kubelet.set(map[string]kubelet.Use{"GPU-0": {UIDs: []types.UID{"init"}, Starting: []types.UID{"init"}}}, nil)
	n.processes.set("init")
	look(n, p)
	look(n, p)
	if problem := p.states["GPU-0"].problem; problem != "" {
		t.Errorf("kubelet is told that the device of a running pod has a problem: %s", problem)
	}
}

// Kubelet may have forgotten a pod a moment after its processes were looked for.
func TestADeviceOfAForgottenPodIsNotGivenHoweverKubeletAsks(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0), nil)
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/old"}, UIDs: []types.UID{"old"}})
	n.processes.set("old")
	look(n, p)
	wantError(t, p.stamp(t.Context(), p.items().byID("GPU-0")), `device "gpu-0" is still used by processes of a pod`)
}

func TestDevicesThatFormerPodsUseAreNotPreferred(t *testing.T) {
	n := newNode(t)
	p := n.open("gpu", gpus(0, 1, 2), nil)
	t.Cleanup(func() { _ = p.store.Close() })
	look(n, p)
	n.kubelet.use("GPU-0", kubelet.Use{Pods: []string{"ns/old"}, UIDs: []types.UID{"old"}})
	n.processes.set("old")
	look(n, p)
	n.kubelet.set(nil, nil) // a moment ago
	s := sessionOf(t, p, &p.options.Resources[0])
	for _, test := range []struct {
		name string
		size int32
		must []string
		want []string
	}{
		{"enough are free", 2, nil, []string{"GPU-1", "GPU-2"}},
		{"not enough are", 3, nil, []string{"GPU-0", "GPU-1", "GPU-2"}},
		{"kubelet wants it", 2, []string{"GPU-0"}, []string{"GPU-0", "GPU-1"}},
	} {
		answer, err := s.GetPreferredAllocation(t.Context(), &api.PreferredAllocationRequest{ContainerRequests: []*api.ContainerPreferredAllocationRequest{
			{AvailableDeviceIDs: []string{"GPU-0", "GPU-1", "GPU-2"}, MustIncludeDeviceIDs: test.must, AllocationSize: test.size},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, answer.GetContainerResponses()[0].GetDeviceIDs()); diff != "" {
			t.Errorf("%s: preferred (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestWithoutAProcessTableNothingIsGivenThatAPodHad(t *testing.T) {
	n := newNode(t)
	n.start(gpus(0, 1), nil)
	n.runPod("old")
	n.processes.spoil(errors.New("no procfs"))
	_, err := n.kubelet.allocate(gpuName, "GPU-0")
	wantError(t, err, `find out whether former users of device "gpu-0" have ended: no procfs`)
}
