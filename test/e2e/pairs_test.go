package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const pairClass = "gpu-vf.eks-hybrid-dra"

// pairs asks for GPUs, each with the VF beside it, that all expressions accept.
func pairs(count int64, expressions ...string) resourceapi.ResourceClaimSpec {
	return claimOf(resourceapi.ExactDeviceRequest{
		DeviceClassName: pairClass,
		AllocationMode:  resourceapi.DeviceAllocationModeExactCount,
		Count:           count,
		Selectors:       selectors(expressions),
	})
}

// nicOf tells, by PCI address, which NIC of a DGX H200 sits beside which GPU.
func nicOf() map[string]string {
	return map[string]string{
		"0000:1b:00.0": "0000:18", "0000:43:00.0": "0000:40", "0000:52:00.0": "0000:4f", "0000:61:00.0": "0000:5e",
		"0000:9d:00.0": "0000:9a", "0000:c3:00.0": "0000:c0", "0000:d1:00.0": "0000:ce", "0000:df:00.0": "0000:dc",
	}
}

// published returns the devices of a type.
func published(t *testing.T, kind string) []resourceapi.Device {
	t.Helper()
	all, err := cluster.Slices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var devices []resourceapi.Device
	for _, slice := range all {
		for _, device := range slice.Spec.Devices {
			if ptr.Deref(device.Attributes["type"].StringValue, "") == kind {
				devices = append(devices, device)
			}
		}
	}
	return devices
}

// needPairs skips the test on versions of Kubernetes that have no counters by
// default.
func needPairs(t *testing.T) {
	t.Helper()
	version, err := cluster.Client.Discovery().ServerVersion()
	if err != nil {
		t.Fatal(err)
	}
	if version.Major == "1" && slices.Contains([]string{"34", "35"}, strings.TrimSuffix(version.Minor, "+")) {
		t.Skipf("Kubernetes %s has no counters: pairs are not published", version.GitVersion)
	}
}

// waitPairs waits until all pairs are published.
func (s *space) waitPairs() []resourceapi.Device {
	s.t.Helper()
	needPairs(s.t)
	var devices []resourceapi.Device
	s.until("published", func() error {
		if devices = published(s.t, "gpu-vf"); len(devices) != gpusPerNode {
			return fmt.Errorf("%d pairs are published, want %d", len(devices), gpusPerNode)
		}
		return nil
	})
	return devices
}

// alignment is what the status of a claim says of one of its devices.
type alignment struct {
	Kind      string `json:"kind"`
	Alignment []struct {
		GPU         string `json:"gpu"`
		VF          string `json:"vf"`
		Relation    string `json:"relation"`
		GPUNUMANode *int   `json:"gpuNUMANode"`
		VFNUMANode  *int   `json:"vfNUMANode"`
	} `json:"alignment"`
}

// wantAligned returns the GPUs that a pod has pairs of, each with the VF that
// the status of the claim tells of, and fails the test if it tells of another
// than one of the NIC beside the GPU.
func (s *space) wantAligned(pod string, count int) map[string]string {
	s.t.Helper()
	var statuses []resourceapi.AllocatedDeviceStatus
	s.until("told by the claim's status", func() error {
		statuses = s.claim(pod).Status.Devices
		for _, d := range statuses {
			if d.Data == nil || d.NetworkData == nil {
				return fmt.Errorf("the status of %s is not complete: %+v", d.Device, d)
			}
		}
		if len(statuses) != count {
			return fmt.Errorf("the claim's status has %d devices, want %d", len(statuses), count)
		}
		return nil
	})
	has := map[string]string{}
	for _, d := range statuses {
		var a alignment
		if err := json.Unmarshal(d.Data.Raw, &a); err != nil {
			s.t.Fatal(err)
		}
		if len(a.Alignment) != count || a.Kind != "DeviceAlignment" {
			s.t.Errorf("%s tells of %d VFs beside its GPU, the claim has %d", d.Device, len(a.Alignment), count)
		}
		for _, p := range a.Alignment {
			beside := strings.HasPrefix(p.VF, nicOf()[p.GPU]+":")
			if beside != (p.Relation == "PXB") {
				s.t.Errorf("GPU %s and VF %s are said to be %s", p.GPU, p.VF, p.Relation)
			}
			if beside {
				has[p.GPU] = p.VF
			}
		}
	}
	if len(has) != count {
		s.t.Errorf("pod %s has %d pairs that sit beside each other, want %d: %v", pod, len(has), count, has)
	}
	return has
}

