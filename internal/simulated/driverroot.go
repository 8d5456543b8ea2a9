package simulated

import (
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nameplate"
)

// Versions of the driver that the simulation claims to be: those of go-nvml's
// mocks of these machines.
const (
	driverVersion = "550.54.15"
	cudaVersion   = "12.4"
)

const libraryFolder = "usr/lib64"

// library is one of the driver's shared libraries.
type library struct {
	// name ends in .so; the file is called name.<driver version>.
	name string
	// major is the end of the SONAME, "" where the driver puts its version
	// there.
	major string
	// bare libraries have a link that ends in .so.
	bare bool
}

// libraries are those that a driver without graphics brings, which is what a
// DGX has.
func libraries() []library {
	return []library{
		{name: "libcuda.so", major: "1", bare: true},
		{name: "libcudadebugger.so", major: "1"},
		{name: "libnvcuvid.so", major: "1", bare: true},
		{name: "libnvidia-allocator.so", major: "1"},
		{name: "libnvidia-cfg.so", major: "1"},
		{name: "libnvidia-encode.so", major: "1", bare: true},
		{name: "libnvidia-gpucomp.so"},
		{name: "libnvidia-ml.so", major: "1", bare: true},
		{name: "libnvidia-nvvm.so", major: "4"},
		{name: "libnvidia-opencl.so", major: "1"},
		{name: "libnvidia-opticalflow.so", major: "1"},
		{name: "libnvidia-pkcs11-openssl3.so"},
		{name: "libnvidia-ptxjitcompiler.so", major: "1"},
	}
}

// WriteDriverRoot writes below root what an installed driver leaves on such a
// machine: libraries, nvidia-smi, GSP firmware, and device nodes below dev.
// The libraries have names and nothing in them. Writing again mends what
// differs. root must be empty or written by an earlier call, and be a path
// without symbolic links, because nvcdi resolves them in what it finds there.
//
// Making device nodes takes CAP_MKNOD; the error says so where it is missing.
func (m *Machine) WriteDriverRoot(root string) error {
	if err := m.writeDriverRoot(root); err != nil {
		return fmt.Errorf("writing the driver files of a simulated %s: %w", m.model.name, err)
	}
	return nil
}

func (m *Machine) writeDriverRoot(root string) error {
	files, err := m.driverFiles()
	if err != nil {
		return err
	}
	if err := files.write(root); err != nil {
		return err
	}
	return m.writeDeviceNodes(root)
}

func (m *Machine) driverFiles() (tree, error) {
	t := tree{}
	for _, l := range libraries() {
		if err := m.addLibrary(t, l); err != nil {
			return nil, err
		}
	}
	smi, err := m.readNVIDIASMI()
	if err != nil {
		return nil, err
	}
	t["usr/bin/nvidia-smi"] = entry{data: smi, mode: 0o755}
	t.file("etc/OpenCL/vendors/nvidia.icd", "libnvidia-opencl.so.1")
	for _, name := range []string{"gsp_ga10x.bin", "gsp_tu10x.bin"} {
		t.file(path.Join("lib/firmware/nvidia", driverVersion, name), "firmware of a simulated GPU")
	}
	return t, nil
}

func (m *Machine) addLibrary(t tree, l library) error {
	file := l.name + "." + driverVersion
	soname := file
	if l.major != "" {
		soname = l.name + "." + l.major
	}
	data, err := sharedObject(soname)
	if err != nil {
		return err
	}
	if l.name == "libnvidia-ml.so" {
		if data, err = nameplate.Append(data, m.nameplate()); err != nil {
			return err
		}
	}
	t[path.Join(libraryFolder, file)] = entry{data: data, mode: 0o755}
	if soname != file {
		t[path.Join(libraryFolder, soname)] = entry{link: file}
	}
	if l.bare {
		t[path.Join(libraryFolder, l.name)] = entry{link: soname}
	}
	return nil
}

func (m *Machine) nameplate() nameplate.Machine {
	plate := nameplate.Machine{Model: string(m.model.name), DriverVersion: driverVersion, CUDAVersion: cudaVersion}
	for _, g := range m.gpus {
		plate.GPUs = append(plate.GPUs, nameplate.GPU{
			Minor: g.index, UUID: g.uuid, Serial: g.serial, Name: m.model.product,
			PCIBusID: longBusID(g.bdf), MemoryMiB: m.model.memoryMiB,
			ComputeCapability: fmt.Sprintf("%d.%d", m.model.config.CudaMajor, m.model.config.CudaMinor),
		})
	}
	return plate
}

func (m *Machine) readNVIDIASMI() ([]byte, error) {
	const name = "simulated-nvidia-smi"
	file := m.NVIDIASMI
	if file == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("looking for %s beside the running program: %w", name, err)
		}
		file = filepath.Join(filepath.Dir(self), name)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the nvidia-smi of simulated machines: %w: "+
			"the image made by `make image` has it at /usr/bin/%s; "+
			"for a program run outside of the image, build it with "+
			"`CGO_ENABLED=0 go build -o %s ./internal/simulated/nvidia-smi`", err, name, file)
	}
	return data, nil
}
