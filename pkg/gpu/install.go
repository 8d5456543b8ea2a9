package gpu

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const nvmlLibrary = "libnvidia-ml.so.1"

// installation is a driver that was found on disk. Two that are equal are the
// same driver, not merely the same path.
type installation struct {
	// root is the folder of the driver as this process sees it.
	root string
	// library is NVML's library as this process sees it.
	library string
	// version is that of the library's file name, such as "550.54.15", or
	// empty if the name has none.
	version string
	// file tells one file from another with the same name.
	file fileID
}

type fileID struct {
	device, inode uint64
	size          int64
	modified      time.Time
}

// driverRoots are where the driver can be on the host, most likely first: the
// packages of a distribution install into /, NVIDIA's GPU operator mounts its
// driver container at /run/nvidia/driver.
func (o Options) driverRoots() []string {
	if o.DriverRoot != "" {
		return []string{o.DriverRoot}
	}
	return []string{"/", "/run/nvidia/driver"}
}

// libraryFolders are where distributions and NVIDIA's installer put the
// driver's libraries: those that NVIDIA's container toolkit looks into
// (pkg/lookup of v1.20.1), then those that nvcdi must be told of.
func libraryFolders() (known, further []string) {
	known = []string{
		"/usr/lib64",
		"/usr/lib/x86_64-linux-gnu",
		"/usr/lib/aarch64-linux-gnu",
		"/usr/lib/x86_64-linux-gnu/nvidia/current",
		"/usr/lib/aarch64-linux-gnu/nvidia/current",
		"/lib64",
		"/lib/x86_64-linux-gnu",
		"/lib/aarch64-linux-gnu",
		"/lib/x86_64-linux-gnu/nvidia/current",
		"/lib/aarch64-linux-gnu/nvidia/current",
	}
	further = []string{
		"/usr/lib",
		"/usr/local/nvidia/lib64",
		"/home/kubernetes/bin/nvidia/lib64",
	}
	return known, further
}

// findDriver looks for the driver on disk. It reads file names only, so it is
// cheap enough to be repeated every few seconds.
func (o Options) findDriver() (installation, bool) {
	known, further := libraryFolders()
	for _, hostRoot := range o.driverRoots() {
		root := o.seen(hostRoot)
		// nvcdi resolves links in the files it finds, and then takes the root
		// off their paths: that needs a root without links.
		if resolved, err := filepath.EvalSymlinks(root); err == nil {
			root = resolved
		}
		for _, folder := range append(known, further...) {
			if found, ok := inspectLibrary(root, filepath.Join(root, folder, nvmlLibrary)); ok {
				return found, true
			}
		}
	}
	return installation{}, false
}

func inspectLibrary(root, library string) (installation, bool) {
	info, err := os.Stat(library)
	if err != nil || !info.Mode().IsRegular() {
		return installation{}, false
	}
	found := installation{root: root, library: library}
	found.file = fileID{size: info.Size(), modified: info.ModTime()}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		found.file.device, found.file.inode = stat.Dev, stat.Ino
	}
	if file, err := filepath.EvalSymlinks(library); err == nil {
		version := strings.TrimPrefix(filepath.Base(file), "libnvidia-ml.so.")
		if strings.Contains(version, ".") {
			found.version = version
		}
	}
	return found, true
}

// searchPaths are what nvcdi must be told besides the driver's root: nothing,
// unless the libraries are where it does not look by itself.
func (i installation) searchPaths() []string {
	folder := filepath.Dir(i.library)
	_, further := libraryFolders()
	for _, f := range further {
		if folder == filepath.Join(i.root, f) {
			return []string{folder}
		}
	}
	return nil
}

// missingDriver says where the driver was looked for.
func (o Options) missingDriver(gpus int) error {
	known, further := libraryFolders()
	return &DriverError{Reason: ReasonDriverMissing, Err: fmt.Errorf(
		"this machine has %d NVIDIA GPUs but no driver: %s is not below %s of the host (looked into %s): "+
			"install the NVIDIA driver, or name its folder as the driver root; it is looked for again every %s",
		gpus, nvmlLibrary, strings.Join(o.driverRoots(), " or "), strings.Join(append(known, further...), ", "), o.Poll)}
}

// seen returns where this process sees a path of the host.
func (o Options) seen(hostPath string) string {
	return filepath.Join(o.HostRoot, hostPath)
}

// onHost undoes seen. A path outside of the host's root is returned as it is.
func (o Options) onHost(path string) string {
	below, err := filepath.Rel(o.HostRoot, path)
	if err != nil || below == ".." || strings.HasPrefix(below, "../") {
		return path
	}
	return filepath.Join("/", below)
}
