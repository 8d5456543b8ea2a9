package sriov

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// describeEdits tells what a container gets.
func describeEdits(e device.Edits) string {
	out := strings.Join(e.Device.Env, " ")
	for _, node := range e.Device.DeviceNodes {
		out += fmt.Sprintf("\n%s %s %d:%d", node.Path, node.Type, node.Major, node.Minor)
	}
	for _, name := range []string{"ifName", "mac", "rdmaDevices"} {
		for key, value := range e.Attributes {
			if string(key) == name {
				out += fmt.Sprintf("\n%s=%s", key, *value.StringValue)
			}
		}
	}
	if e.Attach {
		out += "\nattach"
	}
	return out
}

func TestEdits(t *testing.T) {
	t.Parallel()
	const env = "VF_0000_18_00_1=0000:18:00.1"
	withRDMA := func(m *machine) { m.rdma(vf0, "mlx5_2", 2) }
	nodes := "\n/dev/infiniband/uverbs2 c 231:194\n/dev/infiniband/umad2 c 231:204\n/dev/infiniband/rdma_cm c 10:58"
	for _, tc := range []struct {
		name    string
		config  func(*v1alpha1.VfConfig)
		machine func(*machine)
		admin   bool
		want    string
	}{
		{name: "netdevice", want: env + "\nmac=02:00:00:00:18:00\nattach"},
		{name: "netdevice with name and MAC", config: func(c *v1alpha1.VfConfig) { c.IfName, c.MAC = "fast0", "02:00:00:00:00:AA" }, want: env + "\nifName=fast0\nmac=02:00:00:00:00:aa\nattach"},
		{name: "netdevice with RDMA", machine: withRDMA, want: env + nodes + "\nmac=02:00:00:00:18:00\nrdmaDevices=uverbs2,umad2\nattach"},
		{name: "shared RDMA", config: func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA }, machine: withRDMA, want: env + nodes + "\nmac=02:00:00:00:18:00\nrdmaDevices=uverbs2,umad2"},
		{name: "exclusive RDMA", config: func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA }, machine: func(m *machine) { withRDMA(m); m.kernel.Exclusive = true }, want: env + nodes + "\nmac=02:00:00:00:18:00\nrdmaDevices=uverbs2,umad2\nattach"},
		{name: "vfio", config: func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeVFIO }, want: env + "\n/dev/vfio/vfio c 10:196\n/dev/vfio/21 c 242:1"},
		{name: "admin access", admin: true, machine: withRDMA, want: env + nodes + "\nrdmaDevices=uverbs2,umad2"},
		{name: "admin access to vfio", admin: true, config: func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeVFIO }, want: env},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			if tc.machine != nil {
				tc.machine(m)
			}
			before := m.state(vf0)
			g := grant("c", vf0, tc.config)
			g.AdminAccess = tc.admin
			for range 2 { // the second changes nothing
				if diff := cmp.Diff(tc.want, describeEdits(m.prepare(g))); diff != "" {
					t.Errorf("the container gets something else (-want +got):\n%s", diff)
				}
			}
			if tc.admin && m.state(vf0) != before {
				t.Errorf("admin access changed the VF:\n%s", m.state(vf0))
			}
			m.release(g)
			m.clean(vf0, before)
		})
	}
}

