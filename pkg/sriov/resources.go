package sriov

import (
	"fmt"
	"strconv"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/nic"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/selection"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// Selector returns which of the family's devices the selectors choose, by what
// the devices say of themselves. Without selectors that is all of them.
func Selector(selectors []v1alpha1.VFSelector) (func(device.Device) bool, error) {
	chosen, err := selection.New(v1alpha1.SRIOVConfig{Selectors: selectors})
	if err != nil {
		return nil, fmt.Errorf("read the selectors of VFs: %w", err)
	}
	return func(d device.Device) bool {
		pf, vf, ok := described(d)
		return ok && chosen.Selects(pf, vf)
	}, nil
}

// described returns the VF and its PF as far as a device tells of them.
func described(d device.Device) (nic.PF, nic.VF, bool) {
	if d.Kind != device.KindVF || d.Place == nil {
		return nic.PF{}, nic.VF{}, false
	}
	address, err := topology.ParseAddress(d.Place.PCI)
	if err != nil {
		return nic.PF{}, nic.VF{}, false
	}
	parent, err := topology.ParseAddress(d.Place.Parent)
	if err != nil {
		return nic.PF{}, nic.VF{}, false
	}
	text := func(name resourceapi.QualifiedName) string { return ptr.Deref(d.Attributes[name].StringValue, "") }
	var pf nic.PF
	pf.Address, pf.LinkType = parent, text(attributeLinkType)
	if name := text(attributePFName); name != "" {
		pf.Netdev = &kernel.Link{Name: name}
	}
	var vf nic.VF
	vf.Address, vf.Index, vf.Driver = address, d.Place.Index, text(attributeDriver)
	vf.Vendor, vf.DeviceID = pciID(text(attributeVendor)), pciID(text(attributeDevice))
	if ptr.Deref(d.Attributes[attributeRDMA].BoolValue, false) {
		vf.RDMA = &nic.RDMA{Name: text(attributeRDMADevice)}
	}
	return pf, vf, true
}

// pciID reads what [Family] has written.
func pciID(text string) uint32 {
	id, err := strconv.ParseUint(text, 16, 16)
	if err != nil {
		return 0
	}
	return uint32(id)
}

// ResourceGrant says how a VF is prepared for a pod that has it as an extended
// resource. CNI plugins set such a VF up and move it, so that this family only
// tells the container's device nodes; one that is bound to vfio-pci stays so, and
// the container gets its IOMMU group.
func ResourceGrant(d device.Device) (config runtime.Object, change bool) {
	if ptr.Deref(d.Attributes[attributeDriver].StringValue, "") != vfio.Driver {
		return v1alpha1.DefaultVfConfig(), false
	}
	c := v1alpha1.DefaultVfConfig()
	c.Mode = v1alpha1.VfModeVFIO
	return c, true
}
