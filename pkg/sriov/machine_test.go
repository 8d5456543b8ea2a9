package sriov

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/cni"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel/kerneltest"
)

const (
	pfAddress = "0000:18:00.0"
	vf0       = "0000:18:00.1"
	vf1       = "0000:18:00.2"
	netDriver = "mlx5_core"
)

// machine is a machine with one PF and two VFs, in memory except for sysfs.
type machine struct {
	t        *testing.T
	kernel   *kerneltest.Kernel
	networks *networks
	opts     Options
	sys      string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	root := t.TempDir()
	m := &machine{t: t, kernel: kerneltest.New(t), networks: &networks{added: map[string]cni.Call{}}, sys: filepath.Join(root, "sys")}
	m.networks.kernel = m.kernel.Seam()
	m.opts = Options{
		SysfsRoot: m.sys, DevRoot: filepath.Join(root, "dev"), DataDir: filepath.Join(root, "data"), BootID: "boot-1",
		Kernel: m.kernel.Seam(), WriteSysfs: m.writeSysfs, Networks: m.networks, ReturnWait: 100 * time.Millisecond,
	}
	m.mkdir("bus/pci/drivers/vfio-pci", "bus/pci/drivers/"+netDriver)
	m.function(pfAddress, netDriver, "20")
	vfs := map[int]kernel.VFSettings{}
	for n, address := range []string{vf0, vf1} {
		m.function(address, netDriver, fmt.Sprint(21+n))
		m.link("../"+pfAddress, m.pci(address, "physfn"))
		m.link("../"+address, m.pci(pfAddress, fmt.Sprintf("virtfn%d", n)))
		m.kernel.HostNamespace().AddLink(kernel.Link{Name: fmt.Sprintf("ens1v%d", n), Device: address, Type: "ether", HardwareAddress: ownMAC(n)})
		vfs[n] = kernel.VFSettings{
			HardwareAddress: make(net.HardwareAddr, 6), VLAN: &kernel.VLAN{}, SpoofCheck: ptr.To(true), Trust: ptr.To(false),
			LinkState: ptr.To("auto"), TxRate: &kernel.TxRate{},
		}
	}
	m.kernel.HostNamespace().AddLink(kernel.Link{Name: "ens1", Device: pfAddress, Type: "ether", Up: true, VFs: vfs})
	return m
}

func ownMAC(n int) net.HardwareAddr { return net.HardwareAddr{0x02, 0, 0, 0, 0x18, byte(n)} }

// family returns the family as a new process would have it.
func (m *machine) family() *Family { return New(m.opts) }

func (m *machine) pci(address string, below ...string) string {
	return filepath.Join(append([]string{m.sys, "bus/pci/devices", address}, below...)...)
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) mkdir(folders ...string) {
	m.t.Helper()
	for _, folder := range folders {
		m.must(os.MkdirAll(filepath.Join(m.sys, folder), 0o755))
	}
}

func (m *machine) link(target, path string) {
	m.t.Helper()
	m.must(os.Symlink(target, path))
}

func (m *machine) write(path, value string) {
	m.t.Helper()
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	m.must(os.WriteFile(path, []byte(value), 0o644))
}

// function makes a PCI function with a driver and an IOMMU group.
func (m *machine) function(address, driver, group string) {
	m.t.Helper()
	m.mkdir("bus/pci/devices/"+address, "kernel/iommu_groups/"+group+"/devices")
	m.write(m.pci(address, "class"), "0x020000\n")
	m.write(m.pci(address, "driver_override"), "(null)\n")
	if driver != "" {
		m.link("../../drivers/"+driver, m.pci(address, "driver"))
	}
	m.link("../../../../kernel/iommu_groups/"+group, m.pci(address, "iommu_group"))
	m.link("../../../../bus/pci/devices/"+address, filepath.Join(m.sys, "kernel/iommu_groups", group, "devices", address))
}

// rdma gives a VF an RDMA device with its nodes.
func (m *machine) rdma(address, name string, n int) {
	m.t.Helper()
	nodes := []string{fmt.Sprintf("uverbs%d", n), fmt.Sprintf("umad%d", n)}
	for _, path := range []string{m.pci(address, "infiniband", name), m.pci(address, "infiniband_verbs", nodes[0]), m.pci(address, "infiniband_mad", nodes[1]), m.pci(address, "infiniband_mad", fmt.Sprintf("issm%d", n))} {
		m.must(os.MkdirAll(path, 0o755))
	}
	m.kernel.HostNamespace().AddRDMA(name)
	m.node("infiniband/rdma_cm", 10, 58)
	for i, node := range nodes {
		m.node("infiniband/"+node, 231, 192+10*i+n)
	}
}

