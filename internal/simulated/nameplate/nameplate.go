package nameplate

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// magic ends every library that has a nameplate; the length of the JSON
// document stands before it.
const magic = "simulated-dgx-01"

// Machine describes a simulated machine.
type Machine struct {
	Model string `json:"model"`
	// DriverVersion is that of NVIDIA's driver, such as 550.54.15.
	DriverVersion string `json:"driverVersion"`
	// CUDAVersion is the newest that the driver supports, such as 12.4.
	CUDAVersion string `json:"cudaVersion"`
	GPUs        []GPU  `json:"gpus"`
}

// GPU describes one GPU of the machine.
type GPU struct {
	// Minor is the number in the name of the device node, /dev/nvidia<minor>.
	Minor  int    `json:"minor"`
	UUID   string `json:"uuid"`
	Serial string `json:"serial"`
	Name   string `json:"name"`
	// PCIBusID is in NVIDIA's form: 00000000:1B:00.0.
	PCIBusID          string `json:"pciBusID"`
	MemoryMiB         uint64 `json:"memoryMiB"`
	ComputeCapability string `json:"computeCapability"`
}

// Append returns the library with the nameplate at its end.
func Append(library []byte, m Machine) ([]byte, error) {
	document, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encoding the nameplate of a simulated machine: %w", err)
	}
	library = append(library, document...)
	library = binary.LittleEndian.AppendUint32(library, uint32(len(document)))
	return append(library, magic...), nil
}

// Read returns the nameplate at the end of the library at path.
func Read(path string) (Machine, error) {
	library, err := os.ReadFile(path)
	if err != nil {
		return Machine{}, fmt.Errorf("reading the nameplate of a simulated machine: %w", err)
	}
	m, err := parse(library)
	if err != nil {
		return Machine{}, fmt.Errorf("reading the nameplate of a simulated machine in %s: %w", path, err)
	}
	return m, nil
}

func parse(library []byte) (Machine, error) {
	var m Machine
	end := len(library) - len(magic)
	if end < 4 || string(library[end:]) != magic {
		return m, errors.New("there is none: this is not a library of a simulated machine")
	}
	start := end - 4 - int(binary.LittleEndian.Uint32(library[end-4:end]))
	if start < 0 {
		return m, errors.New("it is longer than the file")
	}
	if err := json.Unmarshal(library[start:end-4], &m); err != nil {
		return m, fmt.Errorf("decoding it: %w", err)
	}
	return m, nil
}
