//go:build gpu

package realgpu

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/gpu"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// discover returns the family and what it finds, or skips the test.
func discover(t *testing.T) (*gpu.Family, device.Inventory) {
	t.Helper()
	family := gpu.New(gpu.Options{})
	inventory, err := family.Devices(t.Context())
	var driver *gpu.DriverError
	if errors.As(err, &driver) && driver.Reason == gpu.ReasonDriverMissing {
		t.Skipf("no usable GPU on this machine: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(inventory.Devices)+len(inventory.Faults) == 0 {
		t.Skip("no usable GPU on this machine: neither NVML nor sysfs shows one from NVIDIA")
	}
	for _, fault := range inventory.Faults {
		t.Errorf("%s cannot be used (%s): %v", fault.Subject, fault.Reason, fault.Err)
	}
	return family, inventory
}

func prepare(t *testing.T, family *gpu.Family, d device.Device) device.Edits {
	t.Helper()
	edits, err := family.Prepare(t.Context(), device.Grant{
		Claim:    device.Claim{Namespace: "default", Name: "test", UID: "0"},
		Request:  "gpu",
		Device:   d.Name,
		Occupies: d.Occupies,
		Config:   v1alpha1.DefaultGpuConfig(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return edits
}

// published is what nvidia-smi and we both tell about a GPU.
type published struct {
	Index      int64
	UUID, Name string
	PCIBusID   string
	MemoryMiB  int64
	Driver     string
	Compute    string
}

func TestAttributesAgreeWithNVIDIASMI(t *testing.T) {
	_, inventory := discover(t)
	var got []published
	for _, d := range inventory.Devices {
		str := func(name resourceapi.QualifiedName) string {
			a := d.Attributes[name]
			if a.VersionValue != nil {
				return *a.VersionValue
			}
			if a.StringValue == nil {
				t.Fatalf("%s has no attribute %s", d.Name, name)
			}
			return *a.StringValue
		}
		memory := d.Capacity[device.CapacityMemory].Value
		got = append(got, published{
			Index: *d.Attributes["index"].IntValue, UUID: str("uuid"), Name: str("productName"),
			PCIBusID: str("resource.kubernetes.io/pciBusID"), MemoryMiB: memory.Value() >> 20,
			Driver: str("driverVersion"), Compute: str("cudaComputeCapability"),
		})
		t.Logf("%s: brand %s, architecture %s, CUDA %s, pcieRoot %v, numaNode %v", d.Name, str("brand"), str("architecture"),
			str("cudaDriverVersion"), d.Attributes["resource.kubernetes.io/pcieRoot"], d.Attributes["resource.kubernetes.io/numaNode"])
	}
	if diff := cmp.Diff(askNVIDIASMI(t), got); diff != "" {
		t.Errorf("nvidia-smi and our attributes differ (-nvidia-smi +ours):\n%s", diff)
	}
}

func askNVIDIASMI(t *testing.T) []published {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "nvidia-smi",
		"--query-gpu=index,uuid,name,pci.bus_id,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits").Output()
	if err != nil {
		t.Fatalf("run nvidia-smi: %v", err)
	}
	reader := csv.NewReader(strings.NewReader(string(out)))
	reader.TrimLeadingSpace = true
	rows, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var gpus []published
	for _, row := range rows {
		address, err := topology.ParseAddress(row[3])
		if err != nil {
			t.Fatal(err)
		}
		gpus = append(gpus, published{
			Index: number(t, row[0]), UUID: row[1], Name: row[2], PCIBusID: address.String(), MemoryMiB: number(t, row[4]),
			Driver: semantic(t, row[5]), Compute: semantic(t, row[6]),
		})
	}
	return gpus
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// semantic writes a version with three numbers.
func semantic(t *testing.T, s string) string {
	t.Helper()
	var n [3]int64
	for i, part := range strings.Split(s, ".") {
		n[i] = number(t, part)
	}
	return fmt.Sprintf("%d.%d.%d", n[0], n[1], n[2])
}

// A process that has only what the edits give sees its GPU and no other.
func TestEditsGiveOneGPU(t *testing.T) {
	family, inventory := discover(t)
	for _, d := range inventory.Devices {
		t.Run(d.Name, func(t *testing.T) {
			edits := prepare(t, family, d)
			out := runWith(t, edits, "nvidia-smi", "-L")
			t.Logf("%s", out)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if uuid := *d.Attributes["uuid"].StringValue; len(lines) != 1 || !strings.Contains(lines[0], uuid) {
				t.Errorf("nvidia-smi -L printed %d lines, want the GPU %s alone:\n%s", len(lines), uuid, out)
			}
		})
	}
}
