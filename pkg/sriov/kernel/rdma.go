package kernel

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errNoRDMA means that the kernel has no RDMA, or cannot speak of it.
var errNoRDMA = errors.New("this kernel has no RDMA devices: load the NIC's RDMA driver, such as mlx5_ib")

// withRDMA calls do with a socket for RDMA. The socket is opened each time,
// because the kernel has none before a driver with RDMA is loaded.
func (n *namespace) withRDMA(do func(*netlink.Handle) error) (err error) {
	var handle *netlink.Handle
	err = within(n.file, func() (err error) {
		handle, err = newHandle(unix.NETLINK_RDMA)
		return err
	})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return errNoRDMA
	}
	if err != nil {
		return fmt.Errorf("open a netlink socket for RDMA: %w", err)
	}
	defer func() { err = errors.Join(err, handle.Close()) }()
	return do(handle)
}

// RDMALinks lists the RDMA devices that can be seen in the namespace. A kernel
// without RDMA has none.
func (n *namespace) RDMALinks() ([]RDMALink, error) {
	var found []*netlink.RdmaLink
	err := n.withRDMA(func(handle *netlink.Handle) (err error) {
		found, err = repeated(handle.RdmaLinkList)
		return err
	})
	if isUnknown(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the RDMA devices: %w", err)
	}
	var links []RDMALink
	for _, link := range found {
		links = append(links, RDMALink{Index: link.Attrs.Index, Name: link.Attrs.Name, NodeGUID: toGUID(link.Attrs.NodeGuid)})
	}
	return links, nil
}

// toGUID turns the bytes around, which the library gives in the order of
// little-endian machines.
func toGUID(reversed string) string {
	guid, err := net.ParseMAC(reversed)
	if err != nil || IsZero(guid) {
		return ""
	}
	slices.Reverse(guid)
	return guid.String()
}

// IsZero tells whether an address or GUID is missing or consists of zeros.
func IsZero(address net.HardwareAddr) bool {
	return !slices.ContainsFunc(address, func(b byte) bool { return b != 0 })
}

// RDMAExclusive tells whether each RDMA device belongs to one network
// namespace. A kernel that does not know shares them.
func (n *namespace) RDMAExclusive() (bool, error) {
	var mode string
	err := n.withRDMA(func(handle *netlink.Handle) (err error) {
		mode, err = handle.RdmaSystemGetNetnsMode()
		return err
	})
	if isUnknown(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask whether RDMA devices belong to network namespaces: %w", err)
	}
	return mode == "exclusive", nil
}

// isUnknown tells whether the kernel has no RDMA, or is too old to be asked.
func isUnknown(err error) bool {
	return errors.Is(err, errNoRDMA) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// MoveRDMA moves an RDMA device to another namespace.
func (n *namespace) MoveRDMA(name string, to Namespace) error {
	fd, err := descriptor(to)
	if err == nil {
		err = n.withRDMA(func(handle *netlink.Handle) error {
			link, err := repeated(func() (*netlink.RdmaLink, error) { return handle.RdmaLinkByName(name) })
			if err != nil {
				return err
			}
			return handle.RdmaLinkSetNsFd(link, uint32(fd))
		})
	}
	if err != nil {
		return fmt.Errorf("move RDMA device %s to another network namespace: %w", name, err)
	}
	return nil
}

// RenameRDMA gives an RDMA device another name.
func (n *namespace) RenameRDMA(name, to string) error {
	err := n.withRDMA(func(handle *netlink.Handle) error {
		link, err := repeated(func() (*netlink.RdmaLink, error) { return handle.RdmaLinkByName(name) })
		if err != nil {
			return err
		}
		return handle.RdmaLinkSetName(link, to)
	})
	if err != nil {
		return fmt.Errorf("rename RDMA device %s to %s: %w", name, to, err)
	}
	return nil
}
