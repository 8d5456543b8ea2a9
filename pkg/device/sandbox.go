package device

import (
	"os"

	"k8s.io/apimachinery/pkg/types"
)

// Pod identifies a pod. Namespace and Name are for people; the UID decides.
type Pod struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
}

// String returns namespace/name, as it appears in errors and logs.
func (p Pod) String() string { return p.Namespace + "/" + p.Name }

// Sandbox is the network namespace of a pod. A pod whose sandbox was lost gets
// another one, with an ID and a namespace of its own.
type Sandbox struct {
	Pod Pod `json:"pod"`
	// ID is the container runtime's name for the sandbox. It is never used
	// twice.
	ID string `json:"id"`
	// Path is where the runtime has bound the network namespace on the host,
	// such as /var/run/netns/cni-…. It may lead nowhere once the pod is gone.
	Path string `json:"path"`
	// Namespace is the identity of the network namespace, "device:inode" as
	// stat shows them for /proc/<pid>/ns/net. It may be used again after the
	// namespace is gone.
	Namespace string `json:"namespace"`
	// Netns is the open network namespace. It is there, and valid, only
	// while a device is being attached.
	Netns *os.File `json:"-"`
}

// Attachment is what a device has become in a pod's network namespace.
type Attachment struct {
	// Interface is the name of the network interface there. It is empty where
	// the device shows none.
	Interface string `json:"interface,omitempty"`
	// HardwareAddress is the interface's, in its usual textual form.
	HardwareAddress string `json:"hardwareAddress,omitempty"`
	// IPs are the interface's addresses with their prefix lengths.
	IPs []string `json:"ips,omitempty"`
	// Changed says that the device was not in the sandbox before.
	Changed bool `json:"-"`
}
