package simulated

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh200"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/gpus"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// Model is a kind of machine that can be simulated.
type Model string

// The machines that can be simulated.
const (
	DGXH100 Model = "dgx-h100"
	DGXH200 Model = "dgx-h200"
)

// ParseModel reads a model's name. The error lists the names that are allowed.
func ParseModel(s string) (Model, error) {
	allowed := []string{string(DGXH100), string(DGXH200)}
	for _, name := range allowed {
		if s == name {
			return Model(s), nil
		}
	}
	return "", fmt.Errorf("unknown machine %q: can simulate %s", s, strings.Join(allowed, ", "))
}

// Machine is one simulated machine. Its methods may be called concurrently.
type Machine struct {
	// NVIDIASMI is the path of the program that [Machine.WriteDriverRoot]
	// installs as nvidia-smi. Empty means "simulated-nvidia-smi" beside the
	// running program.
	NVIDIASMI string
	// Ethernet says that the ports beside the GPUs are set to Ethernet instead
	// of InfiniBand, as LINK_TYPE of mlxconfig does. Their names stay those of
	// the published listings.
	Ethernet bool

	model model
	gpus  []gpu
	nics  []nic
	nvml  *server.Server
	// standIns says that the GPUs are in the places of a real machine's PCI
	// functions.
	standIns bool
}

// model holds what sets the models apart.
type model struct {
	name        Model
	product     string
	pciID       uint32
	subsystemID uint32
	memoryMiB   uint64
	busWidth    uint32
	config      gpus.Config
	newServer   func(...gpus.Config) *server.Server
}

// gpu is one GPU of one machine.
type gpu struct {
	gpuSite
	index  int
	uuid   string
	serial string
	// fault is the nvml.Return that the GPU answers to everything, unless it
	// is SUCCESS.
	fault *atomic.Int32
}

// New makes a machine. The seed, usually the node's name, makes UUIDs and
// serial numbers differ between nodes; the same seed gives the same ones. A
// model that is not one of the constants is taken for a DGX H200.
func New(name Model, seed string) *Machine {
	m := &Machine{model: newModel(name)}
	nodeID := digest(m.model.name, seed, "node", 0)
	m.nics = newNICs(hex.EncodeToString(nodeID[:2]))
	m.addGPUs(seed, gpuSites())
	return m
}

// addGPUs adds a GPU at each site, and the NVML that knows them.
func (m *Machine) addGPUs(seed string, sites []gpuSite) {
	for i, site := range sites {
		m.gpus = append(m.gpus, gpu{
			gpuSite: site,
			index:   i,
			uuid:    gpuUUID(m.model.name, seed, i),
			serial:  gpuSerial(m.model.name, seed, i),
			fault:   &atomic.Int32{},
		})
	}
	m.nvml = m.newNVML()
}

// NVML returns the machine's NVML. It answers before Init and after Shutdown
// too. What is not simulated answers [nvml.ERROR_NOT_SUPPORTED].
//
// A few methods, such as GetTemperatureV, return a handler in place of a
// Return. go-nvml allows nobody else to make a working one: theirs must not be
// used, and LookupSymbol does not find their symbols.
func (m *Machine) NVML() nvml.Interface {
	return m.nvml
}

// FailGPU makes the GPU with this index answer ret to every NVML call, that
// for its handle included, as a GPU does that has fallen off the bus
// ([nvml.ERROR_GPU_IS_LOST]). [nvml.SUCCESS] mends it. An index that the
// machine does not have changes nothing.
func (m *Machine) FailGPU(index int, ret nvml.Return) {
	if index >= 0 && index < len(m.gpus) {
		m.gpus[index].fault.Store(int32(ret))
	}
}

func newModel(name Model) model {
	var m model
	if name == DGXH100 {
		m = model{
			name: DGXH100, product: "NVIDIA H100 80GB HBM3",
			pciID: 0x233010DE, subsystemID: 0x16C110DE,
			memoryMiB: 81559, busWidth: 5120,
			config: gpus.H100_SXM5_80GB, newServer: dgxh100.NewWithGPUs,
		}
	} else {
		m = model{
			name: DGXH200, product: "NVIDIA H200",
			pciID: 0x233510DE, subsystemID: 0x18BE10DE,
			memoryMiB: 143771, busWidth: 6144,
			config: gpus.H200_SXM5_141GB, newServer: dgxh200.NewWithGPUs,
		}
	}
	m.config.Name = m.product
	m.config.MemoryMB = m.memoryMiB
	m.config.PciDeviceId = m.pciID
	return m
}

func digest(name Model, seed, what string, index int) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d", name, seed, what, index))
}

// gpuUUID has the form of NVIDIA's UUIDs, which carry no version bits.
func gpuUUID(name Model, seed string, index int) string {
	d := digest(name, seed, "uuid", index)
	return fmt.Sprintf("GPU-%x-%x-%x-%x-%x", d[0:4], d[4:6], d[6:8], d[8:10], d[10:16])
}

// gpuSerial is a 13-digit number, as the boards have.
func gpuSerial(name Model, seed string, index int) string {
	d := digest(name, seed, "serial", index)
	return fmt.Sprintf("165%010d", binary.BigEndian.Uint64(d[:8])%1e10)
}
