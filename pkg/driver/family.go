package driver

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
)

// Family is one kind of hardware on this node. All methods may be called at
// the same time from several goroutines.
type Family interface {
	// Name is a short lower-case word, such as "gpu". It names the family in
	// logs, metrics, claim files and CDI kinds, so it never changes.
	Name() string

	// Devices returns what is on the node now. An error means that the family
	// as a whole cannot tell, for example because its driver is not loaded
	// yet; single things that fail are faults in the inventory. An error that
	// wraps [device.ErrRestart] ends the plugin, to be started anew.
	Devices(ctx context.Context) (device.Inventory, error)

	// NewConfig returns the family's configuration with its defaults, the one
	// that a grant gets when its claim says nothing.
	NewConfig() runtime.Object

	// Prepare makes one granted device ready. It is called again for a grant
	// that is prepared already, also after a restart or a reboot, and then
	// changes nothing that a running container uses.
	Prepare(ctx context.Context, grant device.Grant) (device.Edits, error)

	// Release undoes Prepare. Repeating it, and releasing a grant that was
	// never prepared, is fine.
	Release(ctx context.Context, grant device.Grant) error

	// Watch calls changed whenever Devices would answer differently, until
	// ctx is done.
	Watch(ctx context.Context, changed func())
}