// A VF that only RDMA uses has its interface on the host, up, and down again
// afterwards.
func TestRDMAOverEthernet(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.rdma(vf0, "mlx5_2", 2)
	before := m.state(vf0)
	g := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA })
	m.prepare(g)
	if !m.hostLink(vf0).Up {
		t.Error("the interface below the RDMA device is down")
	}
	m.release(g)
	m.clean(vf0, before)
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	vfio := func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeVFIO }
	refused := func(field func(kernel.VFSettings) bool) func(*machine) {
		return func(m *machine) {
			m.kernel.Refuse = func(op string, detail any) error {
				if s, ok := detail.(kernel.VFSettings); ok && op == "SetVF" && field(s) {
					return syscall.EOPNOTSUPP
				}
				return nil
			}
		}
	}
	for _, tc := range []struct {
		name    string
		config  func(*v1alpha1.VfConfig)
		machine func(*machine)
		want    []string
	}{
		{
			name: "vlan proto", config: func(c *v1alpha1.VfConfig) { c.VLAN, c.Proto = ptr.To(9), "802.1ad" },
			machine: refused(func(s kernel.VFSettings) bool { return s.VLAN != nil && s.VLAN.Protocol == "802.1ad" }),
			want:    []string{"vlan (with qos and proto)", vf0, "PF ens1", "802.1ad", "not supported"},
		},
		{
			name: "link state", config: func(c *v1alpha1.VfConfig) { c.LinkState = "enable" },
			machine: refused(func(s kernel.VFSettings) bool { return s.LinkState != nil }), want: []string{"linkState", "enable", "not supported"},
		},
		{
			name: "rate", config: func(c *v1alpha1.VfConfig) { c.MinTxRate = ptr.To(5) },
			machine: refused(func(s kernel.VFSettings) bool { return s.TxRate != nil && s.TxRate.Min > 0 }), want: []string{"minTxRate", "5 and 0 Mbit/s", "not supported"},
		},
		{
			name: "a later setting of several", config: func(c *v1alpha1.VfConfig) {
				c.Trust, c.MAC, c.VLAN, c.LinkState = ptr.To(true), "02:00:00:00:00:07", ptr.To(4), "enable"
			},
			machine: refused(func(s kernel.VFSettings) bool { return s.LinkState != nil && *s.LinkState != "auto" }), want: []string{"linkState"},
		},
		{name: "mtu", config: func(c *v1alpha1.VfConfig) { c.MTU = ptr.To(9001) }, want: []string{"mtu", "9001", "ens1v0", "invalid argument"}},
		{name: "mac", config: func(c *v1alpha1.VfConfig) { c.MAC = "02:00:00:00:00:07" }, machine: func(m *machine) {
			m.kernel.Refuse = func(op string, _ any) error {
				if op == "SetHardwareAddress" {
					return syscall.EPERM
				}
				return nil
			}
			m.opts.WriteSysfs = func(string, string) error { return syscall.EACCES }
		}, want: []string{"mac", "02:00:00:00:00:07", "ens1v0", "not permitted"}},
		{name: "InfiniBand", config: func(c *v1alpha1.VfConfig) { c.MAC, c.VLAN = "02:00:00:00:00:07", ptr.To(4) }, machine: func(m *machine) {
			m.kernel.HostNamespace().RemoveLink(vf0)
			m.kernel.HostNamespace().AddLink(kernel.Link{Name: "ib0", Device: vf0, Type: "infiniband", HardwareAddress: make(net.HardwareAddr, 20)})
		}, want: []string{"mac", "vlan", "InfiniBand"}},
		{name: "no RDMA device", config: func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeRDMA }, want: []string{"no RDMA device", vf0, "mlx5_ib"}},
		{name: "no driver", machine: func(m *machine) { m.must(m.writeSysfs("unbind", vf0)) }, want: []string{"no driver", vf0, "netdevice"}},
		{name: "bound to vfio-pci", machine: func(m *machine) { m.must(m.writeSysfs("unbind", vf0)); m.must(m.bind(vf0, "vfio-pci")) }, want: []string{"vfio-pci", vf0, "netdevice"}},
		{name: "interface elsewhere", machine: func(m *machine) { m.kernel.HostNamespace().RemoveLink(vf0) }, want: []string{"no network interface", vf0, netDriver}},
		{name: "VF gone", machine: func(m *machine) { m.must(os.RemoveAll(m.pci(vf0))) }, want: []string{vf0, "no longer in the machine"}},
		{name: "not a VF", machine: func(m *machine) { m.must(os.Remove(m.pci(vf0, "physfn"))) }, want: []string{vf0, "no VF"}},
		{name: "no definition", config: func(c *v1alpha1.VfConfig) { c.NetAttachDef = &v1alpha1.NetAttachDef{Name: "missing"} }, want: []string{"netAttachDef", "team/missing", "does not exist"}},
		{name: "no IOMMU", config: vfio, machine: func(m *machine) { m.must(os.Remove(m.pci(vf0, "iommu_group"))) }, want: []string{"vfio-pci", vf0, "intel_iommu"}},
		{name: "vfio-pci not loaded", config: vfio, machine: func(m *machine) { m.must(os.RemoveAll(filepath.Join(m.sys, "bus/pci/drivers/vfio-pci"))) }, want: []string{vf0, "modprobe vfio-pci"}},
		{name: "a group with a function in use", config: vfio, machine: func(m *machine) { m.join(vf0, "21", vf1) }, want: []string{vf0, "IOMMU group 21", vf1, netDriver}},
		{name: "PF without interface", config: func(c *v1alpha1.VfConfig) { c.VLAN = ptr.To(4) }, machine: func(m *machine) { m.kernel.HostNamespace().RemoveLink(pfAddress) }, want: []string{pfAddress, vf0, "driver is loaded"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			if tc.machine != nil {
				tc.machine(m)
			}
			gone := !exists(m.pci(vf0))
			var before string
			if !gone {
				before = m.state(vf0)
			}
			g := grant("c", vf0, tc.config)
			_, err := m.family().Prepare(t.Context(), g)
			wants(t, err, tc.want...)
			m.kernel.Refuse = nil
			m.opts.WriteSysfs = m.writeSysfs
			m.release(g)
			if !gone {
				m.clean(vf0, before)
			}
		})
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// join puts another function into an IOMMU group.
func (m *machine) join(_, group, other string) {
	m.t.Helper()
	m.must(os.Remove(m.pci(other, "iommu_group")))
	m.link("../../../../kernel/iommu_groups/"+group, m.pci(other, "iommu_group"))
	m.link("../../../../bus/pci/devices/"+other, filepath.Join(m.sys, "kernel/iommu_groups", group, "devices", other))
}

