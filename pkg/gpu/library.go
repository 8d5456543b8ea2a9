package gpu

import (
	"errors"
	"fmt"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// library is the NVML that is open, and the driver that it belongs to.
type library struct {
	driver installation
	nvml   nvml.Interface
}

// open returns the NVML of this driver, initialised, and the number of GPUs it
// has. It stays open from look to look, and is opened anew when the files of
// the driver are others than those that it was opened from.
func (f *Family) open(driver installation) (nvml.Interface, int, error) {
	if f.library.driver != driver {
		f.closeLibrary()
	}
	if f.library.nvml == nil {
		lib := f.opts.OpenNVML(driver.library)
		if ret := lib.Init(); ret != nvml.SUCCESS {
			return nil, 0, f.libraryError(driver, "start NVML", ret)
		}
		f.library = library{driver: driver, nvml: lib}
	}
	lib := f.library.nvml
	version, ret := lib.SystemGetDriverVersion()
	if ret != nvml.SUCCESS {
		f.closeLibrary()
		return nil, 0, f.libraryError(driver, "read the driver's version", ret)
	}
	if f.replaced(driver) && driver.version != "" && driver.version != version {
		f.closeLibrary()
		return nil, 0, replacedError(fmt.Errorf("version %s is loaded, version %s is installed", version, driver.version))
	}
	count, ret := lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		f.closeLibrary()
		return nil, 0, f.libraryError(driver, "count the GPUs", ret)
	}
	f.former = driver
	return lib, count, nil
}

// closeLibrary lets go of NVML, so that the driver can be unloaded. That it
// fails changes nothing for the next one, so nobody is told.
func (f *Family) closeLibrary() {
	if f.library.nvml != nil {
		_ = f.library.nvml.Shutdown()
	}
	f.library = library{}
}

// replaced tells whether this process has used another driver before.
func (f *Family) replaced(driver installation) bool {
	return f.former != installation{} && f.former != driver
}

func (f *Family) libraryError(driver installation, doing string, ret nvml.Return) error {
	advice := "run nvidia-smi on the host to see what is wrong"
	switch {
	case errors.Is(ret, nvml.ERROR_LIB_RM_VERSION_MISMATCH) && f.replaced(driver):
		return replacedError(ret)
	case errors.Is(ret, nvml.ERROR_LIB_RM_VERSION_MISMATCH):
		advice = "the kernel module is of another version than the library: reboot, or unload the old module"
	case errors.Is(ret, nvml.ERROR_DRIVER_NOT_LOADED):
		advice = "load the kernel module nvidia, and make sure that this process sees the host's /dev"
	case errors.Is(ret, nvml.ERROR_LIBRARY_NOT_FOUND):
		advice = "the library cannot be loaded: is it whole, and for this processor?"
	}
	return notReady(fmt.Errorf("%s with %s: %w: %s", doing, f.opts.onHost(driver.library), ret, advice))
}

func replacedError(err error) error {
	return &DriverError{Reason: ReasonDriverReplaced, Err: fmt.Errorf(
		"the NVIDIA driver was replaced while this process had the former one loaded: %w: "+
			"%w; reboot if nvidia-smi reports a version mismatch", err, device.ErrRestart)}
}