// node makes a character device, which needs no hardware to be looked at.
func (m *machine) node(name string, major, minor int) {
	m.t.Helper()
	path := filepath.Join(m.opts.DevRoot, name)
	m.must(os.MkdirAll(filepath.Dir(path), 0o755))
	err := syscall.Mknod(path, syscall.S_IFCHR|0o600, major<<8|minor)
	if errors.Is(err, syscall.EPERM) {
		m.t.Skip("making device nodes needs root")
	}
	if !errors.Is(err, syscall.EEXIST) {
		m.must(err)
	}
}

// writeSysfs does what a kernel does when a driver is bound or unbound.
func (m *machine) writeSysfs(path, value string) error {
	address := strings.TrimSpace(value)
	switch filepath.Base(path) {
	case "unbind":
		m.kernel.HostNamespace().RemoveLink(address)
		return os.Remove(m.pci(address, "driver"))
	case "bind":
		return m.bind(address, filepath.Base(filepath.Dir(path)))
	case "drivers_probe":
		return m.bind(address, netDriver)
	default:
		return os.WriteFile(path, []byte(value), 0o644)
	}
}

func (m *machine) bind(address, driver string) error {
	if err := os.Symlink("../../drivers/"+driver, m.pci(address, "driver")); err != nil {
		return err
	}
	if driver == netDriver {
		n := int(address[len(address)-1] - '1')
		m.kernel.Bound(kernel.Link{Name: "eth0", Device: address, Type: "ether", HardwareAddress: ownMAC(n)})
	} else {
		m.node("vfio/vfio", 10, 196)
		m.node("vfio/"+fmt.Sprint(20+int(address[len(address)-1]-'0')), 242, 1)
	}
	return nil
}

// state is what a test compares before and after: where the VF's interface is
// and what it and its PF's settings are.
func (m *machine) state(address string) string {
	m.t.Helper()
	var out []string
	links, err := m.kernel.HostNamespace().Links()
	m.must(err)
	for _, l := range links {
		switch l.Device {
		case address:
			out = append(out, fmt.Sprintf("%s %s mtu %d up %t", l.Name, l.HardwareAddress, l.MTU, l.Up))
		case pfAddress:
			settings, err := json.Marshal(fromKernel(l.VFs[int(address[len(address)-1]-'1')]))
			m.must(err)
			out = append(out, string(settings))
		}
	}
	slices.Sort(out)
	driver, err := os.Readlink(m.pci(address, "driver"))
	if err != nil {
		driver = "none"
	}
	override, err := os.ReadFile(m.pci(address, "driver_override"))
	m.must(err)
	rdma, err := m.kernel.HostNamespace().RDMALinks()
	m.must(err)
	choice := strings.TrimSpace(string(override))
	if choice == "" {
		choice = "(null)"
	}
	return strings.Join(append(out, filepath.Base(driver), choice, fmt.Sprint(len(rdma), " RDMA")), "\n")
}

// leftovers are the files in the folder of the journals, but for locks.
func (m *machine) leftovers() []string {
	m.t.Helper()
	var left []string
	paths, err := filepath.Glob(filepath.Join(m.opts.DataDir, journalFolder, "*"))
	m.must(err)
	for _, path := range paths {
		if !strings.HasSuffix(path, ".lock") && filepath.Base(path) != "unreadable" {
			left = append(left, filepath.Base(path))
		}
	}
	return left
}

// clean fails the test unless the VF is as it was, with nothing left behind.
func (m *machine) clean(address, before string) {
	m.t.Helper()
	if after := m.state(address); after != before {
		m.t.Errorf("VF %s is not what it was:\n%s\nand not\n%s", address, after, before)
	}
	if left := m.leftovers(); len(left) > 0 {
		m.t.Errorf("left behind: %v", left)
	}
	if added := m.networks.names(); len(added) > 0 {
		m.t.Errorf("CNI plugins still have %v", added)
	}
	if open := m.kernel.Open(); open != 0 {
		m.t.Errorf("%d network namespaces are still open", open)
	}
}

// pod is a pod with a network namespace.
type pod struct {
	*kerneltest.Namespace
	Sandbox device.Sandbox
}

