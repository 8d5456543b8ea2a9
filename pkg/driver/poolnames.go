package driver

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// reasonUnfit is the reason of the fault that takes the place of a device which
// cannot be published as its family describes it.
const reasonUnfit = "Unfit"

// poolNames are the names that the families' devices have in the pool.
type poolNames map[string]bool

// check makes a fault of each device that would do harm in the pool: one that
// the API server refuses takes all others of its slice with it, of two with one
// name a claim gets whichever, and what occupies nothing is given away twice.
func (names poolNames) check(found device.Inventory) device.Inventory {
	var fit []device.Device
	faults := slices.Clip(found.Faults)
	for _, d := range found.Devices {
		if err := names.unfit(d); err != nil {
			faults = append(faults, device.Fault{Subject: fmt.Sprintf("device %q", d.Name), Reason: reasonUnfit, Err: err})
			continue
		}
		names[d.Name] = true
		fit = append(fit, d)
	}
	found.Devices, found.Faults = fit, faults
	return found
}

func (names poolNames) unfit(d device.Device) error {
	if problems := validation.IsDNS1123Label(d.Name); len(problems) > 0 {
		return errors.New("its name is refused by the API: " + strings.Join(problems, "; "))
	}
	if names[d.Name] {
		return errors.New("another device of this node has its name: report it to the developers of this driver")
	}
	if len(d.Occupies) == 0 {
		return errors.New("it occupies nothing, so that two claims could get it: report it to the developers of this driver")
	}
	return nil
}
