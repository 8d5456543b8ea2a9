package gpu

import (
	"path/filepath"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// Options say where the machine is and how to look at it. The zero value is
// right for a process that runs on the host.
type Options struct {
	// OpenNVML returns the NVML of the library at this path, without
	// initialising it. Nil means the real one.
	OpenNVML func(libraryPath string) nvml.Interface
	// SysfsRoot is where sysfs is mounted: "/sys" if empty.
	SysfsRoot string
	// HostRoot is where this process sees the host's "/": "/" if empty. Paths
	// below it are given to containers without it.
	HostRoot string
	// DriverRoot is the folder, on the host, below which the NVIDIA driver is
	// installed. If empty it is looked for where NVIDIA's tools look.
	DriverRoot string
	// CDIHookPath is the program nvidia-cdi-hook on the host:
	// "/usr/bin/nvidia-cdi-hook" if empty.
	CDIHookPath string
	// Poll is the time between two looks for a driver that is missing or was
	// replaced: 5 s if zero. Such a look reads a few file names.
	Poll time.Duration
	// Resync is the time between two looks at all GPUs while nothing seems to
	// have changed: 5 min if zero.
	Resync time.Duration
}

func (o Options) withDefaults() Options {
	if o.OpenNVML == nil {
		o.OpenNVML = func(path string) nvml.Interface { return nvml.New(nvml.WithLibraryPath(path)) }
	}
	defaultTo(&o.SysfsRoot, "/sys")
	defaultTo(&o.HostRoot, "/")
	// Paths below it are compared with paths whose links are resolved.
	if resolved, err := filepath.EvalSymlinks(o.HostRoot); err == nil {
		o.HostRoot = resolved
	}
	defaultTo(&o.CDIHookPath, "/usr/bin/nvidia-cdi-hook")
	defaultTo(&o.Poll, 5*time.Second)
	defaultTo(&o.Resync, 5*time.Minute)
	return o
}

func defaultTo[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}
