package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ip plays "ip address show [interface]", "ip route show" and "ip link set
// <interface> up|down".
func ip(_ context.Context, args []string, stdout io.Writer) error {
	switch {
	case len(args) >= 2 && len(args) <= 3 && args[0] == "address" && args[1] == "show":
		return showAddresses(args[2:], stdout)
	case slices.Equal(args, []string{"route", "show"}):
		return showRoutes("/proc/net/route", stdout)
	case len(args) == 4 && args[0] == "link" && args[1] == "set" && (args[3] == "up" || args[3] == "down"):
		return setLink(args[2], args[3] == "up")
	}
	return fmt.Errorf("cannot run ip %q: this stand-in knows only address show, route show and link set", strings.Join(args, " "))
}

func showAddresses(names []string, stdout io.Writer) error {
	interfaces, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("listing the interfaces: %w", err)
	}
	var out strings.Builder
	for _, i := range interfaces {
		if len(names) > 0 && !slices.Contains(names, i.Name) {
			continue
		}
		fmt.Fprintf(&out, "%d: %s: <%s> mtu %d\n    link/ether %s\n", i.Index, i.Name, strings.ToUpper(strings.ReplaceAll(i.Flags.String(), "|", ",")), i.MTU, i.HardwareAddr)
		addresses, err := i.Addrs()
		if err != nil {
			return fmt.Errorf("listing the addresses of %s: %w", i.Name, err)
		}
		for _, address := range addresses {
			family := "inet"
			if strings.Contains(address.String(), ":") {
				family = "inet6"
			}
			fmt.Fprintf(&out, "    %s %s\n", family, address)
		}
	}
	if len(names) > 0 && out.Len() == 0 {
		return fmt.Errorf("device %q does not exist", names[0])
	}
	_, err = io.WriteString(stdout, out.String())
	return err
}

// setLink sets an interface up or down, as an administrator does.
func setLink(name string, up bool) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer func() { _ = unix.Close(socket) }() // nothing was written to it
	request, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("interface %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("reading the flags of %s: %w", name, err)
	}
	flags := request.Uint16() &^ unix.IFF_UP
	if up {
		flags |= unix.IFF_UP
	}
	request.SetUint16(flags)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("setting the flags of %s: %w", name, err)
	}
	return nil
}

// showRoutes prints what the kernel's table of IPv4 routes says.
func showRoutes(table string, stdout io.Writer) error {
	file, err := os.Open(table)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // it was only read
	lines := bufio.NewScanner(file)
	lines.Scan() // the names of the columns
	for lines.Scan() {
		// Iface Destination Gateway Flags RefCnt Use Metric Mask …
		columns := strings.Fields(lines.Text())
		if len(columns) < 8 {
			continue
		}
		destination, gateway, mask := hexAddress(columns[1]), hexAddress(columns[2]), hexAddress(columns[7])
		bits, _ := net.IPMask(mask.AsSlice()).Size()
		line := netip.PrefixFrom(destination, bits).String()
		if bits == 0 {
			line = "default"
		}
		if !gateway.IsUnspecified() {
			line += " via " + gateway.String()
		}
		line += " dev " + columns[0]
		if columns[6] != "0" {
			line += " metric " + columns[6]
		}
		if _, err := fmt.Fprintln(stdout, line); err != nil {
			return err
		}
	}
	return lines.Err()
}

// hexAddress reads an address as the kernel prints it on a little-endian
// machine.
func hexAddress(digits string) netip.Addr {
	octets, err := hex.DecodeString(digits)
	if err != nil || len(octets) != net.IPv4len {
		return netip.IPv4Unspecified()
	}
	slices.Reverse(octets)
	return netip.AddrFrom4([net.IPv4len]byte(octets))
}
