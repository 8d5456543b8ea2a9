package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The flags of an interface that users can change, but for IFF_UP, and those of
// them that are set when nobody has.
const (
	userFlags = unix.IFF_DEBUG | unix.IFF_NOTRAILERS | unix.IFF_NOARP | unix.IFF_DYNAMIC | unix.IFF_MULTICAST |
		unix.IFF_PORTSEL | unix.IFF_AUTOMEDIA | unix.IFF_PROMISC | unix.IFF_ALLMULTI
	cleanFlags = unix.IFF_MULTICAST
)

// Ways to attach an XDP program: the kernel's XDP_FLAGS_SKB_MODE,
// XDP_FLAGS_DRV_MODE and XDP_FLAGS_HW_MODE.
const (
	xdpGeneric  = 1 << 1
	xdpDriver   = 1 << 2
	xdpHardware = 1 << 3
)

// Clean takes away what a user has left on an interface.
func (n *namespace) Clean(index int, names []string) error {
	link, err := n.handle.LinkByIndex(index)
	if err != nil {
		return fmt.Errorf("look at interface %d: %w", index, err)
	}
	attributes := link.Attrs()
	var errs []error
	for _, name := range attributes.AltNames {
		if slices.Contains(names, name) {
			continue
		}
		if err := n.handle.LinkDelAltName(link, name); err != nil {
			errs = append(errs, fmt.Errorf("take the name %q from interface %d: %w", name, index, err))
		}
	}
	if flags := attributes.RawFlags & userFlags; flags != cleanFlags {
		if err := n.change(index, cleanFlags, userFlags); err != nil {
			errs = append(errs, fmt.Errorf("take the flags %#x from interface %d: %w", flags, index, err))
		}
	}
	if attributes.Xdp != nil && attributes.Xdp.Attached {
		if err := n.detachXDP(index, attributes.Xdp.AttachMode); err != nil {
			errs = append(errs, fmt.Errorf("take the XDP program from interface %d: %w", index, err))
		}
	}
	return errors.Join(errs...)
}

// detachXDP detaches the programs of a mode, which is the kernel's
// XDP_ATTACHED_…: 1 driver, 2 generic, 3 hardware, 4 several of them.
func (n *namespace) detachXDP(index int, mode uint32) error {
	ways := map[uint32][]uint32{1: {xdpDriver}, 2: {xdpGeneric}, 3: {xdpHardware}, 4: {xdpGeneric, xdpDriver, xdpHardware}}[mode]
	var errs []error
	for _, way := range ways {
		xdp := nl.NewRtAttr(unix.IFLA_XDP|unix.NLA_F_NESTED, nil)
		xdp.AddRtAttr(nl.IFLA_XDP_FD, binary.NativeEndian.AppendUint32(nil, ^uint32(0)))
		xdp.AddRtAttr(nl.IFLA_XDP_FLAGS, binary.NativeEndian.AppendUint32(nil, way))
		err := n.change(index, 0, 0, xdp)
		if mode == 4 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP)) {
			continue // this is not one of them
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// change sets those flags of an interface that are in the mask, and attributes.
func (n *namespace) change(index int, flags, mask uint32, attributes ...nl.NetlinkRequestData) error {
	request := n.request(unix.RTM_SETLINK, unix.NLM_F_ACK)
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index, message.Flags, message.Change = int32(index), flags, mask
	request.AddData(message)
	for _, attribute := range attributes {
		request.AddData(attribute)
	}
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
