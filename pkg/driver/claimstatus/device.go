package claimstatus

import (
	"encoding/json"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// The conditions of a device in a claim's status, and their reasons.
const (
	// conditionReady is whether the device is in a pod's network namespace.
	conditionReady = "Ready"
	// conditionAttachFailed is there while the last try to attach the device
	// has failed.
	conditionAttachFailed = "AttachFailed"

	reasonAttached    = "Attached"
	reasonNotAttached = "NotAttached"
	reasonAttachError = "AttachError"
)

const (
	// maxStatusMessage bounds a condition's message, in bytes. The API allows
	// more than a person would read.
	maxStatusMessage = 2 << 10
	// maxStatusIPs is what the API allows in networkData.
	maxStatusIPs = 16
)

// deviceStatus is one entry of a claim's status.devices, the fields that this
// driver owns.
type deviceStatus struct {
	driver, pool, device string
	shareID              *types.UID
	conditions           []metav1.Condition
	network              *resourceapi.NetworkDeviceData
	// data is JSON, or nil.
	data []byte
}

// deviceStatuses returns what a claim's status should say: an entry for each
// device that is attached, or has failed to be, or waits for a container, or has
// others to be near to.
func (w *Writer) deviceStatuses(record *claimstore.Record, failure *attachFailure, claim *resourceapi.ResourceClaim) []deviceStatus {
	var statuses []deviceStatus
	for _, entry := range record.Devices {
		if !isAllocated(claim, w.driver, entry) {
			continue
		}
		s := deviceStatus{driver: w.driver, pool: entry.Pool, device: entry.Device, shareID: entry.ShareID}
		s.addAttachment(record, entry, failure)
		s.data = dataOf(record, entry)
		if len(s.conditions) == 0 && s.data == nil {
			continue
		}
		if n := len(statuses) - 1; n >= 0 && statuses[n].sameDevice(s) { // the other part of a composite
			statuses[n].merge(s)
			continue
		}
		statuses = append(statuses, s)
	}
	for n := range statuses {
		statuses[n] = statuses[n].withTimes(claim)
	}
	return statuses
}

// addAttachment says where a device is attached, or why it is not.
func (s *deviceStatus) addAttachment(record *claimstore.Record, entry claimstore.Device, failure *attachFailure) {
	sandbox, attachment, attached := record.Attachment(entry)
	switch {
	case !entry.Attach || !attached && !failure.concerns(entry):
		return
	case attached:
		s.network = NetworkData(attachment)
		s.conditions = []metav1.Condition{condition(conditionReady, true, reasonAttached, "attached to pod "+sandbox.Pod.String())}
	case failure.unused:
		s.conditions = []metav1.Condition{condition(conditionReady, false, reasonNotAttached, failure.message)}
	default:
		s.conditions = []metav1.Condition{condition(conditionReady, false, reasonNotAttached, "attached to no pod")}
	}
	if failure.concerns(entry) && !failure.unused {
		s.conditions = append(s.conditions, condition(conditionAttachFailed, true, reasonAttachError, failure.message))
	}
}

func (s *deviceStatus) sameDevice(other deviceStatus) bool {
	return s.pool == other.pool && s.device == other.device && ptr.Equal(s.shareID, other.shareID)
}

// merge adds what the other part of a composite has to say. One part at most is
// attached.
func (s *deviceStatus) merge(other deviceStatus) {
	if len(s.conditions) == 0 {
		s.conditions, s.network = other.conditions, other.network
	}
	if s.data == nil {
		s.data = other.data
	}
}

// withTimes keeps the time of a condition that is as it was.
func (s deviceStatus) withTimes(claim *resourceapi.ResourceClaim) deviceStatus {
	has := s.in(claim)
	for n := range s.conditions {
		c := &s.conditions[n]
		c.LastTransitionTime = metav1.Now()
		if has == nil {
			continue
		}
		if before := meta.FindStatusCondition(has.Conditions, c.Type); before != nil && before.Status == c.Status {
			c.LastTransitionTime = before.LastTransitionTime
		}
	}
	return s
}

// hasStatuses tells whether a claim's status says all of it already.
func hasStatuses(claim *resourceapi.ResourceClaim, desired []deviceStatus) bool {
	return !slices.ContainsFunc(desired, func(s deviceStatus) bool {
		has := s.in(claim)
		if has == nil || !equality.Semantic.DeepEqual(has.NetworkData, s.network) || !s.hasData(has.Data) {
			return true
		}
		for _, kind := range []string{conditionReady, conditionAttachFailed} {
			if !equality.Semantic.DeepEqual(meta.FindStatusCondition(has.Conditions, kind), meta.FindStatusCondition(s.conditions, kind)) {
				return true
			}
		}
		return false
	})
}

// hasData tells whether an entry has the data, in whatever form the API server
// keeps it.
func (s deviceStatus) hasData(has *runtime.RawExtension) bool {
	if has == nil || s.data == nil {
		return has == nil && s.data == nil
	}
	var a, b any
	return json.Unmarshal(has.Raw, &a) == nil && json.Unmarshal(s.data, &b) == nil && equality.Semantic.DeepEqual(a, b)
}

// rawData is the data as the API has it.
func (s deviceStatus) rawData() *runtime.RawExtension {
	if s.data == nil {
		return nil
	}
	return &runtime.RawExtension{Raw: s.data}
}

// in returns what the claim's status says of the device, or nil.
func (s deviceStatus) in(claim *resourceapi.ResourceClaim) *resourceapi.AllocatedDeviceStatus {
	for n := range claim.Status.Devices {
		has := &claim.Status.Devices[n]
		if has.Driver == s.driver && s.is(has) {
			return has
		}
	}
	return nil
}

// is tells whether an entry of this driver is of the same device.
func (s deviceStatus) is(has *resourceapi.AllocatedDeviceStatus) bool {
	return has.Pool == s.pool && has.Device == s.device && ptr.Deref(has.ShareID, "") == string(ptr.Deref(s.shareID, ""))
}

// NetworkData is what the API says of an attachment; nil where there is nothing
// to say.
func NetworkData(a device.Attachment) *resourceapi.NetworkDeviceData {
	if a.Interface == "" && a.HardwareAddress == "" && len(a.IPs) == 0 {
		return nil
	}
	return &resourceapi.NetworkDeviceData{
		InterfaceName: a.Interface, HardwareAddress: a.HardwareAddress,
		IPs: a.IPs[:min(len(a.IPs), maxStatusIPs)],
	}
}

func condition(kind string, is bool, reason, message string) metav1.Condition {
	status := metav1.ConditionFalse
	if is {
		status = metav1.ConditionTrue
	}
	if len(message) > maxStatusMessage {
		message = strings.ToValidUTF8(message[:maxStatusMessage], "") + "…"
	}
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message}
}

func isAllocated(claim *resourceapi.ResourceClaim, driver string, entry claimstore.Device) bool {
	return slices.ContainsFunc(claim.Status.Allocation.Devices.Results, func(r resourceapi.DeviceRequestAllocationResult) bool {
		return r.Driver == driver && r.Pool == entry.Pool && r.Device == entry.Device && ptr.Equal(r.ShareID, entry.ShareID)
	})
}
