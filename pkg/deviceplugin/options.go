package deviceplugin

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin/kubelet"
)

const (
	// lookEvery is how often kubelet is asked who uses what.
	lookEvery = 5 * time.Second
	// commitWait is how long kubelet may take from the answer to Allocate until it
	// says that the pod has the device. It writes a small file in between.
	commitWait = 30 * time.Second
)

// Family is what the device plugin needs of a kind of hardware; see
// driver.Family, which says what each method promises.
type Family interface {
	Name() string
	NewConfig() runtime.Object
	Prepare(ctx context.Context, grant device.Grant) (device.Edits, error)
	Release(ctx context.Context, grant device.Grant) error
}

// Kubelet tells who uses devices; see [kubelet.Kubelet].
type Kubelet interface {
	Uses(ctx context.Context) (map[string]kubelet.Use, error)
}

// ProcessTable tells which pods have processes on this node.
type ProcessTable interface {
	// Running returns those of the pods that have at least one process.
	Running(pods []types.UID) ([]types.UID, error)
}

// Resource is an extended resource.
type Resource struct {
	// Name is such as "nvidia.com/gpu".
	Name string
	Kind device.Kind
	// Selects tells whether a device of the kind belongs to the resource. Nil
	// stands for all.
	Selects func(device.Device) bool
	// Grant says how a device is prepared: with which configuration of its
	// family, and whether the family may change the device. Nil stands for the
	// family's default configuration, and a device that is left as it is.
	Grant func(device.Device) (config runtime.Object, change bool)
	// Variable is the environment variable that lists the IDs of a container's
	// devices; empty for none.
	Variable string
	// Network tells that Multus hands the devices to CNI plugins, for which a
	// file describes each.
	Network bool
	// InUse are reasons of problems that a device has only because a pod uses it,
	// such as that its interface is not on the host.
	InUse []string
}

// Options are what a [Plugin] needs. All are mandatory, except PodUID, Resources,
// Kinds and the durations.
type Options struct {
	DriverName string
	// PodUID is that of the pod that this process runs in. It lets two instances
	// serve side by side during an update.
	PodUID types.UID
	// DataDir is the driver's folder, in which its holdings are.
	DataDir string
	// Dir is kubelet's folder for device plugins.
	Dir string
	// CDIDir is where the container runtime finds CDI specs.
	CDIDir string
	// DeviceInfoDir is where Multus looks for the description of a device.
	DeviceInfoDir string
	// BootID tells one boot of the machine from another.
	BootID    string
	Kubelet   Kubelet
	Processes ProcessTable
	Families  []Family
	// Kinds are the kinds of devices that are served here, and not to claims.
	Kinds []device.Kind
	// Resources are served in their order: a device belongs to the first that
	// selects it.
	Resources []Resource
	// EnvVar answers kubelet with environment variables, device nodes and mounts
	// instead of the names of CDI devices.
	EnvVar   bool
	Registry prometheus.Registerer
	// Settle is how long this process must have known that a device is in no
	// ResourceSlice before it is taken. Zero: not at all.
	Settle time.Duration
	// Interval is how often kubelet is asked who uses what. Default 5 s.
	Interval time.Duration
	// LeftOverWait is how long kubelet waits at most for devices that processes of a
	// former pod still use. Default 10 s.
	LeftOverWait time.Duration
	// PrepareWithin is how long a family may take to make a device ready. Default
	// 15 s.
	PrepareWithin time.Duration
	// CommitWait is how long a device counts as used after kubelet was given it.
	// Default 30 s.
	CommitWait time.Duration
}

// Published returns the physical things whose devices the API offers to claims: nil
// where it has no ResourceSlices, so that nothing ever was.
type Published func(ctx context.Context) (things map[string]bool, err error)
