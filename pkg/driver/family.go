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
	// that a grant gets when its claim says nothing. Nil stands for a family
	// that claims cannot configure.
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

// Attacher is a family with devices that are joined to a pod's network
// namespace, those whose edits say Attach. Calls for one claim never overlap.
type Attacher interface {
	Family

	// Attach joins a prepared device to a sandbox. A device that is in the
	// sandbox already stays as it is. One that another living pod has is never
	// taken away: the error names that pod. What fails leaves nothing behind
	// in the sandbox.
	Attach(ctx context.Context, grant device.Grant, sandbox device.Sandbox) (device.Attachment, error)

	// Detach takes the device out of the sandbox again and leaves it
	// prepared. Repeating it, and detaching what is not in the sandbox, is
	// fine; so is a sandbox that is gone. Release detaches too.
	Detach(ctx context.Context, grant device.Grant, sandbox device.Sandbox) error
}
