package topology

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
)

// Sysfs is the sysfs of one machine.
type Sysfs struct {
	root string
}

// At returns the sysfs that is mounted, or written, at root: "/sys" for the
// machine that we run on.
func At(root string) Sysfs {
	return Sysfs{root: root}
}

// Node is a PCI function and its place in the tree.
type Node struct {
	Address Address
	// Root is the host bridge, such as "pci0000:15". It is empty where the
	// kernel shows none.
	Root string
	// Bridges are those between the host bridge and the device, from the root
	// port down.
	Bridges []Address
	// NUMA is the NUMA node. It is nil where the kernel knows none: a value
	// such as -1 would make strangers look like neighbours.
	NUMA *int
	// Vendor, DeviceID and Class are the numbers that the function reports,
	// such as 0x10de, 0x2335 and 0x030200.
	Vendor   uint32
	DeviceID uint32
	Class    uint32
	// Driver is the kernel driver that is bound, such as "nvidia" or
	// "vfio-pci". It is empty when none is.
	Driver string
}

// Addresses lists all PCI functions of the machine in order. A machine without
// PCI has none.
func (s Sysfs) Addresses() ([]Address, error) {
	entries, err := os.ReadDir(s.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the PCI devices: %w", err)
	}
	addresses := make([]Address, 0, len(entries))
	for _, entry := range entries {
		address, err := ParseAddress(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("list the PCI devices in %s: %w", s.path(), err)
		}
		addresses = append(addresses, address)
	}
	slices.SortFunc(addresses, Address.Compare)
	return addresses, nil
}

// Exists tells whether the device is there now.
func (s Sysfs) Exists(address Address) bool {
	_, err := os.Lstat(s.path(address.String()))
	return err == nil
}

// ID reads the vendor and the class of a function, which is all that is needed
// to tell whether a device is of interest.
func (s Sysfs) ID(address Address) (vendor, class uint32, err error) {
	if vendor, err = s.number(address, "vendor"); err != nil {
		return 0, 0, err
	}
	if class, err = s.number(address, "class"); err != nil {
		return 0, 0, err
	}
	return vendor, class, nil
}

// Node reads the place of one device. An error that is fs.ErrNotExist means
// that there is no such device.
func (s Sysfs) Node(address Address) (Node, error) {
	link := s.path(address.String())
	target, err := os.Readlink(link)
	if err != nil {
		return Node{}, fmt.Errorf("find PCI device %s: %w", address, err)
	}
	node := Node{Address: address}
	if node.Root, node.Bridges, err = place(target, address); err != nil {
		return Node{}, fmt.Errorf("read the link %s: %w", link, err)
	}
	if node.NUMA, err = s.numa(address); err != nil {
		return Node{}, err
	}
	if node.Vendor, node.Class, err = s.ID(address); err != nil {
		return Node{}, err
	}
	if node.DeviceID, err = s.number(address, "device"); err != nil {
		return Node{}, err
	}
	if driver, err := os.Readlink(s.path(address.String(), "driver")); err == nil {
		node.Driver = filepath.Base(driver)
	}
	return node, nil
}

// StandardAttributes returns what Kubernetes defines for PCI devices: pciBusID,
// pcieRoot and numaNode. What the machine does not tell is left out, because an
// empty or negative value would match that of every other such device.
func (s Sysfs) StandardAttributes(node Node) map[resourceapi.QualifiedName]resourceapi.DeviceAttribute {
	attributes := make(map[resourceapi.QualifiedName]resourceapi.DeviceAttribute, 3)
	add := func(a deviceattribute.DeviceAttribute, err error) {
		if err == nil {
			attributes[a.Name] = a.Value
		}
	}
	id := node.Address.String()
	add(deviceattribute.GetPCIBusIDAttribute(id))
	add(deviceattribute.GetPCIeRootAttributeByPCIBusID(id, deviceattribute.WithFSFromRoot(s.root)))
	if node.NUMA != nil {
		add(deviceattribute.GetNUMANodeAttribute(*node.NUMA, deviceattribute.ScalarAttribute))
	}
	return attributes
}

// place splits a device's path, such as
// ../../../devices/pci0000:15/0000:15:01.0/0000:18:00.0, into host bridge and
// bridges. Some platforms have further folders above the host bridge, as
// Hyper-V's VMBUS.
func place(target string, address Address) (root string, bridges []Address, err error) {
	parts := strings.Split(filepath.Clean(target), string(filepath.Separator))
	for i, part := range parts {
		name, isRoot := strings.CutPrefix(part, "pci")
		if !isRoot || !strings.Contains(name, ":") {
			continue
		}
		for _, below := range parts[i+1:] {
			bridge, err := ParseAddress(below)
			if err != nil {
				return "", nil, err
			}
			bridges = append(bridges, bridge)
		}
		if len(bridges) == 0 || bridges[len(bridges)-1] != address {
			return "", nil, fmt.Errorf("it leads to %s, which is another device", target)
		}
		return part, bridges[:len(bridges)-1], nil
	}
	return "", nil, nil
}

func (s Sysfs) numa(address Address) (*int, error) {
	file := s.path(address.String(), "numa_node")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the NUMA node of PCI device %s: %w", address, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("read the NUMA node of PCI device %s from %s: %w", address, file, err)
	}
	if n < 0 {
		return nil, nil
	}
	return &n, nil
}

func (s Sysfs) number(address Address, name string) (uint32, error) {
	file := s.path(address.String(), name)
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read the %s of PCI device %s: %w", name, address, err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 0, 32)
	if err != nil {
		return 0, fmt.Errorf("read the %s of PCI device %s from %s: %w", name, address, file, err)
	}
	return uint32(n), nil
}

func (s Sysfs) path(below ...string) string {
	return filepath.Join(append([]string{s.root, "bus", "pci", "devices"}, below...)...)
}
