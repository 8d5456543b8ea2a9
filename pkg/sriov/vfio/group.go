package vfio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// pciBridge is the class of bridges between PCI buses, without the byte that
// tells their programming interface.
const pciBridge = 0x0604

// ErrNoGroup means that a function has no IOMMU group.
var ErrNoGroup = errors.New("it has no IOMMU group: switch the IOMMU on in the firmware and with a kernel argument such as intel_iommu=on")

// Group is an IOMMU group: the functions that the IOMMU cannot tell apart, and
// that therefore are handed to one program together or not at all.
type Group struct {
	// Name is its number, by which its node below /dev/vfio is called.
	Name string
	// Others are the functions besides the one that was asked for, bridges
	// left out.
	Others []Function
}

// Function is a function of a group, and the driver it is bound to.
type Function struct {
	Address topology.Address
	Driver  string
}

// Group returns the group of a function. The error is [ErrNoGroup] if it has
// none.
func (b Bus) Group(a topology.Address) (Group, error) {
	link, err := os.Readlink(b.device(a, "iommu_group"))
	if errors.Is(err, fs.ErrNotExist) {
		return Group{}, fmt.Errorf("PCI function %s: %w", a, ErrNoGroup)
	}
	if err != nil {
		return Group{}, fmt.Errorf("find the IOMMU group of PCI function %s: %w", a, err)
	}
	group := Group{Name: filepath.Base(link)}
	entries, err := os.ReadDir(b.device(a, "iommu_group", "devices"))
	if err != nil {
		return Group{}, fmt.Errorf("list IOMMU group %s of PCI function %s: %w", group.Name, a, err)
	}
	for _, entry := range entries {
		address, err := topology.ParseAddress(entry.Name())
		if err != nil {
			return Group{}, fmt.Errorf("list IOMMU group %s of PCI function %s: %w", group.Name, a, err)
		}
		if address == a || b.isBridge(address) {
			continue
		}
		driver, err := b.driver(address)
		if err != nil {
			return Group{}, err
		}
		group.Others = append(group.Others, Function{Address: address, Driver: driver})
	}
	return group, nil
}

// Foreign returns the functions that keep a group from being handed to a
// program: those that another driver uses. Bridges never do: the kernel lets
// their driver stay.
func (g Group) Foreign() []Function {
	var foreign []Function
	for _, other := range g.Others {
		if other.Driver != "" && other.Driver != Driver {
			foreign = append(foreign, other)
		}
	}
	return foreign
}

// String returns address and driver.
func (f Function) String() string {
	if f.Driver == "" {
		return f.Address.String()
	}
	return fmt.Sprintf("%s (driver %s)", f.Address, f.Driver)
}

func (b Bus) isBridge(a topology.Address) bool {
	data, err := os.ReadFile(b.device(a, "class"))
	if err != nil {
		return false
	}
	class, err := strconv.ParseUint(strings.TrimSpace(string(data)), 0, 32)
	return err == nil && class>>8 == pciBridge
}
