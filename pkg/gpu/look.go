package gpu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	nvlib "github.com/NVIDIA/go-nvlib/pkg/nvlib/device"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"k8s.io/klog/v2"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// findings are what one look at the machine brought. They are never changed.
type findings struct {
	inventory device.Inventory
	// err is set when the family as a whole cannot tell.
	err error
	// note says why there is nothing, when that is as it should be.
	note string
	// driver is the driver that was used; the zero value if there was none.
	driver installation
	// common and usable are the container edits; files are what they need.
	common *cdispec.ContainerEdits
	usable map[topology.Address]usableGPU
	files  []hostFile
	// faulty tells why a GPU with a known address cannot be used.
	faulty map[topology.Address]device.Fault
}

type usableGPU struct {
	name  string
	edits *cdispec.ContainerEdits
	// onBus tells that sysfs shows the GPU. Where it shows none at all, as in
	// some sandboxes, that one is missing says nothing.
	onBus bool
}

const noGPU = "this machine has no NVIDIA GPU"

// look looks at the whole machine. The caller makes sure that there is one
// look at a time.
func (f *Family) look(ctx context.Context) *findings {
	found := &findings{}
	inMachine, err := f.gpusInMachine()
	if err != nil {
		found.err = err
		return found
	}
	driver, installed := f.opts.findDriver()
	if !installed {
		f.closeLibrary()
		if len(inMachine) == 0 {
			found.note = noGPU + " and no NVIDIA driver"
		} else {
			found.err = f.opts.missingDriver(len(inMachine))
		}
		return found
	}
	found.driver = driver
	lib, count, err := f.open(driver)
	if (err != nil || count == 0) && len(inMachine) == 0 {
		found.note = noGPU
		return found
	}
	if err != nil {
		found.err = err
		return found
	}
	if err := f.collect(ctx, found, lib, count, inMachine); err != nil {
		return &findings{err: err, driver: driver}
	}
	return found
}

// gpusInMachine lists the NVIDIA GPUs by what sysfs shows, which needs no
// driver: display controllers, whose class is 03.
func (f *Family) gpusInMachine() ([]topology.Address, error) {
	const nvidia, display = 0x10de, 0x03
	addresses, err := f.sysfs.Addresses()
	if err != nil {
		return nil, fmt.Errorf("look for NVIDIA GPUs in %s: %w", f.opts.SysfsRoot, err)
	}
	var gpus []topology.Address
	for _, address := range addresses {
		vendor, class, err := f.sysfs.ID(address)
		if err != nil {
			// It was taken out in this moment.
			continue
		}
		if vendor == nvidia && class>>16 == display {
			gpus = append(gpus, address)
		}
	}
	return gpus, nil
}

// collect reads all GPUs and works out their container edits.
func (f *Family) collect(ctx context.Context, found *findings, lib nvml.Interface, count int, inMachine []topology.Address) error {
	logger := klog.FromContext(ctx)
	versions, err := readVersions(lib)
	if err != nil {
		return err
	}
	editor, err := newEditor(f.opts, found.driver, lib, logger)
	if err != nil {
		return notReady(err)
	}
	if found.common, err = editor.common(); err != nil {
		return notReady(err)
	}
	found.usable = make(map[topology.Address]usableGPU)
	found.faulty = make(map[topology.Address]device.Fault)
	failures := make(map[int]*failure)
	texts := nvlib.New(lib)
	for index := range count {
		g, failed := f.readOne(lib, texts, index, versions)
		if failed == nil {
			failed = f.add(logger, found, g, editor, len(inMachine) > 0)
		}
		if failed != nil {
			failures[index] = failed
		}
	}
	found.files = editor.files
	f.report(found, failures, inMachine)
	if slices.ContainsFunc(found.inventory.Faults, func(fault device.Fault) bool { return fault.Reason != ReasonMIG }) {
		// NVML lists the GPUs when it starts, and not again.
		f.closeLibrary()
	}
	return nil
}

func (f *Family) readOne(lib nvml.Interface, texts nvlib.Interface, index int, versions driverVersions) (gpu, *failure) {
	handle, ret := lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		return gpu{}, &failure{reason: ReasonHandle, err: fmt.Errorf("ask NVML for the GPU with index %d: %w", index, ret)}
	}
	return readGPU(texts, handle, index, versions)
}

