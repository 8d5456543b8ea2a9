package topology

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Address is the place of a PCI function: domain, bus, device, function. Two
// spellings of the same place are the same Address.
type Address struct {
	Domain   uint32
	Bus      uint8
	Device   uint8
	Function uint8
}

// ParseAddress reads an address with its domain, in upper or lower case: as
// sysfs writes it ("0000:1b:00.0") or NVML ("00000000:1B:00.0").
func ParseAddress(s string) (Address, error) {
	fail := func(why string) (Address, error) {
		return Address{}, fmt.Errorf("PCI address %q: %s: want domain:bus:device.function, such as 0000:1b:00.0", s, why)
	}
	domain, rest, ok := strings.Cut(s, ":")
	if !ok {
		return fail("it has no colon")
	}
	bus, rest, ok := strings.Cut(rest, ":")
	if !ok {
		return fail("it has one colon only")
	}
	device, function, ok := strings.Cut(rest, ".")
	if !ok {
		return fail("it has no dot before the function")
	}
	// Domains of more than four digits exist: Intel's VMD numbers them from
	// 0x10000.
	d, err := parseHex(domain, 4, 8, 0xffffffff)
	if err != nil {
		return fail("domain " + err.Error())
	}
	b, err := parseHex(bus, 2, 2, 0xff)
	if err != nil {
		return fail("bus " + err.Error())
	}
	v, err := parseHex(device, 2, 2, 0x1f)
	if err != nil {
		return fail("device " + err.Error())
	}
	f, err := parseHex(function, 1, 1, 7)
	if err != nil {
		return fail("function " + err.Error())
	}
	return Address{Domain: uint32(d), Bus: uint8(b), Device: uint8(v), Function: uint8(f)}, nil
}

// parseHex reads minDigits to maxDigits hexadecimal digits and nothing else.
func parseHex(s string, minDigits, maxDigits int, limit uint64) (uint64, error) {
	if len(s) < minDigits || len(s) > maxDigits {
		return 0, fmt.Errorf("%q has the wrong length", s)
	}
	// ParseUint takes no sign, and no underscore unless the base is 0.
	n, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not hexadecimal", s)
	}
	if n > limit {
		return 0, fmt.Errorf("%q is more than %x", s, limit)
	}
	return n, nil
}

// String returns the address as sysfs writes it: lower case, with a domain of
// at least four digits.
func (a Address) String() string {
	return fmt.Sprintf("%04x:%02x:%02x.%x", a.Domain, a.Bus, a.Device, a.Function)
}

// Compare orders addresses as lspci lists them: negative when a comes before b.
func (a Address) Compare(b Address) int {
	return cmp.Compare(a.key(), b.key())
}

func (a Address) key() uint64 {
	return uint64(a.Domain)<<24 | uint64(a.Bus)<<16 | uint64(a.Device)<<8 | uint64(a.Function)
}
