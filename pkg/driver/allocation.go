package driver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// allocation is what the scheduler has given one claim of this driver's
// devices. A claim may have devices of other drivers too; those are none of our
// business.
type allocation struct {
	claim device.Claim
	// pods are those that the claim is reserved for.
	pods    []types.UID
	results []resourceapi.DeviceRequestAllocationResult
	// configs are the ones of the device classes first, so that a later one
	// overrides an earlier.
	configs []opaqueConfig
}

// opaqueConfig is a configuration of an allocation as it stands there.
type opaqueConfig struct {
	// path is where in the claim it stands.
	path     string
	requests []string
	raw      []byte
}

// errNoDevice is a claim that kubelet should not have brought to this driver.
var errNoDevice = errors.New("status.allocation has no device of this driver: the claim was deallocated or is another driver's")

func (d *Driver) allocationOf(claim *resourceapi.ResourceClaim) *allocation {
	a := &allocation{claim: claimRef(claim)}
	for _, consumer := range claim.Status.ReservedFor {
		if consumer.Resource == "pods" {
			a.pods = append(a.pods, consumer.UID)
		}
	}
	if claim.Status.Allocation == nil {
		return a
	}
	devices := claim.Status.Allocation.Devices
	for _, r := range devices.Results {
		if r.Driver == d.options.DriverName {
			a.results = append(a.results, r)
		}
	}
	for _, source := range []resourceapi.AllocationConfigSource{resourceapi.AllocationConfigSourceClass, resourceapi.AllocationConfigSourceClaim} {
		for n, c := range devices.Config {
			if c.Source != source || c.Opaque == nil || c.Opaque.Driver != d.options.DriverName {
				continue
			}
			a.configs = append(a.configs, opaqueConfig{
				path:     fmt.Sprintf("status.allocation.devices.config[%d].opaque.parameters (%s)", n, source),
				requests: c.Requests, raw: c.Opaque.Parameters.Raw,
			})
		}
	}
	return a
}

// isOf tells whether a record was made for this allocation.
func (a *allocation) isOf(r *claimstore.Record) bool {
	if r.ConfigHash != "" && r.ConfigHash != a.configHash() { // earlier releases wrote none
		return false
	}
	// A device that several families prepare has an entry for each.
	entries := slices.CompactFunc(slices.Clone(r.Devices), sameResult)
	return slices.EqualFunc(entries, a.results, func(entry claimstore.Device, result resourceapi.DeviceRequestAllocationResult) bool {
		return sameResult(entry, entryOf(result))
	})
}

// configHash tells one set of configurations from another. It does not depend
// on what this release understands of them.
func (a *allocation) configHash() string {
	hash := sha256.New()
	for _, c := range a.configs {
		compact := &bytes.Buffer{}
		if err := json.Compact(compact, c.raw); err != nil {
			compact = bytes.NewBuffer(c.raw)
		}
		_, _ = fmt.Fprintf(hash, "%q %q\n", c.requests, compact) // never fails
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// gives tells whether any of the devices is allocated.
func (a *allocation) gives(entries []claimstore.Device) bool {
	for _, r := range a.results {
		if slices.ContainsFunc(entries, func(e claimstore.Device) bool { return e.Pool == r.Pool && e.Device == r.Device }) {
			return true
		}
	}
	return false
}

// entryOf returns what a record says of a device before it is prepared.
func entryOf(r resourceapi.DeviceRequestAllocationResult) claimstore.Device {
	return claimstore.Device{
		Request: r.Request, Pool: r.Pool, Device: r.Device, ShareID: r.ShareID,
		AdminAccess: ptr.Deref(r.AdminAccess, false),
	}
}

// sameResult tells whether two entries are of the same allocation result.
func sameResult(a, b claimstore.Device) bool {
	return a.Request == b.Request && a.Pool == b.Pool && a.Device == b.Device && ptr.Equal(a.ShareID, b.ShareID)
}

func claimRef(claim *resourceapi.ResourceClaim) device.Claim {
	return device.Claim{Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID}
}
