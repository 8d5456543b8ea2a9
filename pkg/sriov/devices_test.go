package sriov

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/internal/fixture"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

const (
	ibPF  = "0000:18:00.0"
	ethPF = "0000:29:00.1"
)

// lookAt returns a family that only looks at a machine.
func lookAt(t *testing.T, m *fixture.Machine, selectors ...v1alpha1.VFSelector) *Family {
	t.Helper()
	return New(Options{
		SysfsRoot: m.Root, DataDir: t.TempDir(), BootID: "boot-1", Kernel: m.Host, WriteSysfs: m.Write,
		Config: v1alpha1.SRIOVConfig{Selectors: selectors},
	})
}

func inventory(t *testing.T, f *Family) device.Inventory {
	t.Helper()
	found, err := f.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func addInfiniBand(m *fixture.Machine, vfs int) {
	m.AddPF(fixture.PF{Address: ibPF, Driver: "mlx5_core", Netdev: "ibp24s0", RDMA: "mlx5_0", InfiniBand: true})
	m.SetNumVFs(ibPF, vfs)
}

func addEthernet(m *fixture.Machine, vfs int) {
	m.AddPF(fixture.PF{Address: ethPF, Driver: "igb", VFDriver: "igbvf", Netdev: "enp41s0f1", Vendor: "8086", Device: "10c9", VFDevice: "10ca"})
	m.SetNumVFs(ethPF, vfs)
}

// plain turns attributes into texts.
func plain(d device.Device) map[string]string {
	texts := map[string]string{}
	for name, a := range d.Attributes {
		switch {
		case a.StringValue != nil:
			texts[string(name)] = *a.StringValue
		case a.IntValue != nil:
			texts[string(name)] = fmt.Sprint(*a.IntValue)
		case a.BoolValue != nil:
			texts[string(name)] = fmt.Sprint(*a.BoolValue)
		}
	}
	return texts
}

func TestDevices(t *testing.T) {
	m := fixture.New(t)
	addInfiniBand(m, 2)
	addEthernet(m, 1)
	m.Host.Modes = map[string]string{ibPF: "legacy"}
	found := inventory(t, lookAt(t, m))
	if len(found.Faults) > 0 {
		t.Errorf("got faults %v", found.Faults)
	}
	var names []string
	for _, d := range found.Devices {
		names = append(names, d.Name)
		if len(d.Problems) > 0 {
			t.Errorf("%s has problems %v", d.Name, d.Problems)
		}
	}
	if diff := cmp.Diff([]string{"vf-0000-18-00-1", "vf-0000-18-00-2", "vf-0000-29-00-2"}, names); diff != "" {
		t.Fatalf("names (-want +got):\n%s", diff)
	}
	second := found.Devices[1]
	if second.Kind != device.KindVF || !slices.Equal(second.Occupies, []string{"pci-0000:18:00.2"}) {
		t.Errorf("got kind %q occupying %q", second.Kind, second.Occupies)
	}
	want := map[string]string{
		"type": "vf", "pfName": "ibp24s0", "pfPCIBusID": ibPF, "vfIndex": "1", "linkType": "infiniband", "rdma": "true", "rdmaDevice": "mlx5_001",
		"driver": "mlx5_core", "vendor": "15b3", "device": "101e", "mtu": "4092", "linkSpeedMbps": "400000", "eswitchMode": "legacy",
		"resource.kubernetes.io/pciBusID": "0000:18:00.2", "resource.kubernetes.io/pcieRoot": "pci0000:15", "resource.kubernetes.io/numaNode": "0",
	}
	if diff := cmp.Diff(want, plain(second)); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	got := plain(found.Devices[2])
	if got["rdma"] != "false" || got["driver"] != "igbvf" || got["device"] != "10ca" || got["linkType"] != "ether" {
		t.Errorf("attributes of the Ethernet VF: got %v", got)
	}
	for _, absent := range []string{"rdmaDevice", "eswitchMode"} {
		if value, there := got[absent]; there {
			t.Errorf("attribute %s is %q, want it left out", absent, value)
		}
	}
}

// A claim's VF is hidden from the host, or bound to another driver, and stays
// the device that it was, for the plugin that saw it before and for one that
// was started meanwhile.
func TestAttributesOfUsedVF(t *testing.T) {
	for name, use := range map[string]func(*fixture.Machine, string){
		"in a pod": func(m *fixture.Machine, vf string) { m.Host.Take(vf) },
		"in a pod with its RDMA device": func(m *fixture.Machine, vf string) {
			m.Host.Take(vf)
			m.Remove(vf, "infiniband")
		},
		"bound to vfio-pci": func(m *fixture.Machine, vf string) {
			m.Unbind(vf)
			if err := m.Write(filepath.Join(m.Root, "bus/pci/drivers", vfio.Driver, "bind"), vf); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.New(t)
			addInfiniBand(m, 2)
			selector := v1alpha1.VFSelector{Drivers: []string{"mlx5_core"}, RDMA: ptr.To(true)}
			f := lookAt(t, m, selector)
			before := inventory(t, f)

			vf := fixture.VF(ibPF, 0)
			address, err := topology.ParseAddress(vf)
			if err != nil {
				t.Fatal(err)
			}
			journal := &vfstate.Journal{BootID: "boot-1", Former: &vfstate.Former{Interface: "ibp24s0v0", MTU: 4092, Driver: "mlx5_core"}}
			if err := f.journal.Save(address, journal); err != nil {
				t.Fatal(err)
			}
			use(m, vf)
			if diff := cmp.Diff(before, inventory(t, f)); diff != "" {
				t.Errorf("a plugin that saw it before (-before +now):\n%s", diff)
			}
			anew := New(f.opts)
			after := inventory(t, anew)
			// Nobody can know the name of an RDMA device that is not here.
			if _, there := after.Devices[0].Attributes[attributeRDMADevice]; !there {
				delete(before.Devices[0].Attributes, attributeRDMADevice)
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("a plugin that was started anew (-before +now):\n%s", diff)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	vf := fixture.VF(ibPF, 0)
	ethVF := fixture.VF(ethPF, 0)
	for name, test := range map[string]struct {
		cause, cure func(m *fixture.Machine)
		// want is the problems by device, as "reason: part of the message".
		want map[string]string
	}{
		"PF not up": {
			func(m *fixture.Machine) {
				m.Host.Change(ethPF, func(l *kernel.Link) { l.Up, l.Carrier = false, false })
			},
			func(m *fixture.Machine) { m.Host.Change(ethPF, func(l *kernel.Link) { l.Up, l.Carrier = true, true }) },
			map[string]string{ethVF: "LinkDown: ip link set enp41s0f1 up"},
		},
		"PF without a link": {
			func(m *fixture.Machine) { m.Host.Change(ethPF, func(l *kernel.Link) { l.Carrier = false }) },
			func(m *fixture.Machine) { m.Host.Change(ethPF, func(l *kernel.Link) { l.Carrier = true }) },
			map[string]string{ethVF: "LinkDown: PF enp41s0f1 (0000:29:00.1) has no link: look at its cable"},
		},
		"no driver": {
			func(m *fixture.Machine) { m.Unbind(ethVF) },
			func(m *fixture.Machine) { _ = m.Write(m.Root+"/bus/pci/drivers/igbvf/bind", ethVF) },
			map[string]string{ethVF: "DriverUnbound: no kernel driver is bound to VF " + ethVF},
		},
		"interface gone": {
			func(m *fixture.Machine) { m.Host.Take(ethVF) },
			func(m *fixture.Machine) { m.SetNumVFs(ethPF, 0); m.SetNumVFs(ethPF, 1) },
			map[string]string{ethVF: "InterfaceMissing: shows no interface on the host"},
		},
		"vfio-pci is fine": {
			func(m *fixture.Machine) { m.Unbind(ethVF); _ = m.Write(m.Root+"/bus/pci/drivers/vfio-pci/bind", ethVF) },
			func(*fixture.Machine) {}, map[string]string{},
		},
		"IPoIB down is fine": {
			func(m *fixture.Machine) { m.Host.Change(ibPF, func(l *kernel.Link) { l.Up, l.Carrier = false, false }) },
			func(*fixture.Machine) {}, map[string]string{},
		},
		"port of the PF": {
			func(m *fixture.Machine) { m.Set(ibPF, "infiniband/mlx5_0/ports/1/state", "2: INIT") },
			func(m *fixture.Machine) { m.Set(ibPF, "infiniband/mlx5_0/ports/1/state", "4: ACTIVE") },
			map[string]string{vf: "InfiniBandPortNotActive: PF ibp24s0 (0000:18:00.0) (mlx5_0) is INIT", fixture.VF(ibPF, 1): "InfiniBandPortNotActive: "},
		},
		"port of the VF": {
			func(m *fixture.Machine) { m.Set(vf, "infiniband/mlx5_000/ports/1/state", "1: DOWN") },
			func(m *fixture.Machine) { m.Set(vf, "infiniband/mlx5_000/ports/1/state", "4: ACTIVE") },
			map[string]string{vf: "InfiniBandPortNotActive: VF " + vf + " (mlx5_000) is DOWN"},
		},
		"GUID": {
			func(m *fixture.Machine) { m.Set(vf, "infiniband/mlx5_000/node_guid", "0000:0000:0000:0000") },
			func(m *fixture.Machine) { m.Set(vf, "infiniband/mlx5_000/node_guid", "a088:c203:0012:3456") },
			map[string]string{vf: "ZeroGUID: has no GUID"},
		},
		"VF runs as Ethernet": {
			func(m *fixture.Machine) { m.Set(vf, "infiniband/mlx5_000/ports/1/link_layer", "Ethernet") },
			func(m *fixture.Machine) { m.Set(vf, "infiniband/mlx5_000/ports/1/link_layer", "InfiniBand") },
			map[string]string{vf: "InfiniBandFellBackToEthernet: mlxconfig -d 0000:18:00.0"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.New(t)
			addInfiniBand(m, 2)
			addEthernet(m, 1)
			f := lookAt(t, m)
			healthy := inventory(t, f)
			test.cause(m)
			got := inventory(t, f)
			if len(got.Devices) != len(healthy.Devices) || len(got.Faults) > 0 {
				t.Fatalf("got devices %+v and faults %v, want all devices published", got.Devices, got.Faults)
			}
			for _, d := range got.Devices {
				address, _ := device.PCIAddress(d.Occupies)
				want, wanted := test.want[address]
				if !wanted {
					if len(d.Problems) > 0 {
						t.Errorf("%s has problems %+v, want none", address, d.Problems)
					}
					continue
				}
				reason, message, _ := strings.Cut(want, ": ")
				if len(d.Problems) != 1 || d.Problems[0].Reason != reason || !strings.Contains(d.Problems[0].Message, message) {
					t.Errorf("%s has problems %+v, want %s with %q", address, d.Problems, reason, message)
				}
			}
			test.cure(m)
			for _, d := range inventory(t, f).Devices {
				if len(d.Problems) > 0 {
					t.Errorf("%s still has problems %+v", d.Name, d.Problems)
				}
			}
		})
	}
}

func TestFellBack(t *testing.T) {
	four := []string{"0000:18:00.0", "0000:40:00.0", "0000:4f:00.0", "0000:5e:00.0"}
	for name, test := range map[string]struct {
		ethernet  int
		selectors []v1alpha1.VFSelector
		want      int
		devices   int
	}{
		"one of four":                       {1, nil, 1, 4},
		"half of them":                      {2, nil, 2, 4},
		"three of four":                     {3, nil, 0, 4},
		"one, and meant to":                 {1, []v1alpha1.VFSelector{{LinkTypes: []string{"ether"}}, {LinkTypes: []string{"infiniband"}}}, 0, 4},
		"one, not named":                    {1, []v1alpha1.VFSelector{{LinkTypes: []string{"infiniband"}}}, 0, 3},
		"all, and the configuration knows":  {4, []v1alpha1.VFSelector{{RootDevices: four, LinkTypes: []string{"infiniband"}}}, 4, 4},
		"all, and the configuration allows": {4, []v1alpha1.VFSelector{{RootDevices: four}}, 0, 4},
	} {
		t.Run(name, func(t *testing.T) {
			m := fixture.New(t)
			for i, address := range four {
				m.AddPF(fixture.PF{Address: address, Driver: "mlx5_core", Netdev: fmt.Sprintf("ib%d", i), RDMA: fmt.Sprintf("mlx5_%d", i), InfiniBand: i >= test.ethernet})
				m.SetNumVFs(address, 1)
			}
			// Storage ports have no VFs, and may be what they like.
			m.AddPF(fixture.PF{Address: "0000:29:00.0", Driver: "mlx5_core", Netdev: "enp41s0", RDMA: "mlx5_9"})
			fallen := 0
			found := inventory(t, lookAt(t, m, test.selectors...))
			for _, d := range found.Devices {
				for _, p := range d.Problems {
					if p.Reason != ReasonFellBack {
						t.Errorf("%s has problem %+v", d.Name, p)
					}
					fallen++
				}
			}
			if fallen != test.want || len(found.Devices) != test.devices {
				t.Errorf("got %d devices, %d of them fallen back, want %d and %d", len(found.Devices), fallen, test.devices, test.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	m := fixture.New(t)
	addInfiniBand(m, 1)
	m.AddPF(fixture.PF{Address: "0000:40:00.0"})
	m.AddPF(fixture.PF{Address: "0000:4f:00.0", Driver: "mlx5_core"})
	m.AddPF(fixture.PF{Address: "0000:5e:00.0", Driver: vfio.Driver})
	addEthernet(m, 1)
	m.AddPF(fixture.PF{Address: "0000:9a:00.0", Driver: "mlx5_core", Netdev: "eth9"})
	m.Set("0000:9a:00.0", "sriov_numvfs", "?")
	m.Refuse = func(path, _ string) error {
		if strings.HasSuffix(path, "sriov_numvfs") {
			return errors.New("no room")
		}
		return nil
	}
	m.AddPF(fixture.PF{Address: "0000:c0:00.0", Driver: "mlx5_core", Netdev: "eth7"})
	found := inventory(t, lookAt(t, m, v1alpha1.VFSelector{}, v1alpha1.VFSelector{PFNames: []string{"eth7"}, NumVFs: ptr.To(1)}, v1alpha1.VFSelector{PFNames: []string{"enp41s0f1"}, NumVFs: ptr.To(4)}))
	got := map[string]string{}
	for _, fault := range found.Faults {
		got[fault.Subject] = fault.Reason
		if fault.Err == nil || !strings.Contains(fault.Err.Error(), " ") {
			t.Errorf("fault %+v says too little", fault)
		}
	}
	want := map[string]string{
		"PF 0000:40:00.0": ReasonPFDriverMissing, "PF 0000:4f:00.0": ReasonPFInterfaceMissing, "PF 0000:9a:00.0": nic.ReasonUnreadable,
		"PF eth7 (0000:c0:00.0)": ReasonProvisioning, "PF enp41s0f1 (0000:29:00.1)": ReasonNumVFs,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
	if len(found.Devices) != 2 {
		t.Errorf("got %d devices beside the faults, want 2", len(found.Devices))
	}
	// Nobody hears of NICs that no selector is about.
	if found := inventory(t, lookAt(t, m, v1alpha1.VFSelector{Vendors: []string{"8086"}})); len(found.Devices) != 1 || len(found.Faults) != 1 {
		t.Errorf("with another selector: got devices %v and faults %v, want one device and the NIC that cannot be read", found.Devices, found.Faults)
	}
}

// VFs are there before the first answer.
func TestDevicesMakesVFs(t *testing.T) {
	m := fixture.New(t)
	addInfiniBand(m, 0)
	found := inventory(t, lookAt(t, m, v1alpha1.VFSelector{NumVFs: ptr.To(8)}))
	if len(found.Devices) != 8 || len(found.Faults) > 0 {
		t.Errorf("got %d devices and faults %v, want 8", len(found.Devices), found.Faults)
	}
}

func TestDevicesErrors(t *testing.T) {
	m := fixture.New(t)
	addInfiniBand(m, 1)
	f := lookAt(t, m, v1alpha1.VFSelector{PFNames: []string{"a#x"}})
	if _, err := f.Devices(t.Context()); err == nil || !strings.Contains(err.Error(), "sriov.selectors[0]: pfNames[0]") {
		t.Errorf("a selector that is wrong: got %v", err)
	}
	f = lookAt(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Devices(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is done: got %v", err)
	}
	m.Host.Fail = errors.New("netlink is broken")
	if _, err := f.Devices(t.Context()); !errors.Is(err, m.Host.Fail) {
		t.Errorf("a kernel that fails: got %v", err)
	}
	m.Host.Fail = nil
	if found := inventory(t, f); len(found.Devices) != 1 {
		t.Errorf("after a failure: got %v", found)
	}
}

func TestWatchFamily(t *testing.T) {
	m := fixture.New(t)
	addEthernet(m, 1)
	m.Host.FailWatch = 1 // it is listened again after that
	f := lookAt(t, m)
	inventory(t, f)
	changed := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Watch(ctx, func() { changed <- struct{}{} })
	}()
	within := func(what string, do func(), devices int) {
		t.Helper()
		start := time.Now()
		do()
		for {
			select {
			case <-changed:
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: nobody told", what)
			}
			found := inventory(t, f)
			if len(found.Devices) == devices {
				if took := time.Since(start); took > 2*time.Second {
					t.Errorf("%s: told after %s", what, took)
				}
				return
			}
		}
	}
	// The fixture announces only what happens after Watch has begun to listen.
	eventually(t, "Watch listens", m.Host.Watched)
	within("VFs removed", func() { m.SetNumVFs(ethPF, 0) }, 0)
	within("VFs made", func() { m.SetNumVFs(ethPF, 4) }, 4)
	within("PF renamed", func() { m.Host.Change(ethPF, func(l *kernel.Link) { l.Name = "other" }) }, 4)
	within("link lost", func() { m.Host.Change(ethPF, func(l *kernel.Link) { l.Carrier = false }) }, 4)

	// What changes nothing here, such as a pod's interface, is told to nobody.
	// The second look begins when the first one has told, if it tells.
	for i := range 2 {
		looks := m.Host.Looks()
		m.Host.Add(kernel.Link{Name: fmt.Sprintf("veth%d", i)})
		eventually(t, "Watch looks", func() bool { return m.Host.Looks() > looks })
	}
	select {
	case <-changed:
		t.Error("somebody else's interface was taken for a change of VFs")
	default:
	}
	cancel()
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Error("Watch goes on after its context is done")
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(10 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("in vain waited until %s", what)
		}
	}
}
