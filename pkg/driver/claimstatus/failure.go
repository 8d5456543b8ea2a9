package claimstatus

import (
	"errors"
	"fmt"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/driver/claimstore"
)

// DeviceError says which device of a claim is not attached, and why.
type DeviceError struct {
	Device claimstore.Device
	Err    error
}

// Error names the device as the claim does.
func (e *DeviceError) Error() string {
	return fmt.Sprintf("device %q (request %q): %v", e.Device.Device, e.Device.Request, e.Err)
}

// Unwrap returns why.
func (e *DeviceError) Unwrap() error { return e.Err }

// attachFailure is an attachment that has failed, or that nobody has asked for.
type attachFailure struct {
	// unused is set where no container has asked for the devices.
	unused bool
	// family and device are empty where it was no device's fault.
	family, device string
	message        string
}

func newAttachFailure(err error) *attachFailure {
	failure := &attachFailure{message: err.Error()}
	var of *DeviceError
	if errors.As(err, &of) {
		failure.family, failure.device = of.Device.Family, of.Device.Device
	}
	return failure
}

// concerns tells whether a device is among those that are not attached because
// of the failure.
func (f *attachFailure) concerns(entry claimstore.Device) bool {
	return f != nil && (f.device == "" || (f.family == entry.Family && f.device == entry.Device))
}
