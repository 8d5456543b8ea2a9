package sriov

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/faultpoint"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/kernel"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/sriov/vfstate"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

// takeBack undoes an attachment, complete or not, and leaves the VF prepared. A
// CNI plugin that fails does not keep the VF from coming back.
//
// Pod is the pod's network namespace if the caller has it open, or nil. As long
// as it is open the kernel gives nothing back, even if its path is gone.
func (f *Family) takeBack(ctx context.Context, a topology.Address, j *vfstate.Journal, pod kernel.Namespace) error {
	if j.Place == nil {
		return nil
	}
	if j.Place.Done {
		// On its way out the VF is in the pod still, and not as the pod had it:
		// whoever attaches it next must not take it for attached.
		leaving := *j.Place
		leaving.Done = false
		if err := f.savePlace(a, j, &leaving, faultpoint.VFPlaceLeft); err != nil {
			return err
		}
	}
	cniErr := f.deleteNetwork(ctx, a, j)
	if err := f.at(faultpoint.VFNetworkDeleted); err != nil {
		return err
	}
	fn, err := f.function(a)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(cniErr, err)
	}
	if err == nil {
		if err := f.carryBack(ctx, fn, j, pod); err != nil {
			return errors.Join(cniErr, err)
		}
	}
	if cniErr != nil {
		return cniErr
	}
	return f.savePlace(a, j, nil, faultpoint.VFPlaceCleared)
}

// carryBack moves the VF out of the journal's place to the host.
func (f *Family) carryBack(ctx context.Context, fn function, j *vfstate.Journal, pod kernel.Namespace) error {
	if err := f.fetch(ctx, fn, j, pod); err != nil {
		return fmt.Errorf("take VF %s out of the network namespace of pod %s: %w", fn.address, j.Place.Sandbox.Pod, err)
	}
	if j.Place.RDMA != "" {
		f.awaitRDMA(ctx, fn, j.Place)
	}
	if j.Place.Interface == "" {
		return nil
	}
	link, err := f.awaitLink(ctx, f.kernel.Host(), fn.address)
	if err != nil {
		return err
	}
	if link == nil {
		return fmt.Errorf("the interface of VF %s is neither on the host nor in the network namespace %s of pod %s, which had it last: something else has moved it, or a process keeps the namespace alive although its file is gone", fn.address, j.Place.Sandbox.Path, j.Place.Sandbox.Pod)
	}
	mac, mtu := j.Applied.HardwareAddress, link.MTU
	if j.Former != nil {
		mtu = j.Former.MTU
		if mac == "" {
			mac = j.Former.HardwareAddress
		}
	}
	if config, err := configOf(j, device.Grant{Config: v1alpha1.DefaultVfConfig()}); err == nil && config.MTU != nil {
		mtu = *config.MTU
	}
	if err := f.reset(ctx, fn, j, link, mac, mtu); err != nil {
		return err
	}
	return f.at(faultpoint.VFNamedBack)
}

// awaitRDMA waits for an RDMA device that comes back from a network namespace
// that has ended, and gives it its own name back if the pod has changed it. A driver that was bound anew has made
// another one.
func (f *Family) awaitRDMA(ctx context.Context, fn function, place *vfstate.Place) {
	ctx, cancel := context.WithTimeout(ctx, f.opts.ReturnWait)
	defer cancel()
	for {
		name, err := findRDMA(f.kernel.Host(), place)
		if err == nil && name != "" && name != place.RDMA {
			err = f.kernel.Host().RenameRDMA(name, place.RDMA)
		}
		if err == nil && (name != "" || f.rdma(fn.address, nil).name != "") {
			return
		}
		select {
		case <-ctx.Done():
			klog.FromContext(ctx).Error(err, "RDMA device of a VF has not come back from a pod", "device", fn.address, "rdmaDevice", place.RDMA, "pod", place.Sandbox.Pod)
			return
		case <-time.After(returnPoll):
		}
	}
}

