package claimstore

import (
	"encoding/json"
	"reflect"
	"slices"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// Attached are the devices of a claim that are in one sandbox. The attach hook
// reads it, so that a container can start again there without the plugin.
type Attached struct {
	Sandbox device.Sandbox   `json:"sandbox"`
	Devices []AttachedDevice `json:"devices"`

	unknown map[string]json.RawMessage
}

// AttachedDevice is what a device of the record has become in a sandbox.
type AttachedDevice struct {
	// Family and Device are those of the record's [Device].
	Family     string            `json:"family"`
	Device     string            `json:"device"`
	Attachment device.Attachment `json:"attachment"`

	unknown map[string]json.RawMessage
}

// The plain types have the fields without the methods below.
type (
	plainAttached       Attached
	plainAttachedDevice AttachedDevice
)

// UnmarshalJSON keeps the fields that this release does not know.
func (a *Attached) UnmarshalJSON(data []byte) (err error) {
	a.unknown, err = decodeKeeping(data, (*plainAttached)(a))
	return err
}

// MarshalJSON writes the fields that this release does not know as they were.
func (a Attached) MarshalJSON() ([]byte, error) { return encodeKeeping(plainAttached(a), a.unknown) }

// UnmarshalJSON keeps the fields that this release does not know.
func (d *AttachedDevice) UnmarshalJSON(data []byte) (err error) {
	d.unknown, err = decodeKeeping(data, (*plainAttachedDevice)(d))
	return err
}

// MarshalJSON writes the fields that this release does not know as they were.
func (d AttachedDevice) MarshalJSON() ([]byte, error) {
	return encodeKeeping(plainAttachedDevice(d), d.unknown)
}

// Attach notes that devices are in a sandbox, and thereby in no other. It tells
// whether that is new.
func (r *Record) Attach(sandbox device.Sandbox, devices []AttachedDevice) bool {
	sandbox.Netns = nil // valid during a call only
	now := Attached{Sandbox: sandbox, Devices: slices.Clone(devices)}
	for n := range now.Devices {
		now.Devices[n].Attachment.Changed = false // of the call
	}
	attached := []Attached{now}
	for _, other := range r.Attached {
		if other.Sandbox.ID == sandbox.ID {
			attached[0].unknown = other.unknown
			continue
		}
		other.Devices = slices.DeleteFunc(slices.Clone(other.Devices), func(d AttachedDevice) bool {
			return slices.ContainsFunc(devices, d.sameDevice)
		})
		if len(other.Devices) > 0 {
			attached = append(attached, other)
		}
	}
	if reflect.DeepEqual(attached, r.Attached) {
		return false
	}
	r.Attached = attached
	return true
}

func (d AttachedDevice) sameDevice(other AttachedDevice) bool {
	return d.Family == other.Family && d.Device == other.Device
}

// Attachment returns in which sandbox a device of the record is, and what it has
// become there.
func (r *Record) Attachment(of Device) (device.Sandbox, device.Attachment, bool) {
	for _, a := range r.Attached {
		for _, d := range a.Devices {
			if d.Family == of.Family && d.Device == of.Device {
				return a.Sandbox, d.Attachment, true
			}
		}
	}
	return device.Sandbox{}, device.Attachment{}, false
}

// MustAttach tells whether the claim has devices that must be attached.
func (r *Record) MustAttach() bool {
	return slices.ContainsFunc(r.Devices, func(d Device) bool { return d.Attach })
}
