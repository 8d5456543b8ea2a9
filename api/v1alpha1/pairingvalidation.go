package v1alpha1

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// defaultAlignment keeps GPUs from NICs of another NUMA node.
const defaultAlignment = "NODE"

// alignments are the values of leastAlignment, the nearest first.
func alignments() []string { return []string{"PIX", "PXB", "PHB", "NODE", "SYS"} }

func (c *PairingConfig) validate(path *field.Path) field.ErrorList {
	var errs field.ErrorList
	// Empty is the default of a configuration that was made without a file.
	if c.LeastAlignment != "" && !slices.Contains(alignments(), c.LeastAlignment) {
		errs = append(errs, field.NotSupported(path.Child("leastAlignment"), c.LeastAlignment, alignments()))
	}
	wrong := isPCIAddress("0000:18:00.0")
	seen := map[string]int{}
	for i, p := range c.Pairs {
		path := path.Child("pairs").Index(i)
		if p.GPU == "" {
			errs = append(errs, field.Required(path.Child("gpu"), "want the PCI address of a GPU, such as 0000:1b:00.0"))
		} else if why := wrong(p.GPU); why != "" {
			errs = append(errs, field.Invalid(path.Child("gpu"), p.GPU, why))
		}
		if why := wrong(p.NIC); p.NIC != "" && why != "" {
			errs = append(errs, field.Invalid(path.Child("nic"), p.NIC, why))
		}
		if first, ok := seen[p.GPU]; ok && p.GPU != "" {
			errs = append(errs, field.Invalid(path.Child("gpu"), p.GPU, fmt.Sprintf("pairing.pairs[%d] has decided about this GPU: remove one of the two", first)))
			continue
		}
		seen[p.GPU] = i
	}
	return errs
}
