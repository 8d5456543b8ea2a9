package faults

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// Allocations that this node cannot serve. The error says what is wrong with
// which object, and what to do.
func TestBadRequests(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*draclient.Allocation)
		say    []string
	}{
		"wrong pool": {
			func(a *draclient.Allocation) { a.Results[0].Pool = "another-pool" },
			[]string{`request "r0"`, `device "gpu-0"`, `pool "another-pool"`, "this node has pool", "not made by the scheduler"},
		},
		"wrong node": {
			func(a *draclient.Allocation) { a.Results[0].Pool = "dgx-7/" + driverName },
			[]string{`request "r0"`, `device "gpu-0"`, `pool "dgx-7/` + driverName, "the allocation is of another node"},
		},
		"no such device": {
			func(a *draclient.Allocation) { a.Results[0].Device = "gpu-8" },
			[]string{`request "r0"`, `device "gpu-8"`, "not on this node", "delete the pod"},
		},
		"no device of ours": {
			func(a *draclient.Allocation) { a.Results[0].Driver = "gpu.example.com" },
			[]string{"status.allocation", "no device of this driver"},
		},
		"unknown field of the configuration": {
			func(a *draclient.Allocation) {
				a.Configs = []draclient.Config{{Driver: driverName, JSON: `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"GpuConfig","sharng":1}`}}
			},
			[]string{"status.allocation.devices.config[0].opaque.parameters", "FromClaim", `"sharng"`},
		},
		"unknown kind of the configuration": {
			func(a *draclient.Allocation) {
				a.Configs = []draclient.Config{{Driver: driverName, JSON: `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"Gpu"}`}}
			},
			[]string{"status.allocation.devices.config[0].opaque.parameters", `"Gpu"`, "GpuConfig"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			a := n.allocation("gpu-0")
			test.change(&a)
			c := n.allocate(a)
			p := n.start()
			p.mustFailToPrepare(c, test.say...)
			p.mustUnprepare(c) // as kubelet does when the pod is deleted
			n.mustBeClean()
			p.mustGiveAll()
		})
	}
}

// A claim may have devices of several drivers. Kubelet asks each of them.
func TestMixedClaim(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	a := n.allocation("gpu-0", "gpu-1")
	a.Results = append(a.Results, draclient.Result{Driver: "nic.example.com", Pool: n.name, Device: "nic-3"})
	a.Configs = []draclient.Config{{Driver: "nic.example.com", JSON: `{"mtu":9000}`}}
	c := n.allocate(a)
	p := n.start()
	p.mustPrepare(c)
	p.mustUnprepare(c)
	n.mustBeClean()
	p.mustGiveAll()
}

func TestUnprepareOfAnUnknownClaim(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	held, unknown := n.newClaim("gpu-0"), n.newClaim("gpu-0")
	p := n.start()
	p.mustPrepare(held)
	p.mustUnprepare(unknown)
	unknown.UID = "never-was"
	p.mustUnprepare(unknown)
	p.mustPrepare(held)
	p.mustUnprepare(held)
	n.mustBeClean()
}

// The claim was replaced by one of the same name while kubelet prepared it, or
// is gone.
func TestClaimThatIsNotTheOneAskedFor(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	replaced, deleted := n.newClaim("gpu-0"), n.newClaim("gpu-0")
	replaced.UID = "former"
	n.forget(deleted)
	p := n.start()
	mustSay(t, p.prepareUnchecked(replaced), replaced.Name, "got replaced")
	mustSay(t, p.prepareUnchecked(deleted), deleted.Name, "could not find")
	n.mustBeClean()
	p.mustGiveAll()
}

// A GPU falls off the bus. Its claim cannot be prepared, is told why, and can
// be given back; the others go on.
func TestGPUGone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	before, after := n.newClaim("gpu-3"), n.newClaim("gpu-3")
	other := n.newClaim("gpu-4")
	p := n.start()
	p.mustPrepare(before)
	n.losePCIDevice(before)
	p.mustUnprepare(before)
	p.mustFailToPrepare(after, `device "gpu-3"`, "GPU 0000:61:00.0 cannot be used", "delete the pod")
	n.waitPublished(gpus - 1)
	p.mustPrepare(other)
	p.mustUnprepare(other)
	p.kill()
	n.start().mustGiveAll() // a start of the simulation puts the GPU back
	n.waitPublished(gpus)
}

// waitPublished waits until the node's slices have that many devices.
func (n *node) waitPublished(want int) {
	n.t.Helper()
	selector := fields.OneTermEqualSelector(resourceapi.ResourceSliceSelectorNodeName, n.name).String()
	eventually(n.t, "published", func() error {
		slices, err := bed.client.ResourceV1().ResourceSlices().List(n.t.Context(), metav1.ListOptions{FieldSelector: selector})
		if err != nil {
			return err
		}
		have := 0
		for _, s := range slices.Items {
			have += len(s.Spec.Devices)
		}
		if have != want {
			return fmt.Errorf("%d devices are published, want %d", have, want)
		}
		return nil
	})
}

// losePCIDevice takes the GPU of a prepared claim from the simulated machine.
func (n *node) losePCIDevice(c claim) {
	n.t.Helper()
	address := strings.TrimSuffix(strings.TrimPrefix(n.holdings(c)[0], "pci-"), ".json")
	link := filepath.Join(n.dataDir(), "simulated", "sys", "bus", "pci", "devices", address)
	if !exists(link) {
		n.t.Fatalf("%s is not there", link)
	}
	n.remove(link)
}

// A client that limits itself, as Kubernetes' own do to 5 requests in a second
// after the first 10, would make pods wait for nothing.
func TestQuestionsToTheAPIServerAreNotRationed(t *testing.T) {
	t.Parallel()
	const (
		times = 100
		most  = 10 * time.Second // of the 18 s that such a client would take
	)
	n := newNode(t)
	c := n.newClaim("gpu-0")
	p := n.start()
	p.mustPrepare(c)
	start := time.Now()
	for range times { // asks for the claim, and has nothing else to do
		p.mustPrepare(c)
	}
	if took := time.Since(start); took > most {
		t.Errorf("%d preparations took %v", times, took)
	}
	p.mustUnprepare(c)
}

// Many more claims than GPUs are in flight. Each gets its turn, none has a GPU
// that another one has, and none fails.
func TestManyClaimsForFewGPUs(t *testing.T) {
	t.Parallel()
	const crowd = 8 * gpus
	n := newNode(t)
	p := n.start()
	var (
		users [gpus]atomic.Int32
		wg    sync.WaitGroup
	)
	for i := range crowd {
		c := n.newClaim(fmt.Sprintf("gpu-%d", i%gpus))
		wg.Go(func() {
			if err := p.prepareUnchecked(c); err != nil {
				t.Error(err)
				return
			}
			if users[i%gpus].Add(1) > 1 {
				t.Errorf("claim %s got a GPU that another claim has", c)
			}
			users[i%gpus].Add(-1) // before the call: the plugin may give it away during it
			if err := p.unprepare(c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n.mustBeClean()
	p.mustGiveAll()
}
