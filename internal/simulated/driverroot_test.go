package simulated

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/NVIDIA/nvidia-container-toolkit/pkg/nvcdi"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nameplate"
)

// withSMI gives the machine a file to install as nvidia-smi.
func withSMI(t *testing.T, m *Machine) *Machine {
	t.Helper()
	m.NVIDIASMI = filepath.Join(t.TempDir(), "smi")
	if err := os.WriteFile(m.NVIDIASMI, []byte("#!nothing\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// writtenDriverRoot skips the test where device nodes cannot be made.
func writtenDriverRoot(t *testing.T, m *Machine) string {
	t.Helper()
	root := filepath.Join(resolve(t, t.TempDir()), "driver")
	err := withSMI(t, m).WriteDriverRoot(root)
	if errors.Is(err, unix.EPERM) {
		t.Skipf("needs root: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// warnings collects what nvcdi misses.
type warnings struct {
	mu    sync.Mutex
	lines []string
}

func (w *warnings) Warningf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}
func (w *warnings) Warning(args ...any) { w.Warningf("%s", fmt.Sprint(args...)) }
func (*warnings) Debugf(string, ...any) {}
func (*warnings) Errorf(string, ...any) {}
func (*warnings) Infof(string, ...any)  {}
func (*warnings) Info(...any)           {}
func (*warnings) Error(...any)          {}
func (*warnings) Tracef(string, ...any) {}

func newNVCDI(t *testing.T, m *Machine, root string, log *warnings) nvcdi.Interface {
	t.Helper()
	lib, err := nvcdi.New(
		nvcdi.WithNvmlLib(m.NVML()),
		nvcdi.WithDriverRoot(root),
		nvcdi.WithDevRoot(root),
		nvcdi.WithMode(nvcdi.ModeNvml),
		nvcdi.WithNVIDIACDIHookPath("/usr/bin/nvidia-cdi-hook"),
		nvcdi.WithFeatureFlags(nvcdi.FeatureDisableNvsandboxUtils),
		nvcdi.WithLogger(log),
	)
	if err != nil {
		t.Fatal(err)
	}
	return lib
}

func TestNVCDICommonEdits(t *testing.T) {
	for _, model := range []Model{DGXH100, DGXH200} {
		m := New(model, "node-a")
		root := writtenDriverRoot(t, m)
		log := &warnings{}
		edits, err := newNVCDI(t, m, root, log).GetCommonEdits()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(edits.Env, "NVIDIA_VISIBLE_DEVICES=void") {
			t.Errorf("environment %v has no NVIDIA_VISIBLE_DEVICES=void", edits.Env)
		}
		mounts := map[string]string{}
		for _, mount := range edits.Mounts {
			mounts[mount.ContainerPath] = mount.HostPath
		}
		want := []string{"/usr/bin/nvidia-smi", "/lib/firmware/nvidia/550.54.15/gsp_ga10x.bin"}
		for _, l := range libraries() {
			want = append(want, "/usr/lib64/"+l.name+".550.54.15")
		}
		for _, path := range want {
			if mounts[path] != filepath.Join(root, path) {
				t.Errorf("%s: container's %s is mounted from %q", model, path, mounts[path])
			}
		}
		var nodes []string
		for _, node := range edits.DeviceNodes {
			nodes = append(nodes, node.Path)
		}
		slices.Sort(nodes)
		if diff := cmp.Diff([]string{"/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidiactl"}, nodes); diff != "" {
			t.Errorf("%s: control nodes (-want +got):\n%s", model, diff)
		}
		checkWarnings(t, log.lines)
	}
}

// checkWarnings allows what a DGX's driver does not bring, and what the
// simulation leaves out: programs and sockets of daemons that do not run.
func checkWarnings(t *testing.T, lines []string) {
	t.Helper()
	absent := []string{
		"nvidia-debugdump", "nvidia-persistenced", "nvidia-cuda-mps", "nvidia-imex", "nvidia-fabricmanager", "nvidia-mps",
		"egl", "vulkan", "X11", "xorg", "nvoptix", "nvidia-xconfig", "nvidia_drv.so", "glxserver", "libnvidia-nvvm70",
		"libnvidia-vulkan-producer", "ucodes", "custom firmware class path", "ldcache",
	}
	for _, line := range lines {
		if !slices.ContainsFunc(absent, func(word string) bool { return strings.Contains(line, word) }) {
			t.Errorf("nvcdi warns: %s", line)
		}
	}
}

func TestNVCDIDeviceSpecs(t *testing.T) {
	m := New(DGXH200, "node-a")
	root := writtenDriverRoot(t, m)
	specs, err := newNVCDI(t, m, root, &warnings{}).GetDeviceSpecsByID("all")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, spec := range specs {
		for _, node := range spec.ContainerEdits.DeviceNodes {
			got[spec.Name] = node.Path + " from " + strings.TrimPrefix(node.HostPath, root)
		}
	}
	want := map[string]string{}
	for i := range 8 {
		want[fmt.Sprint(i)] = fmt.Sprintf("/dev/nvidia%d from /dev/nvidia%d", i, i)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("device nodes by device (-want +got):\n%s", diff)
	}

	one, err := newNVCDI(t, m, root, &warnings{}).GetDeviceSpecsByID(m.gpus[5].uuid)
	if err != nil || len(one) != 1 || one[0].ContainerEdits.DeviceNodes[0].Path != "/dev/nvidia5" {
		t.Errorf("device by UUID: %v, %v", one, err)
	}
}

func TestDriverRootTwice(t *testing.T) {
	m := New(DGXH200, "node-a")
	root := writtenDriverRoot(t, m)
	inode := func(name string) uint64 {
		var s unix.Stat_t
		if err := unix.Stat(filepath.Join(root, name), &s); err != nil {
			t.Fatal(err)
		}
		return s.Ino
	}
	files := []string{"usr/lib64/libcuda.so.1", "usr/bin/nvidia-smi", "dev/nvidia3"}
	var before []uint64
	for _, f := range files {
		before = append(before, inode(f))
	}
	if err := m.WriteDriverRoot(root); err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		if inode(f) != before[i] {
			t.Errorf("%s was replaced though it was right", f)
		}
	}
}

func TestNvidiaSMIMissing(t *testing.T) {
	root := t.TempDir()
	err := New(DGXH200, "node-a").WriteDriverRoot(root)
	if err == nil || !strings.Contains(err.Error(), "make image") || !strings.Contains(err.Error(), "simulated-nvidia-smi") {
		t.Errorf("error does not tell where nvidia-smi comes from: %v", err)
	}
}

func TestLibrariesAreELF(t *testing.T) {
	m := withSMI(t, New(DGXH200, "node-a"))
	files, err := m.driverFiles()
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := files.write(filepath.Join(root, "driver")); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(root, "driver/usr/lib64")
	for _, l := range libraries() {
		file, err := elf.Open(filepath.Join(folder, l.name+".550.54.15"))
		if err != nil {
			t.Fatal(err)
		}
		sonames, err := file.DynString(elf.DT_SONAME)
		_ = file.Close()
		if err != nil || len(sonames) != 1 || (l.major != "" && sonames[0] != l.name+"."+l.major) {
			t.Errorf("%s: SONAME %v, %v", l.name, sonames, err)
		}
	}
	plate, err := nameplate.Read(filepath.Join(folder, "libnvidia-ml.so.1"))
	if err != nil || len(plate.GPUs) != 8 || plate.GPUs[1].PCIBusID != "00000000:43:00.0" {
		t.Errorf("nameplate: %+v, %v", plate, err)
	}
}

func TestLdconfigMakesTheLinks(t *testing.T) {
	ldconfig, err := exec.LookPath("ldconfig")
	if err != nil {
		if ldconfig, err = exec.LookPath("/sbin/ldconfig"); err != nil {
			t.Skip("there is no ldconfig here")
		}
	}
	folder := t.TempDir()
	for _, l := range libraries() {
		if l.major == "" {
			continue
		}
		data, err := sharedObject(l.name + "." + l.major)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, l.name+".550.54.15"), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(ldconfig, "-n", folder).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("ldconfig: %v\n%s", err, out)
	}
	for _, l := range libraries() {
		if l.major == "" {
			continue
		}
		if target, err := os.Readlink(filepath.Join(folder, l.name+"."+l.major)); err != nil || target != l.name+".550.54.15" {
			t.Errorf("link of %s leads to %q, %v", l.name, target, err)
		}
	}
}

func TestNoNodeReachesARealGPU(t *testing.T) {
	m := New(DGXH200, "node-a")
	null := unix.Mkdev(1, 3)
	for name, device := range m.deviceNodes(true) {
		if device != null {
			t.Errorf("beside a real driver, %s is %d:%d", name, unix.Major(device), unix.Minor(device))
		}
	}
	if got := m.deviceNodes(false)["nvidia6"]; got != unix.Mkdev(195, 6) {
		t.Errorf("nvidia6 is %d:%d", unix.Major(got), unix.Minor(got))
	}
	list := filepath.Join(t.TempDir(), "devices")
	for text, want := range map[string]bool{
		"Character devices:\n  1 mem\n195 nvidia\n":      true,
		"Character devices:\n  1 mem\n1195 no\n 19 x5\n": false,
	} {
		if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := nvidiaDriverLoaded(list); err != nil || got != want {
			t.Errorf("nvidiaDriverLoaded(%q) = %v, %v", text, got, err)
		}
	}
}

func TestMknodRefusedNamesThePrivilege(t *testing.T) {
	err := mknodError(unix.EPERM, unix.Mkdev(195, 0))
	for _, word := range []string{"195:0", "CAP_MKNOD", "privileged"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not mention %s", err, word)
		}
	}
}
