package nickernel

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// switchMTU lets every MTU through that a ConnectX-7 can be set to.
const switchMTU = 9978

// switchEnd is the name of the other end of a function's pair.
func switchEnd(netdev string) string { return netdev + "p" }

func switchName(vlan int) string { return fmt.Sprintf("simfabric%d", vlan) }

// seen are the interfaces of the host's network namespace at one moment.
type seen struct {
	byName  map[string]netlink.Link
	byIndex map[int]netlink.Link
}

func (k *Kernel) look() (seen, error) {
	links, err := list(k.host.handle)
	if err != nil {
		return seen{}, err
	}
	s := seen{map[string]netlink.Link{}, map[int]netlink.Link{}}
	for _, link := range links {
		s.byName[link.Attrs().Name] = link
		s.byIndex[link.Attrs().Index] = link
	}
	return s, nil
}

// make makes what is missing and mends what differs. It changes nothing that
// is as it should be.
func (k *Kernel) make(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, err := k.look()
	if err != nil {
		return err
	}
	var errs []error
	for _, port := range k.nics {
		if err := k.makePort(ctx, now, port); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (k *Kernel) makePort(ctx context.Context, now seen, port simulated.NIC) error {
	if err := k.makeFunction(ctx, now, port, settings{}, true); err != nil {
		return err
	}
	linkUp := true // a port that was just made is up
	if link := now.byName[port.Netdev]; link != nil {
		linkUp = link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
	}
	for _, vf := range port.VFs {
		settings, err := k.firmware.load(vf.Address)
		if err != nil {
			return err
		}
		up := settings.LinkState == linkEnable || settings.LinkState == linkAuto && linkUp
		if err := k.makeFunction(ctx, now, vf, settings, up); err != nil {
			return err
		}
	}
	return nil
}

// makeFunction makes the pair of a port or a VF, unless it is there, and puts
// its other end where the settings want it.
func (k *Kernel) makeFunction(ctx context.Context, now seen, nic simulated.NIC, settings settings, up bool) error {
	end := now.byName[switchEnd(nic.Netdev)]
	if end == nil {
		made, err := k.makePair(nic, settings)
		if err != nil {
			return fmt.Errorf("make the simulated interface %s: %w", nic.Netdev, err)
		}
		klog.FromContext(ctx).V(2).Info("Made a simulated interface", "interface", nic.Netdev, "device", nic.Address)
		end = made
	} else if end.Attrs().Group != Group {
		return fmt.Errorf("make the simulated interface %s: there is an interface %s that is not of the simulation: "+
			"remove it, or run the simulation on another machine", nic.Netdev, end.Attrs().Name)
	}
	if err := k.nameplate(now, nic, end); err != nil {
		return err
	}
	master, err := k.makeSwitch(now, settings.VLAN)
	if err != nil {
		return err
	}
	if end.Attrs().MasterIndex != master {
		if err := k.host.handle.LinkSetMasterByIndex(end, master); err != nil {
			return fmt.Errorf("plug the simulated interface %s into %s: %w", nic.Netdev, switchName(settings.VLAN), err)
		}
	}
	return k.setUp(nic, end, up)
}

// setUp gives a function a link, or takes it away. The port itself may have
// been unplugged by an administrator, and stays so.
func (k *Kernel) setUp(nic simulated.NIC, end netlink.Link, up bool) error {
	isUp := end.Attrs().Flags&net.FlagUp != 0
	if isUp == up || k.places[nic.Address].vf < 0 {
		return nil
	}
	set := k.host.handle.LinkSetDown
	if up {
		set = k.host.handle.LinkSetUp
	}
	if err := set(end); err != nil {
		return fmt.Errorf("set the link of the simulated interface %s: %w", nic.Netdev, err)
	}
	return nil
}

// makePair makes both ends, and returns the one on the switch.
func (k *Kernel) makePair(nic simulated.NIC, settings settings) (netlink.Link, error) {
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.Group, attributes.MTU = switchEnd(nic.Netdev), Group, switchMTU
	pair := netlink.NewVeth(attributes)
	pair.PeerName, pair.PeerMTU = nic.Netdev, 1500
	if pair.PeerHardwareAddr = nic.HardwareAddress; nic.InfiniBand {
		// A pair has Ethernet addresses only; the long one is shown instead.
		pair.PeerHardwareAddr = append(net.HardwareAddr{2}, nic.GUID[3:]...)
	}
	if mac, err := net.ParseMAC(settings.MAC); err == nil {
		pair.PeerHardwareAddr = mac
	}
	// Another plugin may make it at the same time.
	if err := k.host.handle.LinkAdd(pair); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	end, err := k.host.handle.LinkByName(attributes.Name)
	if err != nil {
		return nil, fmt.Errorf("an interface called %s or %s is there, and is not of the simulation: %w", nic.Netdev, attributes.Name, err)
	}
	if end.Attrs().Group != Group {
		return nil, fmt.Errorf("an interface called %s is there, and is not of the simulation", attributes.Name)
	}
	k.quiet(end)
	if k.places[nic.Address].vf >= 0 {
		return end, nil
	}
	// Ports are up from the beginning, as their driver sets them.
	if err := k.host.handle.LinkSetUp(end); err != nil {
		return nil, err
	}
	peer, err := k.host.handle.LinkByName(nic.Netdev)
	if err != nil {
		return nil, err
	}
	return end, k.host.handle.LinkSetUp(peer)
}

// nameplate writes the PCI address onto an interface that has none: it was just
// made, or whoever made it was killed before.
func (k *Kernel) nameplate(now seen, nic simulated.NIC, end netlink.Link) error {
	// While the interface is in a pod, its index is that of another namespace.
	if end.Attrs().NetNsID >= 0 {
		return nil
	}
	peer := now.byIndex[end.Attrs().ParentIndex]
	if peer == nil {
		found, err := k.host.handle.LinkByIndex(end.Attrs().ParentIndex)
		if err != nil {
			return nil //nolint:nilerr // it has gone to a pod, or is gone: both are told by an event
		}
		peer = found
	}
	if addressOf(peer) == nic.Address {
		return nil
	}
	if err := k.host.handle.LinkSetAlias(peer, aliasPrefix+nic.Address); err != nil && !gone(err) {
		return fmt.Errorf("note the PCI address of the simulated interface %s: %w", nic.Netdev, err)
	}
	return nil
}

// makeSwitch returns the index of the switch of a VLAN.
func (k *Kernel) makeSwitch(now seen, vlan int) (int, error) {
	name := switchName(vlan)
	if found := now.byName[name]; found != nil {
		return found.Attrs().Index, nil
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.Group = name, Group
	bridge := &netlink.Bridge{LinkAttrs: attributes, MulticastSnooping: ptr.To(false)}
	if err := k.host.handle.LinkAdd(bridge); err != nil && !errors.Is(err, unix.EEXIST) {
		return 0, fmt.Errorf("make the simulated switch %s: %w", name, err)
	}
	made, err := k.host.handle.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find the simulated switch %s: %w", name, err)
	}
	k.quiet(made)
	if err := k.host.handle.LinkSetUp(made); err != nil {
		return 0, fmt.Errorf("set the simulated switch %s up: %w", name, err)
	}
	now.byName[name] = made
	return made.Attrs().Index, nil
}

// quiet keeps the host from having an IPv6 address on an interface and talking
// over it. Where there is no IPv6, there is nothing to keep.
func (k *Kernel) quiet(link netlink.Link) {
	_ = k.host.handle.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE)
}

// setVF changes settings of a VF, one after the other.
func (k *Kernel) setVF(vf simulated.NIC, number int, change kernel.VFSettings) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, err := k.firmware.load(vf.Address)
	if err != nil {
		return err
	}
	after, refused := before.with(change)
	if refused != nil {
		refused = fmt.Errorf("set VF %d: %w", number, refused)
	}
	if err := k.firmware.save(vf.Address, after); err != nil {
		return errors.Join(refused, err)
	}
	now, err := k.look()
	if err != nil {
		return errors.Join(refused, err)
	}
	// Only what is there changes now; what is missing will be made with the
	// settings.
	if now.byName[switchEnd(vf.Netdev)] == nil {
		return refused
	}
	return errors.Join(refused, k.makePort(context.Background(), now, k.places[vf.Address].port))
}

// gone tells whether an interface has gone meanwhile.
func gone(err error) bool { return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) }
