package gpu

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	nvlib "github.com/NVIDIA/go-nvlib/pkg/nvlib/device"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Attributes of a GPU besides the standard ones and the type. Names and values
// are those of NVIDIA's own DRA driver where it has the attribute, so that
// selectors carry over with only the domain changed.
const (
	attributeUUID              resourceapi.QualifiedName = "uuid"
	attributeProductName                                 = device.AttributeProductName
	attributeBrand             resourceapi.QualifiedName = "brand"
	attributeArchitecture      resourceapi.QualifiedName = "architecture"
	attributeComputeCapability resourceapi.QualifiedName = "cudaComputeCapability"
	attributeDriverVersion     resourceapi.QualifiedName = "driverVersion"
	attributeCUDAVersion       resourceapi.QualifiedName = "cudaDriverVersion"
	attributeIndex             resourceapi.QualifiedName = "index"
)

// gpu is a GPU that works.
type gpu struct {
	index   int
	minor   int
	address topology.Address
	uuid    string
	device  device.Device
}

// driverVersions are those of the whole machine, empty where they are not
// versions.
type driverVersions struct {
	driver, cuda string
}

// failure is what makes a GPU a fault.
type failure struct {
	reason  string
	address *topology.Address
	err     error
}

// readGPU asks NVML for everything about one GPU but its container edits.
func readGPU(lib nvlib.Interface, handle nvml.Device, index int, versions driverVersions) (gpu, *failure) {
	g := gpu{index: index}
	handleWithText, err := lib.NewDevice(handle)
	if err != nil {
		return g, &failure{reason: ReasonHandle, err: err}
	}
	if g.address, err = readAddress(handle); err != nil {
		return g, &failure{reason: ReasonPCIAddress, err: err}
	}
	fail := func(reason string, err error) (gpu, *failure) {
		return g, &failure{reason: reason, address: &g.address, err: err}
	}
	mig, err := handleWithText.IsMigEnabled()
	if err != nil {
		return fail(ReasonAttribute, err)
	}
	if mig {
		return fail(ReasonMIG, fmt.Errorf("MIG mode is on, and this driver gives out whole GPUs: turn it off with nvidia-smi -i %s -mig 0", g.address))
	}
	if err := g.describe(handleWithText, versions); err != nil {
		return fail(ReasonAttribute, err)
	}
	return g, nil
}

func readAddress(handle nvml.Device) (topology.Address, error) {
	info, ret := handle.GetPciInfo()
	if ret != nvml.SUCCESS {
		return topology.Address{}, fmt.Errorf("read its PCI address: %w", ret)
	}
	var text strings.Builder
	for _, c := range info.BusId {
		if c == 0 {
			break
		}
		text.WriteByte(byte(c))
	}
	if text.Len() == 0 {
		return topology.Address{}, errors.New("read its PCI address: NVML tells none")
	}
	return topology.ParseAddress(text.String())
}

// describe fills in the device as it is published, without its place in the
// machine.
func (g *gpu) describe(handle nvlib.Device, versions driverVersions) error {
	var ret nvml.Return
	if g.uuid, ret = handle.GetUUID(); ret != nvml.SUCCESS {
		return fmt.Errorf("read its UUID: %w", ret)
	}
	if g.minor, ret = handle.GetMinorNumber(); ret != nvml.SUCCESS {
		return fmt.Errorf("read the number of its device node: %w", ret)
	}
	name, ret := handle.GetName()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("read its product name: %w", ret)
	}
	memory, ret := handle.GetMemoryInfo()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("read its memory size: %w", ret)
	}
	major, minor, ret := handle.GetCudaComputeCapability()
	if ret != nvml.SUCCESS {
		return fmt.Errorf("read its compute capability: %w", ret)
	}
	brand, err := brandOf(handle)
	if err != nil {
		return err
	}
	architecture, err := architectureOf(handle)
	if err != nil {
		return err
	}
	g.device = device.Device{
		Name:     fmt.Sprintf("gpu-%d", g.index),
		Kind:     device.KindGPU,
		Occupies: []string{device.PCIThing(g.address.String())},
		Place:    &device.Place{PCI: g.address.String()},
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			device.AttributeType:       text(string(device.KindGPU)),
			attributeUUID:              text(g.uuid),
			attributeProductName:       text(name),
			attributeBrand:             text(brand),
			attributeArchitecture:      text(architecture),
			attributeComputeCapability: {VersionValue: ptr.To(fmt.Sprintf("%d.%d.0", major, minor))},
			attributeIndex:             {IntValue: ptr.To(int64(g.index))},
		},
		Capacity: map[resourceapi.QualifiedName]resourceapi.DeviceCapacity{
			device.CapacityMemory: {Value: *resource.NewQuantity(int64(memory.Total), resource.BinarySI)},
		},
	}
	g.device.Consumes = wholeGPU(g.device.Name)
	if versions.driver != "" {
		g.device.Attributes[attributeDriverVersion] = resourceapi.DeviceAttribute{VersionValue: &versions.driver}
	}
	if versions.cuda != "" {
		g.device.Attributes[attributeCUDAVersion] = resourceapi.DeviceAttribute{VersionValue: &versions.cuda}
	}
	return nil
}

// A brand or architecture that is newer than our tables is no reason to hide a
// GPU.
const unknownName = "Unknown"

func brandOf(handle nvlib.Device) (string, error) {
	if _, ret := handle.GetBrand(); ret != nvml.SUCCESS {
		return "", fmt.Errorf("read its brand: %w", ret)
	}
	if name, err := handle.GetBrandAsString(); err == nil {
		return name, nil
	}
	return unknownName, nil
}

func architectureOf(handle nvlib.Device) (string, error) {
	if _, ret := handle.GetArchitecture(); ret != nvml.SUCCESS {
		return "", fmt.Errorf("read its architecture: %w", ret)
	}
	if name, err := handle.GetArchitectureAsString(); err == nil {
		return name, nil
	}
	return unknownName, nil
}

// text makes a string attribute, cut to what the API server accepts.
func text(s string) resourceapi.DeviceAttribute {
	s = strings.ToValidUTF8(s, "")
	for len(s) > resourceapi.DeviceAttributeMaxValueLength {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return resourceapi.DeviceAttribute{StringValue: &s}
}
