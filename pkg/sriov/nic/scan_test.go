package nic

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/fixture"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

func options(m *fixture.Machine) Options { return Options{SysfsRoot: m.Root, Host: m.Host} }

func scan(t *testing.T, opts Options) (Machine, []device.Fault) {
	t.Helper()
	machine, faults, err := Scan(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return machine, faults
}

const (
	first18 = "0000:18:00.0"
	second2 = "0000:40:00.0"
)

func infiniBand(m *fixture.Machine) {
	m.AddPF(fixture.PF{Address: first18, Driver: "mlx5_core", Netdev: "ibp24s0", RDMA: "mlx5_0", InfiniBand: true, Class: "020700"})
}

func TestScan(t *testing.T) {
	m := fixture.New(t)
	infiniBand(m)
	m.AddPF(fixture.PF{Address: second2, Driver: "igb", VFDriver: "igbvf", Netdev: "eth0", Root: "pci0000:3d", NUMA: "1"})
	m.SetNumVFs(first18, 2)
	m.Host.Modes = map[string]string{first18: "legacy"}
	trust := true
	m.Host.Change(first18, func(l *kernel.Link) { l.VFs = map[int]kernel.VFSettings{1: {Trust: &trust}} })

	machine, faults := scan(t, options(m))
	if len(faults) > 0 || len(machine.PFs) != 2 {
		t.Fatalf("got PFs %+v and faults %v", machine.PFs, faults)
	}
	node := func(a string) topology.Node {
		address, err := topology.ParseAddress(a)
		if err != nil {
			t.Fatal(err)
		}
		node, err := topology.At(m.Root).Node(address)
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
	link := func(a string) *kernel.Link {
		l := m.Host.Link(a)
		return &l
	}
	vf := func(index int, number, iommu string) VF {
		address := fixture.VF(first18, index)
		return VF{
			Node: node(address), Index: index, Netdev: link(address), IOMMUGroup: iommu,
			RDMA: &RDMA{
				Name: "mlx5_0" + number, State: "ACTIVE", LinkLayer: "InfiniBand", RateMbps: 400000,
				NodeGUID:    net.HardwareAddr{0xa0, 0x88, 0xc2, 3, 0x18, 0, 0, byte(index + 1)},
				CharDevices: []string{"infiniband/uverbs0" + number, "infiniband/umad0" + number, "infiniband/rdma_cm"},
			},
		}
	}
	want := PF{
		Node: node(first18), Netdev: link(first18), LinkType: "infiniband", SpeedMbps: 400000, EswitchMode: "legacy",
		RDMA: &RDMA{
			Name: "mlx5_0", State: "ACTIVE", LinkLayer: "InfiniBand", RateMbps: 400000,
			NodeGUID: net.HardwareAddr{0xa0, 0x88, 0xc2, 3, 0x18, 0, 0, 0}, CharDevices: []string{"infiniband/uverbs0", "infiniband/umad0", "infiniband/rdma_cm"},
		},
		TotalVFs: 8, NumVFs: 2, VFDeviceID: 0x101e, VFOffset: 1, VFStride: 1,
		VFs: []VF{vf(0, "00", "000018001"), vf(1, "01", "000018002")},
	}
	want.VFs[1].Settings = kernel.VFSettings{Trust: &trust}
	if diff := cmp.Diff(want, machine.PFs[0]); diff != "" {
		t.Errorf("PF (-want +got):\n%s", diff)
	}
	other := machine.PFs[1]
	if other.Name() != "eth0" || other.LinkType != "ether" || other.RDMA != nil || len(other.VFs) != 0 || *other.NUMA != 1 {
		t.Errorf("the PF without VFs: got %+v", other)
	}
}

// What is broken is reported, and hides nothing else.
func TestScanFaults(t *testing.T) {
	vf0 := fixture.VF(first18, 0)
	for name, test := range map[string]struct {
		damage func(*fixture.Machine)
		pfs    int
		vfs    int
		faults []string
	}{
		"PF that cannot be read": {func(m *fixture.Machine) { m.Set(first18, "sriov_numvfs", "many") }, 1, 0, []string{"PF 0000:18:00.0: ", "sriov_numvfs"}},
		"PF of no NUMA number":   {func(m *fixture.Machine) { m.Set(first18, "numa_node", "x") }, 1, 0, []string{"PF 0000:18:00.0: ", "NUMA"}},
		"VF that cannot be read": {func(m *fixture.Machine) { m.Set(vf0, "vendor", "?") }, 2, 1, []string{"VF 0 of PF 0000:18:00.0: ", "vendor", vf0}},
		"VF that leads nowhere":  {func(m *fixture.Machine) { m.Remove(vf0, "") }, 2, 1, nil},
		"VF without a number":    {func(m *fixture.Machine) { m.Set(first18, "virtfnx", "") }, 2, 2, []string{"PF 0000:18:00.0: ", "virtfnx"}},
		"PF without a driver":    {func(m *fixture.Machine) { m.Unbind(first18) }, 2, 2, nil},
		"no NIC":                 {func(m *fixture.Machine) { m.Set(first18, "class", "0x030200") }, 1, 0, nil},
		"a NIC without SR-IOV":   {func(m *fixture.Machine) { m.Set(first18, "sriov_totalvfs", "0") }, 1, 0, nil},
		"facts for selectors alone": {func(m *fixture.Machine) {
			m.Set(first18, "sriov_vf_device", "?")
			m.Set(first18, "sriov_offset", "?")
		}, 2, 2, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.New(t)
			infiniBand(m)
			m.AddPF(fixture.PF{Address: second2, Driver: "mlx5_core", Netdev: "eth0"})
			m.SetNumVFs(first18, 2)
			test.damage(m)
			machine, faults := scan(t, options(m))
			vfs := 0
			for _, pf := range machine.PFs {
				vfs += len(pf.VFs)
			}
			if len(machine.PFs) != test.pfs || vfs != test.vfs {
				t.Errorf("got %d PFs and %d VFs, want %d and %d", len(machine.PFs), vfs, test.pfs, test.vfs)
			}
			if (len(faults) > 0) != (len(test.faults) > 0) {
				t.Fatalf("got faults %v", faults)
			}
			for _, want := range test.faults {
				if got := faults[0].Subject + ": " + faults[0].Err.Error(); !strings.Contains(got, want) {
					t.Errorf("fault %q does not say %q", got, want)
				}
			}
		})
	}
}

func TestScanWithoutKernel(t *testing.T) {
	m := fixture.New(t)
	m.Host.Fail = unix.ENOBUFS
	if _, _, err := Scan(t.Context(), options(m)); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("got %v, want the kernel's error", err)
	}
}

