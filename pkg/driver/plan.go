package driver

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// step is one device of a claim that is about to be prepared.
type step struct {
	family Family
	grant  device.Grant
	// entry is the device as the claim's record will have it.
	entry claimstore.Device
	// published are the attributes of the device in its ResourceSlice.
	published map[resourceapi.QualifiedName]resourceapi.DeviceAttribute
}

// config is one configuration of a claim's allocation.
type config struct {
	path     string
	requests []string
	value    runtime.Object
}

// ownResults returns the allocation results of a claim that are this driver's.
// A claim may have devices of other drivers too; those are none of our
// business.
func (d *Driver) ownResults(claim *resourceapi.ResourceClaim) []resourceapi.DeviceRequestAllocationResult {
	var own []resourceapi.DeviceRequestAllocationResult
	if claim.Status.Allocation == nil {
		return nil
	}
	for _, r := range claim.Status.Allocation.Devices.Results {
		if r.Driver == d.options.DriverName {
			own = append(own, r)
		}
	}
	return own
}

// plan works out what has to be done for each of the claim's devices. It
// changes nothing.
func (d *Driver) plan(ref device.Claim, claim *resourceapi.ResourceClaim, results []resourceapi.DeviceRequestAllocationResult) ([]step, error) {
	if err := checkName(ref); err != nil {
		return nil, err
	}
	configs, err := d.configs(claim)
	if err != nil {
		return nil, err
	}
	steps := make([]step, 0, len(results))
	families := map[string][]Family{}
	for _, r := range results {
		s, err := d.planOne(ref, r, configs)
		if err != nil {
			return nil, fmt.Errorf("request %q: %w", r.Request, err)
		}
		steps = append(steps, s)
		families[r.Request] = append(families[r.Request], s.family)
	}
	for _, c := range configs {
		if err := c.fits(families); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

func (d *Driver) planOne(ref device.Claim, r resourceapi.DeviceRequestAllocationResult, configs []config) (step, error) {
	if r.Pool != d.pool {
		return step{}, fmt.Errorf("device %q is of pool %q, and this node has pool %q only: the allocation is of another node, or was not made by the scheduler", r.Device, r.Pool, d.pool)
	}
	dev, ok := d.inventory.device(r.Device)
	if !ok {
		return step{}, fmt.Errorf("device %q is not on this node (any more): %s", r.Device, d.whyMissing())
	}
	value := dev.family.NewConfig()
	for _, c := range configs {
		if c.covers(r.Request) && reflect.TypeOf(c.value) == reflect.TypeOf(value) {
			value = c.value
		}
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return step{}, fmt.Errorf("encode the configuration of device %q: %w", r.Device, err)
	}
	admin := ptr.Deref(r.AdminAccess, false)
	return step{
		family: dev.family,
		grant: device.Grant{
			Claim: ref, Request: r.Request, Device: r.Device,
			Occupies: dev.Occupies, AdminAccess: admin, Config: value,
		},
		entry: claimstore.Device{
			Family: dev.family.Name(), Request: r.Request, Pool: r.Pool, Device: r.Device, ShareID: r.ShareID,
			Occupies: dev.Occupies, AdminAccess: admin, Config: raw,
		},
		published: dev.Attributes,
	}, nil
}

// whyMissing tells what is known about devices that should be there.
func (d *Driver) whyMissing() string {
	var reasons []string
	d.inventory.mu.RLock()
	defer d.inventory.mu.RUnlock()
	for _, f := range d.inventory.found {
		if f.err != nil {
			reasons = append(reasons, fmt.Sprintf("%s: %v", f.family.Name(), f.err))
		}
		for _, fault := range f.inventory.Faults {
			reasons = append(reasons, fmt.Sprintf("%s: %v", fault.Subject, fault.Err))
		}
	}
	if len(reasons) == 0 {
		return "the devices of this node are in its ResourceSlices; delete the pod so that it is scheduled again"
	}
	return strings.Join(reasons, "; ")
}

// configs decodes the claim's configurations that are for this driver, the
// ones of its device classes first, so that a later one overrides an earlier.
func (d *Driver) configs(claim *resourceapi.ResourceClaim) ([]config, error) {
	all := claim.Status.Allocation.Devices.Config
	var configs []config
	for _, source := range []resourceapi.AllocationConfigSource{resourceapi.AllocationConfigSourceClass, resourceapi.AllocationConfigSourceClaim} {
		for n, c := range all {
			if c.Source != source || c.Opaque == nil || c.Opaque.Driver != d.options.DriverName {
				continue
			}
			path := fmt.Sprintf("status.allocation.devices.config[%d].opaque.parameters (%s)", n, source)
			value, err := d.decoder.Decode(c.Opaque.Parameters.Raw)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			configs = append(configs, config{path: path, requests: c.Requests, value: value})
		}
	}
	return configs, nil
}

// covers tells whether the configuration is for a request. One that names a
// request covers its subrequests too; one that names none covers all.
func (c config) covers(request string) bool {
	parent, _, _ := strings.Cut(request, "/")
	return len(c.requests) == 0 || slices.Contains(c.requests, request) || slices.Contains(c.requests, parent)
}

// fits returns an error if the configuration names requests but none of their
// devices can take it. One for all requests may find nothing to do.
func (c config) fits(families map[string][]Family) error {
	if len(c.requests) == 0 {
		return nil
	}
	var wanted []string
	for request, fs := range families {
		if !c.covers(request) {
			continue
		}
		for _, f := range fs {
			if reflect.TypeOf(f.NewConfig()) == reflect.TypeOf(c.value) {
				return nil
			}
			wanted = append(wanted, f.Name())
		}
	}
	if len(wanted) == 0 { // requests answered by another driver, or by another subrequest
		return nil
	}
	slices.Sort(wanted)
	return fmt.Errorf("%s: kind %s does not configure the devices of requests %s, which are of family %s",
		c.path, c.value.GetObjectKind().GroupVersionKind().Kind, strings.Join(c.requests, ", "), strings.Join(slices.Compact(wanted), ", "))
}

// grantOf returns the grant of a device that is in a record or holding, to
// undo it.
func (d *Driver) grantOf(claim device.Claim, entry claimstore.Device) (Family, device.Grant, error) {
	family, ok := d.inventory.family(entry.Family)
	if !ok {
		return nil, device.Grant{}, fmt.Errorf("device %q of claim %s belongs to family %q, which is switched off or not in this release: switch it on to release the device", entry.Device, claim, entry.Family)
	}
	value := family.NewConfig()
	if len(entry.Config) > 0 {
		decoded, err := d.decoder.Decode(entry.Config)
		// What an older or newer release wrote may not decode here. The
		// defaults undo more than less.
		if err == nil && reflect.TypeOf(decoded) == reflect.TypeOf(value) {
			value = decoded
		}
	}
	return family, device.Grant{
		Claim: claim, Request: entry.Request, Device: entry.Device,
		Occupies: entry.Occupies, AdminAccess: entry.AdminAccess, Config: value,
	}, nil
}

func claimRef(claim *resourceapi.ResourceClaim) device.Claim {
	return device.Claim{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
}

func podUIDs(claim *resourceapi.ResourceClaim) []types.UID {
	var uids []types.UID
	for _, consumer := range claim.Status.ReservedFor {
		if consumer.Resource == "pods" {
			uids = append(uids, consumer.UID)
		}
	}
	return uids
}

// errNoDevice is a claim that kubelet should not have brought to this driver.
var errNoDevice = errors.New("status.allocation has no device of this driver: the claim was deallocated or is another driver's")
