package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// eyes tell by what can be seen on a node, in containers and on the host, which
// PCI functions pods have.
type eyes struct {
	r *rounds
	// byUUID are the addresses of GPUs. byMAC and byName are those of VFs, as
	// they were on the host when nobody had one.
	byUUID, byMAC, byName map[string]string
}

func newEyes(r *rounds) *eyes {
	r.t.Helper()
	r.admin()
	r.wantAllVFsOnTheHost()
	e := &eyes{r: r, byUUID: map[string]string{}, byMAC: map[string]string{}, byName: map[string]string{}}
	for _, d := range published(r.t, gpuType) {
		e.byUUID[value(d.Attributes["uuid"])] = value(d.Attributes["resource.kubernetes.io/pciBusID"])
	}
	macs := interfaceMACs(r.exec("admin", "ip", "address", "show"))
	for _, d := range published(r.t, vfType) {
		name := value(d.Attributes["pfName"]) + "v" + value(d.Attributes["vfIndex"])
		e.byName[name] = value(d.Attributes["resource.kubernetes.io/pciBusID"])
		e.byMAC[macs[name]] = e.byName[name]
	}
	if len(e.byUUID) != gpusPerNode || len(e.byMAC) != vfsPerNode {
		r.t.Fatalf("%d GPUs and %d VFs can be told apart, want %d and %d", len(e.byUUID), len(e.byMAC), gpusPerNode, vfsPerNode)
	}
	return e
}

// interfaceMACs are the hardware addresses of interfaces, by name, in what "ip
// address show" has printed.
func interfaceMACs(shown string) map[string]string {
	macs := map[string]string{}
	name := ""
	for line := range strings.Lines(shown) {
		if columns := strings.SplitN(line, ": ", 3); len(columns) == 3 && !strings.HasPrefix(line, " ") {
			name = columns[1]
		}
		if mac, ok := strings.CutPrefix(strings.TrimSpace(line), "link/ether "); ok {
			macs[name] = mac
		}
	}
	return macs
}

// podThatShows lists what it was given before it goes on.
func (r *rounds) podThatShows(name string, o order) *corev1.Pod {
	const image = "nvidia/cuda:12.3.0-base-ubuntu22.04"
	var containers []corev1.Container
	if o.has(gpuType, pairType) {
		containers = append(containers, corev1.Container{Name: "gpus", Image: image, Command: []string{"nvidia-smi", "-L"}})
	}
	if o.has(vfType, pairType) {
		containers = append(containers, corev1.Container{Name: "vfs", Image: image, Command: []string{"ip", "address", "show"}})
	}
	return claimant(name, append(containers, corev1.Container{Name: "work", Image: image, Command: []string{"sleep", "infinity"}})...)
}

// look fails the test unless every pod sees what its claim was given, and the
// host all the other VFs.
func (e *eyes) look() {
	e.r.t.Helper()
	inPods := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(e.r.orders)) {
		e.r.ledger.mu.Lock()
		has := slices.Sorted(slices.Values(e.r.ledger.has[name]))
		e.r.ledger.mu.Unlock()
		if len(has) == 0 {
			continue // it waits
		}
		e.r.wait(name, harness.Running())
		sees := e.seenBy(name)
		if diff := cmp.Diff(has, sees); diff != "" {
			e.r.t.Errorf("round %d: pod %s asked for %s (-allocated +seen in its containers):\n%s", e.r.round, name, e.r.orders[name], diff)
		}
		for _, thing := range sees {
			if inPods[thing] {
				e.r.t.Errorf("round %d: pod %s and another one both see %s", e.r.round, name, thing)
			}
			inPods[thing] = true
		}
	}
	e.r.until("left on the host are the VFs that no pod has", func() error {
		on := map[string]bool{}
		for _, name := range e.r.hostVFs() {
			on[e.byName[name]] = true
		}
		for _, vf := range e.r.ledger.stock.vfs {
			if on[vf] == inPods[vf] {
				return fmt.Errorf("VF %s: on the host %v, in a pod %v", vf, on[vf], inPods[vf])
			}
		}
		return nil
	})
}

// seenBy returns the addresses of what a pod's containers have shown, sorted.
func (e *eyes) seenBy(pod string) []string {
	e.r.t.Helper()
	var sees []string
	for _, c := range e.r.pod(pod, e.r.orders[pod]).Spec.InitContainers {
		text := e.r.logs(pod, c.Name)
		if c.Name == "gpus" {
			for _, uuid := range harness.GPUs(text) {
				sees = append(sees, e.byUUID[uuid])
			}
			continue
		}
		for name, mac := range interfaceMACs(text) {
			if strings.HasPrefix(name, "net") {
				sees = append(sees, e.byMAC[mac])
			}
		}
	}
	slices.Sort(sees)
	return sees
}
