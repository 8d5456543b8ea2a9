package device

import (
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	cdispec "tags.cncf.io/container-device-interface/specs-go"
)

// Claim identifies a ResourceClaim. Namespace and Name are for people; the UID
// decides.
type Claim struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
}

// String returns namespace/name:uid, as it appears in errors and logs.
func (c Claim) String() string {
	return c.Namespace + "/" + c.Name + ":" + string(c.UID)
}

// Grant is one device that one claim was allocated.
type Grant struct {
	Claim Claim
	// Request is the request of the claim that the device answers, with its
	// subrequest ("request/subrequest") where there is one.
	Request string
	// Device is the name of the device in the pool.
	Device string
	// Occupies is [Device.Occupies] at the time of the first preparation. A
	// family that has to undo a grant finds the hardware by it, also when the
	// device is no longer there.
	Occupies []string
	// AdminAccess grants see the device without owning it: they neither
	// change it nor free it.
	AdminAccess bool
	// Config is the family's own configuration, defaulted and validated. It is
	// nil only for families that have none.
	Config runtime.Object
}

// Edits are what a container gets when it uses a granted device.
type Edits struct {
	// Common is needed once, however many devices of the same family the
	// container uses: libraries, control nodes, hooks.
	Common *cdispec.ContainerEdits
	// Device belongs to this one device.
	Device *cdispec.ContainerEdits
	// Attach says that the device must also be joined to the network namespace
	// of each pod that uses it, before any of the pod's containers that
	// reference the claim starts.
	Attach bool
	// Attributes are written into the device's metadata file, beside those
	// that the ResourceSlice has, for the workload to read.
	Attributes map[resourceapi.QualifiedName]resourceapi.DeviceAttribute
}
