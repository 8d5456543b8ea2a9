package boot

// Settings, given on the kernel's command line as NAME=value.
const (
	// EnvDisk is the guest's disk, if it has one, which becomes its root.
	EnvDisk = "GUEST_DISK"
	// EnvLifetime is after how many seconds the guest turns itself off.
	EnvLifetime = "GUEST_LIFETIME"
	// EnvProbe makes init stop once it runs.
	EnvProbe = "GUEST_PROBE"
	// EnvModules are the kernel modules to load, by commas.
	EnvModules = "GUEST_MODULES"
)

// Marks in the console's log.
const (
	// MarkInit is said first.
	MarkInit = "init runs"
	// MarkReady is said when the agent takes orders.
	MarkReady = "the agent takes orders"
)

// The share of the host's folder, and where the guest sees it.
const (
	ShareTag  = "host"
	ShareDir  = "/host"
	GuestAddr = "10.0.2.15"
	HostAddr  = "10.0.2.2"
)
