package sriov

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/cni"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
)

// move brings one VF into one pod's network namespace.
type move struct {
	family *Family
	fn     function
	j      *vfstate.Journal
	config *v1alpha1.VfConfig
	pod    kernel.Namespace
	place  *vfstate.Place
	// link is the VF's interface on the host. It is nil where none is moved.
	link *kernel.Link
}

// plan finds out what has to be moved and how it is to be called. It changes
// nothing.
func (m *move) plan(ctx context.Context, sandbox device.Sandbox) error {
	f, host := m.family, m.family.kernel.Host()
	m.place = &vfstate.Place{Sandbox: sandbox, CNI: len(m.j.Network) > 0 || len(m.j.IPAM) > 0}
	link, err := linkOf(host, m.fn.address)
	if err != nil {
		return err
	}
	if m.config.Mode == v1alpha1.VfModeNetdevice {
		if link == nil {
			if link, err = f.awaitLink(ctx, host, m.fn.address); err != nil {
				return err
			}
		}
		if link == nil {
			return fmt.Errorf("VF %s shows no network interface in the host's network namespace: its driver was unbound, or something else has moved the interface", m.fn.address)
		}
		m.link = link
		if m.place.Interface, err = m.interfaceName(); err != nil {
			return err
		}
	}
	if m.link != nil {
		link = nil
	}
	rdma := f.rdma(m.fn.address, link)
	if rdma.name == "" {
		if m.config.Mode == v1alpha1.VfModeRDMA {
			return fmt.Errorf("VF %s has no RDMA device in the host's network namespace, which mode %s needs: its RDMA driver was unloaded, or something else has moved the device", m.fn.address, m.config.Mode)
		}
		return nil
	}
	exclusive, err := host.RDMAExclusive()
	if err != nil {
		return fmt.Errorf("find out whether RDMA devices belong to network namespaces: %w", err)
	}
	if exclusive {
		m.place.RDMA = rdma.name
		m.place.RDMAIndex, err = indexOfRDMA(host, rdma.name)
	}
	return err
}

// interfaceName chooses the interface's name in the pod.
func (m *move) interfaceName() (string, error) {
	links, err := m.pod.Links()
	if err != nil {
		return "", fmt.Errorf("list the network interfaces of pod %s: %w", m.place.Sandbox.Pod, err)
	}
	if name := m.config.IfName; name != "" {
		if nameTaken(name, m.fn.address, links) {
			return "", m.nameClash(name, syscall.EEXIST)
		}
		return name, nil
	}
	reserved, err := m.reservedNames()
	if err != nil {
		return "", err
	}
	for n := 1; ; n++ {
		name := fmt.Sprintf("net%d", n)
		if !nameTaken(name, m.fn.address, links) && !slices.Contains(reserved, name) {
			return name, nil
		}
	}
}

func (m *move) nameClash(name string, err error) error {
	return fmt.Errorf("ifName: pod %s already has an interface called %s, so that of VF %s cannot be called that: choose another name: %w", m.place.Sandbox.Pod, name, m.fn.address, err)
}

// reservedNames are those that other VFs of the claim ask for by name.
func (m *move) reservedNames() ([]string, error) {
	addresses, err := m.family.journal.List()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, a := range addresses {
		if a == m.fn.address {
			continue
		}
		j, err := m.family.journal.Load(a)
		if err != nil || j == nil || j.Claim.UID != m.j.Claim.UID || len(j.Config) == 0 {
			continue // what cannot be read says so when its own turn comes
		}
		if config, err := configOf(j, device.Grant{}); err == nil && config.IfName != "" {
			names = append(names, config.IfName)
		}
	}
	return names, nil
}

// run does it, and returns what the VF has become in the pod.
func (m *move) run(ctx context.Context) (device.Attachment, error) {
	var attachment device.Attachment
	if m.link != nil {
		link, err := m.moveLink(ctx)
		if err != nil {
			return device.Attachment{}, err
		}
		if attachment, err = describeLink(m.pod, link); err != nil {
			return device.Attachment{}, err
		}
	}
	if m.place.RDMA != "" {
		if err := moveRDMA(m.place, m.family.kernel.Host(), m.pod); err != nil {
			return device.Attachment{}, err
		}
		if there, err := hasRDMA(m.pod, m.place); err != nil || !there {
			return device.Attachment{}, errors.Join(err, fmt.Errorf("RDMA device %s of VF %s is not in the network namespace of pod %s", m.place.RDMA, m.fn.address, m.place.Sandbox.Pod))
		}
		if err := m.family.at(faultpoint.VFRDMAMoved); err != nil {
			return device.Attachment{}, err
		}
	}
	return attachment, nil
}