// add puts a GPU that NVML describes among those that can be used, unless a
// container could not use it.
func (f *Family) add(logger klog.Logger, found *findings, g gpu, editor *editor, onBus bool) *failure {
	node, err := f.sysfs.Node(g.address)
	switch {
	case errors.Is(err, fs.ErrNotExist) && onBus:
		return &failure{reason: ReasonNotOnBus, address: &g.address, err: errors.New(
			"NVML lists it, but it is no longer on the PCI bus: look for NVRM and PCIe lines in the kernel log")}
	case err != nil:
		logger.V(2).Info("A GPU is published without its place in the machine", "gpu", g.index, "pciAddress", g.address.String(), "reason", err.Error())
		node = topology.Node{Address: g.address}
	}
	edits, err := editor.gpu(g.uuid, g.minor)
	if err != nil {
		return &failure{reason: ReasonContainerEdits, address: &g.address, err: err}
	}
	maps.Copy(g.device.Attributes, f.sysfs.StandardAttributes(node))
	found.inventory.Devices = append(found.inventory.Devices, g.device)
	found.inventory.Counters = append(found.inventory.Counters, counterSet(g.device.Name))
	found.usable[g.address] = usableGPU{name: g.device.Name, edits: edits, onBus: onBus}
	return nil
}

// report turns failures into faults, in order of index, and adds the GPUs that
// the driver does not have at all.
func (f *Family) report(found *findings, failures map[int]*failure, inMachine []topology.Address) {
	var nameless []int
	claimed := make(map[topology.Address]bool)
	for address := range found.usable {
		claimed[address] = true
	}
	indices := slices.Sorted(maps.Keys(failures))
	for _, index := range indices {
		if address := failures[index].address; address != nil {
			claimed[*address] = true
		} else {
			nameless = append(nameless, index)
		}
	}
	unclaimed := slices.DeleteFunc(slices.Clone(inMachine), func(a topology.Address) bool { return claimed[a] })
	// NVML numbers GPUs by PCI address. So when as many have no address as
	// there are addresses left, they belong together in order.
	if len(nameless) == len(unclaimed) {
		for i, index := range nameless {
			failures[index].address = &unclaimed[i]
		}
		unclaimed = nil
	}
	for _, index := range indices {
		found.addFault(fmt.Sprintf("GPU %d", index), failures[index])
	}
	for _, address := range unclaimed {
		found.addFault("GPU", f.notInDriver(address))
	}
}

func (f *Family) notInDriver(address topology.Address) *failure {
	err := errors.New("it is in the machine but NVML does not list it: look for NVRM lines in the kernel log")
	if node, readErr := f.sysfs.Node(address); readErr == nil && node.Driver != "nvidia" {
		bound := "no kernel driver"
		if node.Driver != "" {
			bound = "the kernel driver " + node.Driver
		}
		err = fmt.Errorf("it is bound to %s: bind it to the driver nvidia to have it given out", bound)
	}
	return &failure{reason: ReasonNotInDriver, address: &address, err: err}
}

func (s *findings) addFault(subject string, failed *failure) {
	if failed.address != nil {
		subject = fmt.Sprintf("%s (%s)", subject, failed.address)
	}
	fault := device.Fault{Subject: subject, Reason: failed.reason, Err: failed.err}
	s.inventory.Faults = append(s.inventory.Faults, fault)
	if failed.address != nil {
		s.faulty[*failed.address] = fault
	}
}

func readVersions(lib nvml.Interface) (driverVersions, error) {
	var versions driverVersions
	driver, ret := lib.SystemGetDriverVersion()
	if ret != nvml.SUCCESS {
		return versions, notReady(fmt.Errorf("read the driver's version: %w", ret))
	}
	versions.driver, _ = semanticVersion(driver)
	cuda, ret := lib.SystemGetCudaDriverVersion()
	if ret != nvml.SUCCESS {
		return versions, notReady(fmt.Errorf("read the driver's CUDA version: %w", ret))
	}
	versions.cuda = cudaVersion(cuda)
	return versions, nil
}

func notReady(err error) error {
	return &DriverError{Reason: ReasonDriverNotReady, Err: fmt.Errorf("the NVIDIA driver is installed but not ready: %w", err)}
}
