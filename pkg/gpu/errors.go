package gpu

// Reasons of a [device.Fault] of this family.
const (
	// ReasonHandle: NVML does not hand out the GPU.
	ReasonHandle = "NVMLHandle"
	// ReasonAttribute: NVML does not tell something that every GPU has.
	ReasonAttribute = "NVMLAttribute"
	// ReasonPCIAddress: the GPU's PCI address is missing or not readable.
	ReasonPCIAddress = "PCIAddress"
	// ReasonMIG: the GPU is split by MIG, so it cannot be given as a whole.
	ReasonMIG = "MIGEnabled"
	// ReasonNotInDriver: the GPU is in the machine but the driver does not
	// have it.
	ReasonNotInDriver = "NotInDriver"
	// ReasonNotOnBus: NVML lists the GPU but the PCI bus does not have it.
	ReasonNotOnBus = "NotOnBus"
	// ReasonContainerEdits: what a container needs for the GPU cannot be
	// worked out or is missing.
	ReasonContainerEdits = "ContainerEdits"
)

// Reasons of a [DriverError].
const (
	// ReasonDriverMissing: no driver is installed where it was looked for.
	ReasonDriverMissing = "DriverMissing"
	// ReasonDriverNotReady: the driver is installed but does not answer or is
	// not complete.
	ReasonDriverNotReady = "DriverNotReady"
	// ReasonDriverReplaced: the driver was replaced while this process had the
	// former one loaded. Only a restart of the process helps: the C library
	// keeps a library once its functions were called, so that opening another
	// version reaches the former code.
	ReasonDriverReplaced = "DriverReplaced"
)

// DriverError means that there are GPUs, or may be, and that their driver is
// not usable now. The family looks again by itself.
type DriverError struct {
	// Reason is a short CamelCase word from a small fixed set.
	Reason string
	// Err tells where was looked, what was found and what to do.
	Err error
}

// Error returns the text of Err.
func (e *DriverError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *DriverError) Unwrap() error { return e.Err }
