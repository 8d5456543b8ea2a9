package device

import "strings"

// pciPrefix stands before the address of a PCI function in [Device.Occupies].
const pciPrefix = "pci-"

// PCIThing names the PCI function of an address, such as "0000:1b:00.0", in
// [Device.Occupies]. Every family names what sits there by it, since it is one
// thing, whatever it is taken for.
func PCIThing(address string) string { return pciPrefix + address }

// PCIAddress returns the address of the first PCI function among what a device
// occupies, and whether there is one.
func PCIAddress(occupies []string) (string, bool) {
	for _, thing := range occupies {
		if address, ok := strings.CutPrefix(thing, pciPrefix); ok {
			return address, true
		}
	}
	return "", false
}
