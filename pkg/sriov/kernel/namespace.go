package kernel

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace of the kernel we run on.
type namespace struct {
	id        string
	file      *os.File
	isHost    bool
	askDriver bool
	handle    *netlink.Handle
	// raw is a socket for requests whose answers we read ourselves.
	raw     *nl.NetlinkSocket
	sockets map[int]*nl.SocketHandle
}

// Fd is the descriptor of an open namespace.
func (n *namespace) Fd() uintptr { return n.file.Fd() }

// ID is "device:inode" of the namespace.
func (n *namespace) ID() string { return n.id }

// Close gives the namespace up, except for the host's.
func (n *namespace) Close() error {
	if n.isHost {
		return nil
	}
	return n.close()
}

func (n *namespace) close() error {
	var errs []error
	if n.handle != nil {
		errs = append(errs, n.handle.Close())
	}
	if n.raw != nil {
		errs = append(errs, n.raw.Close())
	}
	return errors.Join(append(errs, n.file.Close())...)
}

// skipStatistics is the kernel's RTEXT_FILTER_SKIP_STATS, from rtnetlink.h.
const skipStatistics = 1 << 3

// Links lists the interfaces.
func (n *namespace) Links() ([]Link, error) {
	messages, err := repeated(func() ([][]byte, error) {
		request := n.request(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		request.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(nl.RTEXT_FILTER_VF|skipStatistics)))
		return request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	links := make([]Link, 0, len(messages))
	for _, message := range messages {
		link, err := parseLink(message)
		if err != nil {
			return nil, fmt.Errorf("read the kernel's list of network interfaces: %w", err)
		}
		links = append(links, link)
	}
	if n.askDriver {
		n.addDevices(links)
	}
	return links, nil
}

func (n *namespace) request(kind, flags int) *nl.NetlinkRequest {
	return &nl.NetlinkRequest{
		NlMsghdr: unix.NlMsghdr{Len: unix.SizeofNlMsghdr, Type: uint16(kind), Flags: uint16(unix.NLM_F_REQUEST | flags)},
		Sockets:  n.sockets,
	}
}

// repeated asks for a list again that was changed while the kernel told it.
func repeated[T any](list func() (T, error)) (T, error) {
	const attempts = 10
	var (
		found T
		err   error
	)
	for range attempts {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return found, err
		}
	}
	return found, err
}

// addDevices asks the drivers which PCI function their interface belongs to,
// the way ethtool -i does. What cannot answer belongs to none.
func (n *namespace) addDevices(links []Link) {
	var socket int
	err := within(n.file, func() (err error) {
		socket, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return
	}
	for i := range links {
		if links[i].Device != "" {
			continue
		}
		info, err := unix.IoctlGetEthtoolDrvinfo(socket, links[i].Name)
		if err == nil {
			links[i].Device = pciAddress(unix.ByteSliceToString(info.Bus_info[:]))
		}
	}
	// Nothing was written to it.
	_ = unix.Close(socket)
}

// byIndex is an interface as netlink wants it named.
func byIndex(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// Rename gives an interface, which must be down, another name.
func (n *namespace) Rename(index int, name string) error {
	if err := n.handle.LinkSetName(byIndex(index), name); err != nil {
		return fmt.Errorf("rename interface %d to %q: %w", index, name, err)
	}
	return nil
}

// SetUp sets an interface up.
func (n *namespace) SetUp(index int) error {
	if err := n.handle.LinkSetUp(byIndex(index)); err != nil {
		return fmt.Errorf("set interface %d up: %w", index, err)
	}
	return nil
}

// SetDown sets an interface down.
func (n *namespace) SetDown(index int) error {
	if err := n.handle.LinkSetDown(byIndex(index)); err != nil {
		return fmt.Errorf("set interface %d down: %w", index, err)
	}
	return nil
}

// SetMTU sets an interface's MTU in bytes.
func (n *namespace) SetMTU(index, mtu int) error {
	if err := n.handle.LinkSetMTU(byIndex(index), mtu); err != nil {
		return fmt.Errorf("set the MTU of interface %d to %d: %w", index, mtu, err)
	}
	return nil
}

// SetHardwareAddress sets an interface's own address.
func (n *namespace) SetHardwareAddress(index int, address net.HardwareAddr) error {
	if err := n.handle.LinkSetHardwareAddr(byIndex(index), address); err != nil {
		return fmt.Errorf("set the hardware address of interface %d to %s: %w", index, address, err)
	}
	return nil
}

// Move moves an interface to another namespace.
func (n *namespace) Move(index int, to Namespace) error {
	fd, err := descriptor(to)
	if err != nil {
		return fmt.Errorf("move interface %d: %w", index, err)
	}
	if err := n.handle.LinkSetNsFd(byIndex(index), fd); err != nil {
		return fmt.Errorf("move interface %d to another network namespace: %w", index, err)
	}
	return nil
}

func descriptor(n Namespace) (int, error) {
	open, ok := n.(interface{ Fd() uintptr })
	if !ok {
		return 0, fmt.Errorf("network namespace %s is not one of this kernel (%T)", n.ID(), n)
	}
	return int(open.Fd()), nil
}
