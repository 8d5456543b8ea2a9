package claimstore

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// FormatVersion is the version of the files that this release writes. Files of
// any version are read, and fields that this release does not know are kept, so
// that a downgrade loses nothing.
const FormatVersion = 1

// Record is what one claim was given on this node.
type Record struct {
	Version int          `json:"version"`
	Claim   device.Claim `json:"claim"`
	// BootID is the kernel's boot id at the time of the preparation. What
	// lives in memory or in the hardware only, such as CDI files on tmpfs, is
	// gone when it differs.
	BootID string `json:"bootID"`
	// Pods are the pods for which the claim was reserved when it was
	// prepared.
	Pods []types.UID `json:"pods,omitempty"`
	// ConfigHash stands for the configurations of the allocation. Empty in
	// records of releases that wrote none.
	ConfigHash string   `json:"configHash,omitempty"`
	Devices    []Device `json:"devices"`
	// Attached says in which sandboxes devices are, in the boot of BootID.
	Attached []Attached `json:"attached,omitempty"`
	// Alignment is of each GPU with each VF of the claim.
	Alignment []Alignment `json:"alignment,omitempty"`

	unknown map[string]json.RawMessage
}

// Device is one device of a claim, ready for use.
type Device struct {
	// Family is the name of the family that prepared it.
	Family string `json:"family"`
	// Request, Pool and Device are those of the allocation result.
	Request string     `json:"request"`
	Pool    string     `json:"pool"`
	Device  string     `json:"device"`
	ShareID *types.UID `json:"shareID,omitempty"`
	// Occupies are the physical things that the device takes up, as in
	// [device.Device].
	Occupies    []string `json:"occupies"`
	AdminAccess bool     `json:"adminAccess,omitempty"`
	// Attach says that the device must be in the network namespace of each
	// pod that uses it.
	Attach bool `json:"attach,omitempty"`
	// Config is the family's configuration as it was decoded.
	Config json.RawMessage `json:"config,omitempty"`
	// CDIDeviceIDs and Attributes are what kubelet was answered.
	CDIDeviceIDs []string                                                  `json:"cdiDeviceIDs,omitempty"`
	Attributes   map[resourceapi.QualifiedName]resourceapi.DeviceAttribute `json:"attributes,omitempty"`

	unknown map[string]json.RawMessage
}

// Holding says which claim has a physical thing, and enough to give it back
// when the claim's record was never written.
type Holding struct {
	Version int          `json:"version"`
	Claim   device.Claim `json:"claim"`
	// Pods are those of the claim's [Record], for when that is lost: a device
	// is not taken from a pod that still runs.
	Pods   []types.UID `json:"pods,omitempty"`
	Device Device      `json:"device"`
	// DevicePlugin is set where no claim has the thing, but pods get it as an
	// extended resource. Claim then stands for the device alone, and Pods are
	// those that were seen to use it.
	DevicePlugin *DevicePlugin `json:"devicePlugin,omitempty"`

	unknown map[string]json.RawMessage
}

// DevicePlugin is how pods get a device as an extended resource.
type DevicePlugin struct {
	// ID is the device's in kubelet.
	ID   string      `json:"id"`
	Kind device.Kind `json:"kind"`
	// Resource is what kubelet was asked to give it as, such as nvidia.com/gpu;
	// empty as long as it was not.
	Resource string `json:"resource,omitempty"`
	// AllocatedAt is when kubelet last gave the device to a container, in the boot
	// of BootID. Nil if it was never seen to.
	AllocatedAt *time.Time `json:"allocatedAt,omitempty"`
	BootID      string     `json:"bootID,omitempty"`
	// Users are the pods, namespace/name, that had it when kubelet was last
	// asked.
	Users []string `json:"users,omitempty"`
}

// Holder says in a person's words who has the thing.
func (h Holding) Holder() string {
	switch p := h.DevicePlugin; {
	case p == nil:
		return "claim " + h.Claim.String()
	case len(p.Users) > 0:
		return "pod " + strings.Join(p.Users, " and pod ") + ", which has it as an extended resource by the device plugin API"
	case p.Resource != "":
		return "the device plugin API, which serves it as " + p.Resource
	default:
		return "the device plugin API"
	}
}

// The plain types have the fields without the methods below.
type (
	plainRecord  Record
	plainDevice  Device
	plainHolding Holding
)

// UnmarshalJSON keeps the fields that this release does not know.
func (r *Record) UnmarshalJSON(data []byte) (err error) {
	r.unknown, err = decodeKeeping(data, (*plainRecord)(r))
	return err
}

// MarshalJSON writes the fields that this release does not know as they were.
func (r Record) MarshalJSON() ([]byte, error) { return encodeKeeping(plainRecord(r), r.unknown) }

// UnmarshalJSON keeps the fields that this release does not know.
func (d *Device) UnmarshalJSON(data []byte) (err error) {
	d.unknown, err = decodeKeeping(data, (*plainDevice)(d))
	return err
}

// MarshalJSON writes the fields that this release does not know as they were.
func (d Device) MarshalJSON() ([]byte, error) { return encodeKeeping(plainDevice(d), d.unknown) }

// UnmarshalJSON keeps the fields that this release does not know.
func (h *Holding) UnmarshalJSON(data []byte) (err error) {
	h.unknown, err = decodeKeeping(data, (*plainHolding)(h))
	return err
}

// MarshalJSON writes the fields that this release does not know as they were.
func (h Holding) MarshalJSON() ([]byte, error) { return encodeKeeping(plainHolding(h), h.unknown) }

// decodeKeeping fills into and returns the fields of data that into lacks. A
// field is known if into writes it back.
func decodeKeeping(data []byte, into any) (map[string]json.RawMessage, error) {
	if err := json.Unmarshal(data, into); err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, err
	}
	for _, name := range knownFields(into) {
		delete(all, name)
	}
	if len(all) == 0 {
		return nil, nil
	}
	return all, nil
}

func encodeKeeping(value any, unknown map[string]json.RawMessage) ([]byte, error) {
	data, err := json.Marshal(value)
	if err != nil || len(unknown) == 0 {
		return data, err
	}
	all := maps.Clone(unknown)
	known := map[string]json.RawMessage{}
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, err
	}
	maps.Copy(all, known)
	return json.Marshal(all)
}

func decodeRecord(data []byte, uid types.UID) (*Record, error) {
	r := &Record{}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("not a claim record: %w", err)
	}
	switch {
	case r.Version < 1:
		return nil, fmt.Errorf("field version is %d: want 1 or more", r.Version)
	case r.Claim.UID != uid:
		return nil, fmt.Errorf("field claim.uid is %q: want %q, as in the file's name", r.Claim.UID, uid)
	}
	return r, nil
}

func decodeHolding(data []byte) (*Holding, error) {
	h := &Holding{}
	if err := json.Unmarshal(data, h); err != nil {
		return nil, fmt.Errorf("not a holding: %w", err)
	}
	switch {
	case h.Version < 1:
		return nil, fmt.Errorf("field version is %d: want 1 or more", h.Version)
	case h.Claim.UID == "":
		return nil, fmt.Errorf("field claim.uid is empty")
	}
	return h, nil
}
