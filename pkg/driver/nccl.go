package driver

import (
	"slices"
	"strings"

	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// addNCCL tells NCCL in the containers which RDMA devices to use, in the order
// of the claim's GPUs: for each GPU the one that is nearest to it. Two GPUs that
// share one name it once, as does NCCL itself.
//
// See https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html: the
// sign of equality means exactly these names, not all that begin so.
func (d *Driver) addNCCL(p *plan, edits map[string]map[string]device.Edits) {
	if !d.options.SetIBHCA {
		return
	}
	var names []string
	for n := range p.steps {
		s := &p.steps[n]
		if s.kind != device.KindGPU {
			continue
		}
		beside, ok := p.nearest(s)
		if !ok {
			continue
		}
		vf := beside.vf.step
		// What it is given, not what it has: a VF may be used without RDMA.
		name := edits[vf.family.Name()][vf.grant.Device].Attributes[device.AttributeRDMADevice].StringValue
		if name != nil && !slices.Contains(names, *name) {
			names = append(names, *name)
		}
	}
	if len(names) == 0 {
		return
	}
	variable := "NCCL_IB_HCA==" + strings.Join(names, ",")
	for _, s := range p.steps {
		if s.kind != device.KindVF {
			continue
		}
		byDevice := edits[s.family.Name()]
		for name, e := range byDevice {
			common := cdispec.ContainerEdits{}
			if e.Common != nil {
				common = *e.Common
			}
			common.Env = append(slices.Clip(common.Env), variable)
			e.Common = &common
			byDevice[name] = e
		}
		return // all VFs are of one family, whose common edits are used once
	}
}
