package nickernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/simulated"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
)

// Group is the group of the interfaces that the simulation has made.
const Group = 24680

// Options say where the NICs are made.
type Options struct {
	// Real is the kernel that the interfaces are made in. HostNetns is the
	// path of its host's network namespace.
	Real      kernel.Kernel
	HostNetns string
	// NICs are those of the simulated machine.
	NICs []simulated.NIC
	// Dir is a folder for what the NICs' firmware remembers until the machine
	// boots anew, which BootID tells.
	Dir, BootID string
}

// Kernel is the real one with the NICs of a simulated machine. Its methods may
// be called concurrently.
type Kernel struct {
	real     kernel.Kernel
	host     *namespace
	nics     []simulated.NIC
	places   map[string]place
	firmware firmware
	// mu keeps those apart who look at the interfaces and then change them.
	mu sync.Mutex
}

// place says which function has an address.
type place struct {
	nic simulated.NIC
	// vf is the number of a VF of the port, or -1 for the port itself.
	port simulated.NIC
	vf   int
}

// New makes the interfaces of the NICs in the host's network namespace, those
// that are not there yet.
func New(ctx context.Context, opts Options) (*Kernel, error) {
	at, err := netns.GetFromPath(opts.HostNetns)
	if err != nil {
		return nil, fmt.Errorf("open the host's network namespace %s: %w", opts.HostNetns, err)
	}
	handle, err := handleAt(at)
	if err != nil {
		return nil, err
	}
	k := &Kernel{
		real: opts.Real, nics: opts.NICs, places: map[string]place{},
		firmware: firmware{dir: opts.Dir, life: opts.BootID + " " + opts.Real.Host().ID()},
	}
	k.host = &namespace{Namespace: opts.Real.Host(), kernel: k, handle: handle, isHost: true}
	for _, port := range opts.NICs {
		k.places[port.Address] = place{nic: port, port: port, vf: -1}
		for i, vf := range port.VFs {
			k.places[vf.Address] = place{nic: vf, port: port, vf: i}
		}
	}
	if err := k.make(ctx); err != nil {
		return nil, err
	}
	return k, nil
}

// Host returns the host's network namespace.
func (k *Kernel) Host() kernel.Namespace { return k.host }

// Open opens a network namespace by a descriptor.
func (k *Kernel) Open(file *os.File) (kernel.Namespace, error) {
	opened, err := k.real.Open(file)
	if err != nil {
		return nil, err
	}
	// The descriptor is not ours to close.
	again, err := netns.GetFromPath(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	return k.wrap(opened, again, err)
}

// OpenPath opens a network namespace by the path it is bound to.
func (k *Kernel) OpenPath(path string) (kernel.Namespace, error) {
	opened, err := k.real.OpenPath(path)
	if err != nil {
		return nil, err
	}
	again, err := netns.GetFromPath(path)
	return k.wrap(opened, again, err)
}

// wrap takes over what was opened, and closes it after an error.
func (k *Kernel) wrap(opened kernel.Namespace, at netns.NsHandle, err error) (kernel.Namespace, error) {
	if err == nil {
		var handle *netlink.Handle
		if handle, err = handleAt(at); err == nil {
			return &namespace{Namespace: opened, kernel: k, handle: handle, isHost: opened.ID() == k.host.ID()}, nil
		}
	}
	// Closing what was only opened cannot lose anything.
	_ = opened.Close()
	return nil, fmt.Errorf("open the network namespace a second time: %w", err)
}

// handleAt returns a socket into a namespace, which it closes.
func handleAt(at netns.NsHandle) (*netlink.Handle, error) {
	handle, err := netlink.NewHandleAt(at)
	_ = at.Close() // the socket stays
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return handle, nil
}

// listTries is how often a list is asked for that is never whole, because
// interfaces change meanwhile.
const listTries = 20

func list(handle *netlink.Handle) ([]netlink.Link, error) {
	for try := 1; ; try++ {
		links, err := handle.LinkList()
		if err == nil {
			return links, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == listTries {
			return nil, fmt.Errorf("list the interfaces: %w", err)
		}
	}
}

const aliasPrefix = "simulated "

// addressOf returns the PCI address of an interface that the simulation made,
// and nothing for others.
func addressOf(link netlink.Link) string {
	address, ours := strings.CutPrefix(link.Attrs().Alias, aliasPrefix)
	if !ours {
		return ""
	}
	return address
}
