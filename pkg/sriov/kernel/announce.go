package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// AnnounceAddresses tells the neighbours of an Ethernet interface, which must be up, that
// it has addresses: by an ARP announcement (RFC 5227) for IPv4, and an unsolicited
// neighbour advertisement (RFC 4861) for IPv6. Interfaces of other kinds announce
// nothing.
func (n *namespace) AnnounceAddresses(index int, addresses []netip.Prefix) error {
	links, err := n.Links()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(links, func(l Link) bool { return l.Index == index })
	if at < 0 {
		return fmt.Errorf("announce the addresses of interface %d: %w", index, unix.ENODEV)
	}
	mac := links[at].HardwareAddress
	if links[at].Type != typeEther || len(mac) != 6 || len(addresses) == 0 {
		return nil
	}
	var socket int
	err = within(n.file, func() (err error) {
		// Protocol 0: it receives nothing.
		socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("announce the addresses of interface %d: %w", index, err)
	}
	var errs []error
	for _, address := range addresses {
		frame := arpAnnouncement(mac, address.Addr())
		if address.Addr().Is6() {
			frame = neighbourAdvertisement(mac, address.Addr())
		}
		if err := unix.Sendto(socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
			errs = append(errs, fmt.Errorf("announce %s on interface %d: %w", address.Addr(), index, err))
		}
	}
	return errors.Join(append(errs, unix.Close(socket))...)
}

func ethernet(to, from net.HardwareAddr, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(slices.Clone(to), from...), kind)
}

func arpAnnouncement(mac net.HardwareAddr, address netip.Addr) []byte {
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := ethernet(broadcast, mac, unix.ETH_P_ARP)
	// Ethernet, IPv4, the lengths of their addresses, a request.
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, mac...), address.AsSlice()...)
	return append(append(frame, make([]byte, 6)...), address.AsSlice()...)
}

func neighbourAdvertisement(mac net.HardwareAddr, address netip.Addr) []byte {
	all := netip.MustParseAddr("ff02::1")
	const (
		advertisement = 136
		override      = 0x20
		targetLink    = 2
	)
	message := append([]byte{advertisement, 0, 0, 0, override, 0, 0, 0}, address.AsSlice()...)
	message = append(append(message, targetLink, 1), mac...)
	pseudo := append(append(address.AsSlice(), all.AsSlice()...), 0, 0, 0, byte(len(message)), 0, 0, 0, unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(message[2:], checksum(append(pseudo, message...)))

	frame := ethernet(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6)
	// Version 6, the length, what follows, and the hop limit that proves that the
	// message comes from the same link.
	frame = append(frame, 0x60, 0, 0, 0, 0, byte(len(message)), unix.IPPROTO_ICMPV6, 255)
	frame = append(append(frame, address.AsSlice()...), all.AsSlice()...)
	return append(frame, message...)
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(data []byte) uint16 {
	var sum uint32
	for i := 0; i < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
