package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestEveryVFIsPublishedWithWhatSelectorsAskFor(t *testing.T) {
	s := newSpace(t, nil)
	s.wantVFsPublished()
	// Compute ports of a DGX H200, in the order of their addresses.
	buses := []string{"18", "40", "4f", "5e", "9a", "c0", "ce", "dc"}
	names := []string{"ibp24s0", "ibp64s0", "ibp79s0", "ibp94s0", "ibp154s0", "ibp192s0", "ibp206s0", "ibp220s0"}
	want := map[string]map[string]string{}
	for i, bus := range buses {
		for vf := range 8 {
			function := vf + 1
			want[fmt.Sprintf("vf-0000-%s-%02x-%x", bus, function>>3, function&7)] = map[string]string{
				"type": "vf", "pfName": names[i], "vfIndex": fmt.Sprint(vf), "linkType": "ether", "rdma": "true",
				"driver": "mlx5_core", "vendor": "15b3", "device": "101e", "mtu": "1500",
				"resource.kubernetes.io/pciBusID": fmt.Sprintf("0000:%s:%02x.%x", bus, function>>3, function&7),
				"resource.kubernetes.io/numaNode": fmt.Sprint(i / 4),
			}
		}
	}
	got := map[string]map[string]string{}
	for _, device := range vfDevices(s.t) {
		attributes := map[string]string{}
		for name := range want["vf-0000-18-00-1"] {
			attributes[name] = value(device.Attributes[resourceapi.QualifiedName(name)])
		}
		got[device.Name] = attributes
		for _, name := range []resourceapi.QualifiedName{"rdmaDevice", "resource.kubernetes.io/pcieRoot"} {
			if value(device.Attributes[name]) == "" {
				t.Errorf("device %s has no attribute %s", device.Name, name)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("VFs (-want +got):\n%s", diff)
	}
}

// What the slices say of a VF must not change when a pod has it, or every pod
// would have all slices written anew.
func TestAVFInUseIsPublishedAsBefore(t *testing.T) {
	s := newSpace(t, nil)
	s.wantVFsPublished()
	before := vfDevices(s.t)
	s.template("one", vfs(1, `"mtu":1400`))
	s.create(vfPod("user", "one"))
	s.wait("user", harness.Running())
	s.pause(3 * time.Second)
	if diff := cmp.Diff(before, vfDevices(s.t)); diff != "" {
		t.Errorf("VFs (-before +while one is in use):\n%s", diff)
	}
}

func TestVFsOfAPortWithoutALinkAreTaintedUntilItIsBack(t *testing.T) {
	const most = 2 * time.Second
	s := newSpace(t, nil)
	s.admin()
	s.wantVFsPublished()
	s.template("there", vfs(1, "", "device.attributes['eks-hybrid-dra'].pfName == 'ibp206s0'"))
	t.Cleanup(func() {
		s.setPort("ibp206s0", "up")
		s.wantVFsPublished()
	})

	s.setPort("ibp206s0", "down")
	down := time.Now()
	s.until("tainted", func() error { return s.wantTainted("ibp206s0", 8) })
	took := time.Since(down)
	t.Logf("the VFs were tainted after %v", took)
	if took > most {
		t.Errorf("the VFs were tainted after %v, want at most %v", took, most)
	}
	s.create(vfPod("waits", "there"))
	s.wait("waits", harness.Unschedulable())

	s.setPort("ibp206s0", "up")
	up := time.Now()
	s.until("free of taints", func() error { return s.wantTainted("ibp206s0", 0) })
	took = time.Since(up)
	t.Logf("the taints were gone after %v", took)
	if took > most {
		t.Errorf("the taints were gone after %v, want at most %v", took, most)
	}
	s.wait("waits", harness.Running())
}

// setPort takes the link from a port, or gives it back.
func (s *space) setPort(port, state string) {
	s.t.Helper()
	s.exec("admin", "ip", "link", "set", port, state)
}

// wantTainted returns nil if so many VFs of the port have our taint, and no
// other VF has one.
func (s *space) wantTainted(port string, want int) error {
	s.t.Helper()
	tainted := 0
	for _, device := range vfDevices(s.t) {
		if len(device.Taints) == 0 {
			continue
		}
		if value(device.Attributes["pfName"]) != port || device.Taints[0].Key != "eks-hybrid-dra/unhealthy" {
			return fmt.Errorf("device %s of %s has taints %+v", device.Name, value(device.Attributes["pfName"]), device.Taints)
		}
		tainted++
	}
	if tainted != want {
		return fmt.Errorf("%d VFs of %s are tainted, want %d", tainted, port, want)
	}
	return nil
}

// wantVFsPublished waits until the API has all VFs, none of them tainted.
func (s *space) wantVFsPublished() {
	s.t.Helper()
	s.until("published", func() error {
		if devices := vfDevices(s.t); len(devices) != vfsPerNode {
			return fmt.Errorf("%d VFs are published, want %d", len(devices), vfsPerNode)
		}
		return s.wantTainted("", 0)
	})
}
