package allocation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/fleet"
)

// errInFlight tells that it cannot be known for the moment whether devices are
// there: the slices that would say so are being updated.
var errInFlight = errors.New("the ResourceSlices of the devices cannot be used for now")

// toGive makes sure that all of an allocation is there now, and is ours to give:
// a device may have changed hands since it was chosen. It is called right before
// a write, which then has less time than a device takes to change hands.
func (c *Controller) toGive(nodeName string, allocation *resourceapi.AllocationResult) error {
	node := c.Fleet.View().Node(nodeName)
	for _, result := range allocation.Devices.Results {
		if result.Driver != c.DriverName {
			continue
		}
		if node == nil {
			return fmt.Errorf("there is no node %s any more", nodeName)
		}
		if i := slices.IndexFunc(node.Unusable, func(why string) bool { return strings.HasPrefix(why, result.Pool+": ") }); i >= 0 {
			return fmt.Errorf("%w: pool %s", errInFlight, node.Unusable[i])
		}
		managed := slices.ContainsFunc(node.Pools, func(p *fleet.Pool) bool {
			place, ok := p.Shape.Place(result.Device)
			return p.Name == result.Pool && ok && p.Shape.Devices[place].Managed
		})
		if !managed {
			return fmt.Errorf("device %s of pool %s is not there any more, or no longer ours to give", result.Device, result.Pool)
		}
	}
	return nil
}
