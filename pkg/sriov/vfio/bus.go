package vfio

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Driver is the kernel driver that hands functions to programs.
const Driver = "vfio-pci"

// noOverride is what sysfs shows where no driver is chosen.
const noOverride = "(null)"

// Writer writes a value to a file of sysfs.
type Writer func(path, value string) error

// Write is the [Writer] of a real sysfs. It never creates a file.
func Write(path, value string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_, err = file.WriteString(value)
	return err
}

// Bus is the PCI bus of one machine.
type Bus struct {
	root  string
	write Writer
}

// New returns the bus of the sysfs at sysfsRoot, which is changed by write
// alone.
func New(sysfsRoot string, write Writer) Bus {
	return Bus{root: filepath.Join(sysfsRoot, "bus", "pci"), write: write}
}

// Binding is how a function is bound.
type Binding struct {
	// Driver is empty where none is bound.
	Driver string
	// Override is the driver that an admin, or we, have chosen for the
	// function. It is empty where the kernel chooses.
	Override string
}

// Binding returns how a function is bound now.
func (b Bus) Binding(a topology.Address) (Binding, error) {
	driver, err := b.driver(a)
	if err != nil {
		return Binding{}, err
	}
	path := b.device(a, "driver_override")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) { // no bus of a real kernel
		return Binding{Driver: driver}, nil
	}
	if err != nil {
		return Binding{}, fmt.Errorf("read which driver is chosen for PCI function %s: %w", a, err)
	}
	override := strings.TrimSpace(string(data))
	if override == noOverride {
		override = ""
	}
	return Binding{Driver: driver, Override: override}, nil
}

func (b Bus) driver(a topology.Address) (string, error) {
	target, err := os.Readlink(b.device(a, "driver"))
	if err == nil {
		return filepath.Base(target), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the driver of PCI function %s: %w", a, err)
	}
	if _, err := os.Lstat(b.device(a)); err != nil {
		return "", fmt.Errorf("read the driver of PCI function %s: %w", a, err)
	}
	return "", nil
}

// Bind makes a function be bound as wanted. It changes nothing where that is
// so already. What fails half-way is repaired by binding again.
func (b Bus) Bind(a topology.Address, want Binding) error {
	now, err := b.Binding(a)
	if err != nil {
		return err
	}
	if want.Driver != "" && now.Driver != want.Driver {
		if err := b.loaded(want.Driver); err != nil {
			return fmt.Errorf("bind PCI function %s to driver %s: %w", a, want.Driver, err)
		}
	}
	if now.Override != want.Override {
		// An empty line takes the choice back.
		if err := b.write(b.device(a, "driver_override"), want.Override+"\n"); err != nil {
			return fmt.Errorf("choose driver %q for PCI function %s: %w", want.Override, a, err)
		}
	}
	if now.Driver == want.Driver {
		return nil
	}
	if err := b.unbind(a, now.Driver); err != nil {
		return err
	}
	return b.bind(a, want.Driver)
}

// Rebind takes a function from its driver and gives it back, so that the driver
// reads anew what it reads once only.
func (b Bus) Rebind(a topology.Address) error {
	driver, err := b.driver(a)
	if err != nil {
		return err
	}
	if driver == "" {
		return fmt.Errorf("PCI function %s has no driver that could be bound anew", a)
	}
	if err := b.unbind(a, driver); err != nil {
		return err
	}
	return b.bind(a, driver)
}

// Default takes back which driver was chosen for a function, and lets the kernel
// choose.
func (b Bus) Default(a topology.Address) error {
	now, err := b.Binding(a)
	if err != nil {
		return err
	}
	if err := b.Bind(a, Binding{}); err != nil {
		return err
	}
	if err := b.write(filepath.Join(b.root, "drivers_probe"), a.String()); err != nil {
		return fmt.Errorf("let the kernel choose a driver for PCI function %s, which had %s: %w", a, now.Driver, err)
	}
	return nil
}

func (b Bus) unbind(a topology.Address, driver string) error {
	if driver == "" {
		return nil
	}
	err := b.write(filepath.Join(b.root, "drivers", driver, "unbind"), a.String())
	// Whatever the answer is, the state is what counts.
	now, readErr := b.driver(a)
	if readErr != nil {
		return readErr
	}
	if now == driver {
		return fmt.Errorf("take PCI function %s from driver %s: %w", a, driver, orUnchanged(err))
	}
	return nil
}

func (b Bus) bind(a topology.Address, driver string) error {
	if driver == "" {
		return nil
	}
	err := b.write(filepath.Join(b.root, "drivers", driver, "bind"), a.String())
	now, readErr := b.driver(a)
	if readErr != nil {
		return readErr
	}
	if now != driver {
		return fmt.Errorf("bind PCI function %s to driver %s: %w", a, driver, orUnchanged(err))
	}
	return nil
}

func orUnchanged(err error) error {
	if err == nil {
		return errors.New("the kernel accepted it and did nothing: see the kernel's log")
	}
	return err
}

// loaded returns an error if the kernel does not have a driver.
func (b Bus) loaded(driver string) error {
	_, err := os.Stat(filepath.Join(b.root, "drivers", driver))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the kernel has no such driver now: load it on the node with \"modprobe %s\"", driver)
	}
	return err
}

func (b Bus) device(a topology.Address, below ...string) string {
	return filepath.Join(append([]string{b.root, "devices", a.String()}, below...)...)
}
