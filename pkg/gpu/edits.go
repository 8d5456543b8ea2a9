package gpu

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/nvidia-container-toolkit/pkg/nvcdi"
	"k8s.io/klog/v2"
	cdispec "tags.cncf.io/container-device-interface/specs-go"
)

// memoryLimitsHook is the name of a hook of the toolkit, see
// internal/discover/hooks.go there.
const memoryLimitsHook nvcdi.HookName = "apply-cuda-memory-limits"

// editor works out container edits with nvcdi, for one look at the machine.
type editor struct {
	opts  Options
	cdi   nvcdi.Interface
	files []hostFile
}

// hostFile is a file of the host that edits name, as this process sees it.
type hostFile struct {
	path string
	// device is the number of a device node. It changes when a kernel module
	// that has no fixed number, as nvidia-uvm, is loaded anew.
	device uint64
}

func newHostFile(path string) hostFile {
	file := hostFile{path: path}
	if info, err := os.Stat(path); err == nil {
		file.device = deviceNumber(info)
	}
	return file
}

// unchanged tells whether edits that name this file still hold.
func (f hostFile) unchanged() bool {
	info, err := os.Stat(f.path)
	return err == nil && deviceNumber(info) == f.device
}

func deviceNumber(info os.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && info.Mode()&os.ModeDevice != 0 {
		return stat.Rdev
	}
	return 0
}

func newEditor(opts Options, driver installation, lib nvml.Interface, logger klog.Logger) (*editor, error) {
	options := []nvcdi.Option{
		nvcdi.WithLogger(quietLog{logger}),
		nvcdi.WithNvmlLib(lib),
		nvcdi.WithMode(nvcdi.ModeNvml),
		nvcdi.WithDriverRoot(driver.root),
		nvcdi.WithDevRoot(opts.devRoot(driver)),
		nvcdi.WithLibrarySearchPaths(driver.searchPaths()),
		nvcdi.WithNVIDIACDIHookPath(opts.CDIHookPath),
		// It limits the GPU memory of pods that ask for that in variables of
		// their own. It calls NVML, which the program on the host, linked such
		// that it runs on every host, cannot.
		nvcdi.WithDisabledHooks(memoryLimitsHook),
		// One way to find the driver's files, whatever the driver's age and
		// also in simulation.
		nvcdi.WithFeatureFlags(nvcdi.FeatureDisableNvsandboxUtils),
	}
	if path := opts.ldconfig(); path != "" {
		options = append(options, nvcdi.WithLdconfigPath(path))
	}
	cdi, err := nvcdi.New(options...)
	if err != nil {
		return nil, fmt.Errorf("start nvcdi for the driver in %s: %w", opts.onHost(driver.root), err)
	}
	return &editor{opts: opts, cdi: cdi}, nil
}

// devRoot returns the folder whose dev has the device nodes: the driver's own
// where it has one, as the GPU operator's and the simulated driver do.
func (o Options) devRoot(driver installation) string {
	if _, err := os.Stat(driver.root + "/dev/nvidiactl"); err == nil {
		return driver.root
	}
	return o.HostRoot
}

// ldconfig returns the host's program that updates the container's library
// cache. Ubuntu, and so DGX OS, has a shell script at /sbin/ldconfig, which
// cannot run in a container without a shell.
func (o Options) ldconfig() string {
	const script = "/sbin/ldconfig"
	if _, err := os.Stat(o.seen(script + ".real")); err == nil {
		return script + ".real"
	}
	return ""
}

// common returns what a container needs whichever GPU it uses.
func (e *editor) common() (*cdispec.ContainerEdits, error) {
	found, err := e.cdi.GetCommonEdits()
	if err != nil {
		return nil, fmt.Errorf("collect the driver's files for containers: %w", err)
	}
	edits := found.ContainerEdits
	for _, need := range []struct{ node, advice string }{
		{"/dev/nvidiactl", "load the kernel module nvidia, or run nvidia-smi on the host once"},
		{"/dev/nvidia-uvm", "load the kernel module nvidia-uvm and run nvidia-modprobe -u -c 0 on the host"},
	} {
		if !hasNode(edits, need.node) {
			return nil, fmt.Errorf("%s is not on the host, and no CUDA program works without it: %s", need.node, need.advice)
		}
	}
	return e.finish(edits), nil
}

// gpu returns what a container needs for one GPU besides the common edits.
func (e *editor) gpu(uuid string, minor int) (*cdispec.ContainerEdits, error) {
	devices, err := e.cdi.GetDeviceSpecsByID(uuid)
	if err != nil {
		return nil, fmt.Errorf("collect the device nodes for containers: %w", err)
	}
	if len(devices) == 0 {
		return nil, errors.New("collect the device nodes for containers: nvcdi found none")
	}
	edits := &devices[0].ContainerEdits
	// nvcdi leaves out a node that is missing, and the container would start
	// without its GPU.
	if node := fmt.Sprintf("/dev/nvidia%d", minor); !hasNode(edits, node) {
		return nil, fmt.Errorf("%s is not on the host: run nvidia-smi or nvidia-modprobe -c %d there", node, minor)
	}
	return e.finish(edits), nil
}

func hasNode(edits *cdispec.ContainerEdits, path string) bool {
	return slices.ContainsFunc(edits.DeviceNodes, func(n *cdispec.DeviceNode) bool { return n.Path == path })
}

// finish notes which files the edits need, and gives them the paths by which
// the container runtime on the host knows them.
func (e *editor) finish(edits *cdispec.ContainerEdits) *cdispec.ContainerEdits {
	for _, mount := range edits.Mounts {
		e.files = append(e.files, newHostFile(mount.HostPath))
		mount.HostPath = e.opts.onHost(mount.HostPath)
	}
	for _, node := range edits.DeviceNodes {
		path := node.HostPath
		if path == "" {
			path = node.Path
		}
		e.files = append(e.files, newHostFile(path))
		if path = e.opts.onHost(path); path != node.Path {
			node.HostPath = path
		} else {
			node.HostPath = ""
		}
	}
	for _, hook := range edits.Hooks {
		// Arguments of these hooks are paths of the host. Those of the hooks
		// that run inside of the container are paths there.
		if hook.HookName != "createRuntime" && hook.HookName != "prestart" {
			continue
		}
		for i, arg := range hook.Args {
			if strings.HasPrefix(arg, "/") {
				hook.Args[i] = e.opts.onHost(arg)
			}
		}
	}
	return edits
}

// cloneEdits returns a copy that the caller may change.
func cloneEdits(edits *cdispec.ContainerEdits) *cdispec.ContainerEdits {
	out := *edits
	out.Env = slices.Clone(edits.Env)
	out.AdditionalGIDs = slices.Clone(edits.AdditionalGIDs)
	out.DeviceNodes = clonePointers(edits.DeviceNodes)
	out.NetDevices = clonePointers(edits.NetDevices)
	out.Hooks = clonePointers(edits.Hooks)
	for _, hook := range out.Hooks {
		hook.Args, hook.Env = slices.Clone(hook.Args), slices.Clone(hook.Env)
	}
	out.Mounts = clonePointers(edits.Mounts)
	for _, mount := range out.Mounts {
		mount.Options = slices.Clone(mount.Options)
	}
	return &out
}

func clonePointers[T any](in []*T) []*T {
	if in == nil {
		return nil
	}
	out := make([]*T, len(in))
	for i, p := range in {
		value := *p
		out[i] = &value
	}
	return out
}
