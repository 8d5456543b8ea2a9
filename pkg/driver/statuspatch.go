package driver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourceclient "k8s.io/client-go/kubernetes/typed/resource/v1"
)

// rewritesAllocation tells whether an error of a server-side apply says that it
// would have changed the allocation.
//
// It never means to: but it writes the opaque parameters of the claim's
// configuration, which are part of the allocation, with their fields in the
// order of the alphabet. Where whoever made the claim has sent them in another
// order, as programs do, the API server then finds that the allocation was
// changed, and refuses (seen with Kubernetes 1.37.1).
func rewritesAllocation(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || !apierrors.IsInvalid(err) {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "status.allocation" })
}

// patchStatus writes what applying would, by a patch that leaves the rest of
// the claim as it is, byte for byte. It is refused, to be tried again, when
// somebody else has changed the claim meanwhile.
func (d *Driver) patchStatus(ctx context.Context, claims resourceclient.ResourceClaimInterface, claim *resourceapi.ResourceClaim, desired []deviceStatus) error {
	devices := slices.Clone(claim.Status.Devices)
	for _, s := range desired {
		devices = slices.DeleteFunc(devices, func(has resourceapi.AllocatedDeviceStatus) bool {
			return has.Driver == d.options.DriverName && s.is(&has)
		})
		entry := resourceapi.AllocatedDeviceStatus{Driver: s.driver, Pool: s.pool, Device: s.device, Conditions: s.conditions, NetworkData: s.network}
		if s.shareID != nil {
			id := string(*s.shareID)
			entry.ShareID = &id
		}
		devices = append(devices, entry)
	}
	type change struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	patch, err := json.Marshal([]change{
		{"replace", "/metadata/uid", claim.UID},
		{"replace", "/metadata/resourceVersion", claim.ResourceVersion},
		{"add", "/status/devices", devices},
	})
	if err != nil {
		return fmt.Errorf("make a patch: %w", err)
	}
	_, err = claims.Patch(ctx, claim.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: d.options.DriverName}, "status")
	return err
}
