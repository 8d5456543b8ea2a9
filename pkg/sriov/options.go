package sriov

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/cni"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfio"
)

// Options say where the machine is and what to do with its VFs. Kernel,
// DataDir, BootID and Networks are mandatory.
type Options struct {
	// SysfsRoot is the host's sysfs as this process sees it: "/sys" if empty.
	SysfsRoot string
	// DevRoot is the host's /dev as this process sees it: "/dev" if empty.
	DevRoot string
	// HostDevRoot is the same folder as the host sees it, where that is not
	// "/dev", as of a simulated machine.
	HostDevRoot string
	// HostRoot is where this process sees the host's "/": "/" if empty. The
	// paths of network namespaces that the container runtime tells are below
	// it.
	HostRoot string
	// DataDir is the plugin's folder. The journals are in vfs below it.
	DataDir string
	// BootID tells one boot of the machine from another.
	BootID string
	// Kernel is what interfaces are asked of and changed through.
	Kernel kernel.Kernel
	// WriteSysfs changes a file of sysfs to bind and unbind drivers. Nil means
	// writing to it; a simulation does here what the kernel does.
	WriteSysfs vfio.Writer
	// Config says which VFs are published, and which are made.
	Config v1alpha1.SRIOVConfig
	// NodeAddresses are those by which the cluster knows the node. The NIC
	// that has one is the host's own, as is the one with the default route.
	NodeAddresses []netip.Addr
	// Networks runs CNI plugins.
	Networks Networks
	// ReturnWait bounds the wait for an interface that the kernel is about to
	// give back, such as that of a pod's network namespace that has ended, or
	// of a driver that was just bound: 10 s if zero.
	ReturnWait time.Duration
	// Resync is the time between two looks at the machine while nothing seems
	// to have changed: 1 min if zero.
	Resync time.Duration
}

// Networks finds the CNI configurations that claims ask for, and runs their
// plugins.
type Networks interface {
	// Resolve returns the CNI configuration of a NetworkAttachmentDefinition,
	// for a claim of the given namespace. An error says whether it is missing,
	// not allowed, or wrong.
	Resolve(ctx context.Context, claimNamespace string, ref v1alpha1.NetAttachDef) ([]byte, error)
	// ResolveIPAM returns a CNI configuration, with this name, that runs an
	// IPAM plugin alone.
	ResolveIPAM(name string, ipam json.RawMessage) ([]byte, error)
	// Add runs the plugins of a configuration for a pod's network namespace.
	// What fails is undone.
	Add(ctx context.Context, config []byte, call cni.Call) (cni.Result, error)
	// Del undoes Add. Repeating it is fine, and so is a network namespace that
	// is gone.
	Del(ctx context.Context, config []byte, call cni.Call) error
}

func (o Options) withDefaults() Options {
	defaultTo(&o.SysfsRoot, "/sys")
	defaultTo(&o.DevRoot, "/dev")
	defaultTo(&o.HostRoot, "/")
	defaultTo(&o.ReturnWait, 10*time.Second)
	defaultTo(&o.Resync, time.Minute)
	if o.WriteSysfs == nil {
		o.WriteSysfs = vfio.Write
	}
	return o
}

func defaultTo[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}
