package sriov

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// offerAddress sets the address that the PF is about to give a VF on the VF's
// own interface. Some drivers (igb, igbvf) allow that only as long as the PF has
// given none, and would need the VF's driver to be bound anew afterwards. Whether
// it worked is looked at later.
func offerAddress(ns kernel.Namespace, link *kernel.Link, address string) {
	want, err := net.ParseMAC(address)
	if err != nil || len(want) != 6 || hasAddress(link, want) {
		return
	}
	_ = ns.SetHardwareAddress(link.Index, want)
}

// setInterface gives the VF's interface on the host the claim's address, MTU and
// state.
func (f *Family) setInterface(ctx context.Context, fn function, config *v1alpha1.VfConfig, j *vfstate.Journal, link *kernel.Link) error {
	host := f.kernel.Host()
	former := link.Index
	link, err := f.setAddress(ctx, fn, link, j.Applied.HardwareAddress)
	if err != nil {
		return fmt.Errorf("mac: %w", err)
	}
	// One that is up may be in use through its RDMA device.
	if !link.Up || link.Index != former {
		if err := f.nameBack(ctx, fn, j, link); err != nil {
			return err
		}
	}
	if config.MTU != nil && link.MTU != *config.MTU {
		if err := host.SetMTU(link.Index, *config.MTU); err != nil {
			return fmt.Errorf("mtu: set %d on interface %s of VF %s, whose PF may have a smaller one: %w", *config.MTU, link.Name, fn.address, err)
		}
	}
	// RDMA over Ethernet needs the interface, which stays on the host, to be up.
	if config.Mode == v1alpha1.VfModeRDMA && !link.Up {
		if err := host.SetUp(link.Index); err != nil {
			return fmt.Errorf("set interface %s of VF %s up: %w", link.Name, fn.address, err)
		}
	}
	return nil
}

// setAddress gives the VF's interface on the host an Ethernet address, and
// returns the interface as it is then. Where the driver takes what the PF says
// only when it is bound, it is bound anew.
func (f *Family) setAddress(ctx context.Context, fn function, link *kernel.Link, address string) (*kernel.Link, error) {
	want, err := net.ParseMAC(address)
	if err != nil || len(want) != 6 {
		return link, nil //nolint:nilerr // none is wanted, or it is no Ethernet
	}
	host := f.kernel.Host()
	if link, err = f.refreshed(ctx, fn, link); err != nil || hasAddress(link, want) {
		return link, err
	}
	refused := host.SetHardwareAddress(link.Index, want)
	if link, err = f.refreshed(ctx, fn, link); err != nil || hasAddress(link, want) {
		return link, err
	}
	klog.FromContext(ctx).V(2).Info("Binding the VF's driver anew, so that it takes the address that the PF has given", "device", fn.address, "address", want, "refused", refused)
	if err := f.drivers.Rebind(fn.address); err != nil {
		return nil, errors.Join(fmt.Errorf("set %s on interface %s of VF %s: %w", want, link.Name, fn.address, refused), err)
	}
	if link, err = f.refreshed(ctx, fn, link); err != nil || hasAddress(link, want) {
		return link, err
	}
	return nil, fmt.Errorf("interface %s of VF %s has %s and does not take %s: %w", link.Name, fn.address, link.HardwareAddress, want, orSilence(refused))
}

func orSilence(err error) error {
	if err == nil {
		return errors.New("the kernel accepted it and did nothing")
	}
	return err
}

// refreshed returns an interface as it is now.
func (f *Family) refreshed(ctx context.Context, fn function, former *kernel.Link) (*kernel.Link, error) {
	link, err := f.awaitLink(ctx, f.kernel.Host(), fn.address)
	if err != nil {
		return nil, err
	}
	if link == nil {
		return nil, fmt.Errorf("interface %s of VF %s has vanished from the host: the kernel's log may tell why", former.Name, fn.address)
	}
	return link, nil
}

// nameBack gives an interface on the host the VF's own name. If something else
// has that by now, it gets a name that nothing else has.
//
// Only the kernel knows whether a name is free: the interfaces of other VFs come
// and go between a look at the list and the change.
func (f *Family) nameBack(ctx context.Context, fn function, j *vfstate.Journal, link *kernel.Link) error {
	if j.Former != nil && link.Name == j.Former.Interface {
		return nil
	}
	host := f.kernel.Host()
	links, err := host.Links()
	if err != nil {
		return fmt.Errorf("list the host's network interfaces: %w", err)
	}
	apart := apartName(fn.address, links)
	if j.Former != nil && j.Former.Interface != "" {
		named, err := f.nameWhenFree(ctx, fn, link, j.Former.Interface, apart)
		if named || err != nil {
			return err
		}
		klog.FromContext(ctx).Info("Another interface has taken the VF's name meanwhile, it gets another one", "device", fn.address, "name", j.Former.Interface, "newName", apart)
	}
	if link.Name == apart {
		return nil
	}
	return f.rename(host, link, apart)
}

// nameWhenFree gives an interface on the host a name, for which it waits as long as
// another VF has that in passing; meanwhile it has the name apart. It tells whether
// the name was free in the end.
func (f *Family) nameWhenFree(ctx context.Context, fn function, link *kernel.Link, name, apart string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, f.opts.ReturnWait)
	defer cancel()
	host := f.kernel.Host()
	// Whoever had the name when the interfaces were listed may have given it back
	// before its journal was read: only what is so twice is so.
	for kept := 0; kept < 2; {
		if err := f.rename(host, link, name); !errors.Is(err, syscall.EEXIST) {
			return err == nil, err
		}
		// The other one may wait for the name that this one has.
		if link.Name != apart {
			if err := f.rename(host, link, apart); err != nil {
				return false, err
			}
		}
		links, err := host.Links()
		if err != nil {
			return false, fmt.Errorf("list the host's network interfaces: %w", err)
		}
		if f.nameIsLent(name, fn, links) {
			kept = 0
		} else if nameTaken(name, fn.address, links) {
			kept++
		}
		select {
		case <-ctx.Done():
			return false, nil
		case <-time.After(returnPoll):
		}
	}
	return false, nil
}

// nameIsLent tells whether the interface of another VF has the name in passing.
// A driver that is bound anew takes whatever name is free for its interface, for
// which it gets its own back in a moment.
func (f *Family) nameIsLent(name string, fn function, links []kernel.Link) bool {
	for _, link := range links {
		if link.Name != name || link.Device == fn.address.String() {
			continue
		}
		address, err := topology.ParseAddress(link.Device)
		if err != nil {
			return false
		}
		j, err := f.journal.Load(address)
		return err == nil && j != nil && j.Former != nil && j.Former.Interface != name
	}
	return false
}

// rename gives an interface another name, for which it must be down. It is set
// up again if it was.
func (f *Family) rename(ns kernel.Namespace, link *kernel.Link, name string) error {
	if link.Up {
		if err := ns.SetDown(link.Index); err != nil {
			return fmt.Errorf("set interface %s of VF %s down: %w", link.Name, link.Device, err)
		}
	}
	if err := ns.Rename(link.Index, name); err != nil {
		return fmt.Errorf("rename interface %s of VF %s to %s: %w", link.Name, link.Device, name, err)
	}
	link.Name = name
	if link.Up {
		if err := ns.SetUp(link.Index); err != nil {
			return fmt.Errorf("set interface %s of VF %s up: %w", name, link.Device, err)
		}
	}
	return nil
}