func (m *move) moveLink(ctx context.Context) (*kernel.Link, error) {
	if len(m.j.Network) > 0 {
		return m.runPlugins(ctx)
	}
	link, err := m.carry()
	if err != nil {
		return nil, err
	}
	return link, m.configure(ctx, link)
}

// runPlugins lets the CNI plugins of a NetworkAttachmentDefinition do it.
func (m *move) runPlugins(ctx context.Context) (*kernel.Link, error) {
	result, err := m.family.opts.Networks.Add(ctx, m.j.Network, callOf(m.fn.address, m.j, m.place))
	if err != nil {
		return nil, fmt.Errorf("VF %s: %w", m.fn.address, err)
	}
	if err := m.family.at(faultpoint.VFNetworkAdded); err != nil {
		return nil, err
	}
	link, err := linkOf(m.pod, m.fn.address)
	if err != nil {
		return nil, err
	}
	if link == nil {
		return nil, fmt.Errorf("netAttachDef: its CNI plugins said that they have made interface %q, but the interface of VF %s is not in pod %s: use a plugin that takes deviceID, such as sriov or host-device", result.Interface, m.fn.address, m.place.Sandbox.Pod)
	}
	return link, nil
}

// carry moves the interface and gives it its name there. Between the two it has
// a name that is free on both sides.
func (m *move) carry() (*kernel.Link, error) {
	f, host := m.family, m.family.kernel.Host()
	hostLinks, err := host.Links()
	if err != nil {
		return nil, fmt.Errorf("list the host's network interfaces: %w", err)
	}
	podLinks, err := m.pod.Links()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces of pod %s: %w", m.place.Sandbox.Pod, err)
	}
	if m.link.Up {
		if err := host.SetDown(m.link.Index); err != nil {
			return nil, fmt.Errorf("set interface %s of VF %s down: %w", m.link.Name, m.fn.address, err)
		}
		m.link.Up = false
	}
	if err := f.rename(host, m.link, apartName(m.fn.address, hostLinks, podLinks)); err != nil {
		return nil, err
	}
	if err := f.at(faultpoint.VFNamedApart); err != nil {
		return nil, err
	}
	if err := host.Move(m.link.Index, m.pod); err != nil {
		return nil, fmt.Errorf("move interface %s of VF %s into the network namespace of pod %s: %w", m.link.Name, m.fn.address, m.place.Sandbox.Pod, err)
	}
	if err := f.at(faultpoint.VFMoved); err != nil {
		return nil, err
	}
	link, err := linkOf(m.pod, m.fn.address)
	if err != nil {
		return nil, err
	}
	if link == nil {
		return nil, fmt.Errorf("the interface of VF %s was moved into the network namespace of pod %s and is not there", m.fn.address, m.place.Sandbox.Pod)
	}
	return link, m.nameLink(link)
}

// nameLink gives the interface its name in the pod. Where the claim leaves the
// choice and another VF was faster, the next one is taken.
func (m *move) nameLink(link *kernel.Link) error {
	const attempts = 100 // nobody is that fast
	for n := 1; link.Name != m.place.Interface; n++ {
		err := m.family.rename(m.pod, link, m.place.Interface)
		switch {
		case err == nil:
		case !errors.Is(err, syscall.EEXIST):
			return err
		case m.config.IfName != "" || n == attempts:
			return m.nameClash(m.place.Interface, err)
		default:
			if m.place.Interface, err = m.interfaceName(); err != nil {
				return err
			}
			// CNI plugins are told this name, and must be told it again.
			if err := m.family.journal.Save(m.fn.address, m.j); err != nil {
				return err
			}
		}
	}
	return m.family.at(faultpoint.VFNamed)
}

// configure gives the interface, which is in the pod, what the claim asks for.
func (m *move) configure(ctx context.Context, link *kernel.Link) error {
	if err := m.configureLink(link); err != nil {
		return err
	}
	if err := m.pod.SetUp(link.Index); err != nil {
		return fmt.Errorf("set interface %s of VF %s up in pod %s: %w", link.Name, m.fn.address, m.place.Sandbox.Pod, err)
	}
	addresses, routes, err := m.layer3(ctx)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		if err := m.pod.AddAddress(link.Index, address); err != nil {
			return fmt.Errorf("addresses: add %s to interface %s of VF %s in pod %s: %w", address, link.Name, m.fn.address, m.place.Sandbox.Pod, err)
		}
	}
	if err := m.family.at(faultpoint.VFAddressed); err != nil {
		return err
	}
	for _, route := range routes {
		if err := m.pod.AddRoute(link.Index, route); err != nil {
			return fmt.Errorf("routes: add %s over interface %s of VF %s in pod %s: %w", describeRoute(route), link.Name, m.fn.address, m.place.Sandbox.Pod, err)
		}
	}
	if err := m.family.at(faultpoint.VFRouted); err != nil {
		return err
	}
	m.announce(ctx, link, addresses)
	return nil
}

