package kernel

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// Kernel opens network namespaces.
type Kernel interface {
	// Host returns the host's network namespace. Closing it does nothing.
	Host() Namespace
	// Open opens a network namespace by a descriptor, which it does not keep.
	Open(netns *os.File) (Namespace, error)
	// OpenPath opens a network namespace by the path it is bound to. The
	// error is fs.ErrNotExist if there is none any more, whether the path is
	// gone or is a file to which no namespace is bound.
	OpenPath(path string) (Namespace, error)
}

// Namespace is one network namespace. An error of the kernel is a
// syscall.Errno in the chain, with the kernel's own words where it gives some.
type Namespace interface {
	io.Closer

	// ID is "device:inode" of the namespace.
	ID() string

	// Links lists the interfaces.
	Links() ([]Link, error)
	// Rename gives an interface, which must be down, another name.
	Rename(index int, name string) error
	SetUp(index int) error
	SetDown(index int) error
	SetMTU(index, mtu int) error
	SetHardwareAddress(index int, address net.HardwareAddr) error
	// Move moves an interface to another namespace, where it is down. It keeps
	// its name, and the error is EEXIST if that is taken there. Its index may
	// change.
	Move(index int, to Namespace) error
	// Clean takes from an interface, which must be down, what whoever used it
	// can have left: names besides its own, but for those given, flags such as
	// the promiscuous mode, and XDP programs. These survive a move.
	Clean(index int, names []string) error

	Addresses(index int) ([]netip.Prefix, error)
	// AddAddress adds an address; one that is there already is fine. IPv6
	// addresses are usable at once, without duplicate address detection.
	AddAddress(index int, address netip.Prefix) error
	// AddRoute adds or replaces a route over an interface, which must be up.
	AddRoute(index int, route Route) error

	// AnnounceAddresses tells the neighbours of an Ethernet interface, which must be
	// up, that it has these addresses. What goes out before its link works is
	// lost.
	AnnounceAddresses(index int, addresses []netip.Prefix) error

	// SetVF changes settings of a VF through its PF. What is nil is left as
	// it is. Each setting is a request of its own; the error names the one
	// that the kernel refused.
	SetVF(pf, vf int, settings VFSettings) error

	// RDMALinks lists the RDMA devices that can be seen in the namespace.
	RDMALinks() ([]RDMALink, error)
	// RDMAExclusive tells whether each RDMA device belongs to one network
	// namespace, instead of being shared by all.
	RDMAExclusive() (bool, error)
	// MoveRDMA moves an RDMA device to another namespace. That works in
	// exclusive mode only.
	MoveRDMA(name string, to Namespace) error
	// RenameRDMA gives an RDMA device another name, which no other one may have
	// in any namespace.
	RenameRDMA(name, to string) error

	// Routes lists the routes of the main table, to find interfaces that the
	// host itself needs.
	Routes() ([]Route, error)

	// EswitchModes tells, by PCI address, whether the switch between a NIC's
	// VFs is "legacy" or "switchdev", for the NICs whose driver knows.
	EswitchModes() (map[string]string, error)

	// Watch calls changed once it listens, and then after each change of an
	// interface, and of a device that the kernel announces, until ctx is done.
	// It returns an error if it cannot watch, or not any more.
	Watch(ctx context.Context, changed func()) error
}

// Link is a network interface.
type Link struct {
	Index int
	Name  string
	// AltNames are further names, by which it can be found too, and which
	// nothing else in its namespace can have.
	AltNames []string
	// Device is the PCI address of the function that the interface belongs
	// to, such as "0000:18:00.1", and empty for others.
	Device string
	// Port tells the interfaces of one function apart where it has several
	// (switchdev representors have their PF's address): it is the kernel's
	// phys_port_name, empty for VFs, and empty or a plain "p0", "p1"… for PFs.
	Port string
	// Type is "ether", "infiniband", or another name of the kernel's.
	Type            string
	HardwareAddress net.HardwareAddr
	// MTU is in bytes.
	MTU int
	// Up is whether the interface was set up, and Carrier whether its link
	// works too.
	Up, Carrier bool
	// VFs are the settings of the VFs of a PF, by their number.
	VFs map[int]VFSettings
	// Master is the index of the bond, bridge or team that the interface is a
	// port of, and Lower that of the interface below it, such as that below a
	// VLAN. Both are 0 for none.
	Master, Lower int
}

// IsRepresentor tells whether the interface stands for a VF, or another part of
// the NIC, on the switch of a PF in switchdev mode.
func (l Link) IsRepresentor() bool {
	number, isPort := strings.CutPrefix(l.Port, "p")
	if l.Port == "" {
		return false
	}
	_, err := strconv.ParseUint(number, 10, 16)
	return !isPort || err != nil
}

// VFSettings are those of a VF that only its PF can change. In an answer of
// the kernel, what it does not tell is nil.
type VFSettings struct {
	HardwareAddress net.HardwareAddr
	VLAN            *VLAN
	SpoofCheck      *bool
	Trust           *bool
	// LinkState is "auto", "enable" or "disable".
	LinkState *string
	// TxRate is in Mbit/s, 0 for no limit.
	TxRate *TxRate
	// NodeGUID and PortGUID are those of an InfiniBand VF. Not every kernel
	// tells them.
	NodeGUID, PortGUID net.HardwareAddr
}

// VLAN is the VLAN that a PF puts a VF into. ID 0 means none.
type VLAN struct {
	ID, QoS int
	// Protocol is "802.1Q" or "802.1ad".
	Protocol string
}

// TxRate is what a VF may send, in Mbit/s. 0 means no limit.
type TxRate struct{ Min, Max int }

// Route is a route over one interface.
type Route struct {
	// Link is the index of the interface; for AddRoute it is ignored.
	Link int
	// Destination is 0.0.0.0/0 or ::/0 for a default route.
	Destination netip.Prefix
	// Gateway is invalid for a directly connected network.
	Gateway netip.Addr
	// Source is the preferred source address, invalid for none.
	Source netip.Addr
	Metric int
}

// RDMALink is an RDMA device.
type RDMALink struct {
	Index uint32
	// Name is such as "mlx5_0".
	Name string
	// NodeGUID is in the textual form "a0:88:c2:03:00:12:34:56", and empty
	// when it is zero.
	NodeGUID string
}
