package claimstatus

import (
	"errors"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	resourceapply "k8s.io/client-go/applyconfigurations/resource/v1"
)

// claimApplyConfiguration names the claim's UID, so that a later claim of the
// same name does not get the status of this one.
func claimApplyConfiguration(claim *resourceapi.ResourceClaim, statuses []deviceStatus) *resourceapply.ResourceClaimApplyConfiguration {
	status := resourceapply.ResourceClaimStatus()
	for _, s := range statuses {
		entry := resourceapply.AllocatedDeviceStatus().WithDriver(s.driver).WithPool(s.pool).WithDevice(s.device)
		if s.shareID != nil {
			entry.WithShareID(string(*s.shareID))
		}
		for _, c := range s.conditions {
			entry.WithConditions(metaapply.Condition().WithType(c.Type).WithStatus(c.Status).WithReason(c.Reason).
				WithMessage(c.Message).WithLastTransitionTime(c.LastTransitionTime))
		}
		if s.data != nil {
			entry.WithData(*s.rawData())
		}
		if s.network != nil {
			data := resourceapply.NetworkDeviceData()
			if s.network.InterfaceName != "" {
				data.WithInterfaceName(s.network.InterfaceName)
			}
			if s.network.HardwareAddress != "" {
				data.WithHardwareAddress(s.network.HardwareAddress)
			}
			entry.WithNetworkData(data.WithIPs(s.network.IPs...))
		}
		status.WithDevices(entry)
	}
	return resourceapply.ResourceClaim(claim.Name, claim.Namespace).WithUID(claim.UID).WithStatus(status)
}

// rewritesAllocation tells whether an error of a server-side apply says that it
// would have changed the allocation.
//
// It never means to: but the API server writes the opaque parameters of the
// claim's configuration, which are part of the allocation, anew, with their
// fields in the order of the alphabet and without blanks. Where whoever made
// the claim has sent them in another form, as programs do, it then finds that
// the allocation was changed, and refuses (seen with Kubernetes 1.37.1). A JSON
// patch keeps the order and loses the blanks; an update in protobuf, which the
// plugin's client speaks, leaves the parameters as they are, byte for byte.
func rewritesAllocation(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || !apierrors.IsInvalid(err) {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "status.allocation" })
}

// withStatuses returns a copy of the claim with the entries of this driver's
// devices brought up to date, for an update that is refused, to be tried again,
// when somebody else has changed the claim meanwhile. What others have written
// stays.
func withStatuses(claim *resourceapi.ResourceClaim, desired []deviceStatus) *resourceapi.ResourceClaim {
	claim = claim.DeepCopy()
	for _, s := range desired {
		entry := s.in(claim)
		if entry == nil {
			claim.Status.Devices = append(claim.Status.Devices, resourceapi.AllocatedDeviceStatus{
				Driver: s.driver, Pool: s.pool, Device: s.device, ShareID: (*string)(s.shareID),
			})
			entry = &claim.Status.Devices[len(claim.Status.Devices)-1]
		}
		entry.NetworkData, entry.Data = s.network, s.rawData()
		entry.Conditions = slices.DeleteFunc(entry.Conditions, func(c metav1.Condition) bool {
			return c.Type == conditionReady || c.Type == conditionAttachFailed
		})
		entry.Conditions = append(entry.Conditions, s.conditions...)
	}
	return claim
}
