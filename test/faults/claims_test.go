package faults

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/runtime-spec/specs-go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

// claim is a claim in the API server and the devices that it was allocated.
type claim struct {
	draclient.Claim
	devices []string
}

// newClaim makes a claim that is allocated the devices of this node.
func (n *node) newClaim(devices ...string) claim {
	n.t.Helper()
	return n.allocate(n.allocation(devices...))
}

func (n *node) allocation(devices ...string) draclient.Allocation {
	n.serial++
	a := draclient.Allocation{Namespace: bed.namespace, Name: fmt.Sprintf("%s-c%d", n.name, n.serial), Node: n.name}
	for _, d := range devices {
		a.Results = append(a.Results, draclient.Result{Driver: driverName, Pool: n.pool(), Device: d})
	}
	return a
}

func (n *node) allocate(a draclient.Allocation) claim {
	n.t.Helper()
	created, err := draclient.CreateAllocated(n.t.Context(), bed.client, a)
	if err != nil {
		n.t.Fatal(err)
	}
	c := claim{Claim: draclient.ClaimOf(created)}
	for _, r := range a.Results {
		if r.Driver == driverName {
			c.devices = append(c.devices, r.Device)
		}
	}
	return c
}

// oneEach makes a claim for every GPU of the node.
func (n *node) oneEach() []claim {
	n.t.Helper()
	claims := make([]claim, gpus)
	for i := range claims {
		claims[i] = n.newClaim(fmt.Sprintf("gpu-%d", i))
	}
	return claims
}

// forget deletes the claim in the API server, as after its pod's deletion.
func (n *node) forget(c claim) {
	n.t.Helper()
	if err := draclient.Delete(n.t.Context(), bed.client, c.Claim); err != nil {
		n.t.Fatal(err)
	}
}

// prepare asks the plugin as kubelet does, and returns the error if there is
// one. What was prepared must work.
func (p *plugin) prepare(c claim) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	devices, err := p.kubelet.PrepareOne(ctx, c.Claim)
	if err == nil {
		p.node.mustWork(c, devices)
	}
	return err
}

// prepareUnchecked is for a preparation that is to fail.
func (p *plugin) prepareUnchecked(c claim) error {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	_, err := p.kubelet.PrepareOne(ctx, c.Claim)
	return err
}

func (p *plugin) mustPrepare(c claim) {
	p.t.Helper()
	if err := p.prepare(c); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plugin) unprepare(c claim) error {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	return p.kubelet.UnprepareOne(ctx, c.Claim)
}

func (p *plugin) mustUnprepare(c claim) {
	p.t.Helper()
	if err := p.unprepare(c); err != nil {
		p.t.Fatal(err)
	}
}

// mustGiveAll has every GPU prepared for a claim of its own, all in one call,
// and given back. Nothing may be left.
func (p *plugin) mustGiveAll() {
	p.t.Helper()
	n := p.node
	if n.all == nil {
		n.all = n.oneEach()
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	var claims []draclient.Claim
	for _, c := range n.all {
		claims = append(claims, c.Claim)
	}
	answers, err := p.kubelet.Prepare(ctx, claims...)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, c := range n.all {
		if err := answers[c.UID].Err; err != nil {
			p.t.Fatalf("a GPU is not free: %v", err)
		}
		n.mustWork(c, answers[c.UID].Devices)
	}
	errs, err := p.kubelet.Unprepare(ctx, claims...)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, err := range errs {
		if err != nil {
			p.t.Fatal(err)
		}
	}
	n.mustBeClean()
}

// mustWork gives what kubelet was answered to a reader of CDI specs, as a
// container runtime does, and looks at what a container would get.
func (n *node) mustWork(c claim, devices []draclient.Device) {
	n.t.Helper()
	var names, ids []string
	for _, d := range devices {
		names, ids = append(names, d.Device), append(ids, d.CDIDeviceIDs...)
		if d.Pool != n.pool() {
			n.t.Errorf("device %s is said to be of pool %s", d.Device, d.Pool)
		}
	}
	if diff := cmp.Diff(c.devices, names); diff != "" {
		n.t.Fatalf("claim %s got other devices (-allocated +prepared):\n%s", c, diff)
	}
	cache, err := cdi.NewCache(cdi.WithSpecDirs(n.cdiDir()), cdi.WithAutoRefresh(false))
	if err != nil {
		n.t.Fatal(err)
	}
	container := &ocispec.Spec{}
	if missing, err := cache.InjectDevices(container, ids...); err != nil {
		n.t.Fatalf("claim %s: a container would not start: %v %v", c, missing, err)
	}
	nodes := map[string]bool{}
	if container.Linux != nil {
		for _, d := range container.Linux.Devices {
			nodes[d.Path] = true
		}
	}
	for _, d := range c.devices {
		if path := "/dev/nvidia" + strings.TrimPrefix(d, "gpu-"); !nodes[path] {
			n.t.Fatalf("claim %s: a container would not have %s, but %v", c, path, nodes)
		}
	}
	metadata := 0
	for _, m := range container.Mounts {
		if _, err := os.Stat(m.Source); err != nil {
			n.t.Fatalf("claim %s: a container would not start: mount of %s: %v", c, m.Source, err)
		}
		if strings.HasSuffix(m.Destination, "metadata.json") {
			metadata++
		}
	}
	if metadata != len(c.devices) {
		n.t.Fatalf("claim %s: a container would have %d metadata files for %d requests", c, metadata, len(c.devices))
	}
}

// newPod makes a pod on the node, of which nothing comes.
func (n *node) newPod() *corev1.Pod {
	n.t.Helper()
	n.serial++
	var pod *corev1.Pod
	// Kubernetes makes a namespace's service account a little later.
	eventually(n.t, "made a pod", func() (err error) {
		pod, err = draclient.CreatePod(n.t.Context(), bed.client, types.NamespacedName{Namespace: bed.namespace, Name: fmt.Sprintf("%s-p%d", n.name, n.serial)}, n.name)
		return err
	})
	return pod
}

// deallocate takes the claim's devices away in the API server.
func (n *node) deallocate(c claim) {
	n.t.Helper()
	if err := draclient.Deallocate(n.t.Context(), bed.client, c.Claim); err != nil {
		n.t.Fatal(err)
	}
}

// reallocate gives the claim other devices in the API server.
func (n *node) reallocate(c claim, devices ...string) {
	n.t.Helper()
	n.deallocate(c)
	if err := draclient.Allocate(n.t.Context(), bed.client, c.Claim, n.allocation(devices...)); err != nil {
		n.t.Fatal(err)
	}
}
