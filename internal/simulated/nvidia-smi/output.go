package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated/nameplate"
)

// list is the output of -L.
func list(m nameplate.Machine) string {
	var lines []string
	for i, gpu := range m.GPUs {
		lines = append(lines, fmt.Sprintf("GPU %d: %s (UUID: %s)", i, gpu.Name, gpu.UUID))
	}
	return strings.Join(lines, "\n")
}

// field is one that --query-gpu knows.
type field struct {
	names []string
	unit  string
	value func(m nameplate.Machine, index int) string
}

func fields() []field {
	gpu := func(value func(nameplate.GPU) string) func(nameplate.Machine, int) string {
		return func(m nameplate.Machine, i int) string { return value(m.GPUs[i]) }
	}
	fixed := func(text string) func(nameplate.Machine, int) string {
		return func(nameplate.Machine, int) string { return text }
	}
	memory := gpu(func(g nameplate.GPU) string { return strconv.FormatUint(g.MemoryMiB, 10) })
	return []field{
		{names: []string{"index"}, value: func(_ nameplate.Machine, i int) string { return strconv.Itoa(i) }},
		{names: []string{"count"}, value: func(m nameplate.Machine, _ int) string { return strconv.Itoa(len(m.GPUs)) }},
		{names: []string{"uuid", "gpu_uuid"}, value: gpu(func(g nameplate.GPU) string { return g.UUID })},
		{names: []string{"name", "gpu_name"}, value: gpu(func(g nameplate.GPU) string { return g.Name })},
		{names: []string{"serial", "gpu_serial"}, value: gpu(func(g nameplate.GPU) string { return g.Serial })},
		{names: []string{"pci.bus_id", "gpu_bus_id"}, value: gpu(func(g nameplate.GPU) string { return g.PCIBusID })},
		{names: []string{"compute_cap"}, value: gpu(func(g nameplate.GPU) string { return g.ComputeCapability })},
		{names: []string{"driver_version"}, value: func(m nameplate.Machine, _ int) string { return m.DriverVersion }},
		{names: []string{"memory.total"}, unit: "MiB", value: memory},
		{names: []string{"memory.free"}, unit: "MiB", value: memory},
		{names: []string{"memory.used"}, unit: "MiB", value: fixed("0")},
		{names: []string{"utilization.gpu"}, unit: "%", value: fixed("0")},
		{names: []string{"temperature.gpu"}, value: fixed("30")},
	}
}

func findField(name string) (field, bool) {
	for _, f := range fields() {
		for _, known := range f.names {
			if name == known {
				return f, true
			}
		}
	}
	return field{}, false
}

// csv is the output of --query-gpu.
func csv(m nameplate.Machine, o options, header bool) string {
	var lines []string
	if header {
		lines = append(lines, csvHeader(o.query))
	}
	for i := range m.GPUs {
		var values []string
		for _, name := range o.query {
			f, _ := findField(name)
			value := f.value(m, i)
			if f.unit != "" && o.units {
				value += " " + f.unit
			}
			values = append(values, value)
		}
		lines = append(lines, strings.Join(values, ", "))
	}
	return strings.Join(lines, "\n")
}

func csvHeader(query []string) string {
	var titles []string
	for _, name := range query {
		if f, _ := findField(name); f.unit != "" {
			name += " [" + f.unit + "]"
		}
		titles = append(titles, name)
	}
	return strings.Join(titles, ", ")
}

const tableHead = `+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI %-22s Driver Version: %-14s CUDA Version: %-8s |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
`

const tableGPU = `| %3d  %-30s On  |   %-16s Off |                    0 |
| N/A   30C    P0             76W /  700W | %22s |      0%%      Default |
|                                         |                        |             Disabled |
+-----------------------------------------+------------------------+----------------------+
`

// The tail ends with a line of our own: nobody should take the table for that
// of real GPUs.
//
//nolint:dupword // two columns have the heading ID
const tableTail = `
+-----------------------------------------------------------------------------------------+
| Processes:                                                                              |
|  GPU   GI   CI        PID   Type   Process name                              GPU Memory |
|        ID   ID                                                               Usage      |
|=========================================================================================|
|  No running processes found                                                             |
+-----------------------------------------------------------------------------------------+
(simulated %s: no GPU hardware is involved)`

// table is the output without options.
func table(m nameplate.Machine, now time.Time) string {
	var b strings.Builder
	b.WriteString(now.Format("Mon Jan _2 15:04:05 2006") + "\n")
	fmt.Fprintf(&b, tableHead, m.DriverVersion, m.DriverVersion, m.CUDAVersion)
	for i, gpu := range m.GPUs {
		fmt.Fprintf(&b, tableGPU, i, gpu.Name, gpu.PCIBusID, fmt.Sprintf("0MiB / %dMiB", gpu.MemoryMiB))
	}
	fmt.Fprintf(&b, tableTail, m.Model)
	return b.String()
}