// fetch moves what is in the network namespace of a place to the host. A
// namespace that is gone is fine: the kernel gives back what it had.
func (f *Family) fetch(ctx context.Context, fn function, j *vfstate.Journal, pod kernel.Namespace) (err error) {
	if pod != nil && pod.ID() == j.Place.Sandbox.Namespace {
		return f.fetchFrom(ctx, pod, fn, j)
	}
	ns, err := f.openPlace(j.Place)
	if err != nil || ns == nil {
		return err
	}
	defer func() { err = errors.Join(err, ns.Close()) }()
	return f.fetchFrom(ctx, ns, fn, j)
}

func (f *Family) fetchFrom(ctx context.Context, ns kernel.Namespace, fn function, j *vfstate.Journal) error {
	host, place := f.kernel.Host(), j.Place
	if place.RDMA != "" {
		if err := moveRDMA(place, ns, host); err != nil {
			return err
		}
		if err := f.at(faultpoint.VFRDMATakenBack); err != nil {
			return err
		}
	}
	return f.fetchLink(ctx, fn, j, ns)
}

func (f *Family) fetchLink(ctx context.Context, fn function, j *vfstate.Journal, ns kernel.Namespace) error {
	host := f.kernel.Host()
	podLinks, err := ns.Links()
	if err != nil {
		return fmt.Errorf("list the network interfaces: %w", err)
	}
	link := pick(podLinks, fn.address)
	if link == nil {
		return nil
	}
	hostLinks, err := host.Links()
	if err != nil {
		return fmt.Errorf("list the host's network interfaces: %w", err)
	}
	if link.Up {
		if err := ns.SetDown(link.Index); err != nil {
			return fmt.Errorf("set interface %s down: %w", link.Name, err)
		}
		link.Up = false
	}
	// A further name that the host has too, by the pod's doing or by chance,
	// would keep it in the pod.
	names := slices.DeleteFunc(formerNames(j), func(name string) bool { return nameTaken(name, fn.address, hostLinks) })
	if err := ns.Clean(link.Index, names); err != nil {
		klog.FromContext(ctx).Info("What a pod has left on the interface of a VF stays for now, and is taken away on the host", "device", fn.address, "interface", link.Name, "reason", err)
	}
	if err := f.rename(ns, link, apartName(fn.address, hostLinks, podLinks)); err != nil {
		return err
	}
	if err := f.at(faultpoint.VFNamedApartBack); err != nil {
		return err
	}
	if err := ns.Move(link.Index, host); err != nil {
		return fmt.Errorf("move interface %s to the host: %w", link.Name, err)
	}
	return f.at(faultpoint.VFTakenBack)
}

// openPlace opens the network namespace of a place. It returns nil if that is
// gone, also if another one has taken its path.
func (f *Family) openPlace(place *vfstate.Place) (kernel.Namespace, error) {
	if place.Sandbox.Path == "" {
		return nil, nil
	}
	path, err := f.onHost(place.Sandbox.Path)
	if err != nil {
		return nil, err
	}
	ns, err := f.kernel.OpenPath(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the network namespace %s of pod %s: %w", place.Sandbox.Path, place.Sandbox.Pod, err)
	}
	if ns.ID() != place.Sandbox.Namespace {
		return nil, ns.Close()
	}
	return ns, nil
}

// onHost returns where this process sees a path of the host, links followed
// below the host's root. The root is that of the host's first process where it
// can be had: namespaces that are mounted after this process has started are
// seen there whatever a container's mounts look like.
func (f *Family) onHost(path string) (string, error) {
	if f.opts.HostRoot == "/" {
		return path, nil
	}
	seen, err := securejoin.SecureJoin(filepath.Join(f.opts.HostRoot, "proc", "1", "root"), path)
	if err != nil {
		return "", fmt.Errorf("follow the path %s on the host: %w", path, err)
	}
	return seen, nil
}
