package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Types of interfaces: the kernel's ARPHRD_ETHER and ARPHRD_INFINIBAND.
const (
	typeEther      = "ether"
	typeInfiniBand = "infiniband"
)

// attributeType masks the flags out of an attribute's type.
const attributeType = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

var errShort = errors.New("a message is shorter than it says")

// parseLink reads an RTM_NEWLINK message, without its netlink header.
func parseLink(message []byte) (Link, error) {
	if len(message) < unix.SizeofIfInfomsg {
		return Link{}, errShort
	}
	native := binary.NativeEndian
	link := Link{
		Type:  linkType(native.Uint16(message[2:])),
		Index: int(int32(native.Uint32(message[4:]))),
	}
	flags := native.Uint32(message[8:])
	link.Up, link.Carrier = flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0

	var bus, device string
	var (
		vfs []byte
		// The index of the interface below means nothing in this namespace.
		elsewhere bool
	)
	err := eachAttribute(message[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) error {
		switch kind {
		case unix.IFLA_IFNAME:
			link.Name = unix.ByteSliceToString(value)
		case unix.IFLA_PROP_LIST:
			return eachAttribute(value, func(kind uint16, value []byte) error {
				if kind == unix.IFLA_ALT_IFNAME {
					link.AltNames = append(link.AltNames, unix.ByteSliceToString(value))
				}
				return nil
			})
		case unix.IFLA_ADDRESS:
			link.HardwareAddress = net.HardwareAddr(value)
		case unix.IFLA_MTU:
			link.MTU = number(value)
		case unix.IFLA_MASTER:
			link.Master = number(value)
		case unix.IFLA_LINK:
			link.Lower = number(value)
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_PHYS_PORT_NAME:
			link.Port = unix.ByteSliceToString(value)
		case unix.IFLA_PARENT_DEV_NAME:
			device = unix.ByteSliceToString(value)
		case unix.IFLA_PARENT_DEV_BUS_NAME:
			bus = unix.ByteSliceToString(value)
		case unix.IFLA_VFINFO_LIST:
			vfs = value
		}
		return nil
	})
	if err != nil {
		return Link{}, fmt.Errorf("interface %d: %w", link.Index, err)
	}
	if elsewhere {
		link.Lower = 0
	}
	if bus == "pci" {
		link.Device = pciAddress(device)
	}
	if vfs != nil {
		if link.VFs, err = parseVFs(vfs, link.Type); err != nil {
			return Link{}, fmt.Errorf("VFs of interface %s: %w", link.Name, err)
		}
	}
	return link, nil
}

// linkType names the types that matter here, and others by their number.
func linkType(arphrd uint16) string {
	switch arphrd {
	case unix.ARPHRD_ETHER:
		return typeEther
	case unix.ARPHRD_INFINIBAND:
		return typeInfiniBand
	case unix.ARPHRD_LOOPBACK:
		return "loopback"
	default:
		return fmt.Sprintf("type%d", arphrd)
	}
}

// pciAddress returns an address as sysfs writes it, and nothing for what is
// none.
func pciAddress(s string) string {
	address, err := topology.ParseAddress(s)
	if err != nil {
		return ""
	}
	return address.String()
}

func parseVFs(list []byte, linkType string) (map[int]VFSettings, error) {
	vfs := make(map[int]VFSettings)
	err := eachAttribute(list, func(_ uint16, info []byte) error {
		number, settings := -1, VFSettings{}
		err := eachAttribute(info, func(kind uint16, value []byte) error {
			if len(value) < 8 {
				return errShort
			}
			if kind != nl.IFLA_VF_STATS && kind != nl.IFLA_VF_VLAN_LIST {
				// Each of these structures begins with the VF's number.
				number = int(binary.NativeEndian.Uint32(value))
			}
			return settings.read(kind, value, linkType)
		})
		if err == nil && number >= 0 {
			vfs[number] = settings
		}
		return err
	})
	return vfs, err
}

// read reads one of the structures ifla_vf_… of the kernel's if_link.h, which
// is 8 bytes long at least.
func (s *VFSettings) read(kind uint16, value []byte, linkType string) error {
	native := binary.NativeEndian
	word := native.Uint32(value[4:])
	switch kind {
	case nl.IFLA_VF_MAC:
		// The NICs of InfiniBand do not tell it.
		if linkType == typeEther && len(value) >= 10 {
			s.HardwareAddress = net.HardwareAddr(value[4:10])
		}
	case nl.IFLA_VF_VLAN:
		if len(value) < 12 {
			return errShort
		}
		if s.VLAN == nil {
			s.VLAN = &VLAN{ID: int(word), QoS: int(native.Uint32(value[8:])), Protocol: protocol8021Q}
		}
	case nl.IFLA_VF_VLAN_LIST:
		return eachAttribute(value, func(_ uint16, value []byte) error { return s.readVLAN(value) })
	case nl.IFLA_VF_SPOOFCHK:
		s.SpoofCheck = truth(word)
	case nl.IFLA_VF_TRUST:
		s.Trust = truth(word)
	case nl.IFLA_VF_LINK_STATE:
		if states := linkStates(); int64(word) < int64(len(states)) {
			s.LinkState = &states[word]
		}
	case nl.IFLA_VF_RATE:
		if len(value) < 12 {
			return errShort
		}
		s.TxRate = &TxRate{Min: int(word), Max: int(native.Uint32(value[8:]))}
	case nl.IFLA_VF_IB_NODE_GUID:
		return readGUID(value, &s.NodeGUID)
	case nl.IFLA_VF_IB_PORT_GUID:
		return readGUID(value, &s.PortGUID)
	}
	return nil
}

func (s *VFSettings) readVLAN(value []byte) error {
	if len(value) < 14 {
		return errShort
	}
	native := binary.NativeEndian
	s.VLAN = &VLAN{ID: int(native.Uint32(value[4:])), QoS: int(native.Uint32(value[8:])), Protocol: protocol8021Q}
	if binary.BigEndian.Uint16(value[12:]) == unix.ETH_P_8021AD {
		s.VLAN.Protocol = protocol8021AD
	}
	return nil
}

func readGUID(value []byte, guid *net.HardwareAddr) error {
	if len(value) < 16 {
		return errShort
	}
	*guid = binary.BigEndian.AppendUint64(nil, binary.NativeEndian.Uint64(value[8:]))
	return nil
}

// truth reads a setting that is 0 or 1, or all bits where the driver does not
// know it.
func truth(word uint32) *bool {
	if word > 1 {
		return nil
	}
	on := word == 1
	return &on
}

// linkStates are the names of the kernel's IFLA_VF_LINK_STATE_….
func linkStates() []string { return []string{"auto", "enable", "disable"} }

func number(value []byte) int {
	if len(value) < 4 {
		return 0
	}
	return int(binary.NativeEndian.Uint32(value))
}

// eachAttribute calls do for every attribute in a row.
func eachAttribute(data []byte, do func(kind uint16, value []byte) error) error {
	for len(data) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(data))
		kind := binary.NativeEndian.Uint16(data[2:]) & attributeType
		if size < unix.SizeofRtAttr || size > len(data) {
			return errShort
		}
		if err := do(kind, data[unix.SizeofRtAttr:size:size]); err != nil {
			return err
		}
		data = data[min(len(data), (size+syscall.RTA_ALIGNTO-1)&^(syscall.RTA_ALIGNTO-1)):]
	}
	return nil
}
