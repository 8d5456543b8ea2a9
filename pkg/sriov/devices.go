package sriov

import (
	"context"
	"fmt"
	"maps"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Attributes of a VF, beside the type and those that Kubernetes defines for PCI
// devices.
const (
	attributePFName      resourceapi.QualifiedName = "pfName"
	attributePFPCIBusID  resourceapi.QualifiedName = "pfPCIBusID"
	attributeVFIndex     resourceapi.QualifiedName = "vfIndex"
	attributeLinkType    resourceapi.QualifiedName = "linkType"
	attributeRDMA        resourceapi.QualifiedName = "rdma"
	attributeRDMADevice                            = device.AttributeRDMADevice
	attributeDriver      resourceapi.QualifiedName = "driver"
	attributeVendor      resourceapi.QualifiedName = "vendor"
	attributeDevice      resourceapi.QualifiedName = "device"
	attributeMTU         resourceapi.QualifiedName = "mtu"
	attributeLinkSpeed   resourceapi.QualifiedName = "linkSpeedMbps"
	attributeEswitchMode resourceapi.QualifiedName = "eswitchMode"
)

// seen is what a VF is while nobody uses it. A claim changes all of it, or
// hides it from the host, but the device that is published stays the same.
type seen struct {
	driver     string
	rdma       bool
	rdmaDevice string
	// mtu is 0 for a VF without an interface.
	mtu int
}

// vf is a VF that was found, and what is known besides.
type vf struct {
	nic.VF
	pf nic.PF
	seen
	// used says that a claim has it.
	used bool
}

// devices returns the VFs that the configuration chooses.
func (f *Family) devices(ctx context.Context, machine nic.Machine, used map[topology.Address]*vfstate.Journal) []device.Device {
	var devices []device.Device
	there := make(map[topology.Address]seen)
	for _, pf := range machine.PFs {
		left := 0
		for _, found := range pf.VFs {
			v := vf{VF: found, pf: pf}
			journal, inUse := used[found.Address]
			v.used = inUse
			v.seen = f.whenFree(v, journal)
			there[found.Address] = v.seen
			if f.chooses(v) {
				devices = append(devices, f.device(ctx, v, machine))
			} else {
				left++
			}
		}
		logChoice(ctx, pf, left)
	}
	f.remembered = there
	return devices
}

// whenFree returns what the VF is when nobody uses it: what can be seen now, or
// else what was seen before, or else what its journal and its PF tell.
func (f *Family) whenFree(v vf, journal *vfstate.Journal) seen {
	now := seen{driver: v.Driver, rdma: v.RDMA != nil}
	if v.RDMA != nil {
		now.rdmaDevice = v.RDMA.Name
	}
	if v.Netdev != nil {
		now.mtu = v.Netdev.MTU
	}
	if !v.used {
		return now
	}
	if before, ok := f.remembered[v.Address]; ok {
		return before
	}
	now.rdma = now.rdma || v.pf.RDMA != nil
	now.mtu = 0
	if v.pf.Netdev != nil {
		now.mtu = v.pf.Netdev.MTU
	}
	if journal != nil && journal.Former != nil {
		now.driver = journal.Former.Driver
		if journal.Former.MTU > 0 {
			now.mtu = journal.Former.MTU
		}
	}
	return now
}

// free returns the VF as it is when nobody uses it, for selectors.
func (v vf) free() nic.VF {
	free := v.VF
	free.Driver = v.driver
	switch {
	case !v.rdma:
		free.RDMA = nil
	case free.RDMA == nil:
		free.RDMA = &nic.RDMA{Name: v.rdmaDevice}
	}
	return free
}

// chooses tells whether a VF is to be published. One that has lost the link type
// that is expected of it stays, so that those who have it learn of it.
func (f *Family) chooses(v vf) bool {
	return f.selection.Selects(v.pf, v.free()) || f.selection.Expects(v.pf, v.free()) == nic.InfiniBand
}

func (f *Family) device(ctx context.Context, v vf, machine nic.Machine) device.Device {
	d := device.Device{
		Name:     deviceName(v.Address),
		Kind:     device.KindVF,
		Occupies: []string{device.PCIThing(v.Address.String())},
		Place:    &device.Place{PCI: v.Address.String(), Parent: v.pf.Address.String(), Index: v.Index},
		Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
			device.AttributeType: {StringValue: ptr.To(string(device.KindVF))},
			attributePFPCIBusID:  {StringValue: ptr.To(v.pf.Address.String())},
			attributeVFIndex:     {IntValue: ptr.To(int64(v.Index))},
			attributeRDMA:        {BoolValue: ptr.To(v.rdma)},
			attributeVendor:      {StringValue: ptr.To(fmt.Sprintf("%04x", v.Vendor))},
			attributeDevice:      {StringValue: ptr.To(fmt.Sprintf("%04x", v.DeviceID))},
		},
		Problems: f.problems(ctx, v, machine),
	}
	maps.Copy(d.Attributes, f.sysfs.StandardAttributes(v.Node))
	for name, text := range map[resourceapi.QualifiedName]string{
		attributePFName: v.pf.Name(), attributeLinkType: v.pf.LinkType, attributeRDMADevice: v.rdmaDevice,
		attributeDriver: v.driver, attributeEswitchMode: v.pf.EswitchMode,
	} {
		if text != "" {
			d.Attributes[name] = resourceapi.DeviceAttribute{StringValue: &text}
		}
	}
	for name, number := range map[resourceapi.QualifiedName]int{attributeMTU: v.mtu, attributeLinkSpeed: v.pf.SpeedMbps} {
		if number > 0 {
			d.Attributes[name] = resourceapi.DeviceAttribute{IntValue: ptr.To(int64(number))}
		}
	}
	return d
}

// deviceName is the DNS label of a VF.
func deviceName(address topology.Address) string {
	return "vf-" + strings.NewReplacer(":", "-", ".", "-").Replace(address.String())
}
