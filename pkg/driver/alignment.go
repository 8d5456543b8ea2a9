package driver

import (
	"cmp"
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// attributeNearest is the PCI address of the device that is nearest to this one,
// in the metadata of a GPU or a VF of a claim that has both.
const attributeNearest resourceapi.QualifiedName = "nearestPCIBusID"

// neighbour is a GPU or VF of a claim and where it sits.
type neighbour struct {
	step *step
	node topology.Node
}

// aligned is a GPU and a VF of one claim, and how near they are.
type aligned struct {
	gpu, vf  neighbour
	relation topology.Relation
	common   int
}

// compare ranks what a device has beside it.
func (a aligned) compare(b aligned) int {
	return cmp.Or(cmp.Compare(a.relation, b.relation), cmp.Compare(a.common, b.common))
}

// align works out how near the GPUs and VFs of a claim really are, however they
// were asked for, and writes it where workloads find it.
func (d *Driver) align(logger klog.Logger, p *plan) {
	if d.options.Pairs == nil {
		return
	}
	gpus, vfs := d.neighbours(logger, p, device.KindGPU), d.neighbours(logger, p, device.KindVF)
	for _, gpu := range gpus {
		for _, vf := range vfs {
			a := aligned{gpu, vf, topology.Relate(gpu.node, vf.node), topology.CommonBridges(gpu.node, vf.node)}
			p.aligned = append(p.aligned, a)
		}
	}
	for n := range p.steps {
		s := &p.steps[n]
		if n > 0 && sameResult(p.steps[n-1].entry, s.entry) {
			continue // the GPU of a pair, whose address is that of the pair, has told
		}
		if beside, ok := p.nearest(s); ok {
			text, address := beside.relation.String(), beside.other(s).node.Address.String()
			s.entry.Attributes[device.AttributeAlignment] = resourceapi.DeviceAttribute{StringValue: &text}
			s.entry.Attributes[attributeNearest] = resourceapi.DeviceAttribute{StringValue: &address}
		}
	}
}

// neighbours returns the claim's devices of a kind, parts of composites
// included, in the order of the allocation.
func (d *Driver) neighbours(logger klog.Logger, p *plan, kind device.Kind) []neighbour {
	var all []neighbour
	for n := range p.steps {
		s := &p.steps[n]
		if s.kind != kind || s.place == nil || s.grant.AdminAccess {
			continue
		}
		node, err := d.node(s.place)
		if err != nil {
			logger.Error(err, "Cannot tell what is near to a device", "device", s.grant.Device)
			continue
		}
		all = append(all, neighbour{s, node})
	}
	return all
}

// node tells where a device sits. Not every machine shows it for a VF, which
// sits where its PF does.
func (d *Driver) node(place *device.Place) (topology.Node, error) {
	address, err := topology.ParseAddress(place.PCI)
	if err != nil {
		return topology.Node{}, err
	}
	node, err := d.options.Pairs.Sysfs.Node(address)
	if err == nil || place.Parent == "" {
		return node, err
	}
	parent, parentErr := topology.ParseAddress(place.Parent)
	if parentErr != nil {
		return topology.Node{}, fmt.Errorf("%w; and its PF: %w", err, parentErr)
	}
	node, err = d.options.Pairs.Sysfs.Node(parent)
	node.Address = address
	return node, err
}

func (a aligned) other(s *step) neighbour {
	if a.gpu.step == s {
		return a.vf
	}
	return a.gpu
}

// nearest returns what of the other kind is nearest to a step's device: for a
// part of a composite its other part.
func (p *plan) nearest(s *step) (aligned, bool) {
	var best *aligned
	for n := range p.aligned {
		a := &p.aligned[n]
		switch {
		case a.gpu.step != s && a.vf.step != s:
		case sameResult(a.gpu.step.entry, a.vf.step.entry):
			return *a, true
		case best == nil || a.compare(*best) > 0:
			best = a
		}
	}
	if best == nil {
		return aligned{}, false
	}
	return *best, true
}

// alignments are what a claim's record says of it.
func (p *plan) alignments() []claimstore.Alignment {
	var all []claimstore.Alignment
	for _, a := range p.aligned {
		all = append(all, claimstore.Alignment{
			GPU: a.gpu.step.grant.Device, GPUAddress: a.gpu.node.Address.String(), GPUNUMANode: a.gpu.node.NUMA,
			VF: a.vf.step.grant.Device, VFAddress: a.vf.node.Address.String(), VFNUMANode: a.vf.node.NUMA,
			Relation: a.relation.String(),
		})
	}
	return all
}