// configureLink makes sure of the MTU and the MAC. The preparation has set them
// already, but a pod that had the VF before can have changed them.
func (m *move) configureLink(link *kernel.Link) error {
	if want := m.config.MTU; want != nil && link.MTU != *want {
		if err := m.pod.SetMTU(link.Index, *want); err != nil {
			return fmt.Errorf("mtu: set %d on interface %s of VF %s: %w", *want, link.Name, m.fn.address, err)
		}
	}
	want, err := net.ParseMAC(m.config.MAC)
	if err != nil || hasAddress(link, want) {
		return nil //nolint:nilerr // none is wanted
	}
	if err := m.pod.SetHardwareAddress(link.Index, want); err != nil {
		return fmt.Errorf("mac: set %s on interface %s of VF %s, which has %s: %w", want, link.Name, m.fn.address, link.HardwareAddress, err)
	}
	link.HardwareAddress = want
	return nil
}

// layer3 returns the addresses and routes of the claim, or of its IPAM plugin.
func (m *move) layer3(ctx context.Context) (addresses []netip.Prefix, routes []kernel.Route, err error) {
	if len(m.j.IPAM) > 0 {
		result, err := m.family.opts.Networks.Add(ctx, m.j.IPAM, callOf(m.fn.address, m.j, m.place))
		if err != nil {
			return nil, nil, fmt.Errorf("ipam: VF %s: %w", m.fn.address, err)
		}
		if err := m.family.at(faultpoint.VFIPAMAdded); err != nil {
			return nil, nil, err
		}
		addresses, routes = result.Addresses, result.Routes
	}
	for _, text := range m.config.Addresses {
		address, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, nil, fmt.Errorf("addresses: %w", err)
		}
		addresses = append(addresses, address)
	}
	for _, r := range m.config.Routes {
		route := kernel.Route{Metric: r.Metric}
		if route.Destination, err = netip.ParsePrefix(r.Destination); err != nil {
			return nil, nil, fmt.Errorf("routes: destination: %w", err)
		}
		if r.Gateway != "" {
			if route.Gateway, err = netip.ParseAddr(r.Gateway); err != nil {
				return nil, nil, fmt.Errorf("routes: gateway: %w", err)
			}
		}
		routes = append(routes, route)
	}
	return addresses, routes, nil
}

func describeRoute(r kernel.Route) string {
	if !r.Gateway.IsValid() {
		return r.Destination.String()
	}
	return fmt.Sprintf("%s by %s", r.Destination, r.Gateway)
}

// callOf returns what CNI plugins are told of a VF and a place.
func callOf(a fmt.Stringer, j *vfstate.Journal, place *vfstate.Place) cni.Call {
	return cni.Call{
		ContainerID: place.Sandbox.ID, NetnsPath: place.Sandbox.Path, IfName: place.Interface,
		DeviceID: a.String(), MAC: j.Applied.HardwareAddress, Pod: place.Sandbox.Pod,
	}
}

// describeLink tells what an interface in a pod has become. Link-local addresses
// are left out: every interface has them.
func describeLink(pod kernel.Namespace, link *kernel.Link) (device.Attachment, error) {
	addresses, err := pod.Addresses(link.Index)
	if err != nil {
		return device.Attachment{}, fmt.Errorf("list the addresses of interface %s: %w", link.Name, err)
	}
	attachment := device.Attachment{Interface: link.Name, HardwareAddress: link.HardwareAddress.String()}
	for _, address := range addresses {
		if !address.Addr().IsLinkLocalUnicast() {
			attachment.IPs = append(attachment.IPs, address.String())
		}
	}
	return attachment, nil
}

// deleteNetwork undoes what CNI plugins have done at the journal's place.
func (f *Family) deleteNetwork(ctx context.Context, a fmt.Stringer, j *vfstate.Journal) error {
	if j.Place == nil || !j.Place.CNI {
		return nil
	}
	config := j.Network
	if len(config) == 0 {
		config = j.IPAM
	}
	if err := f.opts.Networks.Del(ctx, config, callOf(a, j, j.Place)); err != nil {
		klog.FromContext(ctx).Error(err, "CNI plugins did not give back what they have for a VF, this is tried again", "device", a, "pod", j.Place.Sandbox.Pod)
		return fmt.Errorf("give back what CNI plugins have for VF %s in pod %s: %w", a, j.Place.Sandbox.Pod, err)
	}
	return nil
}
