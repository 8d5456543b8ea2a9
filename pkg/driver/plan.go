package driver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/metadatafiles"
)

// plan is what has to be done for an allocation, with the devices that are on
// this node now. All of it is done, or nothing.
type plan struct {
	*allocation
	steps []step
	// aligned are the GPUs with the VFs of the claim, once it is carried out.
	aligned []aligned
}

// step is what one family has to do for one allocation result.
type step struct {
	family Family
	grant  device.Grant
	// kind and place are those of the device that the family has a part in.
	kind  device.Kind
	place *device.Place
	// entry is the device as the claim's record will have it.
	entry claimstore.Device
	// published are the attributes of the device in its ResourceSlice. The
	// steps of one result have them once.
	published map[resourceapi.QualifiedName]resourceapi.DeviceAttribute
}

// config is a configuration of an allocation, decoded.
type config struct {
	opaqueConfig
	value runtime.Object
}

// plan works out what has to be done for an allocation. It changes nothing.
func (d *Driver) plan(a *allocation) (*plan, error) {
	if err := metadatafiles.CheckName(a.claim); err != nil {
		return nil, err
	}
	configs, err := d.decode(a.configs)
	if err != nil {
		return nil, err
	}
	p := &plan{allocation: a}
	for _, r := range a.results {
		steps, err := d.planResult(a.claim, r, configs)
		if err != nil {
			return nil, fmt.Errorf("request %q: %w", r.Request, err)
		}
		p.steps = append(p.steps, steps...)
	}
	for _, c := range configs {
		if err := c.fits(p.steps); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (d *Driver) decode(raw []opaqueConfig) ([]config, error) {
	var configs []config
	for _, c := range raw {
		value, err := d.decoder.Decode(c.raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.path, err)
		}
		configs = append(configs, config{opaqueConfig: c, value: value})
	}
	return configs, nil
}

// planResult returns a step for every family that has a part in the device.
func (d *Driver) planResult(claim device.Claim, r resourceapi.DeviceRequestAllocationResult, configs []config) ([]step, error) {
	if r.Pool != d.pool {
		return nil, fmt.Errorf("device %q is of pool %q, and this node has pool %q only: the allocation is of another node, or was not made by the scheduler", r.Device, r.Pool, d.pool)
	}
	dev, ok := d.inventory.device(r.Device)
	if !ok {
		return nil, fmt.Errorf("device %q is not on this node (any more): %s", r.Device, cmp.Or(d.inventory.whyAlone(r.Device), d.whyMissing()))
	}
	parts := dev.parts
	if !dev.isComposite() {
		parts = []owned{dev}
	}
	var steps []step
	for _, part := range parts {
		s, err := planPart(claim, r, part, configs)
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	steps[0].published = dev.Attributes
	return steps, nil
}

func planPart(claim device.Claim, r resourceapi.DeviceRequestAllocationResult, part owned, configs []config) (step, error) {
	value := part.family.NewConfig()
	for _, c := range configs {
		if c.covers(r.Request) && c.configures(part.family) {
			value = c.value
		}
	}
	entry := entryOf(r)
	entry.Family, entry.Occupies = part.family.Name(), part.Occupies
	if value != nil {
		raw, err := json.Marshal(value)
		if err != nil {
			return step{}, fmt.Errorf("encode the configuration of device %q: %w", r.Device, err)
		}
		entry.Config = raw
	}
	return step{family: part.family, grant: grantFor(claim, entry, value), kind: part.Kind, place: part.Place, entry: entry}, nil
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

// configures tells whether the configuration is of a family's kind.
func (c config) configures(f Family) bool {
	own := f.NewConfig()
	return own != nil && reflect.TypeOf(own) == reflect.TypeOf(c.value)
}

// covers tells whether the configuration is for a request. One that names a
// request covers its subrequests too; one that names none covers all.
func (c config) covers(request string) bool {
	parent, _, _ := strings.Cut(request, "/")
	return len(c.requests) == 0 || slices.Contains(c.requests, request) || slices.Contains(c.requests, parent)
}

// fits returns an error if the configuration names requests but none of their
// devices can take it. One for all requests may find nothing to do.
func (c config) fits(steps []step) error {
	if len(c.requests) == 0 {
		return nil
	}
	var wanted []string
	for _, s := range steps {
		if !c.covers(s.grant.Request) {
			continue
		}
		if c.configures(s.family) {
			return nil
		}
		wanted = append(wanted, s.family.Name())
	}
	if len(wanted) == 0 { // requests answered by another driver, or by another subrequest
		return nil
	}
	slices.Sort(wanted)
	return fmt.Errorf("%s: kind %s does not configure the devices of requests %s, which are of family %s",
		c.path, c.value.GetObjectKind().GroupVersionKind().Kind, strings.Join(c.requests, ", "), strings.Join(slices.Compact(wanted), ", "))
}

// record returns what the claim's record says once the plan is carried out.
// Before is the record that it replaces, or nil.
func (p *plan) record(bootID string, before *claimstore.Record) *claimstore.Record {
	record := &claimstore.Record{}
	if before != nil {
		*record = *before // with the fields of other releases
	}
	record.Attached = nil // whoever attaches finds what is there
	record.Alignment = p.alignments()
	record.Claim, record.BootID, record.Pods, record.ConfigHash, record.Devices = p.claim, bootID, p.pods, p.configHash(), nil
	for _, s := range p.steps {
		record.Devices = append(record.Devices, s.entry)
	}
	return record
}

// grantFor returns the grant of a device that is in a record, or will be.
func grantFor(claim device.Claim, entry claimstore.Device, config runtime.Object) device.Grant {
	return device.Grant{
		Claim: claim, Request: entry.Request, Device: entry.Device,
		Occupies: entry.Occupies, AdminAccess: entry.AdminAccess, Config: config,
	}
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
	return family, grantFor(claim, entry, value), nil
}