// Two VFs of one IOMMU group go to one claim or to none.
func TestSharedGroup(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.join(vf0, "21", vf1)
	m.must(m.writeSysfs("unbind", vf1)) // by an admin
	before := m.state(vf0)
	vfio := func(c *v1alpha1.VfConfig) { c.Mode = v1alpha1.VfModeVFIO }
	a := grant("a", vf0, vfio)
	m.prepare(a)
	_, err := m.family().Prepare(t.Context(), grant("b", vf1, vfio))
	wants(t, err, vf1, "IOMMU group 21", vf0, "team/a")
	m.release(grant("b", vf1, vfio))
	same := grant("a", vf1, vfio)
	m.prepare(same)
	m.release(same)
	m.release(a)
	m.clean(vf0, before)
	if exists(m.pci(vf1, "driver")) {
		t.Error("the VF that had no driver has one")
	}
}

// A driver that an admin has chosen is there again afterwards.
func TestDriverOfAdmin(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.must(os.WriteFile(m.pci(vf0, "driver_override"), []byte(netDriver+"\n"), 0o644))
	before := m.state(vf0)
	g := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.Mode, c.VLAN = v1alpha1.VfModeVFIO, ptr.To(8) })
	m.prepare(g)
	if state := m.state(vf0); !strings.Contains(state, "vfio-pci\nvfio-pci") || !strings.Contains(state, `"id":8`) {
		t.Errorf("prepared for vfio it is\n%s", state)
	}
	m.release(g)
	m.clean(vf0, before)
}

// A driver that refuses to have an address taken back gets the former one.
func TestAddressNotTakenBack(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.kernel.Refuse = func(op string, detail any) error {
		if s, ok := detail.(kernel.VFSettings); ok && op == "SetVF" && s.HardwareAddress != nil && kernel.IsZero(s.HardwareAddress) {
			return syscall.EINVAL
		}
		return nil
	}
	before := m.state(vf0)
	g := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.MAC = "02:00:00:00:00:07" })
	m.prepare(g)
	m.release(g)
	m.clean(vf0, strings.Replace(before, noAddress, ownMAC(0).String(), 1))
}

// What the PF does not tell is set to what a VF has that nobody has touched.
func TestUnknownSettings(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	pf := m.hostLink(pfAddress)
	m.kernel.HostNamespace().RemoveLink(pfAddress)
	pf.VFs[0] = kernel.VFSettings{}
	m.kernel.HostNamespace().AddLink(pf)
	g := grant("c", vf0, func(c *v1alpha1.VfConfig) {
		c.Trust, c.SpoofCheck, c.VLAN, c.LinkState, c.MaxTxRate = ptr.To(true), ptr.To(false), ptr.To(4), "enable", ptr.To(9)
	})
	m.prepare(g)
	m.release(g)
	want := `{"vlan":{"id":0,"protocol":"802.1Q"},"spoofCheck":true,"trust":false,"linkState":"auto","txRate":{"min":0,"max":0}}`
	if state := m.state(vf0); !strings.Contains(state, want) {
		t.Errorf("afterwards the VF is\n%s\nand not\n%s", state, want)
	}
}

// What the kernel neither tells nor sets keeps nobody from releasing the VF.
func TestSettingTheNICLacks(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	pf := m.hostLink(pfAddress)
	m.kernel.HostNamespace().RemoveLink(pfAddress)
	pf.VFs[0] = kernel.VFSettings{}
	m.kernel.HostNamespace().AddLink(pf)
	m.kernel.Refuse = func(op string, _ any) error {
		if op == "SetVF" {
			return syscall.EOPNOTSUPP
		}
		return nil
	}
	before := m.state(vf0)
	g := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.Trust = ptr.To(true) })
	_, err := m.family().Prepare(t.Context(), g)
	wants(t, err, "trust", "not supported")
	m.release(g)
	m.clean(vf0, before)
}

// The PF gets other names and indexes, and the VF another number, between calls.
func TestNumbersChange(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	g := grant("c", vf0, func(c *v1alpha1.VfConfig) { c.VLAN = ptr.To(4) })
	before := m.state(vf0)
	m.prepare(g)
	pf := m.hostLink(pfAddress)
	m.kernel.HostNamespace().RemoveLink(pfAddress)
	pf.Name = "eth9"
	m.kernel.HostNamespace().AddLink(pf)
	m.release(g)
	m.clean(vf0, before)
}