func (m *machine) pod(name string) *pod {
	m.t.Helper()
	ns := m.kernel.NewNamespace()
	ns.AddLink(kernel.Link{Name: "eth0", Type: "ether", Up: true})
	return m.inNamespace(name, ns)
}

func (m *machine) inNamespace(name string, ns *kerneltest.Namespace) *pod {
	m.t.Helper()
	file, err := os.Open(ns.Path())
	m.must(err)
	m.t.Cleanup(func() { _ = file.Close() })
	return &pod{ns, device.Sandbox{
		Pod: device.Pod{Namespace: "team", Name: name, UID: types.UID("uid-" + name)},
		ID:  "sandbox-of-" + name, Path: ns.Path(), Namespace: ns.ID(), Netns: file,
	}}
}

// describe tells what a pod has of the VFs.
func (m *machine) describe(p *pod) string {
	m.t.Helper()
	links, err := p.Links()
	m.must(err)
	var out []string
	for _, l := range links {
		if l.Device == "" {
			continue
		}
		addresses, err := p.Addresses(l.Index)
		m.must(err)
		out = append(out, fmt.Sprintf("%s is %s %s mtu %d up %t %v", l.Name, l.Device, l.HardwareAddress, l.MTU, l.Up, addresses))
	}
	routes, err := p.Routes()
	m.must(err)
	for _, r := range routes {
		out = append(out, "route "+describeRoute(r))
	}
	rdma, err := p.RDMALinks()
	m.must(err)
	for _, l := range rdma {
		out = append(out, "RDMA "+l.Name)
	}
	return strings.Join(out, "\n")
}

func claim(name string) device.Claim {
	return device.Claim{Namespace: "team", Name: name, UID: types.UID("uid-of-" + name)}
}

func grant(name, address string, change func(*v1alpha1.VfConfig)) device.Grant {
	config := v1alpha1.DefaultVfConfig()
	if change != nil {
		change(config)
	}
	config.Default()
	return device.Grant{Claim: claim(name), Request: "nic", Device: "vf", Occupies: []string{"pci-" + address}, Config: config}
}

// networks are CNI networks whose plugin moves the VF, or hands out an address.
type networks struct {
	mu      sync.Mutex
	kernel  kernel.Kernel
	added   map[string]cni.Call
	addErr  error
	delErr  error
	astray  bool // the plugin leaves the VF where it is
	deleted []cni.Call
}

func (n *networks) names() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var names []string
	for name := range n.added {
		names = append(names, name)
	}
	return names
}

func (n *networks) Resolve(_ context.Context, namespace string, ref v1alpha1.NetAttachDef) ([]byte, error) {
	if ref.Name == "missing" {
		return nil, fmt.Errorf("NetworkAttachmentDefinition %s/%s does not exist", namespace, ref.Name)
	}
	return []byte(`{"name":"` + ref.Name + `"}`), nil
}

func (n *networks) ResolveIPAM(name string, _ json.RawMessage) ([]byte, error) {
	return []byte(`{"name":"ipam-` + name + `"}`), nil
}

func (n *networks) Add(_ context.Context, config []byte, call cni.Call) (cni.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.addErr != nil {
		return cni.Result{}, n.addErr
	}
	n.added[call.ContainerID+"/"+call.IfName] = call
	if strings.Contains(string(config), "ipam") {
		return cni.Result{Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.7/24")}, Routes: []kernel.Route{{Destination: netip.MustParsePrefix("10.9.8.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}}}, nil
	}
	if n.astray {
		return cni.Result{Interface: call.IfName}, nil
	}
	return cni.Result{Interface: call.IfName}, n.move(call)
}

func (n *networks) move(call cni.Call) error {
	pod, err := n.kernel.OpenPath(call.NetnsPath)
	if err != nil {
		return err
	}
	links, err := n.kernel.Host().Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Device != call.DeviceID {
			continue
		}
		if err := errors.Join(n.kernel.Host().Rename(l.Index, call.IfName), n.kernel.Host().Move(l.Index, pod)); err != nil {
			return err
		}
	}
	links, err = pod.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if l.Device == call.DeviceID {
			err = errors.Join(pod.SetUp(l.Index), pod.AddAddress(l.Index, netip.MustParsePrefix("10.8.0.3/24")))
		}
	}
	return errors.Join(err, pod.Close())
}

func (n *networks) Del(_ context.Context, _ []byte, call cni.Call) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.deleted = append(n.deleted, call)
	if n.delErr != nil {
		return n.delErr
	}
	delete(n.added, call.ContainerID+"/"+call.IfName)
	return nil
}