func TestEveryGPUIsAlsoPublishedWithAVFOfTheNICBesideIt(t *testing.T) {
	s := newSpace(t, nil)
	for i, device := range s.waitPairs() {
		get := func(name resourceapi.QualifiedName) string { return value(device.Attributes[name]) }
		if want := fmt.Sprintf("gpu-%d-vf", i); device.Name != want || get("index") != fmt.Sprint(i) {
			t.Errorf("device %d is %s of GPU %s, want %s", i, device.Name, get("index"), want)
		}
		gpu, vf := get("resource.kubernetes.io/pciBusID"), get("vfPCIBusID")
		if !strings.HasPrefix(vf, nicOf()[gpu]+":") || get("alignment") != "PXB" {
			t.Errorf("%s has GPU %s and VF %s, which are said to be %s", device.Name, gpu, vf, get("alignment"))
		}
		for _, name := range []resourceapi.QualifiedName{"productName", "uuid", "pfName", "vfIndex", "rdmaDevice", "linkType"} {
			if get(name) == "" {
				t.Errorf("%s lacks the attribute %s", device.Name, name)
			}
		}
	}
	all, err := cluster.Slices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var sets, order []string
	for _, slice := range all {
		for _, set := range slice.Spec.SharedCounters {
			sets = append(sets, fmt.Sprintf("%s: %s", set.Name, strings.Join(slices.Sorted(maps.Keys(set.Counters)), " ")))
		}
		for _, d := range slice.Spec.Devices {
			kind := value(d.Attributes["type"])
			if kind == "vf" && len(d.ConsumesCounters) > 0 {
				kind = "paired vf"
			}
			order = append(order, kind)
		}
	}
	if len(sets) != gpusPerNode || sets[0] != "gpu-0: media memory-slice-0 memory-slice-1 memory-slice-2 memory-slice-3 memory-slice-4 memory-slice-5 memory-slice-6 memory-slice-7 vf" {
		t.Errorf("counter sets: %q", sets)
	}
	// A pair stands behind its GPU, where the scheduler finds it before it has
	// looked at all VFs.
	want := append(slices.Repeat([]string{"gpu", "gpu-vf"}, gpusPerNode), "vf", "paired vf")
	if got := slices.Compact(order); !cmp.Equal(want, got) {
		t.Errorf("the scheduler is offered %v, want %v: it would break pairs before it has to", got, want)
	}
}

func TestOnePodGetsAsManyPairsAsItAsksFor(t *testing.T) {
	for _, count := range []int64{1, 2, 4, 8} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			s := newSpace(t, nil)
			s.waitPairs()
			s.template("pairs", pairs(count))
			s.pod("user", "pairs")
			s.wait("user", harness.Running())
			s.wantAligned("user", int(count))
			wantDistinct(t, s.gpus("user", "show", int(count)))
			shown := s.exec("user", "ip", "address", "show")
			for i := range count + 1 {
				if name := fmt.Sprintf("net%d", i+1); strings.Contains(shown, name) != (i < count) {
					t.Errorf("%d pairs, and the pod has these interfaces:\n%s", count, shown)
				}
			}
		})
	}
}

func TestEightPodsAtOnceGetAPairEach(t *testing.T) {
	s := newSpace(t, nil)
	s.admin()
	s.waitPairs()
	s.template("pair", pairs(1))
	for i := range gpusPerNode {
		s.pod(fmt.Sprintf("user-%d", i), "pair")
	}
	users := map[string]string{}
	for i := range gpusPerNode {
		pod := fmt.Sprintf("user-%d", i)
		s.wait(pod, harness.Running())
		for gpu := range s.wantAligned(pod, 1) {
			if other := users[gpu]; other != "" {
				t.Errorf("GPU %s was given to %s and %s", gpu, other, pod)
			}
			users[gpu] = pod
		}
	}
	s.pod("late", "pair")
	s.wait("late", harness.Unschedulable())
	if left := s.hostVFs(); len(left) != vfsPerNode-gpusPerNode {
		t.Errorf("%d VFs are left on the host, want %d", len(left), vfsPerNode-gpusPerNode)
	}
	s.delete("user-3")
	s.wait("late", harness.Running())
	for i := range gpusPerNode {
		if i != 3 {
			s.delete(fmt.Sprintf("user-%d", i))
		}
	}
	s.delete("late")
	for i := range gpusPerNode {
		s.waitGone(fmt.Sprintf("user-%d", i))
	}
	s.waitGone("late")
	s.wantAllVFsOnTheHost()
}