// A VF's RDMA device may be in a pod, or made in software.
func TestRDMA(t *testing.T) {
	m := fixture.New(t)
	infiniBand(m)
	m.SetNumVFs(first18, 1)
	vf := fixture.VF(first18, 0)
	m.Host.Exclusive = true
	m.Remove(vf, "infiniband")
	m.Host.Take(vf)
	machine, _ := scan(t, options(m))
	want := &RDMA{Name: "mlx5_000", CharDevices: []string{"infiniband/uverbs000", "infiniband/umad000", "infiniband/rdma_cm"}}
	if diff := cmp.Diff(want, machine.PFs[0].VFs[0].RDMA); diff != "" || !machine.RDMAExclusive {
		t.Errorf("RDMA device of a pod (-want +got), exclusive %v:\n%s", machine.RDMAExclusive, diff)
	}

	m = fixture.New(t)
	m.AddPF(fixture.PF{Address: first18, Driver: "igb", VFDriver: "igbvf", Netdev: "eth0"})
	m.SetNumVFs(first18, 1)
	class := filepath.Join(m.Root, "class")
	for path, content := range map[string]string{
		"infiniband/rxe0/parent": "eth0v0", "infiniband/rxe0/node_guid": "0200:00ff:fe00:0001", "infiniband/rxe0/ports/1/link_layer": "Ethernet",
		"infiniband_verbs/uverbs0/ibdev": "rxe0", "infiniband_verbs/uverbs1/ibdev": "rxe1",
	} {
		path = filepath.Join(class, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, []byte(content+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	m.Host.RDMA = []kernel.RDMALink{{Name: "rxe0", NodeGUID: "02:00:00:ff:fe:00:00:07"}}
	machine, _ = scan(t, options(m))
	want = &RDMA{Name: "rxe0", LinkLayer: "Ethernet", NodeGUID: net.HardwareAddr{2, 0, 0, 0xff, 0xfe, 0, 0, 7}, CharDevices: []string{"infiniband/uverbs0", "infiniband/rdma_cm"}}
	if diff := cmp.Diff(want, machine.PFs[0].VFs[0].RDMA); diff != "" {
		t.Errorf("RDMA device in software (-want +got):\n%s", diff)
	}
}

func TestHostUse(t *testing.T) {
	everywhere := netip.MustParsePrefix("0.0.0.0/0")
	for name, test := range map[string]struct {
		build func(m *fixture.Machine, pf int)
		want  string
		vf    string
	}{
		"free": {func(m *fixture.Machine, pf int) {
			m.Host.RouteList = []kernel.Route{{Link: pf, Destination: netip.MustParsePrefix("10.0.0.0/8")}}
		}, "", ""},
		"default route": {func(m *fixture.Machine, pf int) {
			m.Host.RouteList = []kernel.Route{{Link: pf, Destination: everywhere}}
		}, "it has the default route", ""},
		"port of a bond below a VLAN": {func(m *fixture.Machine, _ int) {
			bond := m.Host.Add(kernel.Link{Name: "bond0"})
			m.Host.Change(first18, func(l *kernel.Link) { l.Master = bond })
			vlan := m.Host.Add(kernel.Link{Name: "bond0.7", Lower: bond})
			m.Host.RouteList = []kernel.Route{{Link: vlan, Destination: everywhere}}
		}, "bond0.7 above it has the default route", ""},
		"address of the node": {func(m *fixture.Machine, pf int) {
			m.Host.AddressList = map[int][]netip.Prefix{pf: {netip.MustParsePrefix("10.0.0.5/24")}}
		}, "it has the node's address 10.0.0.5", ""},
		"address on a bridge": {func(m *fixture.Machine, _ int) {
			bridge := m.Host.Add(kernel.Link{Name: "br0"})
			m.Host.Change(first18, func(l *kernel.Link) { l.Master = bridge })
			m.Host.AddressList = map[int][]netip.Prefix{bridge: {netip.MustParsePrefix("10.0.0.5/24")}}
		}, "br0 above it has the node's address 10.0.0.5", ""},
		"a VF": {func(m *fixture.Machine, _ int) {
			m.Host.RouteList = []kernel.Route{{Link: m.Host.Link(fixture.VF(first18, 0)).Index, Destination: everywhere}}
		}, "", "it has the default route"},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.New(t)
			infiniBand(m)
			m.SetNumVFs(first18, 1)
			test.build(m, m.Host.Link(first18).Index)
			opts := options(m)
			opts.NodeAddresses = []netip.Addr{netip.MustParseAddr("10.0.0.5")}
			machine, _ := scan(t, opts)
			if got := machine.PFs[0].HostUse; got != test.want {
				t.Errorf("got host use %q, want %q", got, test.want)
			}
			if got := machine.PFs[0].VFs[0].HostUse; got != test.vf {
				t.Errorf("got host use %q of the VF, want %q", got, test.vf)
			}
		})
	}
}

func TestSwitchdev(t *testing.T) {
	m := fixture.New(t)
	m.Host.Add(kernel.Link{Name: "ens1f0npf0vf0", Device: first18, Port: "pf0vf0", Type: "ether"})
	m.AddPF(fixture.PF{Address: first18, Driver: "mlx5_core", Netdev: "ens1f0np0"})
	m.Host.Change(first18, func(l *kernel.Link) {
		if l.Port == "" {
			l.Port = "p0"
		}
	})
	m.Host.Add(kernel.Link{Name: "child", Device: first18, Type: "ether"})
	machine, _ := scan(t, options(m))
	if got := machine.PFs[0].Name(); got != "ens1f0np0" {
		t.Errorf("got PF %q, want the uplink ens1f0np0", got)
	}
}

func TestVFAddress(t *testing.T) {
	a, err := topology.ParseAddress("0000:43:00.0")
	if err != nil {
		t.Fatal(err)
	}
	// An 82576, whose VFs testbeds have seen at 43:10.0, .2, .4, .6, 11.0…
	igb := PF{Node: topology.Node{Address: a}, VFOffset: 128, VFStride: 2}
	for index, want := range map[int]string{0: "0000:43:10.0", 3: "0000:43:10.6", 4: "0000:43:11.0"} {
		if got, ok := igb.VFAddress(index); !ok || got.String() != want {
			t.Errorf("VF %d: got %s %v, want %s", index, got, ok, want)
		}
	}
	if _, ok := (PF{}).VFAddress(0); ok {
		t.Error("an address was found without knowing where VFs are")
	}
	a.Bus = 0xff
	if _, ok := (PF{Node: topology.Node{Address: a}, VFOffset: 128, VFStride: 64}).VFAddress(5); ok {
		t.Error("an address was found behind the last bus")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"4: ACTIVE", "400 Gb/sec (4X NDR)", "a088:c203:0012:3456", "", "-1", "1e400 Gb/sec"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parseState(s)
		if rate := parseRate(s); rate < 0 {
			t.Errorf("rate %q is %d", s, rate)
		}
		if guid := parseGUID(s); guid != nil && len(guid) != 8 {
			t.Errorf("GUID %q is %v", s, guid)
		}
	})
}
