package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nameplate"
)

// container makes the files of a container that was given the GPUs with these
// minors. /dev/null stands for the device nodes, so that no test needs root.
func container(t *testing.T, minors ...int) string {
	t.Helper()
	machine := nameplate.Machine{Model: "dgx-h200", DriverVersion: "550.54.15", CUDAVersion: "12.4"}
	for i := range 8 {
		machine.GPUs = append(machine.GPUs, nameplate.GPU{
			Minor: i, UUID: fmt.Sprintf("GPU-%d", i), Serial: "1650000000000", Name: "NVIDIA H200",
			PCIBusID: fmt.Sprintf("00000000:%02X:00.0", 0x1b+i), MemoryMiB: 143771, ComputeCapability: "9.0",
		})
	}
	library, err := nameplate.Append([]byte("\x7fELF"), machine)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	write(t, filepath.Join(root, "usr/lib64/libnvidia-ml.so.550.54.15"), library)
	link(t, "libnvidia-ml.so.550.54.15", filepath.Join(root, "usr/lib64/libnvidia-ml.so.1"))
	nodes := []string{"nvidiactl"}
	for _, minor := range minors {
		nodes = append(nodes, fmt.Sprintf("nvidia%d", minor))
	}
	for _, node := range nodes {
		link(t, "/dev/null", filepath.Join(root, "dev", node))
	}
	return root
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func clock() time.Time { return time.Date(2025, 11, 1, 8, 5, 9, 0, time.UTC) }

func smi(t *testing.T, root string, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), root, "", args, &out, clock)
	return out.String(), code
}

func TestOutput(t *testing.T) {
	tests := map[string]struct {
		args   []string
		minors []int
		want   string
		code   int
	}{
		"list": {
			args: []string{"-L"}, minors: []int{2, 5},
			want: "GPU 0: NVIDIA H200 (UUID: GPU-2)\nGPU 1: NVIDIA H200 (UUID: GPU-5)\n",
		},
		"query": {
			args:   []string{"--query-gpu=index,uuid,name,memory.total,pci.bus_id,driver_version,compute_cap", "--format=csv"},
			minors: []int{5},
			want: "index, uuid, name, memory.total [MiB], pci.bus_id, driver_version, compute_cap\n" +
				"0, GPU-5, NVIDIA H200, 143771 MiB, 00000000:20:00.0, 550.54.15, 9.0\n",
		},
		"query without header and units": {
			args: []string{"--query-gpu", "memory.total", "--format", "csv,noheader,nounits"}, minors: []int{0, 1},
			want: "143771\n143771\n",
		},
		"one GPU": {
			args: []string{"-L", "-i", "1"}, minors: []int{0, 7},
			want: "GPU 0: NVIDIA H200 (UUID: GPU-7)\n",
		},
		"GPU that is not there": {
			args: []string{"-L", "-i", "GPU-3"}, minors: []int{0},
			want: "No devices were found for \"GPU-3\"\n", code: 6,
		},
		"no GPU": {
			args: []string{"-L"}, want: "No devices were found\n", code: 6,
		},
		"unknown option": {
			args: []string{"--frobnicate"}, code: 2,
			want: "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n",
		},
		"unknown field": {
			args: []string{"--query-gpu=colour", "--format=csv"}, code: 2,
			want: "Field \"colour\" is not a valid field to query.\n\n",
		},
		"query without format": {
			args: []string{"--query-gpu=name"}, code: 2,
			want: "\"--query-gpu=\" and \"--format=\" go together. Please run 'nvidia-smi -h' for help.\n",
		},
		"loop of nothing": {
			args: []string{"-l", "0"}, code: 2,
			want: "Invalid loop interval \"0\": it must be a number of seconds.\n",
		},
		"help": {args: []string{"--help"}, want: usage + "\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, code := smi(t, container(t, test.minors...), test.args...)
			if diff := cmp.Diff(test.want, got); diff != "" || code != test.code {
				t.Errorf("exit code %d, want %d; output (-want +got):\n%s", code, test.code, diff)
			}
		})
	}
}

func TestTable(t *testing.T) {
	got, code := smi(t, container(t, 0, 1))
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, got)
	}
	lines := strings.Split(got, "\n")
	if lines[0] != "Sat Nov  1 08:05:09 2025" {
		t.Errorf("first line %q", lines[0])
	}
	rows := 0
	for _, line := range lines {
		if strings.HasPrefix(line, "|") || strings.HasPrefix(line, "+") {
			rows++
			if len(line) != 91 {
				t.Errorf("row is %d wide, want 91: %s", len(line), line)
			}
		}
	}
	for _, want := range []string{"Driver Version: 550.54.15", "CUDA Version: 12.4", "00000000:1C:00.0", "0MiB / 143771MiB", "simulated dgx-h200"} {
		if !strings.Contains(got, want) {
			t.Errorf("table does not show %q", want)
		}
	}
	if rows < 20 {
		t.Errorf("table has %d rows:\n%s", rows, got)
	}
}

func TestIncompleteContainers(t *testing.T) {
	noLink := container(t, 0)
	remove(t, noLink, "usr/lib64/libnvidia-ml.so.1")
	if got, code := smi(t, noLink); code != 12 || !strings.Contains(got, "couldn't find libnvidia-ml.so") {
		t.Errorf("without the library's link: %d, %s", code, got)
	}
	noControl := container(t, 0)
	remove(t, noControl, "dev/nvidiactl")
	if got, code := smi(t, noControl); code != 9 || !strings.Contains(got, "couldn't communicate with the NVIDIA driver") {
		t.Errorf("without nvidiactl: %d, %s", code, got)
	}
	foreign := container(t, 0)
	write(t, filepath.Join(foreign, "usr/lib64/libnvidia-ml.so.550.54.15"), []byte("\x7fELF real"))
	if got, code := smi(t, foreign); code != 9 || !strings.Contains(got, "not a library of a simulated machine") {
		t.Errorf("with another library: %d, %s", code, got)
	}
}

func remove(t *testing.T, elements ...string) {
	t.Helper()
	if err := os.Remove(filepath.Join(elements...)); err != nil {
		t.Fatal(err)
	}
}

func TestLibraryPath(t *testing.T) {
	root := container(t, 4)
	if err := os.Rename(filepath.Join(root, "usr/lib64"), filepath.Join(root, "opt")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if code := run(t.Context(), root, "/nowhere:/opt", []string{"-L"}, &out, clock); code != 0 {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}

// lineSignal tells of every write.
type lineSignal chan string

func (l lineSignal) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestLoopPrintsTheHeaderOnceAndStops(t *testing.T) {
	root := container(t, 0)
	ctx, stop := context.WithCancel(t.Context())
	out, code := make(lineSignal), make(chan int)
	go func() {
		code <- run(ctx, root, "", []string{"--query-gpu=index", "--format=csv", "--loop=1"}, out, clock)
	}()
	if first := <-out; first != "index\n0\n" {
		t.Errorf("first round: %q", first)
	}
	if second := <-out; second != "0\n" {
		t.Errorf("second round: %q", second)
	}
	stop()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d", got)
	}
}

func TestTheProgramIsStatic(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "nvidia-smi")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Error("the program wants a dynamic loader, which containers may lack")
		}
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	out, err := exec.Command(binary, "--help").Output()
	if err != nil || !strings.Contains(string(out), "--query-gpu=") {
		t.Errorf("--help: %v\n%s", err, out)
	}
}