func TestWhatIsTakenSinglyIsNotInAPairAndTheOtherWayRound(t *testing.T) {
	s := newSpace(t, nil)
	first := s.waitPairs()[0]
	s.template("pair", pairs(1, "device.attributes['eks-hybrid-dra'].index == 0"))
	s.template("vf", vfs(1, "", byAddress(value(first.Attributes["vfPCIBusID"]))))
	s.template("gpu", gpus(1, byUUID(value(first.Attributes["uuid"]))))

	for _, part := range []string{"vf", "gpu"} {
		s.pod(part, part, "ip", "address", "show")
		s.wait(part, harness.Running())
		s.pod("pair-after-"+part, "pair")
		s.wait("pair-after-"+part, harness.Unschedulable())
		s.delete(part)
		s.wait("pair-after-"+part, harness.Running())
		s.delete("pair-after-" + part)
		s.waitGone("pair-after-" + part)
	}

	s.pod("pair", "pair")
	s.wait("pair", harness.Running())
	for _, part := range []string{"vf", "gpu"} {
		s.pod(part+"-after-pair", part, "ip", "address", "show")
	}
	for _, part := range []string{"vf", "gpu"} {
		s.wait(part+"-after-pair", harness.Unschedulable())
	}
	s.delete("pair")
	for _, part := range []string{"vf", "gpu"} {
		s.wait(part+"-after-pair", harness.Running())
	}
}

func TestAPairWhosePortHasNoLinkIsNotGivenAway(t *testing.T) {
	s := newSpace(t, nil)
	s.admin()
	s.waitPairs()
	t.Cleanup(func() {
		s.setPort("ibp206s0", "up")
		s.wantVFsPublished()
	})
	tainted := func() (names []string) {
		for _, d := range s.waitPairs() {
			if len(d.Taints) > 0 {
				names = append(names, d.Name)
			}
		}
		return names
	}
	s.setPort("ibp206s0", "down")
	s.until("tainted", func() error {
		if got := tainted(); !slices.Equal(got, []string{"gpu-6-vf"}) {
			return fmt.Errorf("tainted: %v", got)
		}
		return nil
	})
	s.template("all", pairs(gpusPerNode))
	s.pod("all", "all")
	s.wait("all", harness.Unschedulable())
	s.setPort("ibp206s0", "up")
	s.wait("all", harness.Running())
}

// Single devices that constraints keep together are told apart in the same way.
func TestTheAlignmentOfSingleDevicesIsTold(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	single := func(name, class, expression string) resourceapi.DeviceRequest {
		return resourceapi.DeviceRequest{Name: name, Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: class, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: 1, Selectors: selectors([]string{expression}),
		}}
	}
	s.template("far", resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{
		single("gpu", harness.DeviceClass, "device.attributes['eks-hybrid-dra'].index == 0"),
		single("vf", vfClass, "device.attributes['eks-hybrid-dra'].pfName == 'ibp154s0'"),
	}}})
	s.pod("far", "far")
	s.wait("far", harness.Running())
	s.until("told", func() error {
		relations := map[string]string{}
		for _, d := range s.claim("far").Status.Devices {
			var a alignment
			if d.Data == nil || json.Unmarshal(d.Data.Raw, &a) != nil || len(a.Alignment) != 1 {
				return fmt.Errorf("the status of %s has no alignment: %+v", d.Device, d)
			}
			p := a.Alignment[0]
			relations[strings.SplitN(d.Device, "-", 2)[0]] = fmt.Sprintf("%s %s %d %d", p.GPU, p.Relation, ptr.Deref(p.GPUNUMANode, -1), ptr.Deref(p.VFNUMANode, -1))
		}
		const far = "0000:1b:00.0 SYS 0 1"
		if diff := cmp.Diff(map[string]string{"gpu": far, "vf": far}, relations); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

func TestSingleVFsLeavePairsWholeAsLongAsThereAreOthers(t *testing.T) {
	s := newSpace(t, nil)
	s.waitPairs()
	s.template("many", vfs(32, ""))
	s.template("more", vfs(24, ""))
	s.template("all", pairs(gpusPerNode))
	for _, name := range []string{"many", "more"} {
		s.pod(name, name, "sleep", "0")
		s.wait(name, harness.Running())
	}
	s.pod("pairs", "all")
	s.wait("pairs", harness.Running())
	s.wantAligned("pairs", gpusPerNode)
}
