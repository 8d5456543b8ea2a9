package deviceplugin

import (
	"cmp"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/deviceattribute"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/prefer"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// attributeUUID is by what NVIDIA's tools know a GPU.
const attributeUUID resourceapi.QualifiedName = "uuid"

// holderPrefix begins the UID that stands for a device where claims have theirs.
// No claim's begins like that.
const holderPrefix = "device-plugin-"

// item is a device of this node, whoever serves it.
type item struct {
	device.Device
	family Family
	// id is the device's in kubelet. It depends on the hardware alone, since it
	// outlives restarts in kubelet's files: the UUID of a GPU, by which NVIDIA's
	// monitoring knows it, and the PCI address of others, as CNI plugins expect.
	// Any of these may name a CDI device.
	id string
	// wanted tells that the device is to be served here, and resource as what; nil
	// if no resource selects it.
	wanted   bool
	resource *Resource
}

func idOf(d device.Device) string {
	if uuid := d.Attributes[attributeUUID].StringValue; uuid != nil {
		return *uuid
	}
	address, _ := device.PCIAddress(d.Occupies)
	return cmp.Or(address, d.Name)
}

// place is the name of a device that no renumbering changes.
func place(occupies []string, name string) string {
	address, _ := device.PCIAddress(occupies)
	return cmp.Or(address, name)
}

// holder stands for the device where claims have their UID.
func (i *item) holder() types.UID {
	return types.UID(holderPrefix + place(i.Occupies, i.Name))
}

// claim stands for the device in what is written for claims too. An earlier
// release, which knows of claims alone, asks the API for it and is told that there
// is none.
func (i *item) claim() device.Claim {
	return device.Claim{Namespace: "device-plugin", Name: i.Name, UID: i.holder()}
}

func (i *item) holding() claimstore.Holding {
	h := claimstore.Holding{
		Claim:        i.claim(),
		Device:       claimstore.Device{Family: i.family.Name(), Device: i.Name, Occupies: i.Occupies},
		DevicePlugin: &claimstore.DevicePlugin{ID: i.id, Kind: i.Kind},
	}
	if i.resource != nil {
		h.DevicePlugin.Resource = i.resource.Name
	}
	return h
}

// grant is what the device's family is asked for.
func (i *item) grant() device.Grant {
	g := device.Grant{
		Claim: i.claim(), Device: i.Name, Occupies: i.Occupies,
		AdminAccess: true, Config: i.family.NewConfig(),
	}
	if i.resource != nil && i.resource.Grant != nil {
		config, change := i.resource.Grant(i.Device)
		g.Config, g.AdminAccess = config, !change
	}
	return g
}

// numa returns the device's NUMA node, or [prefer.NoNUMA].
func (i *item) numa() int {
	if node := i.Attributes[deviceattribute.StandardDeviceAttributeNUMANode].IntValue; node != nil {
		return int(*node)
	}
	return prefer.NoNUMA
}

func (i *item) choice() prefer.Device {
	d := prefer.Device{ID: i.id, NUMA: i.numa()}
	if i.Place != nil {
		d.Parent = i.Place.Parent
	}
	return d
}

// items are all devices of the node, in the order in which they should be given.
type items []*item

func (all items) byID(id string) *item {
	for _, i := range all {
		if i.id == id {
			return i
		}
	}
	return nil
}

// occupying returns the device that takes up a thing.
func (all items) occupying(thing string) *item {
	for _, i := range all {
		if slices.Contains(i.Occupies, thing) {
			return i
		}
	}
	return nil
}
