package e2e

import (
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Types of devices.
const (
	gpuType  = "gpu"
	vfType   = "vf"
	pairType = "gpu-vf"
)

// stock is what a machine physically has: PCI functions, known by their
// addresses in sysfs.
type stock struct {
	pool      string
	gpus, vfs []string
	// besides are the VFs of pairs, by the GPU that each is paired with.
	besides map[string]string
	// made tells which functions a device of the pool is made of.
	made map[string][]string
}

// newStock reads off slices what the machine has.
func newStock(pool string, published []resourceapi.ResourceSlice) *stock {
	s := &stock{pool: pool, besides: map[string]string{}, made: map[string][]string{}}
	for _, slice := range published {
		for _, d := range slice.Spec.Devices {
			address := value(d.Attributes["resource.kubernetes.io/pciBusID"])
			s.made[d.Name] = []string{address}
			switch value(d.Attributes["type"]) {
			case gpuType:
				s.gpus = append(s.gpus, address)
			case vfType:
				s.vfs = append(s.vfs, address)
			case pairType:
				vf := value(d.Attributes["vfPCIBusID"])
				s.besides[address] = vf
				s.made[d.Name] = append(s.made[d.Name], vf)
			}
		}
	}
	return s
}

// want is a request of a claim.
type want struct {
	kind  string
	count int
	// at begins the PCI address of what is wanted; of a pair it is the GPU's.
	at string
}

// order is what one claim asks for. It has at most one want of each kind, and
// pairs are asked for alone.
type order []want

func (o order) String() string {
	var all []string
	for _, w := range o {
		text := fmt.Sprintf("%d %s", w.count, w.kind)
		if w.at != "" {
			text += " at " + w.at
		}
		all = append(all, text)
	}
	return strings.Join(all, " and ")
}

func (o order) has(kinds ...string) bool {
	return slices.ContainsFunc(o, func(w want) bool { return slices.Contains(kinds, w.kind) })
}

// claim returns the claim for the order, with a request for each want.
func (o order) claim() resourceapi.ResourceClaimSpec {
	classes := map[string]string{gpuType: harness.DeviceClass, vfType: vfClass, pairType: pairClass}
	var spec resourceapi.ResourceClaimSpec
	for _, w := range o {
		exact := &resourceapi.ExactDeviceRequest{
			DeviceClassName: classes[w.kind], AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: int64(w.count),
		}
		if w.at != "" {
			exact.Selectors = selectors([]string{fmt.Sprintf("device.attributes['resource.kubernetes.io'].pciBusID.startsWith('%s')", w.at)})
		}
		spec.Devices.Requests = append(spec.Devices.Requests, resourceapi.DeviceRequest{Name: w.kind, Exactly: exact})
	}
	return spec
}

// could tells whether the order can be met with what is free. Free functions
// are all that it looks at: a GPU is as good as any other, and so is a VF, and
// a pair is there when both of its functions are free. So counting is enough,
// and it is exact, since GPUs and VFs of one order do not compete.
func (s *stock) could(free map[string]bool, o order) bool {
	for _, w := range o {
		if len(s.suits(free, w)) < w.count {
			return false
		}
	}
	return true
}

// suits returns the free functions that suit a want; of a pair, its GPU.
func (s *stock) suits(free map[string]bool, w want) []string {
	from := s.gpus
	if w.kind == vfType {
		from = s.vfs
	}
	var suitable []string
	for _, address := range from {
		ok := free[address] && strings.HasPrefix(address, w.at)
		if w.kind == pairType {
			vf, paired := s.besides[address]
			ok = ok && paired && free[vf]
		}
		if ok {
			suitable = append(suitable, address)
		}
	}
	return suitable
}

// isPaired tells whether a VF is part of a pair.
func (s *stock) isPaired(vf string) bool {
	for _, paired := range s.besides {
		if paired == vf {
			return true
		}
	}
	return false
}
