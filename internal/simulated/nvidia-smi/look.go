package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nameplate"
)

// look finds the machine as the container sees it: with the GPUs whose device
// nodes are there.
func look(root, libraryPath string) (nameplate.Machine, error) {
	library, found := findLibrary(root, libraryPath)
	if !found {
		return nameplate.Machine{}, fail(exitNoLibrary, "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system. "+
			"Please make sure that the NVIDIA Display Driver is properly installed and present in your system.\n"+
			"Please also try adding directory that contains libnvidia-ml.so to your system PATH.")
	}
	machine, err := nameplate.Read(library)
	if err != nil {
		return machine, fail(exitNoDriver, "Failed to initialize NVML: %v", err)
	}
	if !isDevice(filepath.Join(root, "dev/nvidiactl")) {
		return machine, fail(exitNoDriver, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "+
			"Make sure that the latest NVIDIA driver is installed and running.\n"+
			"(There is no device node /dev/nvidiactl.)")
	}
	machine.GPUs = slices.DeleteFunc(machine.GPUs, func(gpu nameplate.GPU) bool {
		return !isDevice(filepath.Join(root, "dev", fmt.Sprintf("nvidia%d", gpu.Minor)))
	})
	if len(machine.GPUs) == 0 {
		return machine, fail(exitNoDevice, "No devices were found")
	}
	return machine, nil
}

// findLibrary looks where the loader would. It wants the SONAME's link, as the
// loader does: a container in which nobody made it is not whole.
func findLibrary(root, libraryPath string) (path string, found bool) {
	folders := append(filepath.SplitList(libraryPath),
		"/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu",
		"/usr/lib", "/usr/local/lib", "/lib64", "/lib")
	for _, folder := range folders {
		library := filepath.Join(root, folder, "libnvidia-ml.so.1")
		if _, err := os.Stat(library); err == nil {
			return library, true
		}
	}
	return "", false
}

func isDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeCharDevice != 0
}

// pick returns the GPUs that -i asks for, all of them when id is empty. As in
// the real tool the index counts what the container sees.
func pick(gpus []nameplate.GPU, id string) ([]nameplate.GPU, error) {
	if id == "" {
		return gpus, nil
	}
	var picked []nameplate.GPU
	for _, want := range splitList(id) {
		found := false
		for i, gpu := range gpus {
			if want == strconv.Itoa(i) || want == gpu.UUID || strings.EqualFold(shortBusID(want), shortBusID(gpu.PCIBusID)) {
				picked, found = append(picked, gpu), true
			}
		}
		if !found {
			return nil, fail(exitNoDevice, "No devices were found for %q", want)
		}
	}
	return picked, nil
}

// shortBusID is an address without the domain, which is 0 on these machines.
func shortBusID(id string) string {
	return strings.TrimLeft(id, "0:")
}
