package deviceplugin

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// renamed brings a holding up to date whose device is by now served as another
// resource, or under another ID, and tells whether it was not. Kubelet counts the
// devices of each resource and ID by themselves, so that as long as a pod has the
// device by its former name the holding keeps that name.
func (p *Plugin) renamed(thing string, h *claimstore.Holding, u use, asked time.Time) (bool, error) {
	i := p.items().occupying(thing)
	if i == nil || i.resource == nil {
		return false, nil
	}
	resource, id := i.resource.Name, i.id
	switch {
	case u.formerResource != "" || u.formerID != "":
		resource, id = cmp.Or(u.formerResource, resource), cmp.Or(u.formerID, id)
	case len(u.Pods) == 0 && (len(h.Pods) > 0 || p.committing(*h, asked)):
		return false, nil // it is not known yet as what pods have it
	}
	if resource == h.DevicePlugin.Resource && id == h.DevicePlugin.ID {
		return false, nil
	}
	if err := p.infos.remove(h.DevicePlugin.Resource, h.DevicePlugin.ID); err != nil {
		return false, err
	}
	h.DevicePlugin.Resource, h.DevicePlugin.ID = resource, id
	return true, nil
}

// otherwise tells whether pods have the device as another resource than it is
// served as, or by another ID.
func (i *item) otherwise(h claimstore.Holding) bool {
	had := h.DevicePlugin
	return i.resource != nil && had.Resource != "" && (had.Resource != i.resource.Name || had.ID != i.id)
}

// knownOtherwise returns the holding of a device of which that is so.
func (p *Plugin) knownOtherwise(i *item) (claimstore.Holding, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, thing := range i.Occupies {
		if h, ok := p.held[thing]; ok && i.otherwise(h) {
			return h, true
		}
	}
	return claimstore.Holding{}, false
}

// formerError says that pods have a device by its former name.
type formerError struct {
	device  *item
	holding claimstore.Holding
}

func (e *formerError) Error() string {
	h := e.holding.DevicePlugin
	who := "pods may still have it"
	if len(h.Users) > 0 {
		who = "pod " + strings.Join(h.Users, " and pod ") + " still has it"
	}
	return fmt.Sprintf("device %q is not served as %s yet: %s as %s %s; it comes when these pods are gone", e.device.Name, e.device.resource.Name, who, h.Resource, h.ID)
}
